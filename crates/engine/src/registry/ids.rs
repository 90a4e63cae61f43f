//! Giving out each id once: never again in another process of the same slot, or in a server that is started later.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::registry::fd::{COUNTER, COUNTER_BITS, Fd, HOST_SHIFT, SLOTS, TAKEN};
use crate::registry::memory::Registry;

/// The Unix time at which the counter's clock begins: 2026-01-01.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// Counters that the clock passes in a year.
const YEAR: u64 = 500 * 86_400 * 365;
/// Rows tried for one id. At most four fifths of them are taken, so more are never needed in practice.
const MAX_TRIES: u32 = 256;

/// The last counter given out by this process, which may create several reactors in succession.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Why there is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoId {
    /// No row is free.
    NoFreeRow,
    /// No more ids are leased for now.
    Unleased,
    /// All possible ids have been given out.
    Exhausted,
}

/// Gives out ids, each of them once.
pub(crate) struct Ids {
    slot: u8,
    /// The last counter given out by this process.
    last: &'static AtomicU64,
}

impl Ids {
    /// Continues where this process, or the slot's previous process, left off.
    pub(crate) fn new(slot: u8, registry: &Registry) -> Self {
        Self::counting(slot, registry, &LAST)
    }

    /// The same, with `process` as the last counter given out by this process.
    pub(crate) fn counting(slot: u8, registry: &Registry, process: &'static AtomicU64) -> Self {
        let (first, last) = (&registry.header().first, &registry.slot(slot).last);
        let begin = first.load(Ordering::Relaxed).max(last.load(Ordering::Acquire));
        let before = process.fetch_max(begin, Ordering::Relaxed);
        last.store(before.max(begin), Ordering::Release);
        Self { slot, last: process }
    }

    /// The next id with a free row, which is then taken. Counters are skipped only on success.
    ///
    /// # Errors
    /// If there is no id; nothing was used up.
    pub(crate) fn next(&self, registry: &Registry) -> Result<Fd, NoId> {
        if !registry.may_give_ids() {
            return Err(NoId::Unleased);
        }
        let leased = registry.leased();
        // In this order: if the host gets another number meanwhile, this may skip counters, but repeats none.
        let host = registry.header().host.load(Ordering::Acquire) << HOST_SHIFT;
        self.last.fetch_max(registry.header().first.load(Ordering::Acquire), Ordering::Relaxed);
        let mark = TAKEN | u64::from(self.slot);
        let mut last = self.last.load(Ordering::Relaxed);
        let mut is_past_lease = false;
        for attempt in 0..MAX_TRIES {
            let counter = last + 1 + skipped(last, attempt, registry.rows as u64);
            if counter > leased {
                is_past_lease = true;
                continue;
            }
            let fd = host | u64::from(self.slot) << COUNTER_BITS | counter;
            let index = registry.index(fd);
            // This comes before taking it: if the process dies right after, the row is found.
            registry.touch(index);
            let id = &registry.row(index).id;
            if id.compare_exchange(0, mark, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            match self.last.compare_exchange(last, counter, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    registry.slot(self.slot).last.store(counter, Ordering::Release);
                    return Ok(fd);
                }
                // Another reactor of this process has given out an id.
                Err(now) => {
                    id.store(0, Ordering::Release);
                    last = now;
                }
            }
        }
        Err(match is_past_lease {
            false => NoId::NoFreeRow,
            true if leased == COUNTER => NoId::Exhausted,
            true => NoId::Unleased,
        })
    }

    /// Whether there will never be another id.
    pub(crate) fn are_exhausted(&self, registry: &Registry) -> bool {
        self.last.load(Ordering::Relaxed) >= COUNTER && registry.leased() == COUNTER
    }

    /// The last counter given out, if more should be leased.
    pub(crate) fn last_of_few(&self, registry: &Registry) -> Option<u64> {
        let last = registry.slot(self.slot).last.load(Ordering::Relaxed);
        registry.are_few_after(last).then_some(last)
    }
}

/// How many counters an attempt to find a free row skips. The first attempt skips none, and each further one about
/// twice as many as the previous one, up to the number of rows. Connections opened in succession have adjacent rows, so
/// a few attempts get past thousands of taken rows.
fn skipped(last: u64, attempt: u32, rows: u64) -> u64 {
    let Some(doublings) = attempt.checked_sub(1) else { return 0 };
    let widest = rows.trailing_zeros();
    // Between 2^n and 2^(n+1); from the widest on, anywhere, so that no pattern of taken rows is hit again and again.
    let (least, width) = if doublings < widest { (1 << doublings, 1 << doublings) } else { (0, rows) };
    let spread = (last * u64::from(MAX_TRIES) + u64::from(attempt)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    least + spread % width
}

impl Registry {
    /// Determines where a server begins to count: above the counters that its lease says have been given out, and not
    /// before the clock, so that it is also above those that servers without a lease have given out. Returns a text for
    /// the log if the two are far apart.
    ///
    /// # Errors
    /// No id could be given out that is certainly new. The text is one line for people.
    pub(crate) fn begin_above(&self, leased: Option<u64>, now: SystemTime) -> Result<Option<String>, String> {
        let clock = ticks(unix(now));
        let (first, warning) = match leased {
            Some(leased) if leased >= COUNTER => {
                return Err(
                    "all connection ids have been given out; remove the lease file if nothing stores earlier ids"
                        .into(),
                );
            }
            Some(leased) if clock >= COUNTER => {
                let text = format!("{}; connection ids continue where the lease file says", clock_is_ahead(now));
                (leased, Some(text))
            }
            None if clock >= COUNTER => return Err(clock_is_ahead(now)),
            Some(leased) if leased > clock + YEAR => {
                let years = (leased - clock) / YEAR;
                let text = format!(
                    "connection ids continue where the lease file says, {years} years ahead of the clock: one of the two is wrong"
                );
                (leased, Some(text))
            }
            leased => (leased.unwrap_or(0).max(clock), None),
        };
        self.header().first.store(first, Ordering::Relaxed);
        Ok(warning)
    }

    /// The highest counter that has been given out.
    pub(crate) fn last(&self) -> u64 {
        self.last_of(0..SLOTS as u8)
    }

    /// The highest counter of the processes that may still give out more.
    pub(crate) fn last_of_living(&self) -> u64 {
        self.last_of(self.living())
    }

    fn last_of(&self, slots: impl Iterator<Item = u8>) -> u64 {
        let first = self.header().first.load(Ordering::Relaxed);
        slots.map(|slot| self.slot(slot).last.load(Ordering::Acquire)).fold(first, u64::max)
    }

    /// How many counters are leased at a time: enough that one is leased beyond any number of adjacent taken rows.
    pub(crate) fn lease_length(&self) -> u64 {
        (1 << 22).max(4 * self.rows as u64)
    }

    /// Whether more counters should be, and can be, leased once `last` has been given out.
    pub(crate) fn are_few_after(&self, last: u64) -> bool {
        let leased = self.leased();
        leased < COUNTER && last + self.lease_length() / 2 >= leased
    }

    /// Allows counters up to this one to be given out.
    pub(crate) fn lease(&self, up_to: u64) {
        self.header().leased.store(up_to.min(COUNTER), Ordering::Release);
    }

    pub(crate) fn leased(&self) -> u64 {
        self.header().leased.load(Ordering::Acquire)
    }
}

/// 2-ms ticks since 2026, at a Unix time in milliseconds. Counters begin there, so that a server started later gives out
/// higher ones.
pub(crate) fn ticks(unix: u64) -> u64 {
    unix.saturating_sub(EPOCH.as_millis() as u64) / 2
}

fn unix(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn clock_is_ahead(now: SystemTime) -> String {
    let year = 1970 + now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 31_556_952;
    format!("the system's clock says {year}, but connection ids can be given out only until {}", 2026 + COUNTER / YEAR)
}
