//! What outboxes do with the messages of a topic that has a policy: which of them replace each other, how long they may
//! wait, and what happens if there is no room.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::topics::options::{Lagging, TopicOptions};

/// Names of topics and keys may come from strangers, so they are hashed with a secret.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What messages that replace each other have in common: their topic, and their key or that they have none.
#[derive(Debug)]
pub(crate) struct Label {
    hash: u64,
    topic: Box<str>,
    key: Option<Box<str>>,
}

impl Label {
    pub(crate) fn new(topic: &str, key: Option<&str>) -> Self {
        Self { hash: HASHER.hash_one((topic, key)), topic: topic.into(), key: key.map(Into::into) }
    }

    /// Equal for equal labels, and nearly always different for others.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.topic == other.topic && self.key == other.key
    }
}

/// What applies to a message while it waits in outboxes.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// For connections whose outbox is full. `None` means that the server's `slow_consumer` decides.
    pub(crate) lagging: Option<Lagging>,
    /// A message with the same label replaces this one.
    pub(crate) label: Option<Arc<Label>>,
    /// Whether the messages of the topic have an order, so that one that replaces another comes last.
    pub(crate) in_order: bool,
    /// After this time, in the clock's milliseconds, it is left out. `u64::MAX` means never.
    pub(crate) deadline: u64,
}

impl Policy {
    /// The policy for a message that has arrived at the time `now`; `None` if the topic has none.
    pub(crate) fn of(options: &TopicOptions, topic: &str, key: Option<&str>, now: u64) -> Option<Self> {
        options.has_policy().then(|| Self {
            lagging: options.lagging,
            label: (options.lagging == Some(Lagging::Latest)).then(|| Arc::new(Label::new(topic, key))),
            in_order: options.is_ordered(),
            deadline: options.ttl.map_or(u64::MAX, |ttl| now.saturating_add(milliseconds(ttl))),
        })
    }

    /// The policy for messages that have to be delivered as they are, one after the other.
    pub(crate) fn of_old(options: &TopicOptions) -> Option<Self> {
        options.lagging.map(|lagging| Self { lagging: Some(lagging), label: None, in_order: true, deadline: u64::MAX })
    }

    /// Whether it may be replaced or left out, so that it has to be an entry of its own in every outbox.
    pub(crate) fn is_provisional(&self) -> bool {
        self.label.is_some() || self.deadline != u64::MAX
    }

    /// Whether it has waited too long.
    pub(crate) fn has_expired(&self, now: u64) -> bool {
        self.deadline < now
    }
}

/// Rounded up, so that nothing expires too early.
fn milliseconds(time: Duration) -> u64 {
    time.as_micros().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

/// A frame that may be replaced or left out, as long as nothing of it has been sent.
#[derive(Debug)]
pub(crate) struct Provisional {
    pub(crate) frame: Arc<[u8]>,
    pub(crate) label: Option<Arc<Label>>,
    /// Whether it comes last if it replaces another one.
    pub(crate) in_order: bool,
    pub(crate) deadline: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_topic_and_a_key() {
        let labels = [("a", None), ("a", Some("")), ("a", Some("b")), ("ab", None), ("ab", Some("b"))];
        for (one, (topic, key)) in labels.iter().enumerate() {
            for (other, (other_topic, other_key)) in labels.iter().enumerate() {
                assert_eq!(Label::new(topic, *key) == Label::new(other_topic, *other_key), one == other);
            }
        }
    }

    #[test]
    fn a_policy_is_made_of_the_options() {
        let options = |lagging, ttl| TopicOptions {
            pattern: "*".into(),
            history: 0,
            seconds: Duration::ZERO,
            presence: false,
            envelope: false,
            lagging,
            ttl,
        };
        let policy = |lagging, ttl| Policy::of(&options(lagging, ttl), "a", Some("b"), 1000);
        assert!(policy(None, None).is_none());
        for lagging in [Lagging::Close, Lagging::Drop, Lagging::Latest] {
            let policy = policy(Some(lagging), None).expect("a policy");
            assert_eq!(policy.label.is_some(), lagging == Lagging::Latest);
            assert_eq!(policy.is_provisional(), lagging == Lagging::Latest);
            assert!(!policy.has_expired(u64::MAX));
        }
        let policy = policy(None, Some(Duration::from_micros(1_500))).expect("a policy");
        assert!(policy.is_provisional() && !policy.has_expired(1002) && policy.has_expired(1003));
        assert!(Policy::of_old(&options(None, Some(Duration::ZERO))).is_none());
        let old = Policy::of_old(&options(Some(Lagging::Latest), Some(Duration::ZERO))).expect("a policy");
        assert!(!old.is_provisional());
    }
}
