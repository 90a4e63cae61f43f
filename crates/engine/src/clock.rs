//! The clock for what is asked at every message.

use coarsetime::{Duration, Instant};

/// Nanoseconds since some moment that is the same for the whole process, as of the kernel's last tick: they may be some
/// milliseconds old, and cost a fraction of an exact reading.
#[inline]
pub fn coarse_now() -> u64 {
    Duration::from_ticks(Instant::now_without_cache_update().as_ticks()).as_nanos()
}
