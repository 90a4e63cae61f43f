//! What is known of Redis and of this host, apart from the link.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batches::{self, Batch, Batches, Destination};
use super::broken::Broken;
use super::complaints::Complaints;
use super::doubt::Doubt;
use super::lease::{Lease, Token};
use super::link::Link;
use super::names::Names;
use super::number::NumberFile;
use super::payload::{Sender, begin_frames};
use super::questions::Questions;
use super::scripts::Scripts;
use super::sweep::Sweep;
use super::tag::{Purpose, Tag};
use super::wanted::Topics;
use crate::topics::options::TopicRules;

/// How long a command may wait until it is sent.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// All but the link, which tells while it is borrowed.
pub(super) struct Core {
    pub(super) names: Names,
    pub(super) rules: TopicRules,
    pub(super) scripts: Scripts,
    pub(super) batches: Batches,
    pub(super) questions: Questions,
    pub(super) topics: Topics,
    pub(super) broken: Broken,
    pub(super) lease: Lease,
    pub(super) sweep: Sweep,
    pub(super) complaints: Complaints,
    pub(super) number_file: NumberFile,
    pub(super) sender: Sender,
    /// The id of the Redis process.
    pub(super) run: Box<str>,
    /// Whether Redis answers, and whether what it publishes arrives; as far as is known.
    pub(super) is_answering: bool,
    pub(super) is_listening: bool,
    /// Whether that was told.
    pub(super) is_open_told: bool,
    /// Whether a connection was lost since a topic was last subscribed to.
    pub(super) was_disconnected: bool,
    /// Whether answers to questions can be heard.
    pub(super) hears_answers: bool,
    /// When to find out whether Redis is there.
    pub(super) probe_at: Option<Instant>,
    /// Whether the queue to Redis was full.
    pub(super) is_full: bool,
    /// Whether Redis may not know the members of this host as they are.
    pub(super) doubt: Doubt,
    /// Frames that were lost and not counted.
    pub(super) dropped: u64,
    /// Memory for a message, used again and again.
    pub(super) frame: Vec<u8>,
    /// What is to be done once the link can be used.
    pub(super) todo: Vec<Todo>,
    pub(super) random: RandomState,
    pub(super) last_random: u64,
}

/// Something that what was heard leads to.
pub(super) enum Todo {
    /// Tell Redis who it is, and what the scripts are.
    Greet,
    /// Listen to what is sent to this number.
    Listen(u8),
    Unlisten(u8),
    /// Begin a new epoch in place of this one.
    Reset(Arc<str>, u64),
}

impl Core {
    /// Begins to listen, too.
    pub(super) fn new(link: &mut Link, prefix: &str, rules: TopicRules, number: Option<OwnedFd>) -> Self {
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
        Self {
            names,
            rules,
            scripts: Scripts::default(),
            batches: Batches::new(sender),
            questions: Questions::default(),
            topics: Topics::default(),
            broken: Broken::default(),
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
            doubt: Doubt::default(),
            dropped: 0,
            frame: Vec::new(),
            todo: Vec::new(),
            random,
            last_random: 0,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_answering && self.is_listening
    }

    pub(super) fn random(&mut self) -> u64 {
        self.last_random += 1;
        self.random.hash_one(self.last_random)
    }

    /// An epoch that nobody has used; never 0.
    pub(super) fn new_epoch(&mut self) -> [u8; 8] {
        self.random().max(1).to_le_bytes()
    }

    /// What batches are sent with.
    pub(super) fn flush(&mut self, link: &mut Link) {
        let Self { batches, names, dropped, is_full, .. } = self;
        batches.flush(&mut |batch| send(batch, link, names, dropped, is_full));
    }

    /// Sends what is not a call of the application, and so is not counted if it is lost.
    pub(super) fn announce(&mut self, link: &mut Link, frame: &[u8]) {
        self.flush(link);
        let mut payload = Vec::with_capacity(64 + frame.len());
        begin_frames(&mut payload, self.batches.sender());
        payload.extend_from_slice(frame);
        let tag = Tag { purpose: Purpose::Frames, host: 0, number: 0 };
        link.command(tag.to_u64(), PATIENCE, &[b"PUBLISH", self.names.all.as_bytes(), &payload]);
    }

    /// Has frames gathered, or sent. Returns false if they do not fit.
    pub(super) fn gather(&mut self, link: &mut Link, put: impl FnOnce(&mut Batches, batches::Send<'_>)) -> bool {
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
