//! Where commands and questions go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::HubEvent;
use super::peer::Cut;
use super::thread::{Asked, MOST_FOR_WORKER, Routing};
use crate::command::Command;
use crate::message::{Answer, Message, Question};
use crate::registry::{Fd, Registry, add, topic_bit};

/// Questions of one worker that may wait for their answers.
const MOST_QUESTIONS: usize = 65_536;

impl Routing {
    /// Passes a command on to whom it is for, but for the one it comes from.
    pub(super) fn route(&mut self, from: Option<u8>, command: &Command<'_>, frame: &[u8]) {
        match command {
            Command::Publish { topic, .. } => {
                let bit = topic_bit(topic);
                let desk = Arc::clone(&self.desk);
                for slot in desk.registry.living().filter(|slot| Some(*slot) != from) {
                    if desk.registry.has_interest(slot, bit) {
                        self.pass(slot, frame);
                    }
                }
            }
            Command::Broadcast { .. } => {
                let desk = Arc::clone(&self.desk);
                for slot in desk.registry.living().filter(|slot| Some(*slot) != from) {
                    if desk.registry.slot(slot).totals.connections.load(Ordering::SeqCst) > 0 {
                        self.pass(slot, frame);
                    }
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
                // A publish that comes next goes there, though the worker has not heard of it yet.
                let passed = &self.desk.registry.slot(slot).subscribes_passed;
                passed.fetch_add(1, Ordering::SeqCst);
                if !self.pass(slot, frame) {
                    self.desk.registry.slot(slot).subscribes_passed.fetch_sub(1, Ordering::SeqCst);
                }
            }
            Command::Push { fd, payload, .. } => {
                // Worker processes have kept room for it; programs have not.
                if !self.pass(Registry::slot_of(*fd), frame) && from.is_some() {
                    self.desk.registry.arrived(*fd, payload.len());
                }
            }
            Command::Overflow { fd, .. }
            | Command::Ping { fd, .. }
            | Command::Disconnect { fd, .. }
            | Command::Unsubscribe { fd, .. } => {
                self.pass(Registry::slot_of(*fd), frame);
            }
        }
    }

    /// Queues a frame for a worker. False: there is none, or too much waits for it.
    pub(super) fn pass(&mut self, slot: u8, frame: &[u8]) -> bool {
        let Some((link, worker)) = self.worker(slot) else { return false };
        // Once something had to be dropped, all is until it has caught up: what comes later does not pass what is lost.
        if worker.dropped == 0 && link.pass_within(frame, MOST_FOR_WORKER) {
            return true;
        }
        let (worker_id, is_first) = (worker.worker_id, worker.dropped == 0);
        worker.dropped += 1;
        let row = self.desk.registry.slot(slot);
        row.is_behind.store(1, Ordering::Release);
        add(&row.commands_dropped, 1);
        if is_first {
            let text = format!("worker {worker_id} takes nothing: commands for it are dropped");
            self.desk.tell(HubEvent::Warning(text));
        }
        false
    }

    // ---- questions --------------------------------------------------------------------------------------------------

    pub(super) fn ask_owner(&mut self, key: usize, number: u64, command: Command<'_>) -> Result<(), Cut> {
        let fd: Fd = command.fd().unwrap_or_default();
        let slot = Registry::slot_of(fd);
        if !self.desk.registry.exists(fd) || self.desk.registry.is_behind(slot) {
            return self.reply(key, number, Answer::Done(false));
        }
        self.ask_workers(key, number, &[slot], &Question::Do(command), false)
    }

    pub(super) fn ask_subscribers(&mut self, key: usize, number: u64, topic: &str) -> Result<(), Cut> {
        let bit = topic_bit(topic);
        let registry = &self.desk.registry;
        let slots: Vec<u8> = registry.living().filter(|slot| registry.has_interest(*slot, bit)).collect();
        self.ask_workers(key, number, &slots, &Question::Subscribers(topic), true)
    }

    /// Asks workers on behalf of a peer, which is answered when all of them have been heard.
    pub(super) fn ask_workers(
        &mut self,
        key: usize,
        number: u64,
        slots: &[u8],
        question: &Question<'_>,
        is_count: bool,
    ) -> Result<(), Cut> {
        if self.peers[key].asking >= MOST_QUESTIONS {
            return self.reply(key, number, Answer::Refused);
        }
        self.last_number += 1;
        let own = self.last_number;
        let mut frame = Vec::new();
        Message::Ask(own, question.clone()).encode(&mut frame);
        let mut waiting = 0;
        for slot in slots {
            if self.pass(*slot, &frame) {
                waiting |= 1 << slot;
            }
        }
        let peer = &mut self.peers[key];
        peer.asking += 1;
        let asked = Asked { asker: key, serial: peer.serial, number, waiting, sum: 0, is_count };
        self.questions.insert(own, asked);
        if waiting == 0 { self.conclude(own) } else { Ok(()) }
    }

    /// A worker has answered, or never will.
    pub(super) fn answered(&mut self, slot: u8, number: u64, answer: &Answer) {
        let Some(asked) = self.questions.get_mut(&number).filter(|asked| asked.waiting >> slot & 1 == 1) else {
            return;
        };
        asked.waiting &= !(1 << slot);
        asked.sum += match answer {
            Answer::Done(done) => u64::from(*done),
            Answer::Count(count) => *count,
            _ => 0,
        };
        if asked.waiting == 0 {
            let asker = asked.asker;
            if let Err(cut) = self.conclude(number) {
                self.cut_off(asker, &cut);
            }
        }
    }

    pub(super) fn conclude(&mut self, number: u64) -> Result<(), Cut> {
        let Some(asked) = self.questions.remove(&number) else { return Ok(()) };
        let Some(peer) = self.peers.get_mut(asked.asker).filter(|peer| peer.serial == asked.serial) else {
            return Ok(());
        };
        peer.asking -= 1;
        let answer = if asked.is_count { Answer::Count(asked.sum) } else { Answer::Done(asked.sum > 0) };
        self.reply(asked.asker, asked.number, answer)
    }
}
