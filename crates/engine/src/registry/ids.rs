//! Giving out ids, each once: never again by another process of the same slot, nor by a server that is started later.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{COUNTER, COUNTER_BITS, Fd, Registry, SLOTS, TAKEN};

/// How far counters can be ahead of their clock: the 500 connections a second that it allows for, ten times over for a
/// year.
const MOST_AHEAD: u64 = 1 << 37;
/// Unix time at which the counter's clock begins: 2026-01-01.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// The last counter given out by this process, which may make one reactor after the other.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Gives out ids, each once.
pub(crate) struct Ids {
    slot: u8,
}

impl Ids {
    /// Goes on where this process, or the slot's last one, has ended.
    pub(crate) fn new(slot: u8, registry: &Registry) -> Self {
        let (first, last) = (&registry.header().first, &registry.slot(slot).last);
        let begin = first.load(Ordering::Relaxed).max(last.load(Ordering::Acquire));
        let before = LAST.fetch_max(begin, Ordering::Relaxed);
        last.store(before.max(begin), Ordering::Release);
        Self { slot }
    }

    /// The next id with a free row, which is taken; `None` when there is none, or no counter is leased.
    pub(crate) fn next(&self, registry: &Registry) -> Option<Fd> {
        let leased = registry.leased();
        for _ in 0..registry.rows {
            let counter =
                if LAST.load(Ordering::Relaxed) < leased { LAST.fetch_add(1, Ordering::Relaxed) + 1 } else { leased };
            if counter >= leased {
                return None;
            }
            registry.slot(self.slot).last.store(counter, Ordering::Release);
            let fd = u64::from(self.slot) << COUNTER_BITS | counter;
            let index = registry.index(fd);
            // Before it is taken: if this process dies now, the row is found.
            registry.touch(index);
            let mark = TAKEN | u64::from(self.slot);
            if registry.row(index).id.compare_exchange(0, mark, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(fd);
            }
        }
        None
    }
}

impl Registry {
    /// Begins to give out counters above `first` if that is later than the clock says; to be called before any are.
    /// False: it is so much later that no server can have come there.
    pub(crate) fn begin_above(&self, first: u64) -> bool {
        let is_plausible = first < ticks(SystemTime::now()) + MOST_AHEAD;
        if is_plausible {
            self.header().first.fetch_max(first, Ordering::Relaxed);
        }
        is_plausible
    }

    /// The highest counter that has been given out.
    pub(crate) fn last(&self) -> u64 {
        self.last_of(0..SLOTS as u8)
    }

    /// The highest counter of those processes that may give out more.
    pub(crate) fn last_of_living(&self) -> u64 {
        self.last_of(self.living())
    }

    fn last_of(&self, slots: impl Iterator<Item = u8>) -> u64 {
        let first = self.header().first.load(Ordering::Relaxed);
        slots.map(|slot| self.slot(slot).last.load(Ordering::Acquire)).fold(first, u64::max)
    }

    /// Counters up to this one may be given out.
    pub(crate) fn lease(&self, up_to: u64) {
        self.header().leased.store(up_to.min(COUNTER), Ordering::Release);
    }

    pub(crate) fn leased(&self) -> u64 {
        self.header().leased.load(Ordering::Acquire)
    }
}

/// 2-ms ticks since 2026: where counters begin, so that a server started later gives out higher ones.
pub(super) fn ticks(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH + EPOCH).unwrap_or_default().as_millis() as u64 / 2
}
