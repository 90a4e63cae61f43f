//! The clock for what is asked at every message.

use rustix::time::{ClockId, clock_gettime};

/// The kernel's time as of its last tick, some milliseconds old at most: a fraction of what an exact reading costs.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Nanoseconds since some moment that is the same for the whole process.
#[inline]
pub fn coarse_now() -> u64 {
    let now = clock_gettime(CLOCK);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
