//! What is heard from Redis.

use std::sync::Arc;
use std::time::Instant;

use super::broken::UnderWay;
use super::core::{Core, Todo};
use super::lease::{Change, Lease, Now, Wish};
use super::link::{Heard, Reply};
use super::payload::{Payload, Sender};
use super::tag::{Purpose, Tag};
use super::wanted::Step;
use crate::broker::told::{News, Tell, Told};
use crate::language::command::Command;
use crate::topics::publication::Position;

/// What the error begins with if a message has been published without an offset.
const DELIVERED: &str = "DELIVERED ";

impl Core {
    pub(super) fn hear(&mut self, heard: Heard<'_>, now: Now, tell: Tell<'_>) {
        match heard {
            Heard::Connected { run_id } => self.connected(run_id, now, tell),
            Heard::Reply { tag, reply } => {
                self.answers(now, tell);
                self.is_full = false;
                match reply {
                    Ok(reply) => self.replied(Tag::from_u64(tag), &reply, now, tell),
                    Err(text) => self.refused(Tag::from_u64(tag), text, now, tell),
                }
            }
            Heard::Lost { tag } => {
                self.is_full = false;
                self.failed(Tag::from_u64(tag), now, tell);
            }
            Heard::Message { channel, payload } => self.message(channel, payload, now, tell),
            Heard::Subscribed(channel) => self.subscribed(channel, now, tell),
            Heard::Resubscribed => {
                self.listens(tell);
                tell(Told::News(News::Missed));
            }
            Heard::Disconnected(why) => {
                self.disconnected(now, tell);
                tell(Told::News(News::Unreachable(why.to_owned())));
            }
            Heard::Unusable(why) => {
                self.disconnected(now, tell);
                tell(Told::News(News::Unusable(why.to_owned())));
            }
            Heard::Warning(text) => tell(Told::News(News::Warning(text.to_owned()))),
        }
    }

    fn connected(&mut self, run_id: &str, now: Now, tell: Tell<'_>) {
        if *self.run != *run_id {
            let is_first = self.run.is_empty();
            self.run = run_id.into();
            if !is_first {
                // It may have an older state, or none.
                self.doubt.arise();
                tell(Told::News(News::Missed));
            }
        }
        self.scripts.forget();
        self.is_answering = false;
        self.answers(now, tell);
    }

    fn disconnected(&mut self, now: Now, tell: Tell<'_>) {
        (self.is_answering, self.is_listening) = (false, false);
        self.was_disconnected = true;
        self.probe_at = Some(now.at);
        self.scripts.forget();
        self.lease.disconnected();
        self.sweep.disconnected();
        while let Some(ticket) = self.questions.take_any() {
            tell(Told::Failed(ticket));
        }
        self.tell_open(tell);
    }

    /// Redis answers.
    fn answers(&mut self, now: Now, tell: Tell<'_>) {
        if !std::mem::replace(&mut self.is_answering, true) {
            self.todo.push(Todo::Greet);
            self.lease.connected(now);
            self.sweep.connected(now.at);
            // What is heard from now on shows that messages arrive.
            self.probe_at = Some(now.at);
            self.tell_open(tell);
        }
    }

    /// Messages arrive.
    fn listens(&mut self, tell: Tell<'_>) {
        self.is_listening = true;
        self.tell_open(tell);
    }

    fn tell_open(&mut self, tell: Tell<'_>) {
        let is_open = self.is_open();
        if is_open {
            self.probe_at = None;
        }
        if std::mem::replace(&mut self.is_open_told, is_open) != is_open {
            tell(Told::News(News::Open(is_open)));
        }
    }

    fn subscribed(&mut self, channel: &[u8], now: Now, tell: Tell<'_>) {
        if let Some(topic) = self.names.topic_of(channel) {
            if std::mem::take(&mut self.was_disconnected) {
                // Before the first message that may belong to a new epoch.
                tell(Told::News(News::Missed));
            }
            self.topics.heard(topic);
        } else if channel == self.names.answers.as_bytes() {
            self.hears_answers = true;
            self.listens(tell);
        } else if let Some(number) = self.names.host_of(channel) {
            self.with_lease(now, tell, |lease, change| lease.heard(number, change));
        }
    }

    // ---- messages ---------------------------------------------------------------------------------------------------

    fn message(&mut self, channel: &[u8], payload: &[u8], now: Now, tell: Tell<'_>) {
        if !self.is_listening {
            self.listens(tell);
        }
        let Ok((sender, payload)) = Payload::decode(payload) else {
            self.complain_of_stranger(channel, now.at, tell);
            return;
        };
        let is_own = sender.instance == self.sender.instance;
        if let Some(topic) = self.names.topic_of(channel) {
            self.message_of_topic(topic, sender, payload, now.at, tell);
        } else if channel == self.names.answers.as_bytes() {
            if is_own {
                self.answered(payload, tell);
            } else {
                self.complain_of_stranger(channel, now.at, tell);
            }
        } else if let Payload::Frames(frames) = payload {
            if !is_own {
                frames.for_each(|frame| tell(Told::News(News::Frame { from: sender.host, frame })));
            }
        } else if payload == Payload::Renewed {
            tell(Told::News(News::Missed));
        } else {
            self.complain_of_stranger(channel, now.at, tell);
        }
    }

    fn message_of_topic(&mut self, topic: &str, sender: Sender, payload: Payload<'_>, now: Instant, tell: Tell<'_>) {
        match payload {
            _ if !self.topics.is_wanted(topic) => {}
            Payload::Frames(frames) => {
                if sender.instance != self.sender.instance {
                    frames.for_each(|frame| tell(Told::News(News::Frame { from: sender.host, frame })));
                }
            }
            Payload::Message { position, publication, exclude } => {
                match position {
                    Some(position) if self.advances(topic, position) => {
                        tell(Told::Placed { topic, position, publication, exclude: &exclude });
                    }
                    _ => tell(Told::Unplaced { topic, publication, exclude: &exclude }),
                };
            }
            Payload::Renewed => tell(Told::Renewed(topic)),
            _ => self.complain_of_stranger(topic.as_bytes(), now, tell),
        }
    }

    /// Notes the position of a message. Returns false if it was another message's.
    fn advances(&mut self, topic: &str, position: Position) -> bool {
        let step = self.topics.advance(topic, position);
        self.look_back(topic, position, step)
    }

    fn look_back(&mut self, topic: &str, position: Position, step: Step) -> bool {
        if step == Step::Back {
            let is_same = |todo: &Todo| matches!(todo, Todo::Reset(other, _) if **other == *topic);
            if !self.todo.iter().any(is_same) {
                self.todo.push(Todo::Reset(Arc::from(topic), position.epoch));
            }
        }
        step != Step::Back
    }

    fn answered(&mut self, payload: Payload<'_>, tell: Tell<'_>) {
        match payload {
            Payload::History(number, history) => {
                if let Some((ticket, topic)) = self.questions.take(number) {
                    let step = self.topics.settle(&topic, history.position);
                    self.look_back(&topic, history.position, step);
                    tell(Told::Read(ticket, history));
                }
            }
            Payload::Forgotten(number) => {
                if let Some((ticket, _)) = self.questions.take(number) {
                    tell(Told::Forgotten(ticket));
                }
            }
            Payload::Members(number, page) => {
                if let Some((ticket, _)) = self.questions.take(number) {
                    tell(Told::Members(ticket, page));
                }
            }
            Payload::Probe | Payload::Frames(_) | Payload::Message { .. } | Payload::Renewed => {}
        }
    }

    fn complain_of_stranger(&mut self, channel: &[u8], now: Instant, tell: Tell<'_>) {
        if let Some(line) = self.complaints.stranger(channel, now) {
            tell(Told::News(News::Warning(line)));
        }
    }

    // ---- replies ----------------------------------------------------------------------------------------------------

    fn replied(&mut self, tag: Tag, reply: &Reply<'_>, now: Now, tell: Tell<'_>) {
        let Tag { purpose, host, number } = tag;
        match purpose {
            Purpose::Frames => {
                if host != 0 && matches!(reply, Reply::Integer(0)) {
                    self.dropped += number;
                    tell(Told::News(News::Absent(host)));
                }
            }
            Purpose::Question => {
                // Nobody has heard the answer.
                if matches!(reply, Reply::Integer(0)) {
                    self.failed(tag, now, tell);
                }
            }
            Purpose::Load => {
                if let Reply::Bytes(digest) = reply {
                    self.scripts.is_loaded(number, digest);
                }
            }
            Purpose::Reset | Purpose::Place => {
                self.broken.ended(number);
            }
            Purpose::Claim | Purpose::Renew | Purpose::Clear | Purpose::Raise => {
                self.replied_to_wish(tag, reply, now, tell);
            }
            Purpose::Look => {
                let gone = integers(reply).unwrap_or_default();
                let gone: Vec<u8> = gone.into_iter().filter_map(|host| host.try_into().ok()).collect();
                self.sweep.seen(&gone, now.at);
            }
            Purpose::Sweep => {
                if let Some((state, members)) = removed(reply) {
                    self.sweep.swept(host, state != 2, now.at);
                    tell_lost(&members, tell);
                }
            }
            Purpose::Member => self.doubt.accepted(),
            Purpose::Nothing | Purpose::Greet => {}
        }
    }

    fn replied_to_wish(&mut self, tag: Tag, reply: &Reply<'_>, now: Now, tell: Tell<'_>) {
        let Tag { purpose, host, number } = tag;
        // A number that was not used yet: its members are those of an earlier holder.
        if purpose == Purpose::Clear
            && self.lease.host().is_none()
            && let Some((_, members)) = removed(reply)
        {
            tell_lost(&members, tell);
        }
        self.with_lease(now, tell, |lease, change| match purpose {
            Purpose::Claim => {
                if let Some(reply) = integers(reply).and_then(|reply| <[u64; 4]>::try_from(reply).ok()) {
                    lease.claimed(reply, number, now).into_iter().for_each(change);
                }
            }
            Purpose::Renew => {
                if let Some(reply) = integers(reply).and_then(|reply| <[u64; 2]>::try_from(reply).ok()) {
                    lease.renewed(host, reply, number, now, change);
                }
            }
            Purpose::Clear => {
                if let Some((state, _)) = removed(reply) {
                    lease.cleared(host, state, now, change);
                }
            }
            _ => lease.raised(host, number, matches!(reply, Reply::Integer(1)), now, change),
        });
    }

    fn refused(&mut self, tag: Tag, text: &str, now: Now, tell: Tell<'_>) {
        let is_forgotten = text.starts_with("NOSCRIPT");
        if is_forgotten && self.scripts.forget() {
            self.todo.push(Todo::Greet);
        }
        let (is_delivered, text) = text.strip_prefix(DELIVERED).map_or((false, text), |text| (true, text));
        match tag.purpose {
            Purpose::Place if is_delivered => drop(self.breaks(tag.number, now)),
            Purpose::Place => {
                self.dropped += 1;
                if let Some(frame) = self.breaks(tag.number, now) {
                    deliver_here(&frame, tell);
                }
            }
            Purpose::Member if !is_forgotten => self.doubt.refused(now.at),
            _ => self.failed(tag, now, tell),
        }
        if let Some(line) = self.complaints.refusal(text, now.at) {
            tell(Told::News(News::Warning(line)));
        }
    }

    /// Nothing comes of a command, or nobody knows what.
    fn failed(&mut self, tag: Tag, now: Now, tell: Tell<'_>) {
        let Tag { purpose, host, number } = tag;
        match purpose {
            Purpose::Frames => self.dropped += number,
            Purpose::Place => {
                self.dropped += 1;
                self.breaks(number, now);
            }
            Purpose::Reset => drop(self.breaks(number, now)),
            Purpose::Question => {
                if let Some((ticket, _)) = self.questions.take(number) {
                    tell(Told::Failed(ticket));
                }
            }
            Purpose::Member => self.doubt.arise(),
            Purpose::Claim => self.lease.failed(Wish::Claim, now),
            Purpose::Renew => self.lease.failed(Wish::Renew(host), now),
            Purpose::Clear => self.lease.failed(Wish::Clear(host), now),
            Purpose::Raise => self.lease.failed(Wish::Raise(host, number), now),
            Purpose::Nothing | Purpose::Load | Purpose::Greet | Purpose::Look | Purpose::Sweep => {}
        }
    }

    /// A message has no place in the order of its topic, or a new epoch has not begun. Returns the message.
    fn breaks(&mut self, number: u64, now: Now) -> Option<Box<[u8]>> {
        let UnderWay { topic, frame } = self.broken.ended(number)?;
        self.broken.note(topic);
        self.broken.pause(now.at);
        frame
    }

    // ---- the number of this host ------------------------------------------------------------------------------------

    fn with_lease(&mut self, _: Now, tell: Tell<'_>, change: impl FnOnce(&mut Lease, &mut dyn FnMut(Change))) {
        let mut changes = Vec::new();
        change(&mut self.lease, &mut |change| changes.push(change));
        for change in changes {
            self.changed(change, tell);
        }
    }

    fn changed(&mut self, change: Change, tell: Tell<'_>) {
        let news = match change {
            Change::Claimed(host) => {
                self.todo.push(Todo::Listen(host));
                return;
            }
            Change::Numbered { host, above } => {
                self.sender.host = host;
                if let Err(error) = self.number_file.write(host, &self.lease.token) {
                    let text = format!("cannot write the file that keeps this host's number: {error}");
                    tell(Told::News(News::Warning(text)));
                }
                News::Numbered { host, above }
            }
            Change::Unclaimed(host) => {
                self.todo.push(Todo::Unlisten(host));
                return;
            }
            Change::Fenced => {
                self.sender.host = 0;
                News::Fenced
            }
            Change::Held(until) => News::Held(until),
            Change::Leased(up_to) => News::Leased(up_to),
            Change::Emptied => News::Emptied,
            Change::NoneLeft => News::Unusable("all 255 host numbers are taken".into()),
        };
        tell(Told::News(news));
    }
}

/// The whole numbers in a list.
fn integers(reply: &Reply<'_>) -> Option<Vec<u64>> {
    let Reply::List(values) = reply else { return None };
    let integer = |value: &Reply<'_>| if let Reply::Integer(value) = value { u64::try_from(*value).ok() } else { None };
    values.iter().map(integer).collect()
}

/// A member that was removed: its topic, its id and what was known about it.
type Removed<'a> = (&'a str, u64, &'a str);

/// A state, and the members that a script has removed.
fn removed<'a>(reply: &'a Reply<'_>) -> Option<(u64, Vec<Removed<'a>>)> {
    let Reply::List(values) = reply else { return None };
    let [Reply::Integer(state), Reply::List(texts)] = &values[..] else { return None };
    let text = |value: &'a Reply<'_>| if let Reply::Bytes(bytes) = value { str::from_utf8(bytes).ok() } else { None };
    let members = texts
        .chunks_exact(3)
        .filter_map(|member| Some((text(&member[0])?, text(&member[1])?.parse().ok()?, text(&member[2])?)));
    Some(((*state).try_into().ok()?, members.collect()))
}

/// Has the subscribers of this host get a message that Redis did not take.
fn deliver_here(frame: &[u8], tell: Tell<'_>) {
    if let Ok(Command::Publish { topic, publication, exclude }) = Command::decode(frame) {
        tell(Told::Unplaced { topic, publication, exclude: &exclude });
    }
}

fn tell_lost(members: &[Removed<'_>], tell: Tell<'_>) {
    for (topic, fd, info) in members {
        tell(Told::News(News::Lost { topic, fd: *fd, info }));
    }
}
