//! Accepting connections, and passing them to workers: at once, or again if the first worker does not take them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::desk::HubEvent;
use super::peer::{Handed, Peer, PeerKind, WorkerStage};
use super::thread::{CONGESTED_AT, PATIENCE, RETRY, Routing};
use crate::registry::SLOTS;
use crate::system::sockets;

/// Time between checks whether clients are waiting for descriptors.
const WAITING_INTERVAL: Duration = Duration::from_secs(1);
/// Connections accepted from one listening socket before moving on.
const ACCEPTED_AT_ONCE: usize = 64;

impl Routing {
    /// Chooses the worker to pass a connection to: of those that accept them, the one with the fewest. Idle HTTP
    /// connections do not count: a page often leaves one behind right before it opens its WebSocket. A worker that
    /// refuses new clients comes last. A worker that was too slow gets none until it has run a turn: what it did not
    /// take would only have to be taken back. `but` is left out.
    pub(super) fn choose(&mut self, but: Option<u8>) -> Option<u8> {
        let now = Instant::now();
        let desk = Arc::clone(&self.desk);
        let mut best: Option<(bool, u64, usize, u8)> = None;
        for place in 0..SLOTS {
            // Workers with equally many take turns.
            let slot = ((self.last_chosen + 1 + place) % SLOTS) as u8;
            let Some((link, worker)) = self.worker(slot) else { continue };
            if worker.stage != WorkerStage::Ready || Some(slot) == but {
                continue;
            }
            worker.see_taken(&desk.registry, now);
            if worker.is_stuck(&desk.registry) {
                continue;
            }
            let row = desk.registry.slot(slot);
            let held = worker.handed.saturating_sub(row.sockets_done.load(Ordering::Relaxed));
            let is_full = held >= row.capacity.load(Ordering::Relaxed) || link.unsent() > CONGESTED_AT;
            let load = held.saturating_sub(row.sockets_resting.load(Ordering::Relaxed));
            let is_overrun = row.is_overrun.load(Ordering::Relaxed) == 1;
            let rank = (is_overrun, load, place, slot);
            if best.is_none_or(|best| rank < best) && !is_full && !worker.is_slow_to_take(now) {
                best = Some(rank);
            }
        }
        best.map(|(.., slot)| slot)
    }

    /// Passes a connection to a worker that accepts it, other than `but`. Returns false if there is none right now.
    fn hand_over(&mut self, handed: &Handed, but: Option<u8>) -> bool {
        let Some(slot) = self.choose(but) else { return false };
        self.last_chosen = slot.into();
        let now = Instant::now();
        let Some((link, worker)) = self.worker(slot) else { return false };
        if worker.untaken.is_empty() {
            worker.taken_at = now;
        }
        worker.handed += 1;
        worker.untaken.push_back(handed.clone());
        link.send_sockets(vec![Arc::clone(&handed.socket)], vec![&handed.input]);
        true
    }

    /// Passes connections that their worker does not take to other workers.
    pub(super) fn move_untaken(&mut self) {
        let desk = Arc::clone(&self.desk);
        for slot in 0..SLOTS as u8 {
            let now = Instant::now();
            let Some((_, worker)) = self.worker(slot) else { continue };
            worker.see_taken(&desk.registry, now);
            if !worker.is_slow_to_take(now) {
                continue;
            }
            // Once these are taken back, the worker seems idle. They must not go back to it, or this would never end.
            while self.choose(Some(slot)).is_some() {
                let Some(handed) = self.worker(slot).and_then(|(_, worker)| worker.take_back(&desk.registry)) else {
                    break;
                };
                self.find_home(handed, Some(slot));
            }
        }
        while let Some(handed) = self.homeless.pop_front() {
            if !self.hand_over(&handed, None) {
                self.homeless.push_front(handed);
                break;
            }
        }
    }

    /// Passes a connection to a worker other than `but`, now or as soon as there is one.
    pub(super) fn find_home(&mut self, handed: Handed, but: Option<u8>) {
        if self.hand_over(&handed, but) {
            return;
        }
        if self.homeless.len() < self.turning_away.most_waiting {
            self.homeless.push_back(handed);
        } else {
            self.turn_away(handed);
        }
    }

    /// Whether any connection is waiting to be taken.
    pub(super) fn has_untaken(&self) -> bool {
        let waits = |peer: &Peer| matches!(&peer.kind, PeerKind::Worker(worker) if !worker.untaken.is_empty());
        !self.homeless.is_empty() || self.peers.iter().any(|(_, peer)| waits(peer))
    }

    /// Makes sure that enough ids are leased. If that fails, accepting pauses, and leasing is retried before it
    /// resumes.
    pub(super) fn extend_lease(&mut self) -> bool {
        match self.lease.extend_file(&self.desk.registry) {
            Ok(None) => true,
            // With a number among several hosts, ids are leased there too.
            Ok(Some(up_to)) if self.desk.registry.host() != 0 => {
                self.lease_from_broker(up_to);
                true
            }
            Ok(Some(up_to)) => {
                self.desk.registry.lease(up_to);
                true
            }
            Err(error) => {
                self.pause_accepting(&error.to_string());
                false
            }
        }
    }

    pub(super) fn accept(&mut self) {
        if !self.extend_lease() {
            return;
        }
        let listeners = std::mem::take(&mut self.listeners);
        let mut failed = None;
        for (listener, _) in &listeners {
            for _ in 0..ACCEPTED_AT_ONCE {
                if self.choose(None).is_none() && !self.takes_in() {
                    break;
                }
                match sockets::accept(listener) {
                    Ok(socket) => {
                        let (socket, since) = (Arc::new(socket), self.now);
                        self.find_home(Handed { socket, since, input: Vec::new() }, None);
                    }
                    Err(Errno::AGAIN) => break,
                    Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::INVAL)) => {
                        failed = Some(error);
                        break;
                    }
                    // Only this connection failed before it was accepted (accept(2) lists a dozen such errors).
                    Err(_) => {}
                }
            }
        }
        self.listeners = listeners;
        if let Some(error) = failed {
            self.pause_accepting(&sockets::explain(&error.into()));
        }
    }

    /// Reports when clients are waiting because the workers have no descriptors for them.
    pub(super) fn see_who_waits_for_descriptors(&mut self) {
        if self.listeners.is_empty() || self.now.duration_since(self.waiting_seen_at) < WAITING_INTERVAL {
            return;
        }
        self.waiting_seen_at = self.now;
        if self.choose(None).is_some() || self.has_told_recently() || !self.has_waiting_clients() {
            return;
        }
        let desk = Arc::clone(&self.desk);
        let short = (0..SLOTS as u8).find_map(|slot| {
            let (_, worker) = self.worker(slot)?;
            let row = desk.registry.slot(slot);
            let held = worker.handed.saturating_sub(row.sockets_done.load(Ordering::Relaxed));
            let room = row.descriptors.load(Ordering::Relaxed);
            (worker.stage == WorkerStage::Ready && room > 0 && held >= room).then_some(room)
        });
        if let Some(room) = short {
            self.tell_of_pause(&format!("clients are waiting: {}", sockets::explain_shortage(room)));
        }
    }

    /// Whether the kernel has connections for a listening socket.
    fn has_waiting_clients(&self) -> bool {
        let mut polled: Vec<PollFd<'_>> =
            self.listeners.iter().map(|(listener, _)| PollFd::new(listener, PollFlags::IN)).collect();
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|count| count > 0)
    }

    fn has_told_recently(&self) -> bool {
        self.pause_told_at.is_some_and(|at| self.now.duration_since(at) < PATIENCE)
    }

    /// Reports a pause, at most once in a while.
    pub(super) fn tell_of_pause(&mut self, text: &str) {
        if !self.has_told_recently() {
            self.pause_told_at = Some(self.now);
            self.desk.tell(HubEvent::Warning(text.to_owned()));
        }
    }

    pub(super) fn pause_accepting(&mut self, why: &str) {
        self.tell_of_pause(&format!("accepting is paused: {why}"));
        self.accept_at = Some(self.now + RETRY);
    }
}
