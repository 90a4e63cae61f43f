//! What a process measures: histograms and tallies, each cell written by the reactor's thread alone.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::registry::fd::add;

/// The registered close codes (RFC 6455 §7.4.1), and the first of each range of free ones (§7.4.2), which stands for
/// all.
pub(super) const CLOSE_CODES: [u16; 18] =
    [1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 3000, 4000];
/// The statuses of refusals that are told apart. 101: refused with a close code. 0: every other, and none at all.
pub(super) const STATUSES: [u16; 17] =
    [101, 400, 401, 403, 404, 405, 408, 413, 417, 426, 429, 431, 500, 501, 503, 505, 0];
/// Upper bounds of the times that are counted together, in nanoseconds; the last bucket has none.
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

/// In the order in which they are counted.
pub(super) const HELD: [Held; 3] = [Held::Output, Held::Input, Held::Body];

pub(super) const CLOSED: Range<usize> = 0..CLOSE_CODES.len();
pub(super) const REFUSED: Range<usize> = CLOSED.end..CLOSED.end + STATUSES.len();
/// The buckets of a histogram, and behind them the sum in nanoseconds.
pub(super) const TIMES: usize = BOUNDS.len() + 2;
pub(super) const TURNS: Range<usize> = REFUSED.end..REFUSED.end + TIMES;
pub(super) const HANDLERS: Range<usize> = TURNS.end..TURNS.end + TIMES;
pub(super) const FOR_MEMORY: Range<usize> = HANDLERS.end..HANDLERS.end + HELD.len();
pub(super) const CELLS: usize = FOR_MEMORY.end;

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
pub struct Measured(pub(super) [AtomicU64; CELLS]);

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
