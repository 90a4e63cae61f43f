//! The messages that topics have kept, in order, within bounds of number, age and memory. No I/O: the time is an
//! argument.

use std::collections::{VecDeque, vec_deque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use slab::Slab;

use crate::topics::options::{Lagging, TopicOptions, TopicRules};
use crate::topics::publication::{Content, MAX_OFFSET, Position, Publication};

type Names = std::collections::HashMap<Arc<str>, u32>;

/// Stands for a neighbour that there is not.
const NOBODY: u32 = u32::MAX;
/// The allocator's part of a piece of memory, roughly.
const ALLOCATION: usize = 16;
/// Logs removed in one step.
const EXPIRED_AT_ONCE: usize = 256;

/// A point in time, on two clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Milliseconds of a clock that never goes back.
    pub(crate) now: u64,
    /// Milliseconds of Unix time.
    pub(crate) unix: u64,
}

/// A message that was kept.
struct Entry {
    at: u64,
    unix: u64,
    content: Content,
    /// Kept only if it matters to subscribers that lag.
    key: Option<Box<str>>,
    payload: Box<[u8]>,
}

impl Entry {
    fn cost(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |key| key.len() + ALLOCATION);
        size_of::<Self>() + ALLOCATION + self.payload.len() + key
    }
}

/// The messages of one topic.
struct Log {
    name: Arc<str>,
    /// The place of its options among the rules.
    rule: usize,
    epoch: u64,
    /// The offset of the newest message; 0 if there was none.
    top: u64,
    /// Their offsets end with `top`.
    entries: VecDeque<Entry>,
    /// When it was last used. Nothing in it is newer.
    used_at: u64,
    /// The queue that it is in.
    queue: usize,
    /// Its neighbours there.
    earlier: u32,
    later: u32,
}

impl Log {
    fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.top }
    }

    fn cost(&self) -> usize {
        // Its name counts for the allocations of this and of the table of names.
        size_of::<Self>() + 2 * (size_of::<(Arc<str>, u32)>() + ALLOCATION) + self.name.len()
    }
}

/// The logs with the same options, in the order of their last use. Those without messages have a queue of their own: if
/// memory is short, they go first.
#[derive(Clone, Copy)]
struct Queue {
    first: u32,
    last: u32,
}

/// Which messages are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// Only later ones than this offset; 0 wants all.
    pub(crate) after: u64,
    /// Only earlier ones than this offset; 0 wants all.
    pub(crate) before: u64,
    pub(crate) limit: usize,
    /// Which ones are returned if there are more, and in which order.
    pub(crate) newest_first: bool,
    /// Bytes of payloads; one message may be longer.
    pub(crate) max_bytes: usize,
}

/// A message as it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept<'a> {
    pub(crate) offset: u64,
    /// Milliseconds of Unix time.
    pub(crate) unix: u64,
    pub(crate) content: Content,
    pub(crate) key: Option<&'a str>,
    pub(crate) payload: &'a [u8],
}

/// Some messages of a topic, in the order in which they were wanted.
pub(crate) struct Selection<'a> {
    /// The offset of the first of the entries, which are in the order of their offsets.
    first: u64,
    entries: vec_deque::Iter<'a, Entry>,
    newest_first: bool,
    /// Whether more messages were wanted.
    pub(crate) goes_on: bool,
}

impl<'a> Iterator for Selection<'a> {
    type Item = Kept<'a>;

    fn next(&mut self) -> Option<Kept<'a>> {
        let offset =
            if self.newest_first { (self.first + self.entries.len() as u64).wrapping_sub(1) } else { self.first };
        let Entry { unix, content, key, payload, .. } = if self.newest_first {
            self.entries.next_back()?
        } else {
            self.first += 1;
            self.entries.next()?
        };
        Some(Kept { offset, unix: *unix, content: *content, key: key.as_deref(), payload })
    }
}

/// The histories of all topics.
pub(crate) struct Histories {
    rules: TopicRules,
    names: Names,
    logs: Slab<Log>,
    /// For each place of options, the logs with messages and those without.
    queues: Vec<Queue>,
    /// The memory of all logs, roughly.
    bytes: usize,
    max_bytes: usize,
    /// Messages removed to save memory that have not been counted.
    evicted: u64,
    /// Makes epochs that nobody can guess.
    epochs: RandomState,
    last_epoch: u64,
}

impl Histories {
    /// Keeps at most `max_bytes` bytes.
    pub(crate) fn new(rules: TopicRules, max_bytes: usize) -> Self {
        Self {
            queues: vec![Queue { first: NOBODY, last: NOBODY }; 2 * rules.all().len()],
            rules,
            names: Names::default(),
            logs: Slab::new(),
            bytes: 0,
            max_bytes,
            evicted: 0,
            epochs: RandomState::new(),
            last_epoch: 0,
        }
    }

    /// The number of messages removed to save memory since the last call.
    pub(crate) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// Gives a message the next offset of its topic, and keeps it. `None` if the topic has no order.
    pub(crate) fn append(&mut self, topic: &str, publication: &Publication<'_>, at: Moment) -> Option<Position> {
        let id = self.find_or_make(topic, at.now)?;
        if self.logs[id as usize].top >= MAX_OFFSET {
            self.begin_epoch(id);
        }
        let log = &mut self.logs[id as usize];
        log.top += 1;
        let position = log.position();
        let TopicOptions { history, lagging, .. } = self.rules.all()[log.rule];
        if history > 0 {
            let Publication { content, payload, key } = *publication;
            let key = key.filter(|_| lagging == Some(Lagging::Latest)).map(Into::into);
            let entry = Entry { at: at.now, unix: at.unix, content, key, payload: payload.into() };
            self.bytes += entry.cost();
            log.entries.push_back(entry);
            self.requeue(id);
            let log = &self.logs[id as usize];
            if log.entries.len() > history {
                self.drop_oldest(id);
            }
            self.drop_aged(id, at.now);
        }
        self.keep_within_memory(id);
        Some(position)
    }

    /// The position of a topic, and those of its messages that are in the range. `None` if the topic has no order.
    pub(crate) fn read(
        &mut self,
        topic: &str,
        at: Moment,
        range: impl FnOnce(Position) -> Range,
    ) -> Option<(Position, Selection<'_>)> {
        let id = self.find_or_make(topic, at.now)?;
        self.drop_aged(id, at.now);
        self.keep_within_memory(id);
        let log = &self.logs[id as usize];
        let range = range(log.position());
        let first = log.top + 1 - log.entries.len() as u64;
        let end = if range.before == 0 { log.top + 1 } else { range.before.clamp(first, log.top + 1) };
        let begin = range.after.saturating_add(1).clamp(first, end);
        let places = (begin - first) as usize..(end - first) as usize;
        let mut bytes = 0;
        let mut fits = |entry: &Entry| {
            let is_first = bytes == 0;
            bytes += entry.payload.len().max(1);
            is_first || bytes <= range.max_bytes
        };
        let all = places.len();
        let count = if range.newest_first {
            log.entries.range(places.clone()).rev().take(range.limit).take_while(|entry| fits(entry)).count()
        } else {
            log.entries.range(places.clone()).take(range.limit).take_while(|entry| fits(entry)).count()
        };
        let places =
            if range.newest_first { places.end - count..places.end } else { places.start..places.start + count };
        let selection = Selection {
            first: first + places.start as u64,
            entries: log.entries.range(places),
            newest_first: range.newest_first,
            goes_on: count < all,
        };
        Some((log.position(), selection))
    }

    /// Removes the messages of a topic, and begins a new epoch.
    pub(crate) fn forget(&mut self, topic: &str) {
        if let Some(id) = self.names.get(topic).copied() {
            self.begin_epoch(id);
        }
    }

    /// Removes topics all of whose messages have expired, unless they are `wanted`: these keep their position. Some
    /// may be left for the next call, see [`Histories::next_expiry`].
    pub(crate) fn expire(&mut self, now: u64, wanted: impl Fn(&str) -> bool) {
        let mut left = EXPIRED_AT_ONCE;
        for place in 0..self.queues.len() {
            while left > 0
                && let Some(at) = self.expiry(place)
                && at <= now
            {
                left -= 1;
                let id = self.queues[place].first;
                self.drop_all(id);
                if wanted(&self.logs[id as usize].name) {
                    self.unlink(id);
                    self.link(id, now);
                } else {
                    self.remove(id);
                }
            }
        }
    }

    /// When [`Histories::expire`] has something to do.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        (0..self.queues.len()).filter_map(|place| self.expiry(place)).min()
    }

    fn expiry(&self, place: usize) -> Option<u64> {
        let first = self.logs.get(self.queues[place].first as usize)?;
        Some(first.used_at.saturating_add(self.kept_for(first.rule)).saturating_add(1))
    }

    /// How many milliseconds messages are kept.
    fn kept_for(&self, place: usize) -> u64 {
        u64::try_from(self.rules.all()[place].seconds.as_millis()).unwrap_or(u64::MAX)
    }

    fn find_or_make(&mut self, topic: &str, now: u64) -> Option<u32> {
        let id = match self.names.get(topic).copied() {
            Some(id) => {
                self.unlink(id);
                id
            }
            None => self.make(topic)?,
        };
        self.link(id, now);
        Some(id)
    }

    fn make(&mut self, topic: &str) -> Option<u32> {
        let rule = self.rules.place(topic).filter(|place| self.rules.all()[*place].is_ordered())?;
        let name: Arc<str> = topic.into();
        let log = Log {
            name: Arc::clone(&name),
            rule,
            epoch: self.new_epoch(),
            top: 0,
            entries: VecDeque::new(),
            used_at: 0,
            queue: 0,
            earlier: NOBODY,
            later: NOBODY,
        };
        self.bytes += log.cost();
        let id = self.logs.insert(log) as u32;
        self.names.insert(name, id);
        Some(id)
    }

    fn new_epoch(&mut self) -> u64 {
        self.last_epoch += 1;
        // 0 is no epoch.
        self.epochs.hash_one(self.last_epoch).max(1)
    }

    fn begin_epoch(&mut self, id: u32) {
        self.drop_all(id);
        let epoch = self.new_epoch();
        let log = &mut self.logs[id as usize];
        (log.epoch, log.top) = (epoch, 0);
    }

    fn remove(&mut self, id: u32) {
        self.unlink(id);
        let log = self.logs.remove(id as usize);
        self.bytes -= log.cost();
        self.names.remove(&log.name);
        // Room for what was there at some time is not kept.
        if self.names.len() * 4 < self.names.capacity() {
            self.names.shrink_to(2 * self.names.len());
            self.logs.shrink_to_fit();
        }
    }

    fn drop_oldest(&mut self, id: u32) {
        let entries = &mut self.logs[id as usize].entries;
        if let Some(entry) = entries.pop_front() {
            self.bytes -= entry.cost();
        }
        if entries.is_empty() {
            *entries = VecDeque::new();
            self.requeue(id);
        }
    }

    fn drop_all(&mut self, id: u32) {
        while !self.logs[id as usize].entries.is_empty() {
            self.drop_oldest(id);
        }
    }

    /// Moves a log that has got its first message, or has lost its last one, to the queue where it belongs.
    fn requeue(&mut self, id: u32) {
        let Log { rule, queue, used_at, ref entries, .. } = self.logs[id as usize];
        if queue != queue_of(rule, entries.is_empty()) {
            self.unlink(id);
            self.link(id, used_at);
        }
    }

    fn drop_aged(&mut self, id: u32, now: u64) {
        let kept_for = self.kept_for(self.logs[id as usize].rule);
        while let Some(oldest) = self.logs[id as usize].entries.front()
            && oldest.at.saturating_add(kept_for) < now
        {
            self.drop_oldest(id);
        }
    }

    /// Removes what was used least recently until the rest fits; the topic `used` itself stays.
    fn keep_within_memory(&mut self, used: u32) {
        while self.bytes > self.max_bytes {
            let firsts = self.queues.iter().map(|queue| queue.first).filter(|first| *first != NOBODY);
            let oldest = firsts.min_by_key(|first| {
                let log = &self.logs[*first as usize];
                (*first == used, !log.entries.is_empty(), log.used_at)
            });
            match oldest {
                Some(oldest) if !self.logs[oldest as usize].entries.is_empty() => {
                    self.drop_oldest(oldest);
                    self.evicted += 1;
                }
                Some(oldest) if oldest != used => self.remove(oldest),
                _ => return,
            }
        }
    }

    fn link(&mut self, id: u32, now: u64) {
        let log = &self.logs[id as usize];
        let queue = queue_of(log.rule, log.entries.is_empty());
        let last = std::mem::replace(&mut self.queues[queue].last, id);
        match self.logs.get_mut(last as usize) {
            Some(earlier) => earlier.later = id,
            None => self.queues[queue].first = id,
        }
        let log = &mut self.logs[id as usize];
        (log.queue, log.earlier, log.later, log.used_at) = (queue, last, NOBODY, now);
    }

    fn unlink(&mut self, id: u32) {
        let Log { queue, earlier, later, .. } = self.logs[id as usize];
        match self.logs.get_mut(earlier as usize) {
            Some(log) => log.later = later,
            None => self.queues[queue].first = later,
        }
        match self.logs.get_mut(later as usize) {
            Some(log) => log.earlier = earlier,
            None => self.queues[queue].last = earlier,
        }
    }
}

/// The queue of logs with the options at this place.
fn queue_of(rule: usize, is_empty: bool) -> usize {
    2 * rule + usize::from(is_empty)
}

#[cfg(test)]
mod tests;
