//! The counts of a process.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::registry::fd::add;

/// The names of the counts, in the order of [`Counts`].
pub const COUNTS: [&str; 20] = [
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
    "messages_expired",
    "messages_replaced",
    "history_evicted",
    "subscriptions_refused",
    "commands_dropped",
    "restarts",
];

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
pub(super) const RESTARTS: usize = COUNTS.len() - 1;

/// The counts of a process, in addition to those in its connections' rows. Each field is written only by the reactor's
/// thread, except `subscriptions_refused` and `commands_dropped`.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Totals {
    /// Open WebSockets.
    pub connections: AtomicU64,
    /// Handshakes accepted.
    pub accepted: AtomicU64,
    /// Handshakes refused, for any reason.
    pub refused: AtomicU64,
    /// WebSockets closed.
    pub closed: AtomicU64,
    /// The traffic of closed connections. That of the others is in their rows, so that a message is counted in one
    /// place.
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Bytes of memory that connections hold for queued output and unfinished input.
    pub(crate) held_bytes: AtomicU64,
    /// Connections closed with 1013 because their outbox was full.
    pub slow_consumers_closed: AtomicU64,
    /// Connections closed because all of them together held more than `max_memory`.
    pub(crate) memory_closed: AtomicU64,
    /// Messages dropped because an outbox was full.
    pub messages_dropped: AtomicU64,
    /// Messages left out because they had waited in an outbox for longer than their topic's `ttl`.
    pub(crate) messages_expired: AtomicU64,
    /// Messages replaced in an outbox by a later one with the same key.
    pub(crate) messages_replaced: AtomicU64,
    /// Messages removed from histories because all of them together were larger than `history_memory`.
    pub(crate) history_evicted: AtomicU64,
    /// Subscriptions refused because the connection already had `max_topics`.
    pub subscriptions_refused: AtomicU64,
    /// Commands from other threads and processes dropped because too many were waiting.
    pub commands_dropped: AtomicU64,
}

impl Totals {
    /// The counts, including the traffic of open connections: messages and bytes in and out, and unsent bytes.
    pub(crate) fn counts(&self, open: impl Iterator<Item = [u64; 5]>) -> Counts {
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        // They change in the meantime, or the process died between two of them; but everything open or closed was
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
            get(&self.messages_expired),
            get(&self.messages_replaced),
            get(&self.history_evicted),
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

    /// Adds the counts of a process that is gone. It has no connections any more.
    pub(crate) fn add_counts(&self, counts: &Counts) {
        let counted = counts[..QUEUED_BYTES].iter().chain(&counts[OUTLIVING + 1..RESTARTS]);
        for (cell, count) in self.cells().into_iter().zip(counted).skip(CONNECTIONS + 1) {
            add(cell, *count);
        }
    }

    /// Resets the counts.
    pub(crate) fn clear(&self) {
        for cell in self.cells() {
            cell.store(0, Ordering::Relaxed);
        }
    }

    /// In the order of [`Counts`], which also contains `queued_bytes`, `outliving` and `restarts`.
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
            &self.messages_expired,
            &self.messages_replaced,
            &self.history_evicted,
            &self.subscriptions_refused,
            &self.commands_dropped,
        ]
    }
}

/// The counts of a process that is gone. Its open connections count as closed, since nothing else will close them.
pub(crate) fn ended(mut counts: Counts) -> Counts {
    counts[CLOSED] += std::mem::take(&mut counts[CONNECTIONS]);
    counts[QUEUED_BYTES] = 0;
    counts[OUTLIVING] = 0;
    counts[HELD_BYTES] = 0;
    counts
}
