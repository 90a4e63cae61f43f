//! What is counted, for `stats`.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::registry::{Registry, WORKERS, add};

/// The names of what is counted, in the order of [`Counts`].
pub const COUNTS: [&str; 17] = [
    "connections",
    "accepted",
    "refused",
    "closed",
    "messages_in",
    "messages_out",
    "bytes_in",
    "bytes_out",
    "queued_bytes",
    "outliving",
    "held_bytes",
    "slow_consumers_closed",
    "memory_closed",
    "messages_dropped",
    "subscriptions_refused",
    "commands_dropped",
    "restarts",
];

/// How often a sum is tried that nothing is moved under.
const MOST_TRIES: usize = 1000;

/// A value for each of [`COUNTS`].
pub type Counts = [u64; COUNTS.len()];

const CONNECTIONS: usize = 0;
const CLOSED: usize = 3;
/// Messages and bytes, in and out.
pub(crate) const TRAFFIC: Range<usize> = 4..8;
pub(crate) const QUEUED_BYTES: usize = 8;
pub(crate) const OUTLIVING: usize = 9;
const HELD_BYTES: usize = 10;
pub(crate) const COMMANDS_DROPPED: usize = COUNTS.len() - 2;
const RESTARTS: usize = COUNTS.len() - 1;

/// What a process counts beside its connections' rows; each is written by the reactor's thread alone, but for
/// `subscriptions_refused` and `commands_dropped`.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Totals {
    /// Open WebSockets.
    pub connections: AtomicU64,
    /// Handshakes accepted.
    pub accepted: AtomicU64,
    /// Handshakes refused, for whatever reason.
    pub refused: AtomicU64,
    /// WebSockets closed.
    pub closed: AtomicU64,
    /// The traffic of connections that are gone; that of the others stands in their rows, so that a message is counted
    /// in one place.
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Bytes of memory that connections hold for queued output and unfinished input.
    pub(crate) held_bytes: AtomicU64,
    /// Connections closed with 1013 because their outbox was full.
    pub slow_consumers_closed: AtomicU64,
    /// Connections closed because all together held more than `max_memory`.
    pub(crate) memory_closed: AtomicU64,
    /// Messages dropped because an outbox was full.
    pub messages_dropped: AtomicU64,
    /// Subscriptions refused because the connection had `max_topics`.
    pub subscriptions_refused: AtomicU64,
    /// Commands of other threads and processes dropped because too many waited.
    pub commands_dropped: AtomicU64,
}

impl Totals {
    /// The counts, with the traffic of open connections: messages and bytes in and out, unsent bytes.
    pub(crate) fn counts(&self, open: impl Iterator<Item = [u64; 5]>) -> Counts {
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        // They change meanwhile, or the process has died between two of them; but all that is open or closed was
        // accepted.
        let (closed, connections) = (get(&self.closed), get(&self.connections));
        fence(Ordering::Acquire);
        let accepted = get(&self.accepted);
        let closed = closed.min(accepted);
        let mut counts = [
            connections.min(accepted - closed),
            accepted,
            get(&self.refused),
            closed,
            get(&self.messages_in),
            get(&self.messages_out),
            get(&self.bytes_in),
            get(&self.bytes_out),
            0,
            0,
            get(&self.held_bytes),
            get(&self.slow_consumers_closed),
            get(&self.memory_closed),
            get(&self.messages_dropped),
            get(&self.subscriptions_refused),
            get(&self.commands_dropped),
            0,
        ];
        fence(Ordering::Acquire);
        for traffic in open {
            for (sum, value) in counts[TRAFFIC.start..=QUEUED_BYTES].iter_mut().zip(traffic) {
                *sum += value;
            }
        }
        counts
    }

    /// Adds what a process has counted that is gone; it has no connections any more.
    pub(crate) fn add_counts(&self, counts: &Counts) {
        let counted = counts[..QUEUED_BYTES].iter().chain(&counts[OUTLIVING + 1..RESTARTS]);
        for (cell, count) in self.cells().into_iter().zip(counted).skip(CONNECTIONS + 1) {
            add(cell, *count);
        }
    }

    /// Begins anew.
    pub(crate) fn clear(&self) {
        for cell in self.cells() {
            cell.store(0, Ordering::Relaxed);
        }
    }

    /// In the order of [`Counts`], which also has `queued_bytes`, `outliving` and `restarts`.
    fn cells(&self) -> [&AtomicU64; COUNTS.len() - 3] {
        [
            &self.connections,
            &self.accepted,
            &self.refused,
            &self.closed,
            &self.messages_in,
            &self.messages_out,
            &self.bytes_in,
            &self.bytes_out,
            &self.held_bytes,
            &self.slow_consumers_closed,
            &self.memory_closed,
            &self.messages_dropped,
            &self.subscriptions_refused,
            &self.commands_dropped,
        ]
    }
}

/// The counts of one worker, since its process has begun.
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
    /// By worker id. One that is being replaced is counted together with its successor.
    pub workers: Vec<WorkerStats>,
}

impl Registry {
    /// What all processes have counted.
    pub fn stats(&self) -> Stats {
        self.while_nothing_moves(|| self.sum_up())
    }

    /// A sum of what all processes have counted.
    pub(crate) fn while_nothing_moves<T>(&self, sum_up: impl Fn() -> T) -> T {
        // Only the hub moves counts from one place to another, and that lasts for microseconds; unless it is stopped
        // then.
        for _ in 0..MOST_TRIES {
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

/// The counts of a process that is gone: its connections will never be closed in another way.
pub(crate) fn ended(mut counts: Counts) -> Counts {
    counts[CLOSED] += std::mem::take(&mut counts[CONNECTIONS]);
    counts[QUEUED_BYTES] = 0;
    counts[OUTLIVING] = 0;
    counts[HELD_BYTES] = 0;
    counts
}

fn add_up(sum: &mut Counts, counts: &Counts) {
    for (sum, count) in sum.iter_mut().zip(counts) {
        *sum += count;
    }
}
