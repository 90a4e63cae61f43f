//! Redis, or Valkey, as the broker of several hosts.
//!
//! All commands go through one pipeline, and Redis carries out one after the other. So the order in which this host asks
//! is the order in which all others hear. What has to happen at once happens in scripts. Answers to questions about
//! topics are published on a channel of this process: so they arrive in order among the messages of the topics.

pub(crate) mod address;
mod asking;
mod batches;
#[cfg(test)]
mod behaviour;
mod complaints;
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

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::asking::Member;
use self::batches::{Batch, Batches, Destination};
use self::complaints::Complaints;
use self::lease::{Lease, Now, Token};
use self::link::Link;
use self::names::Names;
use self::number::NumberFile;
use self::payload::{Sender, put_beside, put_kept_beside};
use self::questions::{Question, Questions};
use self::scripts::{Script, Scripts};
use self::sweep::Sweep;
use self::tag::{Purpose, Tag};
use self::wanted::Topics;
use super::hosts::Hosts;
use super::{Broker, Tell, Ticket, Told};
use crate::registry::{Fd, boot_now};
use crate::settings::{BrokerSettings, Settings};
use crate::topics::history::{Moment, Range};
use crate::topics::options::{Lagging, TopicRules};
use crate::topics::publication::{Position, Publication};

/// How long a command may wait until it is sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module documentation.
pub(crate) struct Redis {
    link: Link,
    core: Core,
}

/// All but the link, which tells while it is borrowed.
struct Core {
    names: Names,
    rules: TopicRules,
    scripts: Scripts,
    batches: Batches,
    questions: Questions,
    topics: Topics,
    lease: Lease,
    sweep: Sweep,
    complaints: Complaints,
    number_file: NumberFile,
    sender: Sender,
    /// The id of the Redis process.
    run: Box<str>,
    /// Whether Redis answers, and whether what it publishes arrives; as far as is known.
    is_answering: bool,
    is_listening: bool,
    /// Whether that was told.
    is_open_told: bool,
    /// Whether a connection was lost since a topic was last subscribed to.
    was_disconnected: bool,
    /// Whether answers to questions can be heard.
    hears_answers: bool,
    /// When to find out whether Redis is there.
    probe_at: Option<Instant>,
    /// Whether the queue to Redis was full.
    is_full: bool,
    /// Whether Redis may not know the members of this host as they are.
    doubts_members: bool,
    /// Frames that were lost and not counted.
    dropped: u64,
    /// What is to be done once the link can be used.
    todo: Vec<Todo>,
    random: RandomState,
    last_random: u64,
}

/// Something that what was heard leads to.
enum Todo {
    /// Tell Redis who it is, and what the scripts are.
    Greet,
    /// Listen to what is sent to this number.
    Listen(u8),
    Unlisten(u8),
    /// Begin a new epoch in place of this one.
    Reset(Arc<str>, u64),
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
        let random = RandomState::new();
        // Each RandomState hashes with keys that nobody can guess.
        let instance = random.hash_one("instance");
        let token = Token::new(u128::from(random.hash_one("token")) << 64 | u128::from(instance));
        let number_file = NumberFile::new(number);
        let names = Names::new(prefix, instance);
        let sender = Sender { instance, host: 0 };
        link.subscribe(names.answers.as_bytes());
        link.subscribe(names.all.as_bytes());
        link.flush();
        let core = Core {
            names,
            rules,
            scripts: Scripts::default(),
            batches: Batches::new(sender),
            questions: Questions::default(),
            topics: Topics::default(),
            lease: Lease::new(token, number_file.read(), 0),
            sweep: Sweep::default(),
            complaints: Complaints::default(),
            number_file,
            sender,
            run: "".into(),
            is_answering: false,
            is_listening: false,
            was_disconnected: false,
            is_open_told: false,
            hears_answers: false,
            probe_at: None,
            is_full: false,
            doubts_members: false,
            dropped: 0,
            todo: Vec::new(),
            random,
            last_random: 0,
        };
        Self { link, core }
    }
}

impl Core {
    fn is_open(&self) -> bool {
        self.is_answering && self.is_listening
    }

    fn random(&mut self) -> u64 {
        self.last_random += 1;
        self.random.hash_one(self.last_random)
    }

    /// An epoch that nobody has used; never 0.
    fn new_epoch(&mut self) -> [u8; 8] {
        self.random().max(1).to_le_bytes()
    }

    /// What batches are sent with.
    fn flush(&mut self, link: &mut Link) {
        let Self { batches, names, dropped, is_full, .. } = self;
        batches.flush(&mut |batch| send(batch, link, names, dropped, is_full));
    }

    /// Has frames gathered, or sent. Returns false if they do not fit.
    fn gather(&mut self, link: &mut Link, put: impl FnOnce(&mut Batches, batches::Send<'_>)) -> bool {
        let Self { batches, names, dropped, is_full, .. } = self;
        let was_full = *is_full;
        let mut send = |batch: &Batch| send(batch, link, names, dropped, is_full);
        put(batches, &mut send);
        if was_full {
            // There may be room again, or not: this frame finds out.
            batches.flush(&mut send);
        }
        !*is_full
    }
}

fn send(batch: &Batch, link: &mut Link, names: &Names, dropped: &mut u64, is_full: &mut bool) {
    let (channel, host) = match &batch.destination {
        Destination::Host(host) => (names.host(*host), *host),
        Destination::All => (names.all.clone(), 0),
        Destination::Topic(topic) => (names.topic(topic), 0),
    };
    let tag = Tag { purpose: Purpose::Frames, host, number: batch.count.into() };
    *is_full = !link.command(tag.to_u64(), PATIENCE, &[b"PUBLISH", channel.as_bytes(), &batch.payload]);
    if *is_full {
        *dropped += u64::from(batch.count);
    }
}

fn now(at: Instant) -> Now {
    Now { at, boot: boot_now() }
}

impl Broker for Redis {
    fn publish(&mut self, topic: &str, publication: Publication<'_>, exclude: &[Fd], _: Moment, tell: Tell<'_>) {
        let Self { link, core } = self;
        let Some(options) = core.rules.ordered(topic).cloned() else { return };
        if !core.is_open() {
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
        if !core.call_of_topic(link, Tag::new(Purpose::Place), Script::Publish, topic, &channel, &arguments) {
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
        let Core { lease, sweep, questions, topics, probe_at, .. } = &self.core;
        [lease.due(), sweep.due(), questions.due(), topics.due(), *probe_at].into_iter().flatten().min()
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
