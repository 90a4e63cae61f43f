//! Answering connections that no worker takes: after waiting for a while, they get a 503 instead of silence.
//!
//! While no worker is serving, the hub accepts connections and keeps a bounded number of them. It answers without
//! looking at the request, since it does not know HTTP.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::desk::HubEvent;
use super::peer::{Handed, WorkerStage};
use super::thread::{PATIENCE, Routing};
use crate::registry::{SLOTS, add};

/// After this long without a worker, the hub accepts connections itself. A worker that is only briefly busy needs no
/// help.
const HELP_AFTER: Duration = Duration::from_secs(1);
/// How long a connection waits for a worker.
const MAX_WAIT: Duration = Duration::from_secs(5);

impl Routing {
    /// Checks whether any worker is serving: it has begun to accept connections, and is not too slow to take them.
    pub(super) fn see_who_serves(&mut self) {
        let desk = Arc::clone(&self.desk);
        let now = self.now;
        let serves = (0..SLOTS as u8).any(|slot| {
            self.worker(slot).is_some_and(|(_, worker)| {
                worker.see_taken(&desk.registry, now);
                worker.stage == WorkerStage::Ready && !worker.is_stuck(&desk.registry) && !worker.is_slow_to_take(now)
            })
        });
        // Before the first start is complete, and after the stop has begun, no client is let in.
        if serves || self.listeners.is_empty() {
            self.turning_away.unserved_since = None;
        } else {
            self.turning_away.unserved_since.get_or_insert(now);
        }
    }

    /// Whether the hub accepts connections although no worker takes them.
    pub(super) fn takes_in(&self) -> bool {
        let is_unserved = |since: Instant| self.now.duration_since(since) >= HELP_AFTER;
        self.turning_away.unserved_since.is_some_and(is_unserved)
            && self.homeless.len() < self.turning_away.most_waiting
    }

    /// Answers connections that have waited long enough, if no worker is serving; while the server stops, all that no
    /// worker takes.
    pub(super) fn turn_away_the_waiting(&mut self) {
        if self.turning_away.unserved_since.is_none() && !self.is_stopping {
            return;
        }
        let (desk, now) = (Arc::clone(&self.desk), self.now);
        let max_wait = if self.is_stopping { Duration::ZERO } else { MAX_WAIT };
        let has_waited = |handed: &Handed| now.duration_since(handed.since) >= max_wait;
        let room = self.turning_away.room(now);
        let mut due = Vec::new();
        for slot in 0..SLOTS as u8 {
            let Some((_, worker)) = self.worker(slot) else { continue };
            while due.len() < room && worker.is_slow_to_take(now) && worker.untaken.front().is_some_and(has_waited) {
                // If it has just been taken after all, it will be served.
                due.extend(worker.take_back(&desk.registry));
            }
        }
        if self.homeless.iter().any(has_waited) {
            let mut others = VecDeque::with_capacity(self.homeless.len());
            for handed in std::mem::take(&mut self.homeless) {
                if due.len() < room && has_waited(&handed) {
                    due.push(handed);
                } else {
                    others.push_back(handed);
                }
            }
            self.homeless = others;
        }
        for handed in due {
            self.turn_away(handed);
        }
    }

    /// Answers all waiting connections, even if workers are serving.
    pub(super) fn turn_all_away(&mut self) {
        for handed in std::mem::take(&mut self.homeless) {
            self.turn_away(handed);
        }
    }

    /// Answers a connection, and closes it.
    pub(super) fn turn_away(&mut self, handed: Handed) {
        let state = &mut self.turning_away;
        let header = self.desk.registry.header();
        add(&header.past.refused, 1);
        header.past_measured.refused(state.can_answer().then_some(503));
        if state.told_at.is_none_or(|at| self.now.duration_since(at) >= PATIENCE) {
            state.told_at = Some(self.now);
            let what = if state.can_answer() { "answered with 503" } else { "closed" };
            let text = format!("no worker is serving: connections that have waited for one are {what}");
            self.desk.tell(HubEvent::Warning(text));
        }
        state.answer(handed, self.now);
    }
}
