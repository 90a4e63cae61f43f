//! How long handlers hold the event loop.
//!
//! At each call only a coarse clock is read, and once: what ends one handler's time begins the next one's. That is off
//! by what lies between two handlers, and by some milliseconds, neither of which matters where a tenth of a second is
//! asked for. One call in [`SAMPLED`] is measured exactly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::{Shared, coarse_now};

/// Calls of which one is measured.
const SAMPLED: u32 = 64;
/// Holding the event loop for more nanoseconds is complained of.
const TOO_LONG: u64 = 100_000_000;

/// Belongs to the event loop's thread; atomics, because Python's classes are shared.
pub(crate) struct Stopwatch {
    shared: Arc<Shared>,
    /// By the coarse clock, in nanoseconds.
    since: AtomicU64,
    calls: AtomicU32,
}

impl Stopwatch {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, since: AtomicU64::new(0), calls: AtomicU32::new(0) }
    }

    /// What has passed until now is no handler's time.
    #[inline]
    pub(crate) fn restart(&self) {
        self.since.store(coarse_now(), Ordering::Relaxed);
    }

    /// A handler is about to be called; `None`: this call is none of those that are measured.
    #[inline]
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.is_sampled().then(Instant::now)
    }

    /// A handler has been called. Returns for how long it has held the event loop, if that was too long.
    #[inline]
    pub(crate) fn end(&self, begin: Option<Instant>) -> Option<Duration> {
        if let Some(begin) = begin {
            self.shared.measured().handler(begin.elapsed());
        }
        let now = coarse_now();
        let held = now.saturating_sub(self.since.load(Ordering::Relaxed));
        self.since.store(now, Ordering::Relaxed);
        (held > TOO_LONG).then(|| Duration::from_nanos(held))
    }

    /// A handler that was called from Python has held the event loop for so long.
    pub(crate) fn held(&self, time: Duration) {
        if self.is_sampled() {
            self.shared.measured().handler(time);
        }
    }

    #[inline]
    fn is_sampled(&self) -> bool {
        let calls = self.calls.load(Ordering::Relaxed);
        self.calls.store(calls.wrapping_add(1), Ordering::Relaxed);
        calls.is_multiple_of(SAMPLED)
    }
}
