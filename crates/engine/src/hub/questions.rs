//! Questions put to workers on a peer's behalf: which workers have not answered yet, and how long they may take.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::language::message::Answer;

/// One question.
pub(super) struct PendingQuestion {
    /// The peer that wants the answer, and that peer's serial number.
    pub(super) asker: usize,
    pub(super) serial: u64,
    /// The peer's own number for the question.
    pub(super) number: u64,
    /// The slots that have not answered, one bit each.
    pub(super) waiting: u128,
    /// The sum of the answers so far, where "done" counts as 1.
    pub(super) sum: u64,
    pub(super) is_count: bool,
    /// The time when waiting for answers ends.
    pub(super) deadline: Instant,
}

/// All open questions, by the hub's own number.
#[derive(Default)]
pub(super) struct Questions {
    asked: HashMap<u64, PendingQuestion>,
    deadlines: BTreeSet<(Instant, u64)>,
}

impl Questions {
    pub(super) fn insert(&mut self, number: u64, asked: PendingQuestion) {
        self.deadlines.insert((asked.deadline, number));
        self.asked.insert(number, asked);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<PendingQuestion> {
        let asked = self.asked.remove(&number)?;
        self.deadlines.remove(&(asked.deadline, number));
        Some(asked)
    }

    /// Records a slot's answer; an answer that is not awaited is ignored. Returns whether the question now has all its
    /// answers.
    pub(super) fn note(&mut self, slot: u8, number: u64, answer: &Answer) -> bool {
        let Some(asked) = self.asked.get_mut(&number).filter(|asked| asked.waiting >> slot & 1 == 1) else {
            return false;
        };
        asked.waiting &= !(1 << slot);
        asked.sum += match answer {
            Answer::Done(done) => u64::from(*done),
            Answer::Count(count) => *count,
            _ => 0,
        };
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
        PendingQuestion { asker, serial: 0, number: 0, waiting, sum: 0, is_count: true, deadline }
    }

    #[test]
    fn the_last_answer_completes_a_question_and_a_late_one_is_ignored() {
        let (now, mut questions) = (Instant::now(), Questions::default());
        questions.insert(1, asked(0, 0b101, now));
        assert_eq!(questions.waiting_for(2), [1]);
        assert!(!questions.note(0, 1, &Answer::Count(3)));
        assert!(!questions.note(0, 1, &Answer::Count(3)));
        assert!(!questions.note(1, 1, &Answer::Count(3)));
        assert!(questions.note(2, 1, &Answer::Count(4)));
        assert_eq!(questions.remove(1).map(|asked| asked.sum), Some(7));
        assert!(!questions.note(2, 1, &Answer::Count(4)));
        assert_eq!(questions.next_deadline(), None);
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
