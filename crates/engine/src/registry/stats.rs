//! The counts of all processes, for `stats`.

use std::sync::atomic::Ordering;

use crate::registry::counts::{COUNTS, Counts, RESTARTS, ended};
use crate::registry::fd::WORKERS;
use crate::registry::memory::Registry;

/// Attempts to compute a sum while no counts are being moved.
const MAX_TRIES: usize = 1000;

/// The counts of one worker since its process started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStats {
    /// Its number.
    pub worker_id: u8,
    /// Milliseconds of Unix time.
    pub started_at: u64,
    /// See [`COUNTS`].
    pub counts: Counts,
}

/// The counts of the whole server since its start, and of each worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Milliseconds of Unix time.
    pub started_at: u64,
    /// See [`COUNTS`].
    pub totals: Counts,
    /// By worker id. A worker that is being replaced is counted together with its successor.
    pub workers: Vec<WorkerStats>,
}

impl Registry {
    /// The counts of all processes.
    pub fn stats(&self) -> Stats {
        self.while_nothing_moves(|| self.sum_up())
    }

    /// Computes a sum over the counts of all processes.
    pub(crate) fn while_nothing_moves<T>(&self, sum_up: impl Fn() -> T) -> T {
        // Only the hub moves counts from one place to another. That takes microseconds, unless the hub is stopped at
        // that moment.
        for _ in 0..MAX_TRIES {
            let before = self.header().generation.load(Ordering::Acquire);
            let sum = sum_up();
            if before.is_multiple_of(2) && self.header().generation.load(Ordering::Acquire) == before {
                return sum;
            }
            std::thread::yield_now();
        }
        sum_up()
    }

    pub(crate) fn sum_up(&self) -> Stats {
        let header = self.header();
        let mut totals = header.past.counts(std::iter::empty());
        let mut workers: [Option<WorkerStats>; WORKERS] = [const { None }; WORKERS];
        for slot in self.counting() {
            let counts = self.counts_of(slot);
            if !self.lives(slot) {
                add_up(&mut totals, &ended(counts));
                continue;
            }
            add_up(&mut totals, &counts);
            let row = self.slot(slot);
            let worker_id = row.worker_id.load(Ordering::Relaxed) as usize % WORKERS;
            let started_at = row.started_at.load(Ordering::Relaxed);
            let worker = workers[worker_id].get_or_insert(WorkerStats {
                worker_id: worker_id as u8,
                started_at,
                counts: [0; COUNTS.len()],
            });
            worker.started_at = worker.started_at.max(started_at);
            add_up(&mut worker.counts, &counts);
        }
        for (worker, restarts) in workers.iter_mut().zip(&header.restarts) {
            let restarts = restarts.load(Ordering::Relaxed);
            totals[RESTARTS] += restarts;
            if let Some(worker) = worker {
                worker.counts[RESTARTS] = restarts;
            }
        }
        let started_at = header.started_at.load(Ordering::Relaxed);
        Stats { started_at, totals, workers: workers.into_iter().flatten().collect() }
    }
}

fn add_up(sum: &mut Counts, counts: &Counts) {
    for (sum, count) in sum.iter_mut().zip(counts) {
        *sum += count;
    }
}
