//! Whether workers serve, and the clients that were told that none does.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

/// Connections that may wait here, and the part of this process's descriptors that they may take.
const MAX_WAITING: u64 = 4096;
const PART_OF_DESCRIPTORS: u64 = 2;
/// Clients that may be reading their answers. A closed socket with input unread would take the answer back, so what
/// they still send is read, within limits.
const MAX_PARTING: usize = 1024;
const MAX_READ: usize = 64 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// A client that has its answer.
pub(super) struct Parting {
    pub(super) socket: Arc<OwnedFd>,
    read: usize,
    until: Instant,
}

/// Whether workers serve, and those who are told that none does.
pub(super) struct TurningAway {
    pub(super) speaks_tls: bool,
    pub(super) most_waiting: usize,
    /// No worker has served since then.
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

    /// What to wait for: the rest of what clients send that have their answers.
    pub(super) fn polled(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.parting.iter().map(|parting| PollFd::new(&parting.socket, PollFlags::IN))
    }

    /// Waits for the rest of what a client sends. If there are too many of them, the oldest is let go.
    pub(super) fn keep(&mut self, parting: Parting) {
        if self.parting.len() >= MAX_PARTING
            && let Some(oldest) = self.parting.pop_front()
        {
            let _ = shutdown(&oldest.socket, Shutdown::Both);
        }
        self.parting.push_back(parting);
    }

    /// When the first of these clients is waited for no longer.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.parting.front().map(|parting| parting.until)
    }

    /// Reads what has come from those that are `ready`, and lets go of those that have ended or take too long.
    pub(super) fn let_go(&mut self, ready: &[bool], now: Instant) {
        let mut ready = ready.iter();
        self.parting.retain_mut(|parting| {
            let has_input = ready.next().copied().unwrap_or(false);
            let stays = parting.until > now && !(has_input && parting.has_ended());
            if !stays {
                // A worker that is stopped may hold it too.
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

    /// Reads what there is; whether that was the end, or more than enough.
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
