//! What an application has asked for some of its topics.

use std::sync::Arc;
use std::time::Duration;

/// What happens to messages of a topic for a subscriber that does not take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lagging {
    /// If the outbox is full, the connection is closed with 1013.
    Close,
    /// If the outbox is full, the message is dropped and counted.
    Drop,
    /// Of the messages with one key that wait in the outbox, only the newest is kept. If the outbox is full
    /// nevertheless, the message is dropped and counted.
    Latest,
}

/// The options of the topics that match a pattern.
#[derive(Clone, Debug)]
pub struct TopicOptions {
    /// The name of a topic; or, with a `*` at its end, the beginning of names.
    pub pattern: String,
    /// How many messages are kept.
    pub history: usize,
    /// How long they are kept.
    pub seconds: Duration,
    /// Whether it is known who is subscribed.
    pub presence: bool,
    /// Whether subscribers get messages in an envelope that tells their position.
    pub envelope: bool,
    /// What happens to subscribers that lag; `None` means that the server's `slow_consumer` decides.
    pub lagging: Option<Lagging>,
    /// How long a message may wait in an outbox; `None` means without limit.
    pub ttl: Option<Duration>,
}

impl TopicOptions {
    /// Whether its messages are put in one order for all subscribers.
    pub fn is_ordered(&self) -> bool {
        self.history > 0 || self.envelope
    }

    /// Whether its messages are treated in an own way while they wait in an outbox.
    pub fn has_policy(&self) -> bool {
        self.lagging.is_some() || self.ttl.is_some()
    }
}

/// Whether a topic has this name, or, if there is a `*` at the end, a name that begins so.
pub(crate) fn matches(pattern: &str, topic: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => topic.starts_with(beginning),
        None => topic == pattern,
    }
}

/// The options of all topics.
#[derive(Clone, Debug, Default)]
pub struct TopicRules(Arc<[TopicOptions]>);

impl TopicRules {
    /// Options in the order in which their patterns are tried.
    pub fn new(options: Vec<TopicOptions>) -> Self {
        Self(options.into())
    }

    /// Whether no topic has options.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The options of a topic: those of the first pattern that matches, if any does.
    #[inline]
    pub fn of(&self, topic: &str) -> Option<&TopicOptions> {
        self.place(topic).map(|place| &self.0[place])
    }

    /// The place of these options among all.
    pub(crate) fn place(&self, topic: &str) -> Option<usize> {
        self.0.iter().position(|options| matches(&options.pattern, topic))
    }

    /// All options, in their order.
    pub(crate) fn all(&self) -> &[TopicOptions] {
        &self.0
    }

    /// The options of a topic whose messages are put in one order for all subscribers.
    #[inline]
    pub(crate) fn ordered(&self, topic: &str) -> Option<&TopicOptions> {
        self.of(topic).filter(|options| options.is_ordered())
    }

    /// Whether it is known who is subscribed to a topic.
    #[inline]
    pub(crate) fn has_presence(&self, topic: &str) -> bool {
        self.of(topic).is_some_and(|options| options.presence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_matches_counts() {
        let options = |pattern: &str, history| TopicOptions {
            pattern: pattern.into(),
            history,
            seconds: Duration::ZERO,
            presence: false,
            envelope: false,
            lagging: None,
            ttl: None,
        };
        let rules = TopicRules::new(vec![options("room:1", 1), options("room:*", 2), options("*", 3)]);
        let history = |topic| rules.of(topic).map(|options| options.history);
        assert_eq!(["room:1", "room:12", "room:", "news"].map(history), [Some(1), Some(2), Some(2), Some(3)]);
        assert!(TopicRules::default().of("room:1").is_none());
    }
}
