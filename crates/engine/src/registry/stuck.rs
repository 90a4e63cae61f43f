//! Whether a worker is stuck, and which side has reported it.

use std::sync::atomic::{AtomicU64, Ordering};

/// The state of a worker's event loop. The worker and the hub each report it only if the other has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// It is running, as far as known.
    No = 0,
    /// It is stuck, and a thread of the worker's process has reported it.
    SaidByWorker = 1,
    /// It is stuck, and the hub has reported it.
    SaidByHub = 2,
}

/// A cell of the registry.
#[derive(Default)]
#[repr(transparent)]
pub struct StuckCell(AtomicU64);

impl StuckCell {
    /// Changes the state if it is `from`. Returns whether it was.
    pub fn change(&self, from: Stuck, to: Stuck) -> bool {
        self.0.compare_exchange(from as u64, to as u64, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether the worker has been reported as stuck.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire) != Stuck::No as u64
    }

    pub(super) fn clear(&self) {
        self.0.store(Stuck::No as u64, Ordering::Release);
    }
}
