//! Joining a topic: a connection is sent what it has missed, and from then on what is published, with nothing in between
//! lost or twice.
//!
//! The hub answers questions in the order of everything else that it sends. So all messages of the topic that come
//! before its answer are among those that the answer is about, and all that come after it are later. The connection is
//! subscribed when the answer arrives. Joins of the same topic that come while a question is on its way wait for its
//! answer: it may do for them too, and otherwise the next question is for all of them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use wire::error::close_code;

use crate::broker::{Ticket, Told};
use crate::language::history::History;
use crate::language::message::{Answer, HUB_PATIENCE, Joined, Message, Question};
use crate::reactor::Reactor;
use crate::reactor::commands::Subscribed;
use crate::reactor::notice::Notice;
use crate::registry::Fd;
use crate::system::table::Key;
use crate::topics::gathered::Fanout;
use crate::topics::publication::{Position, Publication};

/// The largest number of joins that wait.
const MAX_JOINS: usize = 65_536;
/// The largest number of questions about missed messages on their way. Each answer may be as large as an outbox.
const MAX_READINGS: usize = 64;
/// Positions of different epochs in one question. There is one right one.
const MAX_EPOCHS: usize = 64;
/// Milliseconds until the hub is asked again after it was too busy.
const RETRY: u64 = 20;
/// Milliseconds after which a join is given up.
const PATIENCE: u64 = 5000;
/// Set in the numbers of questions that are asked here, and not by the application.
const OURS: u64 = 1 << 63;

/// Who has asked for a join.
#[derive(Clone, Copy)]
pub(crate) enum Asker {
    /// This worker's application, with this number.
    Application(u64),
    /// The hub, for another worker.
    Hub(u64),
}

/// What a connection is to be sent when it joins.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish {
    /// Everything since this position.
    pub(crate) since: Option<Position>,
    /// If that cannot be had: this many of the last messages.
    pub(crate) last: u32,
    /// In any case what was published since the join was asked for, which was here.
    pub(crate) floor: Option<Position>,
}

struct Join {
    asker: Asker,
    fd: Fd,
    wish: Wish,
    info: Option<Box<str>>,
    /// When it was asked for.
    at: u64,
    /// Whether the question on its way is about it, too.
    is_asked: bool,
}

/// The joins of one topic.
#[derive(Default)]
struct Reading {
    joins: Vec<Join>,
    /// The number of the question on its way, or 0.
    number: u64,
    /// This worker has missed messages since this position. Until it has them, later ones are not delivered.
    gap: Option<Position>,
}

/// All joins that wait.
#[derive(Default)]
pub(crate) struct Joining {
    /// Strangers may choose the names.
    topics: HashMap<Box<str>, Reading>,
    /// The topics of the questions on their way, and when each was asked, in order.
    numbers: BTreeMap<u64, (Box<str>, u64)>,
    last_number: u64,
    count: usize,
    /// Topics whose question has yet to be asked.
    due: VecDeque<Box<str>>,
    /// Set if the hub was too busy: when it is asked again.
    retry_at: Option<u64>,
}

impl Joining {
    /// The topic of a question that was asked here; `None` if the application has asked it.
    fn take_number(&mut self, number: u64) -> Option<Box<str>> {
        self.numbers.remove(&number).map(|(topic, _)| topic)
    }

    /// When there is something to do if no answer comes.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let oldest = self.numbers.first_key_value().map(|(_, (_, at))| at + PATIENCE);
        oldest.into_iter().chain(self.retry_at).min()
    }

    /// Whether the question with this number is one of ours.
    pub(crate) fn is_ours(number: u64) -> bool {
        number & OURS != 0
    }

    /// Whether live messages of a topic have to wait for those that this worker has missed.
    #[inline]
    pub(crate) fn has_gap(&self, topic: &str) -> bool {
        !self.topics.is_empty() && self.topics.get(topic).is_some_and(|reading| reading.gap.is_some())
    }
}

impl Reactor {
    /// Subscribes a connection of any process to a topic, and sends it what it has missed: everything `since` a
    /// position, or, if that cannot be had, the `last` messages. The outcome comes as [`crate::Event::Answered`] with
    /// [`Answer::Joined`]; [`Answer::Refused`] if too many joins wait; or [`Answer::SilentHost`] if nothing answers.
    /// `info`: what presence says about the connection, as JSON.
    pub fn join_topic(
        &mut self,
        number: u64,
        fd: Fd,
        topic: &str,
        since: Option<Position>,
        last: u32,
        info: Option<&str>,
    ) {
        self.carry_out_waiting();
        if self.is_away(fd) {
            let question = Question::Join { fd, topic, since, last, floor: None, info };
            let is_on_its_way = self.uplink.send_to_hub(&Message::Ask(number, HUB_PATIENCE, question));
            self.uplink.flush();
            if !is_on_its_way {
                self.conclude(Asker::Application(number), Answer::Refused);
            }
            return;
        }
        self.begin_join(Asker::Application(number), fd, topic, Wish { since, last, floor: None }, info);
    }

    /// The same for a connection of this process.
    pub(crate) fn begin_join(&mut self, asker: Asker, fd: Fd, topic: &str, wish: Wish, info: Option<&str>) {
        let Some(key) = self.settled_key(fd) else {
            self.conclude(asker, Answer::Joined(Joined::default()));
            return;
        };
        if self.settings.topics.ordered(topic).is_none() {
            self.subscribe_and_tell(fd, topic, info);
            self.conclude(asker, Answer::Joined(Joined::default()));
            return;
        }
        if self.joining.count >= MAX_JOINS {
            self.conclude(asker, Answer::Refused);
            return;
        }
        self.joining.count += 1;
        // A connection that is subscribed is sent nothing old.
        let is_subscribed = self.topics.is_subscribed(&self.connections[key].subscriptions, topic);
        let wish = if is_subscribed { Wish::default() } else { wish };
        let join = Join { asker, fd, wish, info: info.map(Into::into), at: self.clock.now, is_asked: false };
        if let Some(reading) = self.joining.topics.get_mut(topic) {
            reading.joins.push(join);
            return;
        }
        let reading = Reading { joins: vec![join], ..Reading::default() };
        self.joining.topics.insert(topic.into(), reading);
        // From here on the hub passes on what is published, so that what comes after its answer arrives.
        self.topics.want(topic);
        self.ask_missed(topic.into());
    }

    /// Notes the position of a live message. Returns false if it must not be delivered now: this worker has missed
    /// messages before it, which are asked for.
    pub(crate) fn is_next(&mut self, topic: &str, position: Position) -> bool {
        if self.joining.has_gap(topic) {
            return false;
        }
        let Some(last) = self.topics.note_position(topic, position) else { return true };
        let before = if position.epoch == last.epoch { last.offset } else { 0 };
        let is_missed = position.offset > before + 1;
        if is_missed {
            self.find_gap(topic, last);
        }
        !is_missed
    }

    /// Asks for all that this worker may have missed: the hub had to drop messages for it.
    pub(crate) fn look_for_gaps(&mut self) {
        let known: Vec<(Box<str>, Position)> =
            self.topics.positions().map(|(topic, position)| (topic.into(), position)).collect();
        for (topic, position) in known {
            self.find_gap(&topic, position);
        }
    }

    /// The same for one topic.
    pub(crate) fn look_for_gap(&mut self, topic: &str) {
        if let Some(position) = self.topics.position(topic) {
            self.find_gap(topic, position);
        }
    }

    /// Holds the live messages of a topic back until this worker has those after a position.
    fn find_gap(&mut self, topic: &str, last: Position) {
        let is_new = !self.joining.topics.contains_key(topic);
        self.joining.topics.entry(topic.into()).or_default().gap.get_or_insert(last);
        if is_new {
            self.topics.want(topic);
            self.ask_missed(topic.into());
        }
    }

    /// Withdraws the joins of a connection that is no longer to be subscribed to a topic.
    pub(crate) fn withdraw_joins(&mut self, fd: Fd, topic: &str) {
        let Some(reading) = self.joining.topics.get_mut(topic) else { return };
        let withdrawn: Vec<Join> = reading.joins.extract_if(.., |join| join.fd == fd).collect();
        self.joining.count -= withdrawn.len();
        for join in withdrawn {
            self.conclude(join.asker, Answer::Joined(Joined::default()));
        }
    }

    /// Asks for the missed messages of a topic, or has it wait for its turn.
    fn ask_missed(&mut self, topic: Box<str>) {
        if !self.uplink.is_linked() {
            self.read_here(&topic);
            return;
        }
        if self.joining.numbers.len() >= MAX_READINGS || self.joining.retry_at.is_some() {
            self.joining.due.push_back(topic);
            return;
        }
        let Some((since, last)) = self.missed(&topic) else { return };
        self.uplink.tell_wanted(&mut self.topics);
        self.joining.last_number += 1;
        let number = self.joining.last_number | OURS;
        let max_bytes = self.settings.send_queue_size as u64;
        let question = Question::Missed { topic: &topic, since, last, max_bytes };
        if self.uplink.send_to_hub(&Message::Ask(number, HUB_PATIENCE, question)) {
            if let Some(reading) = self.joining.topics.get_mut(&topic) {
                reading.number = number;
            }
            self.joining.numbers.insert(number, (topic, self.clock.now));
        } else {
            self.retry_later(topic);
        }
    }

    /// What has to be asked about a topic: positions, of each epoch the earliest, and how many of the last messages.
    fn missed(&mut self, topic: &str) -> Option<(Vec<Position>, u32)> {
        let known = self.topics.position(topic);
        let reading = self.joining.topics.get_mut(topic)?;
        let mut since: Vec<Position> = reading.gap.into_iter().chain(known).collect();
        let mut last = 0;
        for join in &mut reading.joins {
            let mut is_asked = true;
            for position in join.wish.since.into_iter().chain(join.wish.floor) {
                if let Some(other) = since.iter_mut().find(|other| other.epoch == position.epoch) {
                    other.offset = other.offset.min(position.offset);
                } else if since.len() < MAX_EPOCHS {
                    since.push(position);
                } else {
                    is_asked = false;
                }
            }
            join.is_asked = is_asked;
            last = last.max(join.wish.last);
        }
        Some((since, last))
    }

    /// The same as asking the hub, if there is none.
    fn read_here(&mut self, topic: &str) {
        let Some((since, last)) = self.missed(topic) else { return };
        self.clock.read();
        let (at, max_bytes) = (self.moment(), self.settings.send_queue_size);
        let Some(broker) = &mut self.broker else { return };
        let mut read = None;
        broker.recover(Ticket::default(), topic, &since, last as usize, max_bytes, at, &mut |told| {
            if let Told::Read(_, history) = told {
                read = Some(history);
            }
        });
        if let Some(history) = read {
            self.finish_reading(topic, &history);
        }
    }

    fn retry_later(&mut self, topic: Box<str>) {
        self.joining.due.push_back(topic);
        self.joining.retry_at.get_or_insert(self.clock.now + RETRY);
    }

    /// Gives up questions that are not answered, and asks again what the hub was too busy for, when it is time.
    pub(crate) fn retry_joins(&mut self) {
        while let Some((number, (_, at))) = self.joining.numbers.first_key_value()
            && self.clock.now >= at + PATIENCE
        {
            // The answer is lost.
            self.missed_is_answered(*number, Answer::SilentHost(0));
        }
        if self.joining.retry_at.is_some_and(|at| self.clock.now >= at) {
            self.joining.retry_at = None;
            self.ask_due();
        }
    }

    fn ask_due(&mut self) {
        while self.joining.numbers.len() < MAX_READINGS
            && self.joining.retry_at.is_none()
            && let Some(topic) = self.joining.due.pop_front()
        {
            self.ask_missed(topic);
        }
    }

    /// Handles the hub's answer to a question that was asked here.
    pub(crate) fn missed_is_answered(&mut self, number: u64, answer: Answer) {
        let Some(topic) = self.joining.take_number(number) else { return };
        match answer {
            Answer::History(history) => self.finish_reading(&topic, &history),
            Answer::SilentHost(host) => self.give_up_or_retry(topic, || Answer::SilentHost(host)),
            _ => self.give_up_or_retry(topic, || Answer::Refused),
        }
        if self.joining.retry_at.is_none() {
            self.ask_due();
        }
    }

    /// Asks again later on behalf of those who have not waited too long; the others get `outcome`.
    fn give_up_or_retry(&mut self, topic: Box<str>, outcome: impl Fn() -> Answer) {
        let now = self.clock.now;
        let Some(reading) = self.joining.topics.get_mut(&topic) else { return };
        reading.number = 0;
        let overdue: Vec<Join> = reading.joins.extract_if(.., |join| now >= join.at + PATIENCE).collect();
        let is_over = reading.joins.is_empty() && reading.gap.is_none();
        self.joining.count -= overdue.len();
        for join in overdue {
            self.conclude(join.asker, outcome());
        }
        if is_over {
            self.joining.topics.remove(&topic);
            self.topics.unwant(&topic);
        } else {
            self.retry_later(topic);
        }
    }

    /// Sends what connections have missed, and subscribes them.
    pub(crate) fn finish_reading(&mut self, topic: &str, history: &History) {
        let Some(mut reading) = self.joining.topics.remove(topic) else { return };
        // What has come so far is for those who are subscribed already.
        self.settle();
        // The hub's answers come in the order of the messages, so all up to this position should have come.
        let known = self.topics.position(topic).filter(|_| self.uplink.is_linked());
        let known = known.filter(|known| known.precedes(history.position));
        self.fill_gap(topic, reading.gap.take().or(known), history);
        self.topics.note_position(topic, history.position);
        let mut old = None;
        let mut left = Vec::new();
        for mut join in reading.joins {
            if !join.is_asked && history.goes_on && join.wish.reaches_before(history) {
                // It needs an answer of its own, and what is published from here on.
                join.wish.floor = join.wish.floor.filter(|floor| floor.epoch == history.position.epoch);
                join.wish.floor.get_or_insert(history.position);
                left.push(join);
            } else {
                self.joining.count -= 1;
                let answer = self.finish_join(topic, &join, history, &mut old);
                self.conclude(join.asker, answer);
            }
        }
        if let Some(old) = old {
            self.end_fanout(old);
        }
        if self.topics.position(topic).is_none() {
            // The first of the topic's subscribers is here.
            self.topics.note_position(topic, history.position);
        }
        if left.is_empty() {
            self.topics.unwant(topic);
        } else {
            self.joining.topics.insert(topic.into(), Reading { joins: left, ..Reading::default() });
            self.ask_missed(topic.into());
        }
    }

    /// Delivers what this worker has missed of a topic to those who were subscribed all the time. If not all of it is
    /// there, they are closed: when they come back, they learn that they have missed something.
    fn fill_gap(&mut self, topic: &str, gap: Option<Position>, history: &History) {
        let Some(gap) = gap else { return };
        let epoch = history.position.epoch;
        // What the old epoch's last messages were cannot be found out.
        if gap.epoch != epoch || gap.offset + 1 < first_of(history) {
            let id = self.topics.find(topic);
            let keys: Vec<Key> = id.into_iter().flat_map(|id| self.topics.subscribers(id)).collect();
            for key in keys {
                if self.connections[key].is_open() {
                    self.send_close(key, close_code::TRY_AGAIN, "messages were missed");
                }
            }
            return;
        }
        for message in history.messages.iter().filter(|message| message.offset > gap.offset) {
            let position = Position { epoch, offset: message.offset };
            self.gather(Some(topic), message.publication(), Some(position), &[]);
        }
        self.settle();
    }

    fn finish_join(&mut self, topic: &str, join: &Join, history: &History, old: &mut Option<Fanout>) -> Answer {
        let Some(key) = self.settled_key(join.fd) else { return Answer::Joined(Joined::default()) };
        let was_subscribed = self.topics.is_subscribed(&self.connections[key].subscriptions, topic);
        if self.subscribe_and_tell(join.fd, topic, join.info.as_deref()) != Subscribed::Done {
            return Answer::Joined(Joined::default());
        }
        let position = history.position;
        if was_subscribed {
            // It has had the live messages for some time. Older ones would come after them, or twice.
            return Answer::Joined(Joined { recovered: false, count: 0, position });
        }
        let old = old.get_or_insert_with(|| self.fanout_of(topic, of_history(history)));
        let all = history.messages.len();
        if let Some(count) = join.wish.recovers(history).filter(|count| self.takes_old(key, old, all - count)) {
            self.deliver_from(key, all - count, old);
            return Answer::Joined(Joined { recovered: true, count: count as u64, position });
        }
        // What has been published since the join was asked for is live, and only what was before it is old.
        let live = join.wish.floor.map_or(0, |floor| newer_than(floor, history));
        let most = (join.wish.last as usize).min(all - live);
        let (mut count, mut too_many) = (0, most + 1);
        while count + 1 < too_many {
            let middle = count.midpoint(too_many);
            if self.takes_old(key, old, all - live - middle) { count = middle } else { too_many = middle }
        }
        self.deliver_from(key, all - live - count, old);
        let position = Position { offset: position.offset - live as u64, ..position };
        Answer::Joined(Joined { recovered: false, count: count as u64, position })
    }

    /// Whether an outbox takes the old messages from number `first` on. An empty one takes any single message.
    fn takes_old(&mut self, key: Key, old: &Fanout, first: usize) -> bool {
        self.settle_for(key);
        let connection = &self.connections[key];
        (old.len() - first <= 1 && connection.unsent() == 0)
            || connection.cost() + old.cost_from(first) <= self.settings.send_queue_size
    }

    fn subscribe_and_tell(&mut self, fd: Fd, topic: &str, info: Option<&str>) -> Subscribed {
        let subscribed = self.subscribe(fd, topic, info);
        if subscribed == Subscribed::TooMany {
            self.tell_topics_exceeded(fd);
        }
        subscribed
    }

    fn conclude(&mut self, asker: Asker, answer: Answer) {
        match asker {
            Asker::Application(number) => {
                self.uplink.notices.push_back(Notice::Answered { number, answer: Box::new(answer) });
            }
            Asker::Hub(number) => self.uplink.answer(number, answer),
        }
    }
}

impl Wish {
    /// Whether it is about messages before those of an answer.
    fn reaches_before(&self, history: &History) -> bool {
        let first = first_of(history);
        let is_before = |position: Position| position.epoch == history.position.epoch && position.offset + 1 < first;
        self.since.is_some_and(is_before) || self.last as usize > history.messages.len()
    }

    /// How many messages have been published since the position, if all of them are there.
    fn recovers(&self, history: &History) -> Option<usize> {
        let Position { epoch, offset: top } = history.position;
        let since = self.since.filter(|since| since.epoch == epoch && since.offset <= top)?;
        (since.offset + 1 >= first_of(history)).then_some((top - since.offset) as usize)
    }
}

/// The messages of a history, with their positions.
fn of_history(history: &History) -> impl Iterator<Item = (Position, Publication<'_>)> {
    let epoch = history.position.epoch;
    history.messages.iter().map(move |message| (Position { epoch, offset: message.offset }, message.publication()))
}

/// The offset of the first message.
fn first_of(history: &History) -> u64 {
    history.messages.first().map_or(history.position.offset + 1, |message| message.offset)
}

/// How many messages are newer than a position.
fn newer_than(position: Position, history: &History) -> usize {
    let Position { epoch, offset: top } = history.position;
    let newer = if position.epoch == epoch { top.saturating_sub(position.offset) } else { top };
    usize::try_from(newer).unwrap_or(usize::MAX).min(history.messages.len())
}
