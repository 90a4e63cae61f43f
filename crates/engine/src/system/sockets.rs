//! Differences between systems in what their sockets can do: Linux does in one call what others need several for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::net::SocketFlags;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrAny};

/// Programs started by this one must not inherit received descriptors.
#[cfg(target_os = "linux")]
pub(crate) const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
pub(crate) const RECEIVE: RecvFlags = RecvFlags::empty();

/// Writing to a peer that is gone yields an error, not a signal. (On Apple's systems that is a socket option, which
/// Python makes unnecessary: it ignores SIGPIPE.)
#[cfg(not(target_vendor = "apple"))]
pub(crate) const SEND: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
pub(crate) const SEND: SendFlags = SendFlags::empty();

/// Accepts a connection as a non-blocking socket that programs started by this one do not inherit.
///
/// # Errors
/// Those of accept(2).
#[cfg(target_os = "linux")]
pub(crate) fn accept(listener: impl AsFd) -> rustix::io::Result<OwnedFd> {
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

/// Accepts a connection as a non-blocking socket that programs started by this one do not inherit.
///
/// # Errors
/// Those of accept(2).
#[cfg(not(target_os = "linux"))]
pub(crate) fn accept(listener: impl AsFd) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::accept(listener)?;
    rustix::io::ioctl_fioclex(&socket)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// The peer of a Unix socket, which has no address: another process of this machine.
const THIS_MACHINE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The same, with the address of the peer, as [`peer`] returns it.
///
/// # Errors
/// Those of accept(2).
#[cfg(target_os = "linux")]
pub(crate) fn accept_from(listener: impl AsFd) -> rustix::io::Result<(OwnedFd, SocketAddr)> {
    let (socket, address) = rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    Ok((socket, as_peer(address)?))
}

/// The same, with the address of the peer, as [`peer`] returns it.
///
/// # Errors
/// Those of accept(2).
#[cfg(not(target_os = "linux"))]
pub(crate) fn accept_from(listener: impl AsFd) -> rustix::io::Result<(OwnedFd, SocketAddr)> {
    let (socket, address) = rustix::net::acceptfrom(listener)?;
    rustix::io::ioctl_fioclex(&socket)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok((socket, as_peer(address)?))
}

/// The address of a connection's peer. On a Unix socket, that is 127.0.0.1 with port 0.
///
/// # Errors
/// If the connection has already ended.
pub(crate) fn peer(socket: impl AsFd) -> io::Result<SocketAddr> {
    Ok(as_peer(rustix::net::getpeername(socket)?)?)
}

fn as_peer(address: Option<SocketAddrAny>) -> rustix::io::Result<SocketAddr> {
    match address {
        Some(address) if address.address_family() != AddressFamily::UNIX => address.try_into(),
        _ => Ok(THIS_MACHINE),
    }
}

/// An error in accepting a connection, with what an operator can do about it.
pub fn explain(error: &io::Error) -> String {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if is(Errno::MFILE) {
        format!("{error}: this process has no file descriptors left; {}", what_to_raise())
    } else if is(Errno::NFILE) {
        format!("{error}: the system has no file descriptors left; raise fs.file-max")
    } else {
        error.to_string()
    }
}

/// Says that the workers have room for only this many connections.
pub(crate) fn explain_shortage(room: u64) -> String {
    format!("the workers have no file descriptors left for more than {room} connections each; {}", what_to_raise())
}

fn what_to_raise() -> String {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    format!("raise the limit of open files, which is {limit} (`ulimit -n`, LimitNOFILE= of systemd)")
}

/// Bytes written to a socket that its peer has not acknowledged (on a Unix socket: not read).
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn unacknowledged(socket: BorrowedFd<'_>) -> usize {
    use std::ffi::c_int;

    /// See tcp(7) and unix(7). A few other architectures use another number.
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: on any descriptor, this request writes a `c_int` and nothing else, or is refused.
    let count = unsafe { rustix::ioctl::ioctl(socket, rustix::ioctl::Getter::<SIOCOUTQ, c_int>::new()) };
    count.map_or(0, |count| usize::try_from(count).unwrap_or_default())
}

/// Always 0, as this kernel does not report it.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(crate) fn unacknowledged(_: BorrowedFd<'_>) -> usize {
    0
}
