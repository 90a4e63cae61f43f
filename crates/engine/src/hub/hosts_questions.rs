//! Questions put to other hosts, and their questions.

use std::time::Duration;

use super::asked_hosts::Asked;
use super::thread::Routing;
use crate::language::message::{Answer, Message, Question};
use crate::registry::{Fd, Registry};

/// Stands for the key of a peer: another host has asked.
pub(super) const ABROAD: usize = usize::MAX;
/// Bits of a question's number; those above it are the number of the host that asks.
const NUMBER_BITS: u32 = 56;
/// How long all hosts together may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that may be open: ours to other hosts, and theirs to us.
const MAX_QUESTIONS: usize = 65_536;
/// Bytes of one question's answers.
const MAX_ANSWERS: usize = 64 * 1024 * 1024;

impl Routing {
    /// Asks the host of a connection, on behalf of a peer.
    pub(super) fn ask_host_of(&mut self, fd: Fd, key: usize, number: u64, patience: Duration, question: Question<'_>) {
        let host = Registry::host_of(fd);
        // A host passes on nothing: it may be that both believe the other one to have the connection.
        if key == ABROAD || !self.desk.registry.is_abroad(fd) {
            let answer = match question {
                Question::Info(_) => Answer::Info(None),
                Question::Join { .. } => Answer::Joined(Default::default()),
                _ => Answer::Done(false),
            };
            self.reply(key, number, answer);
            return;
        }
        self.ask_hosts(&[host], key, number, patience, question, false);
    }

    /// Asks all hosts, this one included.
    pub(super) fn ask_everywhere(&mut self, key: usize, number: u64, question: Question<'_>) {
        let registry = &self.desk.registry;
        let own = registry.host();
        let mut hosts: Vec<u8> = (1..=u8::MAX).filter(|host| *host == own || registry.is_alive(*host)).collect();
        if hosts.is_empty() {
            // It has no number yet, and is all there is.
            hosts.push(own);
        }
        if let Question::Info(fd) = question {
            hosts.retain(|host| *host == Registry::host_of(fd));
        }
        self.ask_hosts(&hosts, key, number, PATIENCE, question, true);
    }

    fn ask_hosts(
        &mut self,
        hosts: &[u8],
        key: usize,
        number: u64,
        patience: Duration,
        question: Question<'_>,
        is_for_all: bool,
    ) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if self.hosts_questions.asked.len() >= MAX_QUESTIONS {
            self.reply(key, number, Answer::Refused);
            return;
        }
        peer.asking += 1;
        let serial = peer.serial;
        self.last_number += 1;
        let own_number = self.last_number & ((1 << NUMBER_BITS) - 1);
        let deadline = self.now + patience;
        let asked = Asked {
            asker: key,
            serial,
            number,
            waiting: hosts.iter().copied().collect(),
            answers: Vec::new(),
            bytes: 0,
            deadline,
            is_for_all,
        };
        self.hosts_questions.insert(own_number, asked);
        let own = self.desk.registry.host();
        let mut frame = Vec::new();
        Message::Ask(own_number, patience, question.clone()).encode(&mut frame);
        for host in hosts.iter().filter(|host| **host != own) {
            self.send_abroad(*host, &frame);
        }
        if hosts.contains(&own) {
            self.hear_question(own, own_number, patience, question);
        } else if hosts.is_empty() {
            self.conclude_hosts_question(own_number);
        }
    }

    /// Answers a question of a host: another one, or this one among others.
    pub(super) fn hear_question(&mut self, from: u8, number: u64, patience: Duration, question: Question<'_>) {
        let number = u64::from(from) << NUMBER_BITS | number & ((1 << NUMBER_BITS) - 1);
        if self.hosts_questions.asking >= MAX_QUESTIONS {
            self.reply(ABROAD, number, Answer::Refused);
            return;
        }
        let registry = &self.desk.registry;
        let answer = match question {
            Question::Do(command) if command.is_allowed(self.send_queue_size) => {
                self.ask_owner(ABROAD, number, patience, command);
                return;
            }
            Question::Join { .. } => {
                self.ask_to_join(ABROAD, number, patience, question);
                return;
            }
            Question::Subscribers(_) | Question::Topics { .. } | Question::Members { .. } => {
                self.ask_interested(ABROAD, number, patience, &question);
                return;
            }
            Question::Stats => Answer::Stats(registry.stats().into()),
            Question::Connections => Answer::Connections(registry.open_ids()),
            Question::Info(fd) => Answer::Info(registry.info(fd).map(|info| (registry.worker_of(fd), info))),
            _ => Answer::Refused,
        };
        self.reply(ABROAD, number, answer);
    }

    /// Answers a host.
    pub(super) fn reply_to_host(&mut self, number: u64, answer: Answer) {
        let (host, number) = ((number >> NUMBER_BITS) as u8, number & ((1 << NUMBER_BITS) - 1));
        if host == self.desk.registry.host() {
            self.answered_by_host(host, number, answer, 0);
        } else {
            self.tell_host(host, &Message::Answer(number, answer));
        }
    }

    /// Handles the answer of a host. `bytes` is its length.
    pub(super) fn answered_by_host(&mut self, host: u8, number: u64, answer: Answer, bytes: usize) {
        let Some(asked) = self.hosts_questions.asked.get_mut(&number) else { return };
        if !asked.waiting.remove(&host) {
            return;
        }
        asked.bytes += bytes;
        let answer = if asked.bytes > MAX_ANSWERS { Answer::Refused } else { answer };
        asked.answers.push((host, answer));
        if asked.waiting.is_empty() {
            self.conclude_hosts_question(number);
        }
    }

    /// Waits no longer for the answers of a host that is gone.
    pub(super) fn give_up_host(&mut self, host: u8) {
        let waits = |asked: &Asked| asked.waiting.contains(&host);
        let numbers: Vec<u64> =
            self.hosts_questions.asked.iter().filter(|(_, asked)| waits(asked)).map(|(number, _)| *number).collect();
        for number in numbers {
            let is_for_all = self.hosts_questions.asked.get(&number).is_some_and(|asked| asked.is_for_all);
            if !is_for_all {
                self.conclude_hosts_question(number);
            }
        }
    }

    /// Tells the peers which hosts have not answered in time.
    pub(super) fn give_up_hosts_questions(&mut self) {
        while let Some((at, number)) = self.hosts_questions.deadlines.first().copied()
            && at <= self.now
        {
            self.conclude_hosts_question(number);
        }
    }

    fn conclude_hosts_question(&mut self, number: u64) {
        let Some(asked) = self.hosts_questions.remove(number) else { return };
        let Some(peer) = self.peers.get_mut(asked.asker).filter(|peer| peer.serial == asked.serial) else {
            return;
        };
        peer.asking -= 1;
        let silent: Vec<u8> = asked.waiting.into_iter().collect();
        let mut answers = asked.answers;
        let answer = match (asked.is_for_all, silent.first()) {
            (true, _) => Answer::Everywhere { answers, silent },
            (false, Some(host)) => Answer::SilentHost(*host),
            (false, None) => answers.pop().map_or(Answer::Done(false), |(_, answer)| answer),
        };
        self.reply(asked.asker, asked.number, answer);
    }
}
