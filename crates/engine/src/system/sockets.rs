//! Where systems differ in what their sockets can do: Linux does in one call what others need several for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::net::SocketFlags;
use rustix::net::{RecvFlags, SendFlags};

/// Received descriptors are not for the programs that this one starts.
#[cfg(target_os = "linux")]
pub(crate) const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
pub(crate) const RECEIVE: RecvFlags = RecvFlags::empty();

/// A peer that is gone is an error, not a signal. (On Apple's systems that is an option of the socket, which Python makes
/// needless: it ignores SIGPIPE.)
#[cfg(not(target_vendor = "apple"))]
pub(crate) const SEND: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
pub(crate) const SEND: SendFlags = SendFlags::empty();

/// Accepts a connection: a socket that blocks nobody, and is not for the programs that this one starts.
///
/// # Errors
/// Those of accept(2).
#[cfg(target_os = "linux")]
pub(crate) fn accept(listener: impl AsFd) -> rustix::io::Result<OwnedFd> {
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

/// Accepts a connection: a socket that blocks nobody, and is not for the programs that this one starts.
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

/// An error of taking a connection, with what an operator can do about it.
pub fn explain(error: &io::Error) -> String {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if is(Errno::MFILE) {
        format!("{error}: the descriptors of this process are used up; {}", what_to_raise())
    } else if is(Errno::NFILE) {
        format!("{error}: the descriptors of the whole system are used up; raise fs.file-max")
    } else {
        error.to_string()
    }
}

/// That workers have room for so many connections only.
pub(crate) fn explain_shortage(room: u64) -> String {
    format!(
        "the descriptors of the workers are used up, which have room for {room} connections each; {}",
        what_to_raise()
    )
}

fn what_to_raise() -> String {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    format!("raise the limit of open files, which is {limit} (`ulimit -n`, LimitNOFILE= of systemd)")
}

/// Bytes that were written to a socket and that its peer has not acknowledged (on a Unix socket: not read).
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn unacknowledged(socket: BorrowedFd<'_>) -> usize {
    use std::ffi::c_int;

    /// See tcp(7) and unix(7). A few other architectures have another number for it.
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: of whatever descriptor it is asked, this request writes a `c_int` and nothing else, or is refused.
    let count = unsafe { rustix::ioctl::ioctl(socket, rustix::ioctl::Getter::<SIOCOUTQ, c_int>::new()) };
    count.map_or(0, |count| usize::try_from(count).unwrap_or_default())
}

/// Nothing, where the kernel does not tell.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(crate) fn unacknowledged(_: BorrowedFd<'_>) -> usize {
    0
}
