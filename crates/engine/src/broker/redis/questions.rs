//! Questions that are not answered yet. No I/O: the time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::broker::Ticket;
use crate::registry::Fd;
use crate::topics::history::Range;
use crate::topics::publication::Position;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a question waits until its answer can be heard.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Questions that may wait, and the positions in them.
const MAX_WAITING: usize = 4096;
const MAX_POSITIONS: usize = 65_536;
/// Questions that may be under way.
const MAX_ASKED: usize = 65_536;

/// What is asked of a topic.
#[derive(Clone, Debug)]
pub(super) enum Question {
    Read { after: Option<Position>, range: Range },
    Recover { since: Vec<Position>, last: usize, max_bytes: usize },
    Forget,
    Members { after: Fd, limit: usize },
}

impl Question {
    fn positions(&self) -> usize {
        if let Self::Recover { since, .. } = self { since.len() } else { 0 }
    }
}

/// A question that cannot be asked yet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) topic: Box<str>,
    pub(super) question: Question,
    until: Instant,
}

#[derive(Debug)]
struct Asked {
    ticket: Ticket,
    topic: Box<str>,
    until: Instant,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Questions {
    waiting: VecDeque<Waiting>,
    positions: usize,
    /// By number. All have the same time, so the first is the first to be given up.
    asked: BTreeMap<u64, Asked>,
    last: u64,
}

impl Questions {
    /// Keeps a question until it can be asked. Returns false if too many wait.
    pub(super) fn wait(&mut self, ticket: Ticket, topic: &str, question: Question, now: Instant) -> bool {
        let positions = self.positions + question.positions();
        if self.waiting.len() >= MAX_WAITING || positions > MAX_POSITIONS {
            return false;
        }
        self.positions = positions;
        self.waiting.push_back(Waiting { ticket, topic: topic.into(), question, until: now + MAX_WAIT });
        true
    }

    /// Takes the questions that can be asked now.
    pub(super) fn take_ready(&mut self, is_ready: impl Fn(&str, &Question) -> bool) -> Vec<Waiting> {
        let mut ready = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            if is_ready(&waiting.topic, &waiting.question) {
                self.positions -= waiting.question.positions();
                ready.push(waiting);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        ready
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Notes that a question is asked. Returns its number, unless too many are under way.
    pub(super) fn ask(&mut self, ticket: Ticket, topic: &str, now: Instant) -> Option<u64> {
        if self.asked.len() >= MAX_ASKED {
            return None;
        }
        self.last += 1;
        self.asked.insert(self.last, Asked { ticket, topic: topic.into(), until: now + PATIENCE });
        Some(self.last)
    }

    /// Takes a question that is answered, or failed.
    pub(super) fn take(&mut self, number: u64) -> Option<(Ticket, Box<str>)> {
        self.asked.remove(&number).map(|asked| (asked.ticket, asked.topic))
    }

    /// Takes a question that has waited too long.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<Ticket> {
        if self.waiting.front().is_some_and(|waiting| waiting.until <= now) {
            let late = self.waiting.pop_front()?;
            self.positions -= late.question.positions();
            return Some(late.ticket);
        }
        let first = self.asked.first_entry().filter(|first| first.get().until <= now)?;
        Some(first.remove().ticket)
    }

    /// Takes any question that is under way: no answer will arrive.
    pub(super) fn take_any(&mut self) -> Option<Ticket> {
        self.asked.pop_first().map(|(_, asked)| asked.ticket)
    }

    /// When [`Questions::take_late`] has something to take.
    pub(super) fn due(&self) -> Option<Instant> {
        let waiting = self.waiting.front().map(|waiting| waiting.until);
        let asked = self.asked.first_key_value().map(|(_, asked)| asked.until);
        [waiting, asked].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(number: u64) -> Ticket {
        Ticket { asker: 0, serial: 0, number }
    }

    #[test]
    fn a_question_is_taken_once_and_given_up_in_time() {
        let (mut questions, now) = (Questions::default(), Instant::now());
        let numbers: Vec<_> = (0..3).map(|number| questions.ask(ticket(number), "t", now).expect("room")).collect();
        assert_eq!(questions.take(numbers[1]).map(|(ticket, _)| ticket.number), Some(1));
        assert_eq!(questions.take(numbers[1]), None);
        assert_eq!(questions.due(), Some(now + PATIENCE));
        assert_eq!(questions.take_late(now), None);
        let late: Vec<_> = std::iter::from_fn(|| questions.take_late(now + PATIENCE)).map(|late| late.number).collect();
        assert_eq!((late, questions.due()), (vec![0, 2], None));
    }

    #[test]
    fn what_waits_is_bounded_and_keeps_its_order() {
        let (mut questions, now) = (Questions::default(), Instant::now());
        let recover = |count| Question::Recover { since: vec![Position::default(); count], last: 0, max_bytes: 0 };
        assert!(questions.wait(ticket(0), "a", recover(MAX_POSITIONS - 1), now));
        assert!(!questions.wait(ticket(1), "a", recover(2), now));
        assert!(questions.wait(ticket(2), "b", Question::Forget, now));
        assert!(questions.wait(ticket(3), "b", recover(1), now));
        let ready: Vec<_> =
            questions.take_ready(|topic, _| topic == "b").iter().map(|ready| ready.ticket.number).collect();
        assert_eq!(ready, [2, 3]);
        assert_eq!(questions.take_late(now + MAX_WAIT), Some(ticket(0)));
        assert_eq!(questions.positions, 0);
        let waits = (0..MAX_WAITING + 1).filter(|_| questions.wait(ticket(0), "a", Question::Forget, now)).count();
        assert_eq!(waits, MAX_WAITING);
    }
}
