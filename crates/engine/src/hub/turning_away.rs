//! Answering connections that no worker takes: after waiting for a while, they get a 503 instead of silence.
//!
//! While no worker is serving, the hub accepts connections and keeps a bounded number of them. It answers without
//! looking at the request, since it does not know HTTP. A client of a TLS server could not read the answer, so its
//! connection is only closed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

use super::desk::HubEvent;
use super::peer::{Handed, WorkerStage};
use super::thread::{PATIENCE, Routing};
use super::turned_away::Parting;
use crate::registry::{SLOTS, add};
use crate::system::sockets::SEND;

/// After this long without a worker, the hub accepts connections itself. A worker that is only briefly busy needs no
/// help.
const HELP_AFTER: Duration = Duration::from_secs(1);
/// How long a connection waits for a worker.
const MAX_WAIT: Duration = Duration::from_secs(5);
const BODY: &str = "no worker is ready\n";

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

    /// Answers connections that have waited long enough, if no worker is serving.
    pub(super) fn turn_away_the_waiting(&mut self) {
        if self.turning_away.unserved_since.is_none() {
            return;
        }
        let (desk, now) = (Arc::clone(&self.desk), self.now);
        let has_waited = |handed: &Handed| now.duration_since(handed.since) >= MAX_WAIT;
        let mut due = Vec::new();
        for slot in 0..SLOTS as u8 {
            let Some((_, worker)) = self.worker(slot) else { continue };
            while worker.is_slow_to_take(now) && worker.untaken.front().is_some_and(has_waited) {
                // If it has just been taken after all, it will be served.
                due.extend(worker.take_back(&desk.registry));
            }
        }
        if self.homeless.iter().any(has_waited) {
            let all = std::mem::take(&mut self.homeless).into_iter();
            let (waited, others): (VecDeque<Handed>, VecDeque<Handed>) = all.partition(has_waited);
            self.homeless = others;
            due.extend(waited);
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
        header.past_measured.refused((!state.speaks_tls).then_some(503));
        if state.told_at.is_none_or(|at| self.now.duration_since(at) >= PATIENCE) {
            state.told_at = Some(self.now);
            let what = if state.speaks_tls { "closed" } else { "answered with 503" };
            let text = format!("no worker serves: connections that have waited for one are {what}");
            self.desk.tell(HubEvent::Warning(text));
        }
        let mut parting = Parting::new(handed.socket, self.now);
        if parting.has_ended() {
            let _ = shutdown(&parting.socket, Shutdown::Both);
            return;
        }
        if !state.speaks_tls {
            // It fits into the buffer of a socket that has not been written to. A client that has left needs no answer.
            let _ = rustix::net::send(&parting.socket, answer().as_bytes(), SEND);
        }
        let _ = shutdown(&parting.socket, Shutdown::Write);
        state.keep(parting);
    }
}

fn answer() -> String {
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Retry-After: 5\r\nConnection: close\r\n\r\n{BODY}",
        BODY.len()
    )
}
