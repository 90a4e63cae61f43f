//! Measures how long handlers hold the event loop.
//!
//! Each call reads only a coarse clock, and only once: the end of one handler's time is the start of the next one's.
//! This is off by the time between two handlers, and by some milliseconds, neither of which matters for a threshold of
//! a tenth of a second. One call in [`SAMPLED`] is measured exactly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::{Shared, coarse_now};

/// One in this many calls is measured.
const SAMPLED: u32 = 64;
/// Holding the event loop for more nanoseconds than this is reported.
const TOO_LONG: u64 = 100_000_000;

/// Belongs to the event loop's thread; it uses atomics because Python's classes are shared.
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

    /// Excludes the time up to now from any handler's time.
    #[inline]
    pub(crate) fn restart(&self) {
        self.since.store(coarse_now(), Ordering::Relaxed);
    }

    /// To be called before a handler. Returns `None` if this call is not measured.
    #[inline]
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.is_sampled().then(Instant::now)
    }

    /// To be called after a handler. Returns for how long it held the event loop, if that was too long.
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

    /// Counts the time for which a handler called from Python has held the event loop.
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
