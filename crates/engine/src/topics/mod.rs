//! Which connections are subscribed to which topics. No I/O: a publish is an iteration over keys, so this is tested
//! alone.

pub(crate) mod envelope;
pub(crate) mod gathered;
pub(crate) mod history;
pub(crate) mod options;
pub(crate) mod policy;
pub(crate) mod presence;
pub(crate) mod publication;

use std::collections::HashMap;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;
use slab::Slab;

use crate::registry::{Interest, TOPIC_BITS, topic_bit};
use crate::system::table::Key;
use crate::topics::publication::Position;

type Set<T> = IndexSet<T, FxBuildHasher>;

struct Topic {
    name: Box<str>,
    subscribers: Set<Key>,
    /// That of the last message that was delivered, if the topic's messages are in an order.
    position: Option<Position>,
}

/// The topics that one connection is subscribed to. Nothing is allocated for a connection without any.
#[derive(Default)]
pub(crate) struct Subscriptions(Option<Box<Set<u32>>>);

impl Subscriptions {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |set| set.len())
    }

    /// The numbers of the topics.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|set| set.iter().copied())
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // A set that has become empty is dropped.
        self.0.is_none()
    }
}

/// Topics by name, with their subscribers' keys. A topic exists as long as it has a subscriber.
#[derive(Default)]
pub(crate) struct Topics {
    /// Strangers may choose the names, so this map keeps the standard library's keyed hash.
    names: HashMap<Box<str>, u32>,
    topics: Slab<Topic>,
    interests: Option<Interests>,
    changes: Option<Changes>,
}

/// Which topics are wanted, by name.
#[derive(Default)]
struct Changes {
    /// By how many: the topic itself counts as one.
    counts: HashMap<Box<str>, u32>,
    /// What has changed and was not taken.
    changed: Vec<(Box<str>, Interest)>,
}

impl Changes {
    fn change(&mut self, name: &str, by: i32) {
        if by > 0 {
            let count = match self.counts.get_mut(name) {
                Some(count) => count,
                None => self.counts.entry(name.into()).or_default(),
            };
            *count += 1;
            if *count == 1 {
                self.changed.push((name.into(), Interest::Wanted));
            }
        } else if let Some(count) = self.counts.get_mut(name) {
            *count -= 1;
            if *count == 0
                && let Some((name, _)) = self.counts.remove_entry(name)
            {
                self.changed.push((name, Interest::Unwanted));
            }
        }
    }
}

/// Announces which topics exist, as one bit for many of them.
struct Interests {
    /// The number of topics by bit; zeroed memory costs nothing until it is used.
    counts: Vec<u32>,
    announce: Box<dyn Fn(usize, Interest) + Send>,
}

impl Interests {
    fn change(&mut self, name: &str, by: i32) {
        let bit = topic_bit(name);
        let count = &mut self.counts[bit];
        let before = *count;
        *count = count.wrapping_add_signed(by);
        if (before == 0) != (*count == 0) {
            (self.announce)(bit, if before == 0 { Interest::Wanted } else { Interest::Unwanted });
        }
    }
}

impl Topics {
    /// Has `announce` called with a topic's bit when the first topic with that bit appears, and when the last one
    /// disappears.
    pub(crate) fn announce(&mut self, announce: impl Fn(usize, Interest) + Send + 'static) {
        self.interests = Some(Interests { counts: vec![0; TOPIC_BITS], announce: Box::new(announce) });
    }

    /// From here on, notes the names of topics that appear and disappear, for [`Topics::take_changes`].
    pub(crate) fn note_changes(&mut self) {
        self.changes = Some(Changes::default());
    }

    /// The names of topics that have appeared or disappeared, in order.
    #[inline]
    pub(crate) fn take_changes(&mut self) -> Vec<(Box<str>, Interest)> {
        self.changes.as_mut().map(|changes| std::mem::take(&mut changes.changed)).unwrap_or_default()
    }

    fn change(&mut self, name: &str, by: i32) {
        if let Some(interests) = &mut self.interests {
            interests.change(name, by);
        }
        if let Some(changes) = &mut self.changes {
            changes.change(name, by);
        }
    }

    /// Adds a subscription. Doing so again changes nothing.
    pub(crate) fn subscribe(&mut self, subscriber: Key, subscriptions: &mut Subscriptions, name: &str) {
        let id = match self.names.get(name) {
            Some(id) => *id,
            None => {
                let id =
                    self.topics.insert(Topic { name: name.into(), subscribers: Set::default(), position: None }) as u32;
                self.names.insert(name.into(), id);
                self.change(name, 1);
                id
            }
        };
        self.topics[id as usize].subscribers.insert(subscriber);
        subscriptions.0.get_or_insert_default().insert(id);
    }

    /// Announces interest in a topic that may have no subscribers, until [`Topics::unwant`].
    pub(crate) fn want(&mut self, name: &str) {
        self.change(name, 1);
    }

    /// Ends what [`Topics::want`] has begun.
    pub(crate) fn unwant(&mut self, name: &str) {
        self.change(name, -1);
    }

    /// The topics whose messages are in an order, and the position of the last message of each.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (&str, Position)> {
        self.topics.iter().filter_map(|(_, topic)| topic.position.map(|position| (&*topic.name, position)))
    }

    /// The position of the last message of a topic that has subscribers, if it is known.
    pub(crate) fn position(&self, name: &str) -> Option<Position> {
        self.topics[self.find(name)? as usize].position
    }

    /// Notes the position of the last message of a topic, if that has subscribers. Returns the one before.
    pub(crate) fn note_position(&mut self, name: &str, position: Position) -> Option<Position> {
        let id = self.find(name)?;
        self.topics[id as usize].position.replace(position)
    }

    /// Whether the topic is among these subscriptions.
    pub(crate) fn is_subscribed(&self, subscriptions: &Subscriptions, name: &str) -> bool {
        let Some(set) = &subscriptions.0 else { return false };
        self.find(name).is_some_and(|id| set.contains(&id))
    }

    /// Ends a subscription, if it exists.
    pub(crate) fn unsubscribe(&mut self, subscriber: Key, subscriptions: &mut Subscriptions, name: &str) {
        let Some(id) = self.names.get(name).copied() else {
            return;
        };
        if let Some(set) = &mut subscriptions.0 {
            set.swap_remove(&id);
            if set.is_empty() {
                subscriptions.0 = None;
            }
        }
        self.remove(subscriber, id);
    }

    /// Ends some subscriptions of a closed connection: at most `most` of them.
    pub(crate) fn unsubscribe_some(&mut self, subscriber: Key, subscriptions: &mut Subscriptions, most: usize) {
        let Some(set) = &mut subscriptions.0 else { return };
        for _ in 0..most.min(set.len()) {
            if let Some(id) = set.pop() {
                self.remove(subscriber, id);
            }
        }
        if set.is_empty() {
            subscriptions.0 = None;
        }
    }

    fn remove(&mut self, subscriber: Key, id: u32) {
        let topic = &mut self.topics[id as usize];
        topic.subscribers.swap_remove(&subscriber);
        if topic.subscribers.is_empty() {
            let topic = self.topics.remove(id as usize);
            self.names.remove(&topic.name);
            self.change(&topic.name, -1);
        } else if topic.subscribers.len() * 4 < topic.subscribers.capacity() {
            topic.subscribers.shrink_to(topic.subscribers.len() * 2);
        }
    }

    /// The number of a topic that has subscribers. Once they are all gone, the number may be given to another topic.
    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// The number of subscribers of a topic; 0 if there is no topic with that number.
    #[inline]
    pub(crate) fn size(&self, id: u32) -> usize {
        self.topics.get(id as usize).map_or(0, |topic| topic.subscribers.len())
    }

    /// The key of the subscriber at a place below `size`. A new subscriber takes the place after the last; when a
    /// subscriber leaves, the last one takes its place.
    #[inline]
    pub(crate) fn subscriber(&self, id: u32, place: usize) -> Option<Key> {
        self.topics.get(id as usize)?.subscribers.get_index(place).copied()
    }

    /// All topics, in no particular order: their numbers, names and numbers of subscribers.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, &str, usize)> {
        self.topics.iter().map(|(id, topic)| (id as u32, &*topic.name, topic.subscribers.len()))
    }

    /// The subscribers of a topic, in no particular order.
    pub(crate) fn subscribers(&self, id: u32) -> impl Iterator<Item = Key> {
        self.topics.get(id as usize).into_iter().flat_map(|topic| topic.subscribers.iter().copied())
    }

    /// Whether a connection is among a topic's subscribers.
    pub(crate) fn has(&self, id: u32, subscriber: Key) -> bool {
        self.topics.get(id as usize).is_some_and(|topic| topic.subscribers.contains(&subscriber))
    }
}

#[cfg(test)]
impl Topics {
    /// The number of subscriptions to all topics.
    pub(crate) fn count_subscriptions(&self) -> usize {
        self.topics.iter().map(|(_, topic)| topic.subscribers.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(place: usize) -> Key {
        Key::of_place(place)
    }

    fn subscribers(topics: &Topics, name: &str) -> Vec<usize> {
        let id = topics.find(name);
        let places = id.into_iter().flat_map(|id| (0..topics.size(id)).map(move |place| (id, place)));
        let mut keys: Vec<usize> =
            places.filter_map(|(id, place)| topics.subscriber(id, place)).map(Key::place).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn subscribing_twice_counts_once() {
        let (mut topics, mut mine) = (Topics::default(), Subscriptions::default());
        topics.subscribe(key(1), &mut mine, "news");
        topics.subscribe(key(1), &mut mine, "news");
        assert_eq!(subscribers(&topics, "news"), [1]);
    }

    #[test]
    fn a_topic_is_gone_with_its_last_subscriber() {
        let (mut topics, mut one, mut two) = (Topics::default(), Subscriptions::default(), Subscriptions::default());
        topics.subscribe(key(1), &mut one, "a");
        topics.subscribe(key(2), &mut two, "a");
        topics.subscribe(key(2), &mut two, "b");
        topics.unsubscribe(key(1), &mut one, "a");
        topics.unsubscribe(key(1), &mut one, "a");
        topics.unsubscribe(key(1), &mut one, "never was");
        assert_eq!(subscribers(&topics, "a"), [2]);
        topics.unsubscribe_some(key(2), &mut two, 1);
        assert_eq!(two.len(), 1);
        topics.unsubscribe_some(key(2), &mut two, 9);
        assert!(two.is_empty());
        assert!(subscribers(&topics, "a").is_empty());
        assert!(subscribers(&topics, "b").is_empty());
        assert!(topics.names.is_empty() && topics.topics.is_empty());
    }

    #[test]
    fn a_topic_that_shrinks_keeps_those_who_stay() {
        let mut topics = Topics::default();
        let mut all: Vec<Subscriptions> = (0..1_000).map(|_| Subscriptions::default()).collect();
        for (place, mine) in all.iter_mut().enumerate() {
            topics.subscribe(key(place), mine, "crowd");
        }
        for (place, mine) in all.iter_mut().enumerate().skip(10) {
            topics.unsubscribe_some(key(place), mine, usize::MAX);
        }
        assert_eq!(subscribers(&topics, "crowd"), (0..10).collect::<Vec<usize>>());
    }
}
