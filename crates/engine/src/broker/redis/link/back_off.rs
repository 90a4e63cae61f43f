//! How long to wait before the next attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);
/// A connection that lasts so long was a success.
const SUCCESS: Duration = Duration::from_secs(2);

/// Doubles with each failure in a row, and jitters fully: many hosts that lost one server come back spread over the
/// whole time.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
    random: RandomState,
}

impl BackOff {
    /// The wait after a failure of an attempt, or of a connection that was usable since then.
    pub(super) fn after_failure(&mut self, usable_since: Option<Instant>, now: Instant) -> Duration {
        if usable_since.is_some_and(|since| now.duration_since(since) >= SUCCESS) {
            self.failures = 0;
        }
        let most = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let random = self.random.hash_one((self.failures, now)) as u32;
        most.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}
