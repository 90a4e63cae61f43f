//! The commands on their way: those that wait to be sent, and those whose reply is awaited. No I/O here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Time between two searches for commands that have waited too long, if they do not expire in their order.
const SEARCH_INTERVAL: Duration = Duration::from_millis(100);
/// A larger buffer is not kept when it is empty.
const MAX_KEPT: usize = 1024 * 1024;

/// A command that the hub has asked for: how long it is, and when it is too late to send it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) tag: u64,
    pub(super) size: u32,
    pub(super) deadline: Instant,
}

/// A command that is sent, if only in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Ordered {
        tag: u64,
        size: u32,
    },
    /// The link's own.
    Own,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    /// What is to be sent, from `head` on: the rest of a command that is sent in part, then those that wait.
    bytes: Vec<u8>,
    head: usize,
    /// The length of that rest.
    begun: usize,
    waiting: VecDeque<Order>,
    /// The link's own commands are sent first.
    own: Vec<u8>,
    own_head: usize,
    unanswered: VecDeque<Sent>,
    /// When the first of those that wait expires.
    next_expiry: Option<Instant>,
    /// Whether those that wait expire in another order, and when they were searched.
    is_mixed: bool,
    searched_at: Option<Instant>,
}

impl Pipeline {
    /// Adds commands. Leaves the buffers empty.
    pub(super) fn append(&mut self, bytes: &mut Vec<u8>, orders: &mut Vec<Order>) {
        let mut last = self.waiting.back().map(|order| order.deadline);
        for order in orders.iter() {
            self.is_mixed |= last.is_some_and(|last| order.deadline < last);
            self.next_expiry = Some(self.next_expiry.map_or(order.deadline, |next| next.min(order.deadline)));
            last = Some(order.deadline);
        }
        self.waiting.extend(orders.drain(..));
        if self.head == self.bytes.len() {
            self.head = 0;
            self.bytes.clear();
            std::mem::swap(&mut self.bytes, bytes);
        } else {
            self.make_room();
            self.bytes.append(bytes);
        }
    }

    /// Moves what is to be sent to the front if it is the smaller part.
    fn make_room(&mut self) {
        if self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }

    /// Adds a command of the link's own, unless one is about to be sent.
    pub(super) fn append_own(&mut self, parts: &[&[u8]]) {
        if self.own.is_empty() {
            super::resp::encode(parts, &mut self.own);
        }
    }

    /// What is to be sent next. Call [`Pipeline::expire`] first.
    pub(super) fn next(&self) -> &[u8] {
        if self.own.is_empty() {
            &self.bytes[self.head..]
        } else if self.begun > 0 {
            &self.bytes[self.head..self.head + self.begun]
        } else {
            &self.own[self.own_head..]
        }
    }

    /// Notes that so much of [`Pipeline::next`] is sent.
    pub(super) fn sent(&mut self, mut count: usize) {
        if self.begun == 0 && !self.own.is_empty() {
            if self.own_head == 0 && count > 0 {
                self.unanswered.push_back(Sent::Own);
            }
            self.own_head += count;
            if self.own_head >= self.own.len() {
                self.own_head = 0;
                self.own.clear();
            }
            return;
        }
        self.head += count;
        let rest = count.min(self.begun);
        self.begun -= rest;
        count -= rest;
        while count > 0 {
            let Some(Order { tag, size, .. }) = self.waiting.pop_front() else { break };
            self.unanswered.push_back(Sent::Ordered { tag, size });
            self.begun = (size as usize).saturating_sub(count);
            count = count.saturating_sub(size as usize);
        }
        if self.waiting.is_empty() {
            (self.is_mixed, self.next_expiry) = (false, None);
            if self.begun == 0 {
                self.head = 0;
                self.bytes.clear();
                if self.bytes.capacity() > MAX_KEPT {
                    self.bytes = Vec::new();
                }
            }
        }
    }

    /// The command that the next reply is for.
    pub(super) fn answered(&mut self) -> Option<Sent> {
        self.unanswered.pop_front()
    }

    pub(super) fn awaits_reply(&self) -> bool {
        !self.unanswered.is_empty()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.unanswered.is_empty() && self.next().is_empty()
    }

    /// The connection is lost: tells which commands were sent in vain. Those that wait are sent on the next connection.
    pub(super) fn lose(&mut self, mut tell: impl FnMut(u64, u32)) {
        for sent in self.unanswered.drain(..) {
            if let Sent::Ordered { tag, size } = sent {
                tell(tag, size);
            }
        }
        self.head += std::mem::take(&mut self.begun);
        self.own.clear();
        self.own_head = 0;
    }

    /// Removes the commands that it is too late for, and tells which.
    pub(super) fn expire(&mut self, now: Instant, mut tell: impl FnMut(u64, u32)) {
        if self.next_expiry.is_none_or(|next| now < next) {
            return;
        }
        if self.is_mixed || self.begun > 0 {
            self.search(now, tell);
        } else {
            while let Some(order) = self.waiting.front().filter(|order| order.deadline <= now) {
                tell(order.tag, order.size);
                self.head += order.size as usize;
                self.waiting.pop_front();
            }
            self.make_room();
            self.next_expiry = self.waiting.front().map(|order| order.deadline);
        }
    }

    /// The same in any order.
    fn search(&mut self, now: Instant, mut tell: impl FnMut(u64, u32)) {
        let (begun, mut rest) = self.bytes[self.head..].split_at(self.begun);
        let mut kept = begun.to_vec();
        self.waiting.retain(|order| {
            let (command, others) = rest.split_at(order.size as usize);
            rest = others;
            if order.deadline <= now {
                tell(order.tag, order.size);
                return false;
            }
            kept.extend_from_slice(command);
            true
        });
        (self.bytes, self.head) = (kept, 0);
        self.next_expiry = self.waiting.iter().map(|order| order.deadline).min();
        self.searched_at = Some(now);
        self.is_mixed &= !self.waiting.is_empty();
    }

    /// When to call [`Pipeline::expire`] although nothing can be sent.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let again = self.searched_at.filter(|_| self.is_mixed).map(|at| at + SEARCH_INTERVAL);
        self.next_expiry.map(|next| again.map_or(next, |again| next.max(again)))
    }
}

#[cfg(test)]
mod tests;
