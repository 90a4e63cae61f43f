//! Questions that other hosts have not all answered.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::language::message::Answer;

/// A question that other hosts have not all answered.
pub(super) struct Asked {
    pub(super) asker: usize,
    pub(super) serial: u64,
    pub(super) number: u64,
    pub(super) waiting: BTreeSet<u8>,
    pub(super) answers: Vec<(u8, Answer)>,
    pub(super) bytes: usize,
    pub(super) deadline: Instant,
    /// Whether all answers are wanted, or the one of one host.
    pub(super) is_for_all: bool,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct HostsQuestions {
    pub(super) asked: HashMap<u64, Asked>,
    pub(super) deadlines: BTreeSet<(Instant, u64)>,
    /// Questions of other hosts that are open.
    pub(super) asking: usize,
}

impl HostsQuestions {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(super) fn insert(&mut self, number: u64, asked: Asked) {
        self.deadlines.insert((asked.deadline, number));
        self.asked.insert(number, asked);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Asked> {
        let asked = self.asked.remove(&number)?;
        self.deadlines.remove(&(asked.deadline, number));
        Some(asked)
    }

    /// Forgets a peer's questions.
    pub(super) fn forget(&mut self, asker: usize) {
        let its = self.asked.iter().filter(|(_, asked)| asked.asker == asker);
        let numbers: Vec<u64> = its.map(|(number, _)| *number).collect();
        for number in numbers {
            self.remove(number);
        }
    }
}
