//! Questions put to workers on a peer's behalf: which workers have not answered yet, and how long they may take.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::time::Instant;

use crate::language::listing::{Entry, Page, TopicSize};
use crate::language::message::{Answer, Joined, Question};
use crate::registry::Fd;

/// Bytes of lists that may wait for the answers of further workers.
const MAX_GATHERED: usize = 64 * 1024 * 1024;

/// The answers so far.
pub(super) enum Gathered {
    Done(bool),
    Count(u64),
    /// With the longest page that is wanted.
    Topics(Page<TopicSize>, usize),
    Members(Page<Fd>, usize),
    Joined(Joined),
    /// The broker is asked once all workers have told it what was asked of them before.
    Presence {
        topic: Box<str>,
        after: Fd,
        limit: u32,
    },
    /// The lists were too long to be kept.
    TooMuch,
}

impl Gathered {
    /// Nothing yet, for this question.
    pub(super) fn for_question(question: &Question<'_>) -> Self {
        match question {
            Question::Subscribers(_) => Self::Count(0),
            Question::Topics { limit, .. } => Self::Topics(Page::default(), within::<TopicSize>(*limit)),
            Question::Members { limit, .. } => Self::Members(Page::default(), within::<Fd>(*limit)),
            Question::Presence { topic, after, limit } => {
                Self::Presence { topic: (*topic).into(), after: *after, limit: *limit }
            }
            Question::Join { .. } => Self::Joined(Joined::default()),
            _ => Self::Done(false),
        }
    }

    /// Adds an answer. One of another kind adds nothing: that worker is gone.
    fn add(self, answer: Answer) -> Self {
        match (self, answer) {
            (Self::Done(_), Answer::Done(done)) => Self::Done(done),
            (Self::Count(sum), Answer::Count(count)) => Self::Count(sum + count),
            (Self::Topics(page, limit), Answer::Topics(more)) => Self::Topics(page.merge(more, limit), limit),
            (Self::Members(page, limit), Answer::Members(more)) => Self::Members(page.merge(more, limit), limit),
            (Self::Joined(_), Answer::Joined(joined)) => Self::Joined(joined),
            (_, Answer::Refused) => Self::TooMuch,
            (gathered, _) => gathered,
        }
    }

    /// The memory that it takes.
    fn size(&self) -> usize {
        match self {
            Self::Topics(page, _) => page.size(),
            Self::Members(page, _) => page.size(),
            Self::Done(_) | Self::Count(_) | Self::Joined(_) | Self::Presence { .. } | Self::TooMuch => 0,
        }
    }

    /// The answer for the asker.
    pub(super) fn into_answer(self) -> Answer {
        match self {
            Self::Done(done) => Answer::Done(done),
            Self::Count(sum) => Answer::Count(sum),
            Self::Topics(page, _) => Answer::Topics(page),
            Self::Members(page, _) => Answer::Members(page),
            Self::Joined(joined) => Answer::Joined(joined),
            Self::Presence { .. } | Self::TooMuch => Answer::Refused,
        }
    }
}

fn within<T: Entry>(limit: u32) -> usize {
    (limit as usize).min(T::MAX_PAGE)
}

/// One question.
pub(super) struct PendingQuestion {
    /// The peer that wants the answer, and that peer's serial number.
    pub(super) asker: usize,
    pub(super) serial: u64,
    /// The peer's own number for the question.
    pub(super) number: u64,
    /// The slots that have not answered, one bit each.
    pub(super) waiting: u128,
    pub(super) gathered: Gathered,
    /// The time when waiting for answers ends.
    pub(super) deadline: Instant,
}

/// All open questions, by the hub's own number.
#[derive(Default)]
pub(super) struct Questions {
    asked: HashMap<u64, PendingQuestion>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// Bytes of the lists gathered so far.
    gathered_bytes: usize,
}

impl Questions {
    pub(super) fn insert(&mut self, number: u64, asked: PendingQuestion) {
        self.deadlines.insert((asked.deadline, number));
        self.asked.insert(number, asked);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<PendingQuestion> {
        let asked = self.asked.remove(&number)?;
        self.deadlines.remove(&(asked.deadline, number));
        self.gathered_bytes -= asked.gathered.size();
        Some(asked)
    }

    /// Records a slot's answer; an answer that is not awaited is ignored. Returns whether the question now has all its
    /// answers.
    pub(super) fn note(&mut self, slot: u8, number: u64, answer: Answer) -> bool {
        let Some(asked) = self.asked.get_mut(&number).filter(|asked| asked.waiting >> slot & 1 == 1) else {
            return false;
        };
        asked.waiting &= !(1 << slot);
        self.gathered_bytes -= asked.gathered.size();
        let gathered = mem::replace(&mut asked.gathered, Gathered::TooMuch).add(answer);
        if self.gathered_bytes + gathered.size() <= MAX_GATHERED {
            asked.gathered = gathered;
        }
        self.gathered_bytes += asked.gathered.size();
        asked.waiting == 0
    }

    /// The questions that wait for an answer from a slot.
    pub(super) fn waiting_for(&self, slot: u8) -> Vec<u64> {
        let is_waiting = |asked: &PendingQuestion| asked.waiting >> slot & 1 == 1;
        self.asked.iter().filter(|(_, asked)| is_waiting(asked)).map(|(number, _)| *number).collect()
    }

    /// Forgets a peer's questions.
    pub(super) fn forget(&mut self, asker: usize) {
        let asked = self.asked.iter().filter(|(_, asked)| asked.asker == asker);
        let numbers: Vec<u64> = asked.map(|(number, _)| *number).collect();
        for number in numbers {
            self.remove(number);
        }
    }

    /// The time of the next deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes a question that is past its deadline.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<PendingQuestion> {
        let (deadline, number) = *self.deadlines.first()?;
        if deadline <= now { self.remove(number) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn asked(asker: usize, waiting: u128, deadline: Instant) -> PendingQuestion {
        PendingQuestion { asker, serial: 0, number: 0, waiting, gathered: Gathered::Count(0), deadline }
    }

    #[test]
    fn the_last_answer_completes_a_question_and_a_late_one_is_ignored() {
        let (now, mut questions) = (Instant::now(), Questions::default());
        questions.insert(1, asked(0, 0b101, now));
        assert_eq!(questions.waiting_for(2), [1]);
        assert!(!questions.note(0, 1, Answer::Count(3)));
        assert!(!questions.note(0, 1, Answer::Count(3)));
        assert!(!questions.note(1, 1, Answer::Count(3)));
        assert!(questions.note(2, 1, Answer::Count(4)));
        let answer = questions.remove(1).map(|asked| asked.gathered.into_answer());
        assert_eq!(answer, Some(Answer::Count(7)));
        assert!(!questions.note(2, 1, Answer::Count(4)));
        assert_eq!(questions.next_deadline(), None);
    }

    #[test]
    fn lists_are_kept_up_to_a_limit_of_all_questions_together() {
        let (now, mut questions) = (Instant::now(), Questions::default());
        let limit = u32::MAX;
        let question = Question::Topics { prefix: "", after: "", limit };
        let entries = (0..TopicSize::MAX_PAGE).map(|number| (format!("{number:0255}"), 1)).collect();
        let page = Page { entries, goes_on: false };
        let fitting = MAX_GATHERED / page.size();
        for number in 0..=fitting as u64 {
            let gathered = Gathered::for_question(&question);
            questions.insert(number, PendingQuestion { gathered, ..asked(0, 1, now) });
            assert!(questions.note(0, number, Answer::Topics(page.clone())));
        }
        let mut answer = |number: usize| questions.remove(number as u64).map(|asked| asked.gathered.into_answer());
        assert_eq!(answer(fitting), Some(Answer::Refused));
        for number in 0..fitting {
            assert_eq!(answer(number), Some(Answer::Topics(page.clone())));
        }
        assert_eq!(questions.gathered_bytes, 0);
    }

    #[test]
    fn what_is_overdue_comes_in_the_order_of_the_deadlines() {
        let (now, mut questions) = (Instant::now(), Questions::default());
        for (number, seconds) in [(1, 3), (2, 1), (3, 2)] {
            questions.insert(number, asked(number as usize, 1, now + Duration::from_secs(seconds)));
        }
        assert!(questions.take_overdue(now).is_none());
        questions.forget(3);
        let mut overdue = || questions.take_overdue(now + Duration::from_secs(3)).map(|asked| asked.asker);
        assert_eq!([overdue(), overdue(), overdue()], [Some(2), Some(1), None]);
    }
}
