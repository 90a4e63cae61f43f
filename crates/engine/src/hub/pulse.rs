//! What the hub knows of whether the workers' event loops move.

use std::time::{Duration, Instant};

/// Looks within `stuck_after`, and the time between two of them at most.
const LOOKS: u32 = 8;
const MAX_INTERVAL: Duration = Duration::from_secs(2);
/// When the hub looks at the workers.
pub(super) struct Looks {
    pub(super) stuck_after: Option<Duration>,
    pub(super) last: Instant,
}

/// What the hub has seen of one worker.
#[derive(Default)]
pub(super) struct Pulse {
    pub(super) turns: u64,
    /// Since when it has made no turn though one was asked for.
    pub(super) silent_since: Option<Instant>,
    pub(super) is_stuck: bool,
}

impl Looks {
    pub(super) fn new(stuck_after: Option<Duration>, now: Instant) -> Self {
        Self { stuck_after, last: now }
    }

    /// The time between two of them.
    pub(super) fn interval(&self) -> Option<Duration> {
        Some((self.stuck_after? / LOOKS).min(MAX_INTERVAL))
    }

    /// When the next one is due; `None`: never.
    pub(super) fn next(&self) -> Option<Instant> {
        Some(self.last + self.interval()?)
    }
}
