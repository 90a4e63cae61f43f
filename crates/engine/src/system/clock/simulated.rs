//! Time that stands still until a test moves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The Unix time at which simulated time begins: 2026-06-01.
const BEGIN: Duration = Duration::from_secs(1_780_272_000);

/// All clones show the same time.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedTime {
    started: Instant,
    /// Nanoseconds since then.
    elapsed: Arc<AtomicU64>,
    /// Nanoseconds that each reading takes.
    per_reading: Arc<AtomicU64>,
}

impl SimulatedTime {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), elapsed: Arc::default(), per_reading: Arc::default() }
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.elapsed.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Lets this much time pass at each reading, as if the work between two of them took that long.
    pub(crate) fn pass_at_each_reading(&self, time: Duration) {
        self.per_reading.store(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed.load(Ordering::Relaxed))
    }

    pub(super) fn now(&self) -> Instant {
        let before = self.elapsed.fetch_add(self.per_reading.load(Ordering::Relaxed), Ordering::Relaxed);
        self.started + Duration::from_nanos(before)
    }

    pub(super) fn system_now(&self) -> SystemTime {
        UNIX_EPOCH + BEGIN + self.elapsed()
    }
}
