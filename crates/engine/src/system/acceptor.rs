//! Accepting new connections from the listening sockets.
//!
//! When the process runs out of descriptors, accepting is paused: a socket that cannot be accepted stays in the
//! kernel's queue and would otherwise be reported forever.

use std::io;
use std::net::{self, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use rustix::io::Errno;

use crate::system::sockets;

/// Sockets accepted in one turn.
const PER_TURN: usize = 256;
/// Connections that may fail in one turn before the failure is considered ours.
const MAX_FAILURES: u32 = 16;
/// Milliseconds until the next attempt after a failure.
const RETRY: u64 = 100;

/// Who owns a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This server's alone: when it stops, nobody can connect any more, even if a forked child still holds the socket.
    Ours,
    /// Another process has handed it over. When this server stops, clients can go on connecting, and wait for the next
    /// process that accepts.
    Shared,
}

/// The listening sockets, of TCP or Unix.
#[derive(Default)]
pub(crate) struct Acceptor {
    listeners: Vec<(TcpListener, Ownership)>,
    /// Whether connections may be waiting on the listeners.
    pub(crate) ready: bool,
    /// Set when accepting has failed: the time of the next attempt.
    pub(crate) retry_at: Option<u64>,
}

impl Acceptor {
    pub(crate) fn add(&mut self, listener: TcpListener, ownership: Ownership) -> &mut TcpListener {
        self.ready = true;
        self.listeners.push((listener, ownership));
        let last = self.listeners.len() - 1;
        &mut self.listeners[last].0
    }

    /// Removes and returns all listening sockets.
    pub(crate) fn close(&mut self) -> Vec<(TcpListener, Ownership)> {
        self.ready = false;
        self.retry_at = None;
        std::mem::take(&mut self.listeners)
    }

    /// Accepts waiting connections, a limited number at a time. An error means that accepting stops for now.
    pub(crate) fn accept(&mut self, now: u64, taken: &mut Vec<(TcpStream, SocketAddr)>) -> io::Result<()> {
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            self.ready = true;
        }
        if !self.ready || self.retry_at.is_some() {
            return Ok(());
        }
        let mut failures = 0;
        for (listener, _) in &self.listeners {
            loop {
                if taken.len() >= PER_TURN {
                    return Ok(());
                }
                match accept(listener) {
                    Ok(accepted) => taken.push(accepted),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_lasting(&error) => {
                        self.retry_at = Some(now + RETRY);
                        return Err(error);
                    }
                    // Only this connection failed before it was accepted (accept(2) lists a dozen such errors).
                    Err(error) => {
                        failures += 1;
                        if failures == MAX_FAILURES {
                            self.retry_at = Some(now + RETRY);
                            return Err(error);
                        }
                    }
                }
            }
        }
        self.ready = false;
        Ok(())
    }
}

/// Accepts a connection. (mio would do it for TCP only.)
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = sockets::accept_from(listener)?;
    Ok((TcpStream::from_std(net::TcpStream::from(socket)), peer))
}

/// Whether the next attempt would fail too: no descriptors, no memory, or no listening socket any more.
fn is_lasting(error: &io::Error) -> bool {
    let lasting = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::INVAL, Errno::BADF];
    error.raw_os_error().is_some_and(|code| lasting.iter().any(|errno| errno.raw_os_error() == code))
}
