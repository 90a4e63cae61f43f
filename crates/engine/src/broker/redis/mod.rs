//! Redis, or Valkey, as the broker of several hosts.
//!
//! All commands go through one pipeline, and Redis carries out one after the other. So the order in which this host asks
//! is the order in which all others hear. What has to happen at once happens in scripts. Answers to questions about
//! topics are published on a channel of this process: so they arrive in order among the messages of the topics.

mod asking;
mod batches;
#[cfg(test)]
mod behaviour;
mod broken;
mod complaints;
mod core;
mod doubt;
mod hearing;
mod lease;
pub(crate) mod link;
mod names;
mod number;
mod payload;
mod questions;
mod scripts;
mod sweep;
mod tag;
mod wanted;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use self::asking::Member;
use self::core::Core;
use self::lease::Now;
use self::link::Link;
use self::payload::{put_beside, put_kept_beside};
use self::questions::Question;
use self::scripts::Script;
use self::tag::{Purpose, Tag};
use super::hosts::Hosts;
use super::{Broker, Tell, Ticket, Told};
use crate::language::command::Command;
use crate::registry::{Fd, boot_now};
use crate::settings::{BrokerSettings, Settings};
use crate::topics::history::{Moment, Range};
use crate::topics::options::{Lagging, TopicRules};
use crate::topics::publication::{Position, Publication};

/// See the module documentation.
pub(crate) struct Redis {
    link: Link,
    core: Core,
}

impl Redis {
    /// Connects to Redis, in a thread. `number` is a file that keeps this host's number and its token over a restart.
    ///
    /// # Errors
    /// If there is no thread or descriptor.
    pub(crate) fn start(
        broker: &BrokerSettings,
        settings: &Settings,
        number: Option<OwnedFd>,
    ) -> io::Result<Box<dyn Broker>> {
        Ok(Box::new(Self::new(Link::start(broker)?, &broker.prefix, settings.topics.clone(), number)))
    }

    fn new(mut link: Link, prefix: &str, rules: TopicRules, number: Option<OwnedFd>) -> Self {
        let core = Core::new(&mut link, prefix, rules, number);
        Self { link, core }
    }

    fn ask(&mut self, ticket: Ticket, topic: &str, question: Question, tell: Tell<'_>) {
        let (core, now) = (&mut self.core, Instant::now());
        if core.can_ask(topic, &question) {
            core.ask(&mut self.link, ticket, topic, &question, now, tell);
        } else if !core.questions.wait(ticket, topic, question, now) {
            tell(Told::Failed(ticket));
        }
    }
}

fn now(at: Instant) -> Now {
    Now { at, boot: boot_now() }
}

impl Broker for Redis {
    fn publish(&mut self, topic: &str, publication: Publication<'_>, exclude: &[Fd], _: Moment, tell: Tell<'_>) {
        let Self { link, core } = self;
        let Some(options) = core.rules.ordered(topic).cloned() else { return };
        let name = core.topics.name(topic);
        if !core.is_open() {
            core.broken.note(name);
            tell(Told::Unplaced { topic, publication, exclude });
            return;
        }
        core.flush(link);
        let (mut beside, mut kept_beside) = (Vec::new(), Vec::new());
        put_beside(&mut beside, &publication, exclude);
        let key = publication.key.filter(|_| options.lagging == Some(Lagging::Latest));
        put_kept_beside(&mut kept_beside, &Publication { key, ..publication });
        let kept = options.history.to_string();
        let channel = core.names.topic(topic);
        let arguments = [kept.as_bytes(), &beside, &kept_beside, publication.payload];
        core.frame.clear();
        Command::Publish { topic, publication, exclude: exclude.into() }.encode(&mut core.frame);
        let number = core.broken.sent(Arc::clone(&name), &core.frame);
        let tag = Tag { purpose: Purpose::Place, host: 0, number };
        if !core.call_of_topic(link, tag, Script::Publish, topic, &channel, &arguments) {
            core.broken.ended(number);
            core.broken.note(name);
            core.dropped += 1;
            tell(Told::Unplaced { topic, publication, exclude });
        }
    }

    fn read(&mut self, ticket: Ticket, topic: &str, after: Option<Position>, range: Range, _: Moment, tell: Tell<'_>) {
        self.ask(ticket, topic, Question::Read { after, range }, tell);
    }

    fn recover(
        &mut self,
        ticket: Ticket,
        topic: &str,
        since: &[Position],
        last: usize,
        max_bytes: usize,
        _: Moment,
        tell: Tell<'_>,
    ) {
        self.ask(ticket, topic, Question::recover(since, last, max_bytes), tell);
    }

    fn forget(&mut self, ticket: Ticket, topic: &str, tell: Tell<'_>) {
        self.ask(ticket, topic, Question::Forget, tell);
    }

    fn position(&mut self, topic: &str, _: Moment) -> Option<Position> {
        self.core.topics.position(topic)
    }

    fn join(&mut self, topic: &str, fd: Fd, info: &str) {
        self.core.change_member(&mut self.link, topic, fd, Member::Joins(info));
    }

    fn leave(&mut self, topic: &str, fd: Fd) {
        self.core.change_member(&mut self.link, topic, fd, Member::Leaves);
    }

    fn members(&mut self, ticket: Ticket, topic: &str, after: Fd, limit: usize, tell: Tell<'_>) {
        self.ask(ticket, topic, Question::Members { after, limit }, tell);
    }

    fn take_evicted(&mut self) -> u64 {
        0
    }

    fn expire(&mut self, _: u64, _: &dyn Fn(&str) -> bool) {}

    fn next_expiry(&self) -> Option<u64> {
        None
    }

    fn hosts(&mut self) -> Option<&mut dyn Hosts> {
        Some(self)
    }
}

impl Hosts for Redis {
    fn fileno(&self) -> BorrowedFd<'_> {
        self.link.fileno()
    }

    fn hear(&mut self, now: Instant, tell: Tell<'_>) {
        let Self { link, core } = self;
        let now = self::now(now);
        link.hear(&mut |heard| core.hear(heard, now, tell));
        core.act(link, now, tell);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let Core { lease, sweep, questions, topics, broken, doubt, probe_at, .. } = &self.core;
        let broken = broken.due().filter(|_| self.core.is_open());
        let all = [lease.due(), sweep.due(), questions.due(), topics.due(), broken, doubt.due(), *probe_at];
        all.into_iter().flatten().min()
    }

    fn flush(&mut self) {
        self.core.flush(&mut self.link);
        self.link.flush();
    }

    fn send(&mut self, host: u8, frame: &[u8]) -> bool {
        self.core.gather(&mut self.link, |batches, send| batches.for_host(host, frame, send))
    }

    fn send_to_all(&mut self, frame: &[u8]) -> bool {
        self.core.gather(&mut self.link, |batches, send| batches.for_all(frame, send))
    }

    fn announce(&mut self, frame: &[u8]) {
        self.core.announce(&mut self.link, frame);
    }

    fn publish(&mut self, topic: &str, frame: &[u8]) -> bool {
        self.core.gather(&mut self.link, |batches, send| batches.for_topic(topic, frame, send))
    }

    fn want(&mut self, topic: &str) {
        let is_ordered = self.core.rules.ordered(topic).is_some();
        if self.core.topics.want(topic, is_ordered, Instant::now()) {
            self.link.subscribe(self.core.names.topic(topic).as_bytes());
        }
    }

    fn unwant(&mut self, topic: &str) {
        if self.core.topics.unwant(topic) {
            self.link.unsubscribe(self.core.names.topic(topic).as_bytes());
        }
    }

    fn lease(&mut self, up_to: u64) {
        self.core.lease.want(up_to, now(Instant::now()));
    }

    fn has_room(&self) -> bool {
        !self.core.is_full
    }

    fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.core.dropped)
    }

    fn leave(&mut self) {
        self.core.release(&mut self.link);
        self.link.flush();
    }
}
