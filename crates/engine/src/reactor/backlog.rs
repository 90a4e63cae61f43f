//! Fan-outs that take longer than one turn. They are delivered in slices, and the event loop runs in between.
//!
//! In the meantime, anything can happen to a connection that such a fan-out has not reached yet: a push, a
//! subscription, the closing handshake. All of it must come after the fan-out. So code that is about to act on one
//! connection first brings it up to date: the fan-outs waiting for that connection are delivered to it alone
//! ([`Reactor::settle_for`]). For this, the backlog records the last fan-out that has reached each connection.
//! Connections that open while fan-outs are waiting count as reached by all of them.
//!
//! It follows that a connection still waiting for a fan-out has the same subscriptions as when the fan-out was
//! requested. So nothing has to be copied: the recipients are the current subscribers, minus those that have been
//! reached.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;

use crate::connection::flow::Outgoing;
use crate::connection::outbox::Pool;
use crate::reactor::slice::Slice;
use crate::reactor::{Reactor, WRITE_BUDGET};
use crate::registry::{Fd, add};
use crate::system::table::Key;
use crate::topics::Topics;
use crate::topics::gathered::Fanout;

/// A fan-out to more connections than this is not queued for all of them at once in the middle of a turn.
const MAX_AT_ONCE: usize = 1024;
/// Fan-outs that may wait, and the bytes of memory they may take. Beyond either limit, the oldest is delivered at once.
const MAX_WAITING: usize = 256;
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Connections that a fan-out skips in one step because they have already been reached.
const PASSED_OVER: usize = 256;

/// The recipients of a fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    Everyone,
    /// The subscribers of the topic with this number. By the time the fan-out is done, the number may belong to another
    /// topic: in that case no recipients are left, and the subscribers of the other topic count as reached.
    Topic(u32),
}

/// How far waiting fan-outs are delivered to one connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// Into its outbox.
    Queue,
    /// To its socket, as far as that accepts them.
    Write,
}

/// Messages on their way to many connections.
pub(crate) struct Waiting {
    /// Numbers are given out in order.
    number: u64,
    audience: Audience,
    /// The places of the audience from here on have been visited. They are visited from last to first: a subscriber
    /// that leaves is replaced by the last one, so no subscriber moves to a place that has already been visited.
    next: usize,
    most: usize,
    excluded: FxHashSet<Fd>,
    pub(crate) messages: Fanout,
}

impl Waiting {
    /// `most` is the number of places in the audience.
    pub(crate) fn new(audience: Audience, most: usize, messages: Fanout) -> Self {
        let excluded = messages.gathered().exclude().iter().copied().collect();
        Self { number: 0, audience, next: most, most, excluded, messages }
    }

    /// The key of the next connection; there may be no connection with that key.
    #[inline]
    pub(crate) fn next(&mut self, topics: &Topics) -> Option<Key> {
        match self.audience {
            Audience::Everyone => {
                self.next = self.next.checked_sub(1)?;
                Some(Key::of_place(self.next))
            }
            Audience::Topic(id) => {
                self.next = self.next.min(topics.size(id)).checked_sub(1)?;
                topics.subscriber(id, self.next)
            }
        }
    }

    #[inline]
    pub(crate) fn excludes(&self, fd: Fd) -> bool {
        !self.excluded.is_empty() && self.excluded.contains(&fd)
    }

    /// Whether a connection that this fan-out has not reached is to receive it.
    fn is_for(&self, key: Key, fd: Fd, topics: &Topics) -> bool {
        let is_in_audience = match self.audience {
            Audience::Everyone => true,
            Audience::Topic(id) => topics.has(id, key),
        };
        is_in_audience && !self.excludes(fd)
    }

    fn cost(&self) -> usize {
        size_of::<Self>() + self.messages.cost()
    }
}

/// See the module documentation.
pub(crate) struct Backlog {
    /// Oldest first.
    queue: VecDeque<Waiting>,
    /// By connection key: the number of the last fan-out that has reached the connection.
    reached: Vec<u64>,
    last_number: u64,
    bytes: usize,
    /// See [`MAX_AT_ONCE`].
    pub(crate) max_at_once: usize,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { queue: VecDeque::new(), reached: Vec::new(), last_number: 0, bytes: 0, max_at_once: MAX_AT_ONCE }
    }
}

impl Backlog {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether so much is waiting that no more is accepted from sources that can wait.
    pub(crate) fn is_long(&self) -> bool {
        self.queue.len() > MAX_WAITING / 2 || self.bytes > MAX_BYTES / 2
    }

    fn is_too_long(&self) -> bool {
        self.queue.len() > MAX_WAITING || self.bytes > MAX_BYTES
    }

    fn push(&mut self, mut waiting: Waiting) {
        self.last_number += 1;
        waiting.number = self.last_number;
        self.bytes += waiting.cost();
        self.queue.push_back(waiting);
    }

    /// Keeps a fan-out that has already reached part of its audience. Those connections were all up to date before.
    pub(crate) fn suspend(&mut self, waiting: Waiting, topics: &Topics) {
        let (audience, visited, most) = (waiting.audience, waiting.next, waiting.most);
        self.push(waiting);
        match audience {
            Audience::Everyone => {
                self.reached.resize(most.max(self.reached.len()), 0);
                self.reached[visited..most].fill(self.last_number);
            }
            Audience::Topic(id) => {
                for place in visited..topics.size(id) {
                    if let Some(key) = topics.subscriber(id, place) {
                        self.is_reached(key);
                    }
                }
            }
        }
    }

    /// Notes that no waiting fan-out concerns the connection: it has just opened, or has received everything.
    #[inline]
    pub(crate) fn is_reached(&mut self, key: Key) {
        if !self.queue.is_empty() {
            let place = key.place();
            if place >= self.reached.len() {
                self.reached.resize(place + 1, 0);
            }
            self.reached[place] = self.last_number;
        }
    }

    /// The position in the queue of the first fan-out that has not reached the connection.
    fn first_missing(&self, key: Key) -> usize {
        let reached = self.reached.get(key.place()).copied().unwrap_or_default();
        let first = self.queue.front().map_or(0, |waiting| waiting.number);
        ((reached + 1).saturating_sub(first) as usize).min(self.queue.len())
    }

    /// The next connection that the oldest fan-out has to reach. `None` if one step has not found any.
    fn next(&mut self, topics: &Topics, pool: &mut Pool) -> Option<Key> {
        for _ in 0..PASSED_OVER {
            let oldest = self.queue.front_mut()?;
            match oldest.next(topics) {
                Some(key) if self.reached.get(key.place()).is_some_and(|reached| *reached >= oldest.number) => {}
                Some(key) => return Some(key),
                None => {
                    self.bytes -= oldest.cost();
                    if let Some(done) = self.queue.pop_front() {
                        done.messages.finish(|frame| pool.count_shared(frame));
                    }
                }
            }
        }
        None
    }
}

impl Reactor {
    /// Has a fan-out delivered in slices. If too much is already waiting, the oldest fan-outs are queued at once.
    pub(crate) fn add_to_backlog(&mut self, waiting: Waiting) {
        self.backlog.push(waiting);
        while self.backlog.is_too_long() {
            self.step_through_backlog(Delivery::Queue);
        }
    }

    /// Delivers waiting fan-outs, as long as the slice lasts.
    pub(crate) fn work_off_backlog(&mut self, slice: &mut Slice) {
        while !self.backlog.is_empty() {
            self.step_through_backlog(Delivery::Write);
            if slice.is_over() {
                return;
            }
        }
    }

    /// Brings one connection up to date.
    fn step_through_backlog(&mut self, delivery: Delivery) {
        if let Some(key) = self.backlog.next(&self.topics, &mut self.tools.pool) {
            self.deliver_waiting(key, delivery);
        }
    }

    /// Queues for one connection everything that waits for it.
    #[cold]
    pub(crate) fn catch_up(&mut self, key: Key) {
        self.deliver_waiting(key, Delivery::Queue);
    }

    /// Delivers to one connection everything that waits for it, in order.
    fn deliver_waiting(&mut self, key: Key, delivery: Delivery) {
        let missing = self.backlog.first_missing(key);
        self.backlog.is_reached(key);
        let Some((fd, _)) = self.connections.get(key).and_then(|connection| connection.identity.open()) else { return };
        // Anything requested while this runs must find an empty queue.
        let mut queue = std::mem::take(&mut self.backlog.queue);
        let is_last = queue.len() - missing == 1;
        for waiting in queue.range_mut(missing..) {
            if !waiting.is_for(key, fd, &self.topics) {
                continue;
            }
            if waiting.messages.policy().is_some_and(|policy| policy.has_expired(self.clock.now)) {
                add(&self.shared.totals().messages_expired, 1);
                continue;
            }
            if !(delivery == Delivery::Write && is_last && self.write_through(key, &mut waiting.messages)) {
                self.deliver(key, &mut waiting.messages);
            }
        }
        self.backlog.queue = queue;
        if delivery == Delivery::Write && self.connections[key].outgoing == Outgoing::Listed {
            if self.dirty.last() == Some(&(key)) {
                self.dirty.pop();
            }
            self.write_out(key, WRITE_BUDGET);
        }
    }
}

#[cfg(test)]
mod tests;
