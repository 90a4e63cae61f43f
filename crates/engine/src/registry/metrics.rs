//! Measurements for operators, in addition to the counts of `stats`: how connections end, what is refused, and how long
//! turns and handlers take.
//!
//! Like the counts, they are kept in the registry. Each process's part is written only by its reactor's thread, and is
//! added to the server's past when the process is gone.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::registry::hosts::BrokerMetrics;
use crate::registry::measured::{
    BOUNDS, CELLS, CLOSE_CODES, CLOSED, FOR_MEMORY, HANDLERS, HELD, Held, REFUSED, STATUSES, TURNS,
};
use crate::registry::memory::Registry;
use crate::registry::stats::Stats;

/// A histogram of how long something took.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// Upper bounds in seconds, each with the number of times that are no longer than it but longer than the previous
    /// bound. The last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// The total in seconds.
    pub sum: f64,
}

/// The measurements and counts of all processes since the server's start.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The same as from [`Registry::stats`].
    pub stats: Stats,
    /// Whether a worker is stuck, by its id.
    pub stuck: Vec<(u8, bool)>,
    /// The broker of several hosts, if there is one.
    pub broker: Option<BrokerMetrics>,
    cells: [u64; CELLS],
}

impl Metrics {
    /// How many WebSockets have ended with each close code: a registered one, 3000 for all of 3000 to 3999, or 4000 for
    /// all of 4000 to 4999. WebSockets lost when a process died are not included.
    pub fn closed(&self) -> impl Iterator<Item = (u16, u64)> {
        CLOSE_CODES.into_iter().zip(self.cells[CLOSED].iter().copied())
    }

    /// How many requests were refused with each status: 101 for a close code; 0 for a status that is not counted
    /// separately, or none.
    pub fn refused(&self) -> impl Iterator<Item = (u16, u64)> {
        STATUSES.into_iter().zip(self.cells[REFUSED].iter().copied())
    }

    /// How many connections were closed because all of them together held too much, by what they mostly held.
    pub fn closed_for_memory(&self) -> impl Iterator<Item = (Held, u64)> {
        HELD.into_iter().zip(self.cells[FOR_MEMORY].iter().copied())
    }

    /// The durations of turns.
    pub fn turns(&self) -> Times {
        self.times(TURNS)
    }

    /// The durations of those handler calls that were measured.
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
    /// The measurements and counts of all processes.
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
                    self.living().filter(|slot| self.slot(*slot).worker_id.load(Ordering::Relaxed) == u64::from(id));
                slots.any(|slot| self.stuck(slot).is_set())
            };
            let stuck = stats.workers.iter().map(|worker| (worker.worker_id, is_stuck(worker.worker_id))).collect();
            Metrics { stats, stuck, broker: self.broker_metrics(), cells }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
