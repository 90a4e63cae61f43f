//! Topics with memory: what the hub asks its broker, and what it does with what the broker tells.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::attendance::Lost;
use super::peer::WorkerStage;
use super::thread::{MAX_FOR_WORKER, Routing};
use crate::broker::{Broker, Tell, Ticket, Told};
use crate::language::command::Command;
use crate::language::message::{Answer, Message, Question};
use crate::registry::{Fd, SLOTS, add, topic_bit};
use crate::topics::history::{Moment, Range};
use crate::topics::publication::Publication;

/// Bytes of the messages in one answer, unless the asker says otherwise.
const MAX_HISTORY_ANSWER: usize = 1024 * 1024;

impl Routing {
    /// Asks the broker; what it tells is dealt with at once.
    pub(super) fn with_broker(&mut self, ask: impl FnOnce(&mut dyn Broker, Tell<'_>)) {
        let Some(mut broker) = self.broker.take() else { return };
        ask(&mut *broker, &mut |told| self.hear_broker(told));
        self.broker = Some(broker);
    }

    fn hear_broker(&mut self, told: Told<'_>) {
        match told {
            Told::Placed { topic, position, publication, exclude } => {
                let exclude = Cow::Borrowed(exclude);
                let mut frame = std::mem::take(&mut self.placed);
                frame.clear();
                Message::Command(Command::Deliver { topic, position, publication, exclude }).encode(&mut frame);
                self.pass_to_interested(None, topic, &frame);
                self.placed = frame;
            }
            Told::Renewed(topic) => {
                let mut frame = Vec::new();
                Message::Renewed(topic).encode(&mut frame);
                self.pass_to_interested(None, topic, &frame);
            }
            Told::Read(ticket, history) => self.answer(ticket, Answer::History(Box::new(history))),
            Told::Forgotten(ticket) => self.answer(ticket, Answer::Done(true)),
            Told::Members(ticket, page) => self.answer(ticket, Answer::Presence(page)),
            Told::Failed(ticket) => self.answer(ticket, Answer::SilentHost(0)),
            Told::Unplaced { topic, publication, exclude } => {
                let exclude = Cow::Borrowed(exclude);
                let mut frame = std::mem::take(&mut self.placed);
                frame.clear();
                Message::Command(Command::Publish { topic, publication, exclude }).encode(&mut frame);
                self.pass_to_interested(None, topic, &frame);
                self.placed = frame;
            }
            Told::News(news) => self.hear_news(news),
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        if self.peers.get(ticket.asker).is_some_and(|peer| peer.serial == ticket.serial) {
            self.reply(ticket.asker, ticket.number, answer);
        }
    }

    /// Passes a message of a topic to the workers that may have subscribers, but not back to where it comes from.
    pub(super) fn pass_to_interested(&mut self, from: Option<u8>, topic: &str, frame: &[u8]) {
        let bit = topic_bit(topic);
        let desk = Arc::clone(&self.desk);
        for slot in desk.registry.living().filter(|slot| Some(*slot) != from) {
            if desk.registry.has_interest(slot, bit) {
                self.pass(slot, frame);
            }
        }
    }

    /// Notes that a worker wants the messages of a topic, also those from other hosts.
    pub(super) fn want(&mut self, slot: u8, topic: &str) {
        if self.abroad.as_mut().is_some_and(|abroad| abroad.interests.want(slot, topic)) {
            self.with_hosts(|hosts| hosts.want(topic));
        }
    }

    /// Has a message put in the order of its topic.
    pub(super) fn place(&mut self, topic: &str, publication: Publication<'_>, exclude: &[Fd]) {
        let at = self.moment();
        self.with_broker(|broker, tell| broker.publish(topic, publication, exclude, at, tell));
        let evicted = self.broker.as_mut().map_or(0, |broker| broker.take_evicted());
        add(&self.desk.registry.header().past.history_evicted, evicted);
    }

    /// Answers a question about what topics have kept.
    pub(super) fn ask_broker(&mut self, key: usize, number: u64, question: &Question<'_>) {
        let Some(peer) = self.peers.get(key) else { return };
        let (ticket, at) = (Ticket { asker: key, serial: peer.serial, number }, self.moment());
        self.with_broker(|broker, tell| match *question {
            Question::History { topic, after, before, limit, newest_first } => {
                let (limit, max_bytes) = (limit as usize, MAX_HISTORY_ANSWER);
                let range = Range { after: 0, before, limit, newest_first, max_bytes };
                broker.read(ticket, topic, after, range, at, tell);
            }
            Question::Missed { topic, ref since, last, max_bytes } => {
                let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
                broker.recover(ticket, topic, since, last as usize, max_bytes, at, tell);
            }
            Question::Forget(topic) => broker.forget(ticket, topic, tell),
            Question::Presence { topic, after, limit } => broker.members(ticket, topic, after, limit as usize, tell),
            _ => {}
        });
    }

    /// Notes that the members of a worker that is gone are lost.
    pub(super) fn lose_members(&mut self, slot: u8) {
        for (topic, fd) in self.attendance.lose(slot) {
            self.with_broker(|broker, _| broker.leave(&topic, fd));
        }
    }

    /// Asks workers to tell the application about lost members, as far as they take it.
    pub(super) fn tell_lost(&mut self) {
        let mut frame = Vec::new();
        while let Some(Lost { fd, number, topic, info }) = self.attendance.next() {
            frame.clear();
            Message::Lost { fd, number, topic, info }.encode(&mut frame);
            let Some(slot) = self.next_ready() else { return };
            let Some((link, _)) = self.worker(slot) else { return };
            if !link.pass_within(&frame, MAX_FOR_WORKER / 2) {
                return;
            }
            self.attendance.is_asked(slot);
        }
    }

    /// The next of the workers that serve, in turn.
    fn next_ready(&mut self) -> Option<u8> {
        let last = self.attendance.last_asked;
        let mut slots = (1..=SLOTS).map(|step| (last + step) % SLOTS);
        let slot = slots
            .find(|slot| self.worker(*slot as u8).is_some_and(|(_, worker)| worker.stage == WorkerStage::Ready))?;
        self.attendance.last_asked = slot;
        Some(slot as u8)
    }

    /// Removes what has expired.
    pub(super) fn expire_histories(&mut self) {
        let now = self.moment().now;
        if let Some(broker) = &mut self.broker
            && broker.next_expiry().is_some_and(|at| at <= now)
        {
            let registry = &self.desk.registry;
            broker.expire(now, &|topic| {
                let bit = topic_bit(topic);
                registry.living().any(|slot| registry.has_interest(slot, bit))
            });
        }
    }

    /// The time until something expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let at = self.broker.as_ref()?.next_expiry()?;
        self.started.checked_add(Duration::from_millis(at))
    }

    /// Now.
    pub(super) fn moment(&self) -> Moment {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = self.now.duration_since(self.started);
        Moment { now: now.as_millis() as u64, unix: unix.as_millis() as u64 }
    }
}
