//! The topics whose messages this host wants, and how far it has heard them. No I/O: the time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::topics::publication::Position;

/// How often Redis is told that a position is still of interest. It keeps one for at least an hour.
const TOUCH_INTERVAL: Duration = Duration::from_secs(20 * 60);

struct Wanted {
    /// Whether messages arrive.
    is_heard: bool,
    position: Option<Position>,
    /// Whether messages of this epoch had offsets that were given to others before.
    is_void: bool,
    /// When Redis is told next, if the topic has an order.
    touch_at: Option<Instant>,
}

/// What a new position says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is later than all before, as far as is known.
    Onward,
    /// Its offset was heard before: Redis has an older state than it had.
    Back,
    /// Nobody wants it.
    Unwanted,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Topics {
    wanted: HashMap<Arc<str>, Wanted>,
    touches: BTreeSet<(Instant, Arc<str>)>,
}

impl Topics {
    /// Wants a topic. Returns false if it was wanted before.
    pub(super) fn want(&mut self, topic: &str, is_ordered: bool, now: Instant) -> bool {
        if self.wanted.contains_key(topic) {
            return false;
        }
        let name: Arc<str> = topic.into();
        let touch_at = is_ordered.then(|| now + TOUCH_INTERVAL);
        self.touches.extend(touch_at.map(|at| (at, Arc::clone(&name))));
        self.wanted.insert(name, Wanted { is_heard: false, position: None, is_void: false, touch_at });
        true
    }

    /// Does not want it any longer. Returns false if it was not wanted.
    pub(super) fn unwant(&mut self, topic: &str) -> bool {
        let Some((name, wanted)) = self.wanted.remove_entry(topic) else { return false };
        if let Some(at) = wanted.touch_at {
            self.touches.remove(&(at, name));
        }
        if self.wanted.len() * 4 < self.wanted.capacity() {
            self.wanted.shrink_to(2 * self.wanted.len());
        }
        true
    }

    /// Messages of a topic arrive from now on.
    pub(super) fn heard(&mut self, topic: &str) {
        if let Some(wanted) = self.wanted.get_mut(topic) {
            wanted.is_heard = true;
        }
    }

    /// Whether messages of this topic will arrive, but do not yet.
    pub(super) fn is_awaited(&self, topic: &str) -> bool {
        self.wanted.get(topic).is_some_and(|wanted| !wanted.is_heard)
    }

    /// The name of a topic, shared if it is wanted.
    pub(super) fn name(&self, topic: &str) -> Arc<str> {
        self.wanted.get_key_value(topic).map_or_else(|| topic.into(), |(name, _)| Arc::clone(name))
    }

    pub(super) fn is_wanted(&self, topic: &str) -> bool {
        self.wanted.contains_key(topic)
    }

    pub(super) fn position(&self, topic: &str) -> Option<Position> {
        self.wanted.get(topic)?.position
    }

    /// A message with this position was heard.
    pub(super) fn advance(&mut self, topic: &str, to: Position) -> Step {
        self.step(topic, to, |last| to.offset > last)
    }

    /// An answer says that this is the position of the newest message.
    pub(super) fn settle(&mut self, topic: &str, at: Position) -> Step {
        self.step(topic, at, |last| at.offset >= last)
    }

    fn step(&mut self, topic: &str, to: Position, is_later: impl FnOnce(u64) -> bool) -> Step {
        let Some(wanted) = self.wanted.get_mut(topic) else { return Step::Unwanted };
        if let Some(last) = wanted.position.filter(|last| last.epoch == to.epoch)
            && (wanted.is_void || !is_later(last.offset))
        {
            wanted.is_void = true;
            return Step::Back;
        }
        (wanted.position, wanted.is_void) = (Some(to), false);
        Step::Onward
    }

    /// The next topic that Redis has to be told of.
    pub(super) fn next_touch(&mut self, now: Instant) -> Option<Arc<str>> {
        let (at, name) = self.touches.first().filter(|(at, _)| *at <= now).cloned()?;
        self.touches.remove(&(at, Arc::clone(&name)));
        let next = now + TOUCH_INTERVAL;
        self.wanted.get_mut(&*name)?.touch_at = Some(next);
        self.touches.insert((next, Arc::clone(&name)));
        Some(name)
    }

    /// When [`Topics::next_touch`] has one.
    pub(super) fn due(&self) -> Option<Instant> {
        self.touches.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    #[test]
    fn offsets_that_go_back_are_noticed_until_the_epoch_is_another() {
        let mut topics = Topics::default();
        assert_eq!(topics.advance("t", at(1, 1)), Step::Unwanted);
        topics.want("t", true, Instant::now());
        assert_eq!(topics.advance("t", at(1, 9)), Step::Onward);
        assert_eq!(topics.settle("t", at(1, 9)), Step::Onward);
        assert_eq!(topics.settle("t", at(1, 8)), Step::Back);
        assert_eq!(topics.advance("t", at(1, 10)), Step::Back, "the epoch is void");
        assert_eq!(topics.advance("t", at(2, 1)), Step::Onward);
        assert_eq!(topics.advance("t", at(2, 1)), Step::Back);
        assert_eq!(topics.position("t"), Some(at(2, 1)));
    }

    #[test]
    fn redis_is_told_of_ordered_topics_as_long_as_they_are_wanted() {
        let (mut topics, now) = (Topics::default(), Instant::now());
        assert!(topics.want("a", true, now) && topics.want("b", true, now) && topics.want("c", false, now));
        assert!(!topics.want("a", true, now));
        assert!(topics.unwant("b") && !topics.unwant("b"));
        assert_eq!(topics.next_touch(now), None);
        let later = now + TOUCH_INTERVAL;
        assert_eq!(topics.next_touch(later).as_deref(), Some("a"));
        assert_eq!(topics.next_touch(later), None);
        assert_eq!(topics.due(), Some(later + TOUCH_INTERVAL));
        topics.unwant("a");
        assert_eq!((topics.due(), topics.touches.len()), (None, 0));
    }
}
