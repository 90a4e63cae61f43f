//! Whether this process is a forked copy of one that serves.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process is a forked child of one that had a reactor.
static IS_FORKED: AtomicBool = AtomicBool::new(false);

#[inline]
pub(crate) fn is_forked() -> bool {
    IS_FORKED.load(Ordering::Relaxed)
}

/// Records that this process is a forked child.
pub(crate) fn note_fork() {
    IS_FORKED.store(true, Ordering::Relaxed);
}
