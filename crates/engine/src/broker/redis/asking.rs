//! What Redis is asked to do.

use super::broken::Renewal;
use super::core::{Core, PATIENCE, Todo};
use super::lease::{LEASE, Now, Wish};
use super::link::Link;
use super::payload::{probe, renewed};
use super::questions::{Question, Waiting};
use super::scripts::Script;
use super::tag::{Purpose, Tag};

use crate::broker::{Tell, Ticket, Told};
use crate::registry::{Fd, HOST_SHIFT};
use crate::topics::publication::Position;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A position is kept for at least so long after the last message.
const POSITION_KEPT: Duration = Duration::from_secs(3600);
/// Nothing is kept for longer.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long a number must not have been used before another host gets it.
const QUIET: Duration = Duration::from_secs(60);
/// Members removed in one step.
const MEMBERS_AT_ONCE: usize = 1000;
/// Members removed when this host gives its number back. The others are removed by the other hosts.
const MEMBERS_AT_LEAVE: usize = 5000;
/// Time between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Removing the members of other hosts must not be late: Redis may be another process by then.
const SWEEP_PATIENCE: Duration = Duration::from_millis(200);
/// Positions in one question, each of another epoch. A client that has another one has missed everything.
const MAX_EPOCHS: usize = 4096;

/// What a member does.
pub(super) enum Member<'a> {
    Joins(&'a str),
    Leaves,
}

impl Question {
    /// What was missed since the earliest position of each epoch.
    pub(super) fn recover(since: &[Position], last: usize, max_bytes: usize) -> Self {
        let mut since = since.to_vec();
        since.sort_unstable_by_key(|since| (since.epoch, since.offset));
        since.dedup_by_key(|since| since.epoch);
        since.truncate(MAX_EPOCHS);
        Self::Recover { since, last, max_bytes }
    }
}

impl Core {
    /// Whether the answer would arrive; and, if later messages must not be missed, these.
    pub(super) fn can_ask(&self, topic: &str, question: &Question) -> bool {
        let is_deaf = matches!(question, Question::Recover { .. }) && self.topics.is_awaited(topic);
        self.is_open() && self.hears_answers && !is_deaf
    }

    pub(super) fn ask(
        &mut self,
        link: &mut Link,
        ticket: Ticket,
        topic: &str,
        question: &Question,
        now: Instant,
        tell: Tell<'_>,
    ) {
        let Some(number) = self.questions.ask(ticket, topic, now) else {
            tell(Told::Failed(ticket));
            return;
        };
        let tag = Tag { purpose: Purpose::Question, host: 0, number };
        let channel = self.names.answers.clone();
        let number_bytes = number.to_le_bytes();
        let fits = match question {
            Question::Read { after, range } => {
                let after = after.unwrap_or_default();
                let epoch = after.epoch.to_le_bytes();
                let numbers = [range.max_bytes as u64, range.limit as u64, range.newest_first.into(), range.after];
                let [most, limit, newest, above] = numbers.map(|number| number.to_string());
                let (below, offset) = (range.before.to_string(), after.offset.to_string());
                let texts = [&most, &limit, &newest, &above, &below].map(String::as_bytes);
                let arguments = [&[&number_bytes[..], b"read"], &texts[..], &[&epoch, offset.as_bytes()]].concat();
                self.call_of_topic(link, tag, Script::Read, topic, &channel, &arguments)
            }
            Question::Recover { since, last, max_bytes } => {
                let positions: Vec<u8> = since
                    .iter()
                    .flat_map(|since| [since.epoch.to_le_bytes(), since.offset.to_le_bytes()].concat())
                    .collect();
                let (most, last) = (max_bytes.to_string(), last.to_string());
                let arguments = [&number_bytes[..], b"recover", most.as_bytes(), last.as_bytes(), &positions];
                self.call_of_topic(link, tag, Script::Read, topic, &channel, &arguments)
            }
            Question::Forget => self.call_of_topic(link, tag, Script::Forget, topic, &channel, &[&number_bytes]),
            Question::Members { after, limit } => {
                let limit =
                    (*limit).min(<crate::language::listing::Member as crate::language::listing::Entry>::MAX_PAGE);
                let (after, limit) = (after.to_string(), limit.to_string());
                let keys = [self.names.of_topic("q", topic), self.names.of_topic("p", topic)];
                let head = self.sender.head();
                let arguments = [channel.as_bytes(), &head, &number_bytes, after.as_bytes(), limit.as_bytes()];
                self.scripts.call(link, tag, PATIENCE, Script::Members, &[&keys[0], &keys[1]], &arguments)
            }
        };
        if !fits {
            self.is_full = true;
            if let Some((ticket, _)) = self.questions.take(number) {
                tell(Told::Failed(ticket));
            }
        }
    }

    /// Calls one of the scripts that begin with `topic.lua`. Returns false if it does not fit into the queue.
    pub(super) fn call_of_topic(
        &mut self,
        link: &mut Link,
        tag: Tag,
        script: Script,
        topic: &str,
        channel: &str,
        more: &[&[u8]],
    ) -> bool {
        let kept_for = self.rules.of(topic).map_or(Duration::ZERO, |options| options.seconds).min(LONGEST);
        let position_kept_for = kept_for.max(POSITION_KEPT);
        let [kept_for, position_kept_for] = [kept_for, position_kept_for].map(|time| time.as_millis().to_string());
        let epoch = self.new_epoch();
        let head = self.sender.head();
        let fixed: [&[u8]; 6] =
            [&epoch, kept_for.as_bytes(), self.run.as_bytes(), position_kept_for.as_bytes(), channel.as_bytes(), &head];
        let keys = [self.names.of_topic("m", topic), self.names.of_topic("s", topic)];
        let keys = [&keys[0], &keys[1], &*self.names.run];
        let fits = self.scripts.call(link, tag, PATIENCE, script, &keys, &[&fixed, more].concat());
        self.is_full = !fits;
        fits
    }

    pub(super) fn change_member(&mut self, link: &mut Link, topic: &str, fd: Fd, change: Member<'_>) {
        let Some(host) = self.lease.host().filter(|_| self.is_answering) else {
            self.doubt.arise();
            return;
        };
        let fd_text = fd.to_string();
        let keys = [
            self.names.of_topic("q", topic),
            self.names.of_topic("p", topic),
            self.names.key("i", host),
            self.names.key("lease", host),
        ];
        let keys = [&*keys[0], &*keys[1], &*keys[2], &*keys[3]];
        let tag = Tag::new(Purpose::Member);
        let fits = match change {
            Member::Joins(info) => {
                let arguments = [self.lease.token.text(), &fd_text, info, topic].map(str::as_bytes);
                self.scripts.call(link, tag, PATIENCE, Script::Join, &keys, &arguments)
            }
            Member::Leaves => {
                let [first, last] = [u64::from(host), u64::from(host) + 1].map(|host| host << HOST_SHIFT);
                let (first, last) = (first.to_string(), (last - 1).to_string());
                let arguments = [&fd_text, &first, &last, topic].map(str::as_bytes);
                self.scripts.call(link, tag, PATIENCE, Script::Leave, &keys[..3], &arguments)
            }
        };
        if !fits {
            self.doubt.arise();
        }
    }

    /// Does what is due, and what was heard leads to.
    pub(super) fn act(&mut self, link: &mut Link, now: Now, tell: Tell<'_>) {
        for todo in std::mem::take(&mut self.todo) {
            self.do_now(link, todo);
        }
        while let Some(renewal) = self.is_open().then(|| self.broken.next(now.at)).flatten() {
            if !self.renew(link, renewal) {
                self.broken.pause(now.at);
            }
        }
        if self.batches.sender() != self.sender {
            self.flush(link);
            self.batches.set_sender(self.sender);
        }
        if self.probe_at.is_some_and(|at| at <= now.at) {
            self.probe_at = Some(now.at + PROBE_INTERVAL);
            let probe = probe(self.sender);
            let tag = Tag::new(Purpose::Nothing).to_u64();
            link.command(tag, PROBE_INTERVAL, &[b"PUBLISH", self.names.answers.as_bytes(), &probe]);
        }
        if self.doubt.take(now.at) && !self.lease.doubt_members(now) {
            self.doubt.arise();
        }
        while let Some(wish) = self.lease.next(now) {
            self.wish(link, wish, now);
        }
        self.act_for_the_gone(link, now);
        if self.is_open() && self.questions.has_waiting() {
            let mut questions = std::mem::take(&mut self.questions);
            let ready = questions.take_ready(|topic, question| self.can_ask(topic, question));
            self.questions = questions;
            for Waiting { ticket, topic, question, .. } in ready {
                self.ask(link, ticket, &topic, &question, now.at, tell);
            }
        }
        while let Some(ticket) = self.questions.take_late(now.at) {
            tell(Told::Failed(ticket));
        }
        while let Some(topic) = self.topics.next_touch(now.at) {
            let kept_for = self.rules.of(&topic).map_or(Duration::ZERO, |options| options.seconds).min(LONGEST);
            let kept_for = kept_for.max(POSITION_KEPT).as_millis().to_string();
            let key = self.names.of_topic("m", &topic);
            let tag = Tag::new(Purpose::Nothing).to_u64();
            link.command(tag, PATIENCE, &[b"PEXPIRE", key.as_bytes(), kept_for.as_bytes()]);
        }
    }

    fn do_now(&mut self, link: &mut Link, todo: Todo) {
        match todo {
            Todo::Greet => {
                self.scripts.load(link, PATIENCE);
                let (tag, keys) = (Tag::new(Purpose::Greet), [&*self.names.run]);
                self.scripts.call(link, tag, PATIENCE, Script::Greet, &keys, &[self.run.as_bytes()]);
            }
            Todo::Listen(number) => link.subscribe(self.names.host(number).as_bytes()),
            Todo::Unlisten(number) => link.unsubscribe(self.names.host(number).as_bytes()),
            Todo::Reset(topic, epoch) => {
                self.reset(link, topic, &epoch.to_le_bytes());
            }
        }
    }

    /// Begins a new epoch. Returns false if there is no room for the command.
    fn renew(&mut self, link: &mut Link, renewal: Renewal) -> bool {
        match renewal {
            Renewal::Topic(topic) => self.reset(link, topic, b""),
            Renewal::All => {
                // As if Redis were another process.
                let run = format!("{:016x}", self.random());
                let tag = Tag::new(Purpose::Nothing);
                let keys = [&*self.names.run];
                self.scripts.call(link, tag, PATIENCE, Script::Greet, &keys, &[run.as_bytes()])
                    && link.command(
                        tag.to_u64(),
                        PATIENCE,
                        &[b"PUBLISH", self.names.all.as_bytes(), &renewed(self.sender)],
                    )
            }
        }
    }

    /// Begins a new epoch of a topic in place of that one; or of any, which is empty then.
    fn reset(&mut self, link: &mut Link, topic: Arc<str>, epoch: &[u8]) -> bool {
        let channel = self.names.topic(&topic);
        let number = self.broken.sent(Arc::clone(&topic), b"");
        let tag = Tag { purpose: Purpose::Reset, host: 0, number };
        let fits = self.call_of_topic(link, tag, Script::Reset, &topic, &channel, &[epoch]);
        if !fits {
            self.broken.ended(number);
            self.broken.note(topic);
        }
        fits
    }

    fn wish(&mut self, link: &mut Link, wish: Wish, now: Now) {
        let prefix = self.names.prefix.clone();
        let token = self.lease.token.text().to_owned();
        let lease = LEASE.as_millis().to_string();
        let (purpose, host, number, script, more) = match wish {
            Wish::Claim => {
                let (former, its_token) = self.lease.former();
                let more = vec![lease, QUIET.as_millis().to_string(), former.to_string(), its_token.to_owned()];
                (Purpose::Claim, 0, now.boot, Script::Claim, more)
            }
            Wish::Renew(host) => {
                let (own, highest) = self.lease.tops();
                let more = vec![lease, host.to_string(), own.to_string(), highest.to_string()];
                (Purpose::Renew, host, now.boot, Script::Renew, more)
            }
            Wish::Clear(host) => {
                let more = vec![host.to_string(), MEMBERS_AT_ONCE.to_string()];
                (Purpose::Clear, host, 0, Script::Clear, more)
            }
            Wish::Raise(host, up_to) => {
                (Purpose::Raise, host, up_to, Script::Raise, vec![host.to_string(), up_to.to_string()])
            }
        };
        let arguments: Vec<&[u8]> =
            [&prefix, &token].into_iter().chain(&more).map(|argument| argument.as_bytes()).collect();
        if !self.scripts.call(link, Tag { purpose, host, number }, PATIENCE, script, &[], &arguments) {
            self.lease.failed(wish, now);
        }
    }

    /// Looks for hosts that are gone, and removes their members.
    fn act_for_the_gone(&mut self, link: &mut Link, now: Now) {
        let random = self.random();
        let prefix = self.names.prefix.as_bytes();
        let token = self.lease.token.text().as_bytes();
        if self.sweep.next_look(now.at, random) {
            let tag = Tag::new(Purpose::Look);
            self.scripts.call(link, tag, SWEEP_PATIENCE, Script::Look, &[], &[prefix, token]);
        }
        while let Some(host) = self.sweep.next(now.at) {
            let tag = Tag { purpose: Purpose::Sweep, host, number: 0 };
            let (host, most) = (host.to_string(), MEMBERS_AT_ONCE.to_string());
            let arguments = [prefix, token, host.as_bytes(), most.as_bytes()];
            self.scripts.call(link, tag, SWEEP_PATIENCE, Script::Sweep, &[], &arguments);
        }
    }

    /// Gives the number back.
    pub(super) fn release(&mut self, link: &mut Link) {
        self.flush(link);
        let Some(host) = self.lease.leave() else { return };
        let (host, most) = (host.to_string(), MEMBERS_AT_LEAVE.to_string());
        let arguments = [&self.names.prefix, self.lease.token.text(), &host, &most].map(str::as_bytes);
        self.scripts.call(link, Tag::new(Purpose::Nothing), PATIENCE, Script::Release, &[], &arguments);
    }
}
