//! Connection ids, the places of processes and topics, and cells that one process writes.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustc_hash::FxBuildHasher;

/// A connection's id: host 8 bits, slot 7 bits, counter 38 bits, so that JavaScript's numbers can hold it. Never 0,
/// never reused.
pub type Fd = u64;

/// The largest number of processes at the same time: the workers, and their successors while they are being replaced.
pub(crate) const SLOTS: usize = 128;
/// The number of worker ids.
pub(crate) const WORKERS: usize = 64;

pub(super) const COUNTER_BITS: u32 = 38;
/// Where the number of the host begins.
pub(crate) const HOST_SHIFT: u32 = COUNTER_BITS + SLOTS.ilog2();
/// The number of possible hosts, with number 0 for servers without a broker of several hosts.
pub(crate) const HOSTS: usize = 256;
/// The last possible counter.
pub(crate) const COUNTER: u64 = (1 << COUNTER_BITS) - 1;
/// Set in a row's `id` while the row is being written by the process whose slot is in the lowest bits.
pub(super) const TAKEN: u64 = 1 << 63;

/// The bits of a slot's topics. Each topic maps to one of them.
pub(crate) const TOPIC_BITS: usize = 65_536;

/// Adds to a cell that only the calling thread writes, so no locked instruction is needed.
#[inline]
pub(crate) fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// Unix time in milliseconds.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// The bit of a topic, which is the same in every process.
pub(crate) fn topic_bit(name: &str) -> usize {
    FxBuildHasher.hash_one(name) as usize % TOPIC_BITS
}
