//! The measurements of a process: histograms and tallies. Each cell is written only by the reactor's thread.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::registry::fd::add;

/// The registered close codes (RFC 6455 §7.4.1), and the first code of each free range (§7.4.2), which stands for the
/// whole range.
pub(super) const CLOSE_CODES: [u16; 18] =
    [1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 3000, 4000];
/// The statuses of refusals that are counted separately. 101 means refused with a close code; 0 means any other status,
/// or none.
pub(super) const STATUSES: [u16; 17] =
    [101, 400, 401, 403, 404, 405, 408, 413, 417, 426, 429, 431, 500, 501, 503, 505, 0];
/// The upper bounds of the histogram's buckets, in nanoseconds. The last bucket has none.
pub(super) const BOUNDS: [u64; 19] = [
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

/// In the order of their cells.
pub(super) const HELD: [Held; 3] = [Held::Output, Held::Input, Held::Body];

pub(super) const CLOSED: Range<usize> = 0..CLOSE_CODES.len();
pub(super) const REFUSED: Range<usize> = CLOSED.end..CLOSED.end + STATUSES.len();
/// The buckets of a histogram, followed by the sum in nanoseconds.
pub(super) const TIMES: usize = BOUNDS.len() + 2;
pub(super) const TURNS: Range<usize> = REFUSED.end..REFUSED.end + TIMES;
pub(super) const HANDLERS: Range<usize> = TURNS.end..TURNS.end + TIMES;
pub(super) const FOR_MEMORY: Range<usize> = HANDLERS.end..HANDLERS.end + HELD.len();
pub(super) const CELLS: usize = FOR_MEMORY.end;

/// The data that a connection closed to free memory mostly held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Messages that its peer had not read.
    Output,
    /// An incomplete message or request head, or messages waiting for its handler.
    Input,
    /// An incomplete request body.
    Body,
}

/// The measurements of one process.
#[repr(C)]
pub struct Measured(pub(super) [AtomicU64; CELLS]);

impl Measured {
    /// Counts a WebSocket that ended, by the code in its `close` event. Only codes known to RFC 6455 occur here.
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

    /// Counts a request refused with this status, or with none.
    pub(crate) fn refused(&self, status: Option<u16>) {
        let other = STATUSES.len() - 1;
        let index = STATUSES.iter().position(|each| Some(*each) == status).unwrap_or(other);
        add(&self.0[REFUSED.start + index], 1);
    }

    /// Counts a connection closed because all of them together held too much, by what it mostly held.
    pub(crate) fn closed_for_memory(&self, held: Held) {
        add(&self.0[FOR_MEMORY.start + held as usize], 1);
    }

    /// Counts a turn that took this long.
    pub(crate) fn turn(&self, time: Duration) {
        self.took(TURNS, time);
    }

    /// The number of turns so far.
    pub(crate) fn count_turns(&self) -> u64 {
        self.0[TURNS.start..TURNS.end - 1].iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    /// Counts a handler that took this long.
    pub fn handler(&self, time: Duration) {
        self.took(HANDLERS, time);
    }

    fn took(&self, histogram: Range<usize>, time: Duration) {
        let nanoseconds = time.as_nanos() as u64;
        let bucket = BOUNDS.partition_point(|bound| *bound < nanoseconds);
        add(&self.0[histogram.start + bucket], 1);
        add(&self.0[histogram.end - 1], nanoseconds);
    }

    /// Adds the measurements of a process that is gone.
    pub(crate) fn add_all(&self, other: &Self) {
        for (cell, more) in self.0.iter().zip(&other.0) {
            add(cell, more.load(Ordering::Relaxed));
        }
    }

    /// Resets the measurements.
    pub(crate) fn clear(&self) {
        for cell in &self.0 {
            cell.store(0, Ordering::Relaxed);
        }
    }
}
