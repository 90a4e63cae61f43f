//! Whether Redis knows the members of this host as they are. If not, all of them are put there again.
//!
//! Redis may refuse that too, for want of memory for example. So there is a pause after each refusal, longer after each
//! in a row. No I/O: the time is an argument.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(32);

/// See the module documentation.
#[derive(Default)]
pub(super) struct Doubt {
    is_there: bool,
    not_before: Option<Instant>,
    pause: Option<Duration>,
}

impl Doubt {
    /// A change may not have reached Redis.
    pub(super) fn arise(&mut self) {
        self.is_there = true;
    }

    /// Redis has refused a change.
    pub(super) fn refused(&mut self, now: Instant) {
        self.is_there = true;
        if self.not_before.is_none_or(|at| at <= now) {
            let pause = self.pause.map_or(FIRST_PAUSE, |pause| (2 * pause).min(LONGEST_PAUSE));
            (self.pause, self.not_before) = (Some(pause), Some(now + pause));
        }
    }

    /// Redis has carried out a change.
    pub(super) fn accepted(&mut self) {
        self.pause = None;
    }

    /// Whether all members are to be put there now. The doubt is over then.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let is_due = self.is_there && self.not_before.is_none_or(|at| at <= now);
        if is_due {
            (self.is_there, self.not_before) = (false, None);
        }
        is_due
    }

    /// When [`Doubt::take`] is to be called again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.is_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_longer_pause_after_each_refusal_and_none_after_a_loss() {
        let (mut doubt, mut now) = (Doubt::default(), Instant::now());
        assert!(!doubt.take(now));
        doubt.arise();
        assert_eq!((doubt.due(), doubt.take(now), doubt.take(now)), (None, true, false));
        for seconds in [1, 2, 4, 8, 16, 32, 32] {
            doubt.refused(now);
            doubt.refused(now);
            let end = now + Duration::from_secs(seconds);
            assert_eq!((doubt.take(now), doubt.due()), (false, Some(end)), "after {seconds} s");
            now = end;
            assert_eq!((doubt.take(now), doubt.due()), (true, None));
        }
        doubt.accepted();
        doubt.refused(now);
        assert_eq!(doubt.due(), Some(now + FIRST_PAUSE));
    }
}
