//! Which hosts are gone and have left members. No I/O: the time is an argument.
//!
//! A host whose lease has run out may only have been cut off from Redis, perhaps together with all others. So its
//! members are removed only when its lease is missing for a while, seen from here without a break.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time between two looks, and how much longer it may be, so that hosts do not look all at once.
const INTERVAL: Duration = Duration::from_millis(1000);
const MAX_JITTER: u64 = 300;
/// For how long a lease has to be missing.
const GRACE: Duration = Duration::from_secs(3);
/// Time until a command is given again if there is no reply.
const PATIENCE: Duration = Duration::from_secs(3);

/// See the module documentation.
#[derive(Default)]
pub(super) struct Sweep {
    look_at: Option<Instant>,
    /// When to remove the members of these.
    gone: BTreeMap<u8, Instant>,
}

impl Sweep {
    pub(super) fn connected(&mut self, now: Instant) {
        self.look_at.get_or_insert(now);
    }

    /// What was seen before does not count any longer.
    pub(super) fn disconnected(&mut self) {
        *self = Self::default();
    }

    /// Whether to look which hosts are gone. `random` is any number.
    pub(super) fn next_look(&mut self, now: Instant, random: u64) -> bool {
        let is_due = self.look_at.is_some_and(|at| at <= now);
        if is_due {
            self.look_at = Some(now + INTERVAL + Duration::from_millis(random % MAX_JITTER));
        }
        is_due
    }

    /// These are gone.
    pub(super) fn seen(&mut self, gone: &[u8], now: Instant) {
        self.gone.retain(|host, _| gone.contains(host));
        for host in gone {
            self.gone.entry(*host).or_insert(now + GRACE);
        }
    }

    /// The next one whose members are to be removed now.
    pub(super) fn next(&mut self, now: Instant) -> Option<u8> {
        let (host, at) = self.gone.iter_mut().find(|(_, at)| **at <= now)?;
        *at = now + PATIENCE;
        Some(*host)
    }

    /// Some of its members are removed.
    pub(super) fn swept(&mut self, host: u8, is_done: bool, now: Instant) {
        if is_done {
            self.gone.remove(&host);
        } else if let Some(at) = self.gone.get_mut(&host) {
            *at = now;
        }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.gone.values().copied().chain(self.look_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_swept_when_it_is_missing_for_long_enough() {
        let (mut sweep, now) = (Sweep::default(), Instant::now());
        assert!(!sweep.next_look(now, 0));
        sweep.connected(now);
        assert!(sweep.next_look(now, 0) && !sweep.next_look(now, 0));
        sweep.seen(&[3, 4], now);
        assert_eq!(sweep.next(now), None);
        sweep.seen(&[3], now + INTERVAL);
        sweep.seen(&[3, 4], now + 2 * INTERVAL);
        assert_eq!(sweep.next(now + GRACE), Some(3));
        assert_eq!(sweep.next(now + GRACE), None, "4 was back in between");
        sweep.swept(3, false, now + GRACE);
        assert_eq!(sweep.next(now + GRACE), Some(3));
        sweep.swept(3, true, now + GRACE);
        assert_eq!(sweep.next(now + GRACE), None);
        sweep.disconnected();
        assert_eq!(sweep.due(), None);
    }
}
