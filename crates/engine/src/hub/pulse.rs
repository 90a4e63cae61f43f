//! What the hub knows about whether the workers' event loops are running.

use std::time::{Duration, Instant};

/// The number of checks within `stuck_after`, and the longest time between two of them.
const LOOKS: u32 = 8;
const MAX_INTERVAL: Duration = Duration::from_secs(2);
/// When the hub checks the workers.
pub(super) struct Looks {
    pub(super) stuck_after: Option<Duration>,
    pub(super) last: Instant,
}

/// The hub's observations of one worker.
#[derive(Default)]
pub(super) struct Pulse {
    pub(super) turns: u64,
    /// Since when it has not run a turn although one was requested.
    pub(super) silent_since: Option<Instant>,
    pub(super) is_stuck: bool,
}

impl Looks {
    pub(super) fn new(stuck_after: Option<Duration>, now: Instant) -> Self {
        Self { stuck_after, last: now }
    }

    /// The time between two checks.
    pub(super) fn interval(&self) -> Option<Duration> {
        Some((self.stuck_after? / LOOKS).min(MAX_INTERVAL))
    }

    /// When the next check is due; `None` means never.
    pub(super) fn next(&self) -> Option<Instant> {
        Some(self.last + self.interval()?)
    }
}
