//! A share of a turn's time, for work that may take longer than a turn.

use std::time::{Duration, Instant};

use crate::system::clock::TimeSource;

/// Steps (each about one system call) between two checks of the time.
pub(crate) const STEPS_PER_LOOK: u32 = 16;

/// A share of a turn's time. Some steps are always allowed, so that everything makes progress.
pub(crate) struct Slice {
    /// When it ends, on this clock; `None` if it never does.
    until: Option<(Instant, TimeSource)>,
    steps: u32,
}

impl Slice {
    pub(crate) fn new(source: TimeSource, time: Duration) -> Self {
        Self { until: Some((source.now() + time, source)), steps: 0 }
    }

    /// A slice that never ends.
    pub(crate) fn endless() -> Self {
        Self { until: None, steps: 0 }
    }

    /// Counts a step. Returns true if it was the last one.
    #[inline]
    pub(crate) fn is_over(&mut self) -> bool {
        self.steps = self.steps.wrapping_add(1);
        self.steps.is_multiple_of(STEPS_PER_LOOK)
            && self.until.as_ref().is_some_and(|(until, source)| source.now() >= *until)
    }
}
