//! Which topics this host wants from others: those with a subscriber in any worker.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a topic without subscribers is still wanted, in case they come back.
const LINGER: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Wanted {
    /// The slots of the workers that want it, one bit each.
    slots: u128,
    /// Since when no worker wants it.
    unwanted_at: Option<Instant>,
    /// Whether it is among those that may soon be given up.
    is_queued: bool,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Interests {
    topics: HashMap<Box<str>, Wanted>,
    /// Topics that had no subscribers, and when that is to be looked at.
    leaving: VecDeque<(Instant, Box<str>)>,
}

impl Interests {
    /// Notes that a worker wants a topic. Returns whether that is news.
    pub(super) fn want(&mut self, slot: u8, topic: &str) -> bool {
        if let Some(wanted) = self.topics.get_mut(topic) {
            wanted.slots |= 1 << slot;
            wanted.unwanted_at = None;
            return false;
        }
        self.topics.insert(topic.into(), Wanted { slots: 1 << slot, ..Wanted::default() });
        true
    }

    /// Notes that a worker no longer wants a topic.
    pub(super) fn unwant(&mut self, slot: u8, topic: &str, now: Instant) {
        let Some(wanted) = self.topics.get_mut(topic) else { return };
        wanted.slots &= !(1 << slot);
        if wanted.slots == 0 && wanted.unwanted_at.is_none() {
            wanted.unwanted_at = Some(now);
            if !std::mem::replace(&mut wanted.is_queued, true) {
                self.leaving.push_back((now + LINGER, topic.into()));
            }
        }
    }

    /// Notes that a worker is gone.
    pub(super) fn lose(&mut self, slot: u8, now: Instant) {
        let is_its = |wanted: &Wanted| wanted.slots >> slot & 1 == 1;
        let topics: Vec<Box<str>> =
            self.topics.iter().filter(|(_, wanted)| is_its(wanted)).map(|(topic, _)| topic.clone()).collect();
        for topic in topics {
            self.unwant(slot, &topic, now);
        }
    }

    /// When a topic may have to be given up.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.leaving.front().map(|(at, _)| *at)
    }

    /// A topic that has had no subscribers for a while, and is given up.
    pub(super) fn take_unwanted(&mut self, now: Instant) -> Option<Box<str>> {
        while self.next_deadline()? <= now {
            let (_, topic) = self.leaving.pop_front()?;
            let Some(wanted) = self.topics.get_mut(&topic) else { continue };
            match wanted.unwanted_at {
                Some(since) if now >= since + LINGER => {
                    self.topics.remove(&topic);
                    return Some(topic);
                }
                Some(since) => self.leaving.push_back((since + LINGER, topic)),
                None => wanted.is_queued = false,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_given_up_a_while_after_its_last_subscriber_has_left() {
        let (mut interests, now) = (Interests::default(), Instant::now());
        assert!(interests.want(1, "a"));
        assert!(!interests.want(2, "a"));
        interests.unwant(1, "a", now);
        interests.lose(2, now);
        assert_eq!(interests.next_deadline(), Some(now + LINGER));
        assert_eq!(interests.take_unwanted(now + LINGER / 2), None);
        assert_eq!(interests.take_unwanted(now + LINGER).as_deref(), Some("a"));
        assert!(interests.want(1, "a"));
    }

    #[test]
    fn a_topic_whose_subscribers_come_back_stays_and_is_queued_once() {
        let (mut interests, now) = (Interests::default(), Instant::now());
        assert!(interests.want(1, "a"));
        for _ in 0..1000 {
            interests.unwant(1, "a", now);
            assert!(!interests.want(1, "a"));
        }
        assert_eq!(interests.leaving.len(), 1);
        let later = now + LINGER / 2;
        interests.unwant(1, "a", later);
        assert_eq!(interests.take_unwanted(now + LINGER), None);
        assert_eq!(interests.take_unwanted(later + LINGER).as_deref(), Some("a"));
        assert!(interests.leaving.is_empty() && interests.topics.is_empty());
    }
}
