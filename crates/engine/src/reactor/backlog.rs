//! Fan-outs that take longer than a turn may: they are delivered in slices, and the event loop runs in between.
//!
//! Meanwhile anything can happen to a connection that such a fan-out has not reached yet: a push, a subscription, the
//! closing handshake. All of it must come after the fan-out. So whoever is about to do something with one connection
//! first has it caught up: what waits for that connection is delivered to it alone ([`Reactor::settle_for`]). For this
//! the backlog knows which fan-out has reached a connection last. Connections that open while fan-outs wait count as
//! reached by all of them.
//!
//! It follows that a connection which still waits for a fan-out has the same subscriptions as when that was asked for.
//! So nothing has to be copied: the subscribers are those of now, less those that have been reached.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;

use crate::connection::outbox::Pool;
use crate::reactor::slice::Slice;
use crate::reactor::{Reactor, WRITE_BUDGET};
use crate::registry::Fd;
use crate::topics::Topics;
use crate::topics::gathered::Fanout;

/// A fan-out to more connections is not queued for all of them at once, in the middle of a turn.
const MAX_AT_ONCE: usize = 1024;
/// Fan-outs that may wait, and the bytes of memory that they may take. Beyond either, the oldest is delivered at once.
const MAX_WAITING: usize = 256;
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Connections that a fan-out passes over in one step, because they have been reached.
const PASSED_OVER: usize = 256;

/// Whom a fan-out is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    Everyone,
    /// The subscribers of the topic with this number. The number may be another topic's by the time the fan-out is
    /// done: nobody is left to be reached then, and the subscribers of the other topic count as reached.
    Topic(u32),
}

/// Messages on their way to many connections.
pub(crate) struct Waiting {
    /// They are numbered in their order.
    number: u64,
    audience: Audience,
    /// The places of the audience from here on have been visited. They are visited from the last to the first: a
    /// subscriber that leaves is replaced by the last one, so nobody moves to a place that has been visited already.
    next: usize,
    most: usize,
    excluded: FxHashSet<Fd>,
    pub(crate) messages: Fanout,
}

impl Waiting {
    /// `most` is the number of the audience's places.
    pub(crate) fn new(audience: Audience, most: usize, messages: Fanout) -> Self {
        let excluded = messages.gathered().exclude().iter().copied().collect();
        Self { number: 0, audience, next: most, most, excluded, messages }
    }

    /// The key of the next connection, if there is one at all with that key.
    #[inline]
    pub(crate) fn next(&mut self, topics: &Topics) -> Option<u32> {
        match self.audience {
            Audience::Everyone => {
                self.next = self.next.checked_sub(1)?;
                Some(self.next as u32)
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

    /// Whether a connection that it has not reached is to get it.
    fn is_for(&self, key: u32, fd: Fd, topics: &Topics) -> bool {
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

/// See the file's head.
pub(crate) struct Backlog {
    /// The oldest first.
    queue: VecDeque<Waiting>,
    /// By a connection's key: the number of the last fan-out that has reached it.
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

    /// Whether so much waits that nothing more is taken from those who can wait.
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

    /// Keeps a fan-out that has reached a part of its audience already. All of those had been caught up before.
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

    /// Nothing that waits now is for the connection: it has just opened, or has got all.
    #[inline]
    pub(crate) fn is_reached(&mut self, key: u32) {
        if !self.queue.is_empty() {
            let key = key as usize;
            if key >= self.reached.len() {
                self.reached.resize(key + 1, 0);
            }
            self.reached[key] = self.last_number;
        }
    }

    /// The place in the queue of the first fan-out that has not reached the connection.
    fn first_missing(&self, key: u32) -> usize {
        let reached = self.reached.get(key as usize).copied().unwrap_or_default();
        let first = self.queue.front().map_or(0, |waiting| waiting.number);
        ((reached + 1).saturating_sub(first) as usize).min(self.queue.len())
    }

    /// The next connection that the oldest fan-out has to reach. `None`, if there is none within a step.
    fn next(&mut self, topics: &Topics, pool: &mut Pool) -> Option<u32> {
        for _ in 0..PASSED_OVER {
            let oldest = self.queue.front_mut()?;
            match oldest.next(topics) {
                Some(key) if self.reached.get(key as usize).is_some_and(|reached| *reached >= oldest.number) => {}
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
    /// Has a fan-out delivered in slices. Where too much waits already, the oldest ones are queued at once.
    pub(crate) fn add_to_backlog(&mut self, waiting: Waiting) {
        self.backlog.push(waiting);
        while self.backlog.is_too_long() {
            self.step_through_backlog(false);
        }
    }

    /// Delivers what waits, as long as the slice lasts.
    pub(crate) fn work_off_backlog(&mut self, slice: &mut Slice) {
        while !self.backlog.is_empty() {
            self.step_through_backlog(true);
            if slice.is_over() {
                return;
            }
        }
    }

    /// Brings one connection up to date.
    fn step_through_backlog(&mut self, write: bool) {
        if let Some(key) = self.backlog.next(&self.topics, &mut self.tools.pool) {
            self.deliver_waiting(key as usize, write);
        }
    }

    /// Queues for one connection all that waits for it.
    #[cold]
    pub(crate) fn catch_up(&mut self, key: usize) {
        self.deliver_waiting(key, false);
    }

    /// Delivers to one connection all that waits for it, in its order.
    fn deliver_waiting(&mut self, key: usize, write: bool) {
        let missing = self.backlog.first_missing(key as u32);
        self.backlog.is_reached(key as u32);
        let Some(connection) = self.connections.get(key).filter(|connection| connection.open) else { return };
        let fd = connection.fd;
        // Whatever is asked for in the middle of this finds nothing that waits.
        let mut queue = std::mem::take(&mut self.backlog.queue);
        let is_last = queue.len() - missing == 1;
        for waiting in queue.range_mut(missing..) {
            if !waiting.is_for(key as u32, fd, &self.topics) {
                continue;
            }
            if !(write && is_last && self.write_through(key, &mut waiting.messages)) {
                self.deliver(key, &mut waiting.messages);
            }
        }
        self.backlog.queue = queue;
        if write && self.connections[key].dirty {
            if self.dirty.last() == Some(&(key as u32)) {
                self.dirty.pop();
            }
            self.write_out(key, WRITE_BUDGET);
        }
    }
}

#[cfg(test)]
mod tests;
