//! Topics with messages that have no place in their order: published while Redis was away, or lost on the way to it.
//!
//! Such a topic begins a new epoch as soon as Redis can be reached. So whoever resumes, and every subscriber, learns that
//! there is a gap. No I/O: the time is an argument.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Topics that are kept by name. If there are more, all topics begin a new epoch.
const MAX_TOPICS: usize = 65_536;
/// How long to wait after Redis has refused it.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module documentation.
#[derive(Default)]
pub(super) struct Broken {
    topics: BTreeSet<Arc<str>>,
    are_all: bool,
    not_before: Option<Instant>,
    /// The topics of commands under way, by number; `None` for those that have ended before earlier ones.
    under_way: VecDeque<Option<Arc<str>>>,
    /// The number of the first of them.
    first: u64,
}

/// What has to begin a new epoch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Topic(Arc<str>),
    All,
}

impl Broken {
    /// Notes a command whose loss would break a topic. Returns a number for it.
    pub(super) fn sent(&mut self, topic: Arc<str>) -> u64 {
        self.under_way.push_back(Some(topic));
        self.first + self.under_way.len() as u64 - 1
    }

    /// Redis has carried out a command, or has not.
    pub(super) fn ended(&mut self, number: u64) -> Option<Arc<str>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let topic = self.under_way.get_mut(index)?.take();
        while let Some(None) = self.under_way.front() {
            self.under_way.pop_front();
            self.first += 1;
        }
        topic
    }

    /// A message of the topic has no place.
    pub(super) fn note(&mut self, topic: Arc<str>) {
        if self.topics.len() < MAX_TOPICS {
            self.topics.insert(topic);
        } else {
            self.are_all = true;
            self.topics.clear();
        }
    }

    /// Redis has refused to begin a new epoch.
    pub(super) fn pause(&mut self, now: Instant) {
        self.not_before = Some(now + PAUSE);
    }

    pub(super) fn next(&mut self, now: Instant) -> Option<Renewal> {
        if self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.not_before = None;
        if std::mem::take(&mut self.are_all) {
            return Some(Renewal::All);
        }
        self.topics.pop_first().map(Renewal::Topic)
    }

    /// When [`Broken::next`] has something after a pause.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.are_all || !self.topics.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_gives_its_topic_back_once_in_any_order() {
        let mut broken = Broken::default();
        let numbers: Vec<u64> = ["a", "b", "c"].map(|topic| broken.sent(topic.into())).to_vec();
        assert_eq!(broken.ended(numbers[1]).as_deref(), Some("b"));
        assert_eq!(broken.ended(numbers[1]), None);
        assert_eq!(broken.ended(numbers[0]).as_deref(), Some("a"));
        let next = broken.sent("d".into());
        assert_eq!(broken.ended(numbers[2]).as_deref(), Some("c"));
        assert_eq!(broken.ended(next).as_deref(), Some("d"));
        assert!(broken.under_way.is_empty());
        assert_eq!(broken.ended(next), None);
        assert_eq!(broken.ended(next + 1), None);
    }

    #[test]
    fn a_broken_topic_is_renewed_once_and_not_again_during_a_pause() {
        let (mut broken, now) = (Broken::default(), Instant::now());
        broken.note("a".into());
        broken.note("a".into());
        assert_eq!(broken.next(now), Some(Renewal::Topic("a".into())));
        assert_eq!(broken.next(now), None);
        broken.note("a".into());
        broken.pause(now);
        assert_eq!(broken.next(now), None);
        assert_eq!(broken.due(), Some(now + PAUSE));
        assert_eq!(broken.next(now + PAUSE), Some(Renewal::Topic("a".into())));
        assert_eq!(broken.due(), None);
    }

    #[test]
    fn too_many_broken_topics_are_all() {
        let mut broken = Broken::default();
        (0..=MAX_TOPICS).for_each(|number| broken.note(number.to_string().into()));
        assert_eq!(broken.next(Instant::now()), Some(Renewal::All));
        assert_eq!(broken.next(Instant::now()), None);
    }
}
