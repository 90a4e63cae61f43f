//! The hub's peers: workers, and other programs.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::pulse::Pulse;
use crate::language::link::Link;
use crate::registry::Registry;
use crate::system::codec::Malformed;

/// A worker that has not taken a socket for this long gets no more.
const SLOW_TO_TAKE: Duration = Duration::from_millis(50);
/// A program is not read while this many bytes wait for it, or while this many of its questions are open.
pub(super) const PAUSE_PROGRAM_AT: usize = 1024 * 1024;
pub(super) const MAX_ASKED: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerStage {
    /// It does not accept connections yet.
    Starting,
    Ready,
    /// It accepts no more connections.
    Leaving,
}

pub(super) struct WorkerPeer {
    pub(super) slot: u8,
    pub(super) worker_id: u8,
    pub(super) stage: WorkerStage,
    /// Sockets that were passed to it and have not been taken back.
    pub(super) handed: u64,
    /// Sockets that it has not taken yet, in order, and since when it has taken none.
    pub(super) untaken: VecDeque<Handed>,
    pub(super) taken_at: Instant,
    /// The number of the first of them: how many had been taken at the last check.
    pub(super) taken: u64,
    /// How many turns it had run when it was too slow to take something.
    pub(super) slow_at_turn: Option<u64>,
    /// Commands dropped since it fell behind.
    pub(super) dropped: u64,
    pub(super) pulse: Pulse,
}

pub(super) struct Program {
    pub(super) has_greeted: bool,
    /// Since when its next message has been under way.
    pub(super) awaited_since: Instant,
    /// Whether it has sent more, which waits until it has read its answers.
    pub(super) is_interrupted: bool,
}

/// An accepted connection, and the input read from it.
#[derive(Clone)]
pub(super) struct Handed {
    pub(super) socket: Arc<OwnedFd>,
    /// Since when it has been waiting for a worker.
    pub(super) since: Instant,
    pub(super) input: Vec<u8>,
}

impl WorkerPeer {
    /// Updates which sockets it has taken.
    pub(super) fn see_taken(&mut self, registry: &Registry, now: Instant) {
        let taken = registry.slot(self.slot).sockets_taken.load(Ordering::Acquire);
        if taken != self.taken || self.untaken.is_empty() {
            self.taken_at = now;
        }
        while self.taken < taken {
            self.untaken.pop_front();
            self.taken += 1;
        }
    }

    /// Takes a socket back, so that the worker can no longer take it.
    pub(super) fn take_back(&mut self, registry: &Registry) -> Option<Handed> {
        let handed = self.untaken.pop_front()?;
        let (cell, next) = (&registry.slot(self.slot).sockets_taken, self.taken + 1);
        let is_ours = cell.compare_exchange(self.taken, next, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        self.taken = next;
        self.handed -= u64::from(is_ours);
        self.slow_at_turn = Some(registry.slot(self.slot).measured.count_turns());
        is_ours.then_some(handed)
    }

    /// Whether it was too slow, or is known to be stuck, and has not run a turn since.
    pub(super) fn is_stuck(&self, registry: &Registry) -> bool {
        let row = registry.slot(self.slot);
        row.stuck.is_set() || self.slow_at_turn == Some(row.measured.count_turns())
    }

    pub(super) fn is_slow_to_take(&self, now: Instant) -> bool {
        !self.untaken.is_empty() && now.duration_since(self.taken_at) > SLOW_TO_TAKE
    }
}

pub(super) enum PeerKind {
    Worker(WorkerPeer),
    Program(Program),
}

pub(super) struct Peer {
    pub(super) link: Link,
    pub(super) kind: PeerKind,
    /// When it last took something of what waits for it.
    pub(super) progress_at: Instant,
    /// The number of its questions that are still unanswered.
    pub(super) asking: usize,
    pub(super) serial: u64,
}

impl Peer {
    /// Whether it is a program whose first message, or the rest of one, is awaited.
    pub(super) fn owes_something(&self) -> bool {
        let is_awaited = |program: &Program| !program.has_greeted || !self.link.input.is_empty();
        matches!(&self.kind, PeerKind::Program(program) if is_awaited(program) && !program.is_interrupted)
    }

    /// Whether it is a program that is not read until it has read its answers.
    pub(super) fn is_held_up(&self) -> bool {
        matches!(self.kind, PeerKind::Program(_)) && (self.link.unsent() > PAUSE_PROGRAM_AT || self.asking >= MAX_ASKED)
    }
}

/// Why a peer is cut off.
pub(super) enum Cut {
    /// It is gone.
    Gone,
    /// It does not speak our language, or breaks its rules.
    Misbehaved,
}

impl From<Malformed> for Cut {
    fn from(_: Malformed) -> Self {
        Self::Misbehaved
    }
}
