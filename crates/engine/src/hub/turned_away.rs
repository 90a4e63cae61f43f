//! Whether workers are serving, and the clients that were told that none is.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

/// Connections that may wait here, and the share of this process's descriptors that they may take.
const MAX_WAITING: u64 = 4096;
const PART_OF_DESCRIPTORS: u64 = 2;
/// Clients that may still be reading their answers. Closing a socket with unread input would take the answer back, so
/// their further input is read, within limits.
const MAX_PARTING: usize = 1024;
const MAX_READ: usize = 64 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// A client that has been answered.
pub(super) struct Parting {
    pub(super) socket: Arc<OwnedFd>,
    read: usize,
    until: Instant,
}

/// Whether workers are serving, and the clients that were told that none is.
pub(super) struct TurningAway {
    pub(super) speaks_tls: bool,
    pub(super) most_waiting: usize,
    /// Since when no worker has been serving.
    pub(super) unserved_since: Option<Instant>,
    /// In the order of their deadlines.
    parting: VecDeque<Parting>,
    pub(super) told_at: Option<Instant>,
}

impl TurningAway {
    pub(super) fn new(speaks_tls: bool) -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let most_waiting = MAX_WAITING.min(files / PART_OF_DESCRIPTORS) as usize;
        Self { speaks_tls, most_waiting, unserved_since: None, parting: VecDeque::new(), told_at: None }
    }

    /// What to poll for: the remaining input of clients that have been answered.
    pub(super) fn polled(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.parting.iter().map(|parting| PollFd::new(&parting.socket, PollFlags::IN))
    }

    /// Waits for the rest of a client's input. If there are too many such clients, the oldest is dropped.
    pub(super) fn keep(&mut self, parting: Parting) {
        if self.parting.len() >= MAX_PARTING
            && let Some(oldest) = self.parting.pop_front()
        {
            let _ = shutdown(&oldest.socket, Shutdown::Both);
        }
        self.parting.push_back(parting);
    }

    /// When to stop waiting for the first of these clients.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.parting.front().map(|parting| parting.until)
    }

    /// Reads from the clients that are `ready`, and drops those that have ended or take too long.
    pub(super) fn let_go(&mut self, ready: &[bool], now: Instant) {
        let mut ready = ready.iter();
        self.parting.retain_mut(|parting| {
            let has_input = ready.next().copied().unwrap_or(false);
            let stays = parting.until > now && !(has_input && parting.has_ended());
            if !stays {
                // A stopped worker may hold it too.
                let _ = shutdown(&parting.socket, Shutdown::Both);
            }
            stays
        });
    }
}

impl Parting {
    pub(super) fn new(socket: Arc<OwnedFd>, now: Instant) -> Self {
        Self { socket, read: 0, until: now + LINGER }
    }

    /// Reads what there is. Returns whether that was the end, or more than enough.
    pub(super) fn has_ended(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        while self.read < MAX_READ {
            match rustix::io::read(&self.socket, &mut buffer) {
                Ok(0) => return true,
                Ok(count) => self.read += count,
                Err(Errno::INTR) => {}
                Err(error) => return error != Errno::AGAIN,
            }
        }
        true
    }
}
