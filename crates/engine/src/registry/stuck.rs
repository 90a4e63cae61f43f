//! Whether a worker is stuck, and who has said so.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is known of a worker's event loop. Each of the two who notice says so only if the other has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// It moves, as far as anyone knows.
    No = 0,
    /// It stands still, and a thread of the worker's process has said so.
    SaidByWorker = 1,
    /// The same, said by the hub.
    SaidByHub = 2,
}

/// A cell of the registry.
#[derive(Default)]
#[repr(transparent)]
pub struct StuckCell(AtomicU64);

impl StuckCell {
    /// Changes it, if it is as expected; whether it was.
    pub fn change(&self, from: Stuck, to: Stuck) -> bool {
        self.0.compare_exchange(from as u64, to as u64, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether anyone has said that the worker is stuck.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire) != Stuck::No as u64
    }

    pub(super) fn clear(&self) {
        self.0.store(Stuck::No as u64, Ordering::Release);
    }
}
