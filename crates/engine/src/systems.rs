//! Where systems differ in what their sockets can do: Linux does in one call what others need several for.

use std::os::fd::{AsFd, OwnedFd};

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
