//! The clock for what is asked at every message.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The kernel's time as of its last tick, some milliseconds old at most: a fraction of what an exact reading costs.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Time since some moment that is the same for the whole process.
#[inline]
pub fn coarse_now() -> Duration {
    let now = clock_gettime(CLOCK);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
