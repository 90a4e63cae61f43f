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
/// Bytes of the messages under way that are kept, in case Redis refuses them.
const MAX_KEPT: usize = 16 * 1024 * 1024;

/// A command under way whose loss would break a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnderWay {
    pub(super) topic: Arc<str>,
    /// The message, if it is one and there is room for it.
    pub(super) frame: Option<Box<[u8]>>,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Broken {
    topics: BTreeSet<Arc<str>>,
    are_all: bool,
    not_before: Option<Instant>,
    /// The commands under way, by number; `None` for those that have ended before earlier ones.
    under_way: VecDeque<Option<UnderWay>>,
    /// The bytes of their messages.
    kept: usize,
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
    /// Notes a command whose loss would break a topic, and the message that it is for. Returns a number for it.
    pub(super) fn sent(&mut self, topic: Arc<str>, frame: &[u8]) -> u64 {
        let fits = !frame.is_empty() && self.kept + frame.len() <= MAX_KEPT;
        let frame: Option<Box<[u8]>> = fits.then(|| frame.into());
        self.kept += frame.as_ref().map_or(0, |frame| frame.len());
        self.under_way.push_back(Some(UnderWay { topic, frame }));
        self.first + self.under_way.len() as u64 - 1
    }

    /// Redis has carried out a command, or has not.
    pub(super) fn ended(&mut self, number: u64) -> Option<UnderWay> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let ended = self.under_way.get_mut(index)?.take();
        self.kept -= ended.as_ref().and_then(|ended| ended.frame.as_ref()).map_or(0, |frame| frame.len());
        while let Some(None) = self.under_way.front() {
            self.under_way.pop_front();
            self.first += 1;
        }
        ended
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
        let under_way = |topic: &str| Some(UnderWay { topic: topic.into(), frame: Some(topic.as_bytes().into()) });
        let numbers: Vec<u64> = ["a", "b", "c"].map(|topic| broken.sent(topic.into(), topic.as_bytes())).to_vec();
        assert_eq!(broken.ended(numbers[1]), under_way("b"));
        assert_eq!(broken.ended(numbers[1]), None);
        assert_eq!(broken.ended(numbers[0]), under_way("a"));
        let next = broken.sent("d".into(), b"");
        assert_eq!(broken.ended(numbers[2]), under_way("c"));
        assert_eq!(broken.ended(next), Some(UnderWay { topic: "d".into(), frame: None }));
        assert!(broken.under_way.is_empty() && broken.kept == 0);
        assert_eq!(broken.ended(next), None);
        assert_eq!(broken.ended(next + 1), None);
    }

    #[test]
    fn the_messages_that_are_kept_are_bounded() {
        let (mut broken, message) = (Broken::default(), vec![0; MAX_KEPT / 2 + 1]);
        let [first, second] = [(); 2].map(|()| broken.sent("a".into(), &message));
        assert!(broken.ended(second).is_some_and(|ended| ended.frame.is_none()));
        assert!(broken.ended(first).is_some_and(|ended| ended.frame.is_some()));
        let third = broken.sent("a".into(), &message);
        assert!(broken.ended(third).is_some_and(|ended| ended.frame.is_some()));
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
