//! The memory held by all connections of a worker together: counted where their buffers grow and shrink, and kept under
//! `max_memory`.
//!
//! A connection is recounted when its share of a turn ends, and when something stays in its outbox; what is sent at
//! once is never counted. Above the limit, the largest holders are closed until usage is an eighth below it: so one
//! pass over all connections pays for the next eighth of the limit.

use std::collections::BinaryHeap;

use wire::error::close_code;
use wire::http::Rejection;

use crate::connection::{Connection, Stage};
use crate::reactor::Reactor;
use crate::reactor::event::Relief;
use crate::registry::Held;
use crate::registry::add;
use crate::system::heap::{self, WORTH_TRIMMING};
use crate::system::table::Key;

/// Output queued for a connection whose socket accepts it is counted when it is written, unless it is at least this
/// much.
pub(crate) const COUNTED_AT_ONCE: usize = 32 * 1024;

/// Milliseconds between freeing a lot of memory and returning it to the system.
const TRIM_DELAY: u64 = 1000;

const OUTPUT_REASON: &str = "the server is short of memory, and this client reads too slowly";
const INPUT_REASON: &str = "the server is short of memory, and too much input from this client is waiting";
/// RFC 9110 §15.5.14: with Retry-After, as this is temporary.
const BODY_REFUSED: Rejection = Rejection {
    status: 413,
    reason: "the server is short of memory for a body of this size",
    headers: &[("Retry-After", "5")],
};
const HEAD_REFUSED: Rejection =
    Rejection { status: 503, reason: "the server is short of memory", headers: &[("Retry-After", "5")] };

/// See the module documentation.
pub(crate) struct Budget {
    limit: usize,
    /// The sum of the connections' `held`: the bytes that each holds for itself.
    own: usize,
    /// Connections are closed above this: the limit, or more if closing has not helped.
    threshold: usize,
    /// The connections that were closed, until they are reported.
    relief: Option<Relief>,
    /// The most that was held since memory was last returned to the system.
    peak: usize,
    /// When to return memory, in the clock's milliseconds, if a lot of it has been freed.
    pub(crate) trim_at: Option<u64>,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, own: 0, threshold: limit, relief: None, peak: 0, trim_at: None }
    }

    /// Removes a connection that was counted with `held` bytes.
    pub(crate) fn forget(&mut self, held: usize) {
        self.own -= held;
    }

    /// The connections that were closed since the last call.
    pub(crate) fn take_relief(&mut self) -> Option<Relief> {
        self.relief.take()
    }

    /// Whether there is something to report.
    pub(crate) fn has_relief(&self) -> bool {
        self.relief.is_some()
    }

    /// The usage to reach by closing connections.
    fn target(&self) -> usize {
        self.limit - self.limit / 8
    }
}

impl Reactor {
    /// Bytes held by all connections, with shared frames counted once.
    pub(crate) fn held(&self) -> usize {
        self.budget.own + self.tools.pool.shared()
    }

    /// Counts what a connection currently holds.
    pub(crate) fn count_memory(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        let held = connection.output_memory() + connection.input_memory();
        self.budget.own = self.budget.own - connection.held + held;
        connection.held = held;
    }

    /// Closes the largest holders if all connections together hold too much. Any connection may have been closed
    /// afterwards.
    #[inline]
    pub(crate) fn keep_to_budget(&mut self) {
        if self.held() > self.budget.threshold {
            self.relieve();
        }
    }

    /// Called at the end of a turn: publishes the memory in use, and lowers the threshold again once usage is under the
    /// limit.
    pub(crate) fn settle_budget(&mut self) {
        self.keep_to_budget();
        let held = self.held();
        if held <= self.budget.limit {
            self.budget.threshold = self.budget.limit;
        }
        self.shared.count_held(held);
        self.budget.peak = self.budget.peak.max(held);
        if held + WORTH_TRIMMING <= self.budget.peak || self.budget.trim_at.is_some() {
            self.give_memory_back(held);
        }
    }

    /// Returns memory to the system some time after a lot of it was freed: more may be freed, or it may be needed
    /// again.
    #[cold]
    fn give_memory_back(&mut self, held: usize) {
        match self.budget.trim_at {
            None => self.budget.trim_at = Some(self.clock.now + TRIM_DELAY),
            Some(at) if self.clock.now < at => {}
            Some(_) => {
                self.budget.trim_at = None;
                if held + WORTH_TRIMMING <= self.budget.peak {
                    self.budget.peak = held;
                    heap::trim();
                }
            }
        }
    }

    #[cold]
    fn relieve(&mut self) {
        // Messages already gathered for many connections go before the Close frames sent now.
        self.settle();
        self.leave_out_all_expired();
        if self.held() <= self.budget.threshold {
            return;
        }
        let (target, before) = (self.budget.target(), self.held());
        // Connections that were asked to close in the first round but still hold a lot are cut off in the second.
        for _ in 0..2 {
            let weights = self.connections.iter().map(|(key, connection)| (weight(connection), key));
            let mut largest: BinaryHeap<(usize, Key)> = weights.filter(|(weight, _)| *weight > 0).collect();
            while self.held() > target
                && let Some((_, key)) = largest.pop()
            {
                self.close_for_memory(key);
            }
        }
        let after = self.held();
        let relief = self.budget.relief.get_or_insert_default();
        relief.freed += before.saturating_sub(after);
        if after > target {
            self.budget.threshold = after.max(self.budget.limit) + self.budget.limit / 16;
        }
    }

    fn close_for_memory(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        let held = match connection.stage {
            Stage::Body(_) => Held::Body,
            _ if weight(connection) > 2 * connection.input_memory() => Held::Output,
            _ => Held::Input,
        };
        connection.lane.clear();
        match &connection.stage {
            Stage::WebSocket(_) if connection.is_open() => {
                connection.outbox.discard_unbegun(&mut self.tools.pool);
                // Fan-outs that wait for it are discarded too: the outbox may end inside a fragmented message.
                self.backlog.is_reached(key);
                if held == Held::Output {
                    self.send_close(key, close_code::TRY_AGAIN, OUTPUT_REASON);
                } else {
                    self.fail(key, close_code::TOO_BIG, INPUT_REASON);
                    self.discard_input(key);
                }
            }
            Stage::Body(_) => {
                self.reject(key, &BODY_REFUSED, None);
                self.discard_input(key);
            }
            Stage::Head { .. } if connection.outbox.is_empty() => {
                self.reject(key, &HEAD_REFUSED, None);
                self.discard_input(key);
            }
            Stage::Gone => {}
            // It is already closing, or there is no answer that its peer could read.
            _ => self.abort(key),
        }
        self.count_memory(key);
        let connection = &mut self.connections[key];
        if !std::mem::replace(&mut connection.relieved, true) {
            let relief = self.budget.relief.get_or_insert_default();
            match held {
                Held::Output => relief.output += 1,
                Held::Input => relief.input += 1,
                Held::Body => relief.bodies += 1,
            }
            add(&self.shared.totals().memory_closed, 1);
            self.shared.measured().closed_for_memory(held);
        }
    }

    fn discard_input(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        connection.input = Vec::new();
        connection.used = 0;
    }
}

/// Bytes that closing a connection could free.
fn weight(connection: &Connection) -> usize {
    connection.output_memory().max(connection.outbox.weight()) + connection.input_memory()
}
