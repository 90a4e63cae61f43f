//! Where commands and questions go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::desk::HubEvent;
use super::hosts::Origin;
use super::hosts_questions::ABROAD;
use super::peer::Peer;
use super::questions::{Gathered, PendingQuestion};
use super::thread::{MAX_FOR_WORKER, Routing};
use crate::language::command::Command;
use crate::language::message::{Answer, Joined, Message, Question};
use crate::registry::{Fd, Registry, SLOTS, add, topic_bit};

/// Questions of one worker that may wait for answers.
const MAX_QUESTIONS: usize = 65_536;

impl Routing {
    /// Passes a command on to its destination, but not back to the worker it comes from.
    pub(super) fn route(&mut self, from: Origin, command: &Command<'_>, frame: &[u8]) {
        if let Some(fd) = command.fd()
            && self.desk.registry.is_abroad(fd)
        {
            // What comes from a host is for this one.
            if from != Origin::Host {
                self.send_abroad(Registry::host_of(fd), frame);
            }
            return;
        }
        match command {
            Command::Publish { topic, publication, exclude } => {
                if !self.topics.is_empty() && self.topics.ordered(topic).is_some() {
                    self.place(topic, *publication, exclude);
                } else {
                    self.pass_to_interested(from.slot(), topic, frame);
                    self.with_hosts(|hosts| hosts.publish(topic, frame));
                }
            }
            // Only the hub sends it.
            Command::Deliver { .. } => {}
            Command::Broadcast { .. } => {
                let desk = Arc::clone(&self.desk);
                for slot in desk.registry.living().filter(|slot| Some(*slot) != from.slot()) {
                    if desk.registry.slot(slot).totals.connections.load(Ordering::SeqCst) > 0 {
                        self.pass(slot, frame);
                    }
                }
                if from != Origin::Host {
                    self.with_hosts(|hosts| hosts.send_to_all(frame));
                }
            }
            Command::PipeMessage { to, .. } => match self.current.get(usize::from(*to)).copied().flatten() {
                Some(slot) => {
                    self.pass(slot, frame);
                }
                None => add(&self.desk.registry.header().past.commands_dropped, 1),
            },
            Command::Subscribe { fd, .. } => {
                let slot = Registry::slot_of(*fd);
                // The next publish goes there, although the worker has not seen the subscription yet.
                let passed = &self.desk.registry.slot(slot).subscribes_passed;
                passed.fetch_add(1, Ordering::SeqCst);
                if !self.pass(slot, frame) {
                    self.desk.registry.slot(slot).subscribes_passed.fetch_sub(1, Ordering::SeqCst);
                }
            }
            Command::Push { fd, payload, .. } => {
                // Worker processes have reserved room for it; programs have not.
                if !self.pass(Registry::slot_of(*fd), frame) && from.slot().is_some() {
                    self.desk.registry.arrived(*fd, payload.len());
                }
            }
            Command::Unsubscribe { fd, .. } => {
                // Worker processes have already recorded this.
                if from.slot().is_none() {
                    self.desk.registry.begin_unsubscribe(*fd);
                }
                if !self.pass(Registry::slot_of(*fd), frame) {
                    self.desk.registry.end_unsubscribe(*fd);
                }
            }
            Command::Overflow { fd, .. } | Command::Ping { fd, .. } | Command::Disconnect { fd, .. } => {
                self.pass(Registry::slot_of(*fd), frame);
            }
        }
    }

    /// Queues a frame for a worker. Returns false if the worker is unknown or its queue is full.
    pub(super) fn pass(&mut self, slot: u8, frame: &[u8]) -> bool {
        let Some((link, worker)) = self.worker(slot) else { return false };
        // Once a command has been dropped, all are dropped until the worker has caught up, so that later ones do not
        // overtake lost ones.
        if worker.dropped == 0 && link.pass_within(frame, MAX_FOR_WORKER) {
            return true;
        }
        let (worker_id, is_first) = (worker.worker_id, worker.dropped == 0);
        worker.dropped += 1;
        let row = self.desk.registry.slot(slot);
        row.is_behind.store(1, Ordering::Release);
        add(&row.commands_dropped, 1);
        if is_first {
            let text = format!("worker {worker_id} is not reading: commands for it are dropped");
            self.desk.tell(HubEvent::Warning(text));
        }
        false
    }

    /// Passes on a frame that its sender repeats if it gets lost.
    pub(super) fn pass_if_room(&mut self, slot: u8, frame: &[u8]) {
        if let Some((link, _)) = self.worker(slot) {
            link.pass_within(frame, MAX_FOR_WORKER);
        }
    }

    /// Passes on a program's message for a worker's `pipe_message` handler. It is lost if that worker has just died.
    pub(super) fn route_from_outside(&mut self, command: &Command<'_>) -> Answer {
        if let Command::PipeMessage { to, .. } = command
            && *to >= self.worker_count
        {
            return Answer::NoWorker(self.worker_count);
        }
        let mut frame = Vec::new();
        Message::Command(command.clone()).encode(&mut frame);
        self.route(Origin::Program, command, &frame);
        Answer::Done(true)
    }

    // ---- questions --------------------------------------------------------------------------------------------------

    pub(super) fn ask_owner(&mut self, key: usize, number: u64, patience: Duration, command: Command<'_>) {
        let fd: Fd = command.fd().unwrap_or_default();
        if self.desk.registry.is_abroad(fd) {
            self.ask_host_of(fd, key, number, patience, Question::Do(command));
            return;
        }
        let slot = Registry::slot_of(fd);
        if !self.desk.registry.exists(fd) || self.desk.registry.is_behind(slot) {
            self.reply(key, number, Answer::Done(false));
            return;
        }
        self.ask_workers(key, number, patience, &[slot], &Question::Do(command));
    }

    /// Asks the worker that has a connection to have it join a topic, with everything that is published from here on.
    pub(super) fn ask_to_join(&mut self, key: usize, number: u64, patience: Duration, question: Question<'_>) {
        let Question::Join { fd, topic, since, last, info, .. } = question else { return };
        if self.desk.registry.is_abroad(fd) {
            self.ask_host_of(fd, key, number, patience, question);
            return;
        }
        let slot = Registry::slot_of(fd);
        if !self.desk.registry.exists(fd) || self.desk.registry.is_behind(slot) {
            self.reply(key, number, Answer::Joined(Joined::default()));
            return;
        }
        let at = self.moment();
        let floor = self.broker.as_mut().and_then(|broker| broker.position(topic, at));
        let question = Question::Join { fd, topic, since, last, floor, info };
        self.ask_workers(key, number, patience, &[slot], &question);
    }

    /// Asks those workers that may have subscribers: of one topic, or of any.
    pub(super) fn ask_interested(&mut self, key: usize, number: u64, patience: Duration, question: &Question<'_>) {
        let registry = &self.desk.registry;
        let has_interest = |slot: &u8| match question {
            Question::Subscribers(topic) | Question::Members { topic, .. } | Question::Presence { topic, .. } => {
                registry.has_interest(*slot, topic_bit(topic))
            }
            _ => registry.has_any_interest(*slot),
        };
        let slots: Vec<u8> = registry.living().filter(has_interest).collect();
        let behind = slots.iter().copied().filter(|slot| registry.is_behind(*slot));
        let behind: Vec<u8> = behind.map(|slot| self.worker_id_of(slot)).collect();
        if !behind.is_empty() {
            // Commands for them are dropped, and so would this be: there is nothing to wait for.
            self.reply(key, number, Answer::Silent(behind));
            return;
        }
        self.ask_workers(key, number, patience, &slots, question);
    }

    /// Asks workers on behalf of a peer, which gets its answer once all of them have answered, or its patience ends.
    fn ask_workers(&mut self, key: usize, number: u64, patience: Duration, slots: &[u8], question: &Question<'_>) {
        let serial = self.peers.get(key).map_or(0, |peer| peer.serial);
        let Some(asking) = self.asking(key) else { return };
        if *asking >= MAX_QUESTIONS {
            self.reply(key, number, Answer::Refused);
            return;
        }
        *asking += 1;
        self.last_number += 1;
        let own = self.last_number;
        let mut frame = Vec::new();
        Message::Ask(own, patience, question.clone()).encode(&mut frame);
        let mut waiting = 0;
        for slot in slots {
            if self.pass(*slot, &frame) {
                waiting |= 1 << slot;
            }
        }
        let (gathered, deadline) = (Gathered::for_question(question), self.now + patience);
        let asked = PendingQuestion { asker: key, serial, number, waiting, gathered, deadline };
        if waiting == 0 {
            self.conclude(asked);
            return;
        }
        self.questions.insert(own, asked);
    }

    /// The number of questions of a peer, or of all other hosts, that are open.
    fn asking(&mut self, key: usize) -> Option<&mut usize> {
        match key {
            ABROAD => Some(&mut self.hosts_questions.asking),
            _ => self.peers.get_mut(key).map(|peer| &mut peer.asking),
        }
    }

    /// Handles an answer from a worker, or the certainty that none will come.
    pub(super) fn answered(&mut self, slot: u8, number: u64, answer: Answer) {
        if self.questions.note(slot, number, answer)
            && let Some(asked) = self.questions.remove(number)
        {
            self.conclude(asked);
        }
    }

    /// Tells the peers which workers have not answered in time. Late answers are ignored.
    pub(super) fn give_up_questions(&mut self) {
        while let Some(asked) = self.questions.take_overdue(self.now) {
            self.conclude(asked);
        }
    }

    fn conclude(&mut self, asked: PendingQuestion) {
        let is_there = |peer: &Peer| peer.serial == asked.serial;
        if asked.asker != ABROAD && !self.peers.get(asked.asker).is_some_and(is_there) {
            return;
        }
        if let Some(asking) = self.asking(asked.asker) {
            *asking -= 1;
        }
        let silent = (0..SLOTS as u8).filter(|slot| asked.waiting >> slot & 1 == 1);
        let mut silent: Vec<u8> = silent.map(|slot| self.worker_id_of(slot)).collect();
        // During a reload, two processes may share one worker id.
        silent.sort_unstable();
        silent.dedup();
        if !silent.is_empty() {
            self.reply(asked.asker, asked.number, Answer::Silent(silent));
        } else if let Gathered::Presence { topic, after, limit } = asked.gathered {
            self.ask_broker(asked.asker, asked.number, &Question::Presence { topic: &topic, after, limit });
        } else {
            self.reply(asked.asker, asked.number, asked.gathered.into_answer());
        }
    }

    fn worker_id_of(&self, slot: u8) -> u8 {
        self.desk.registry.slot(slot).worker_id.load(Ordering::Relaxed) as u8
    }
}
