//! What is measured for operators, beside the counts of `stats`: how connections end, what is refused, and how long
//! turns and handlers take.
//!
//! As the counts, it stands in the registry, each process's written by its reactor's thread alone, and goes on in the
//! server's past when the process is gone.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::registry::stats::Stats;
use crate::registry::{Registry, add};

/// The registered close codes (RFC 6455 §7.4.1), and the first of each range of free ones (§7.4.2), which stands for
/// all.
const CLOSE_CODES: [u16; 18] =
    [1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 3000, 4000];
/// The statuses of refusals that are told apart. 101: refused with a close code. 0: every other, and none at all.
const STATUSES: [u16; 17] = [101, 400, 401, 403, 404, 405, 408, 413, 417, 426, 429, 431, 500, 501, 503, 505, 0];
/// Upper bounds of the times that are counted together, in nanoseconds; the last bucket has none.
const BOUNDS: [u64; 19] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
];

/// In the order in which they are counted.
const HELD: [Held; 3] = [Held::Output, Held::Input, Held::Body];

const CLOSED: Range<usize> = 0..CLOSE_CODES.len();
const REFUSED: Range<usize> = CLOSED.end..CLOSED.end + STATUSES.len();
/// The buckets of a histogram, and behind them the sum in nanoseconds.
const TIMES: usize = BOUNDS.len() + 2;
const TURNS: Range<usize> = REFUSED.end..REFUSED.end + TIMES;
const HANDLERS: Range<usize> = TURNS.end..TURNS.end + TIMES;
const FOR_MEMORY: Range<usize> = HANDLERS.end..HANDLERS.end + HELD.len();
const CELLS: usize = FOR_MEMORY.end;

/// What a connection that was closed for its memory mostly held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Messages that its peer did not read.
    Output,
    /// A message or a request's head that was not whole, or messages that waited for its handler.
    Input,
    /// A request's body that was not whole.
    Body,
}

/// What one process has measured.
#[repr(C)]
pub struct Measured([AtomicU64; CELLS]);

impl Measured {
    /// A WebSocket has ended with the code that its `close` event reports. Only those codes come here that RFC 6455
    /// knows.
    pub(crate) fn closed(&self, code: u16) {
        let known = match code {
            3000..4000 => 3000,
            4000..5000 => 4000,
            registered => registered,
        };
        if let Some(index) = CLOSE_CODES.iter().position(|each| *each == known) {
            add(&self.0[CLOSED.start + index], 1);
        }
    }

    /// A request was refused with this status, or without any.
    pub(crate) fn refused(&self, status: Option<u16>) {
        let other = STATUSES.len() - 1;
        let index = STATUSES.iter().position(|each| Some(*each) == status).unwrap_or(other);
        add(&self.0[REFUSED.start + index], 1);
    }

    /// A connection was closed because all together held too much, and mostly held this.
    pub(crate) fn closed_for_memory(&self, held: Held) {
        add(&self.0[FOR_MEMORY.start + held as usize], 1);
    }

    /// A turn has taken so long.
    pub(crate) fn turn(&self, time: Duration) {
        self.took(TURNS, time);
    }

    /// How many turns there were.
    pub(crate) fn count_turns(&self) -> u64 {
        self.0[TURNS.start..TURNS.end - 1].iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    /// A handler has taken so long.
    pub fn handler(&self, time: Duration) {
        self.took(HANDLERS, time);
    }

    fn took(&self, histogram: Range<usize>, time: Duration) {
        let nanoseconds = time.as_nanos() as u64;
        let bucket = BOUNDS.partition_point(|bound| *bound < nanoseconds);
        add(&self.0[histogram.start + bucket], 1);
        add(&self.0[histogram.end - 1], nanoseconds);
    }

    /// Adds what a process has measured that is gone.
    pub(crate) fn add_all(&self, other: &Self) {
        for (cell, more) in self.0.iter().zip(&other.0) {
            add(cell, more.load(Ordering::Relaxed));
        }
    }

    /// Begins anew.
    pub(crate) fn clear(&self) {
        for cell in &self.0 {
            cell.store(0, Ordering::Relaxed);
        }
    }
}

/// How long something took, how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// Upper bounds in seconds, with how often it took no longer than that, and longer than the bound before. The last
    /// one is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Seconds in all.
    pub sum: f64,
}

/// What all processes have measured since the server's start, with what they have counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// As [`Registry::stats`] gives them.
    pub stats: Stats,
    /// Whether a worker is stuck, by its id.
    pub stuck: Vec<(u8, bool)>,
    cells: [u64; CELLS],
}

impl Metrics {
    /// How many WebSockets have ended with which close code: a registered one, 3000 for all of 3000 to 3999, 4000 for
    /// all of 4000 to 4999. Those that a process has taken along when it died are in none.
    pub fn closed(&self) -> impl Iterator<Item = (u16, u64)> {
        CLOSE_CODES.into_iter().zip(self.cells[CLOSED].iter().copied())
    }

    /// How many requests were refused with which status: 101 with a close code, 0 with a status that is not counted
    /// apart, or with none.
    pub fn refused(&self) -> impl Iterator<Item = (u16, u64)> {
        STATUSES.into_iter().zip(self.cells[REFUSED].iter().copied())
    }

    /// How many connections were closed because all together held too much, by what they mostly held.
    pub fn closed_for_memory(&self) -> impl Iterator<Item = (Held, u64)> {
        HELD.into_iter().zip(self.cells[FOR_MEMORY].iter().copied())
    }

    /// The times of turns.
    pub fn turns(&self) -> Times {
        self.times(TURNS)
    }

    /// The times of the handlers' calls that were measured.
    pub fn handlers(&self) -> Times {
        self.times(HANDLERS)
    }

    fn times(&self, histogram: Range<usize>) -> Times {
        let [counts @ .., sum] = &self.cells[histogram] else { unreachable!("a histogram has a sum") };
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e9).chain([f64::INFINITY]);
        Times { buckets: bounds.zip(counts.iter().copied()).collect(), sum: *sum as f64 / 1e9 }
    }
}

impl Registry {
    /// What all processes have measured and counted.
    pub fn metrics(&self) -> Metrics {
        self.while_nothing_moves(|| {
            let mut cells = [0; CELLS];
            let slots = self.counting().map(|slot| &self.slot(slot).measured);
            for measured in slots.chain([&self.header().past_measured]) {
                for (sum, cell) in cells.iter_mut().zip(&measured.0) {
                    *sum += cell.load(Ordering::Relaxed);
                }
            }
            let stats = self.sum_up();
            let is_stuck = |id: u8| {
                let mut slots =
                    self.living().filter(|slot| self.slot(*slot).worker_id.load(Ordering::Relaxed) == id.into());
                slots.any(|slot| self.stuck(slot).is_set())
            };
            let stuck = stats.workers.iter().map(|worker| (worker.worker_id, is_stuck(worker.worker_id))).collect();
            Metrics { stats, stuck, cells }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<T: Copy + PartialEq>(counts: impl Iterator<Item = (T, u64)>, key: T) -> u64 {
        counts.into_iter().find(|(each, _)| *each == key).map_or(0, |(_, count)| count)
    }

    #[test]
    fn close_codes_of_a_range_are_counted_together() {
        let registry = Registry::private(10).expect("memory");
        for code in [1000, 3000, 3999, 4000, 4999, 4999, 2999] {
            registry.slot(0).measured.closed(code);
        }
        let metrics = registry.metrics();
        assert_eq!([1000, 3000, 4000].map(|code| of(metrics.closed(), code)), [1, 2, 3]);
        assert_eq!(metrics.closed().map(|(_, count)| count).sum::<u64>(), 6);
    }

    #[test]
    fn refusals_without_a_known_status_are_counted_too() {
        let registry = Registry::private(10).expect("memory");
        for status in [Some(403), Some(302), None] {
            registry.slot(0).measured.refused(status);
        }
        let metrics = registry.metrics();
        assert_eq!([403, 0].map(|status| of(metrics.refused(), status)), [1, 2]);
    }

    #[test]
    fn a_time_goes_into_the_first_bucket_that_it_does_not_exceed() {
        let registry = Registry::private(10).expect("memory");
        for nanoseconds in [0, 1_000, 1_001, 60_000_000_000] {
            registry.slot(0).measured.turn(Duration::from_nanos(nanoseconds));
        }
        let turns = registry.metrics().turns();
        assert_eq!(turns.buckets[..3], [(1e-6, 2), (2.5e-6, 1), (5e-6, 0)]);
        assert_eq!(turns.buckets.last(), Some(&(f64::INFINITY, 1)));
        assert_eq!(turns.sum, 60.000_002_001);
        assert_eq!(registry.metrics().handlers().sum, 0.0);
    }

    #[test]
    fn what_a_process_has_measured_is_told_from_its_life_to_after_its_clearing() {
        let registry = Registry::shared(10).expect("memory");
        registry.revive(5, 2);
        registry.slot(5).measured.closed(1001);
        let told = || of(registry.metrics().closed(), 1001);
        assert_eq!(told(), 1);
        registry.bury(5);
        assert_eq!(told(), 1);
        registry.clear(5);
        assert_eq!(told(), 1);
        registry.revive(5, 2);
        registry.slot(5).measured.closed(1001);
        assert_eq!(told(), 2);
    }
}
