//! A broker as a hub has it, and what it has told.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::super::hosts::Hosts;
use super::super::super::told::News;
use super::super::super::{Broker, Ticket, Told};
use super::super::Redis;
use super::super::link::Link;
use super::super::link::tests::server::Server;
use crate::language::history::History;
use crate::language::listing::{Member, Page};
use crate::redis_address::RedisAddress;
use crate::registry::Fd;
use crate::settings::BrokerSettings;
use crate::topics::history::Moment;
use crate::topics::options::{Lagging, TopicOptions, TopicRules};
use crate::topics::publication::{Position, Publication};

/// How long a test waits for what has to happen.
pub(super) const LONG: Duration = Duration::from_secs(25);

/// What a broker has told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    Placed { topic: String, position: Position, payload: Vec<u8>, key: Option<String>, exclude: Vec<Fd> },
    Unplaced(String, Vec<u8>),
    Renewed(String),
    Read(Ticket, History),
    Forgotten(Ticket),
    Members(Ticket, Page<Member>),
    Failed(Ticket),
    Frame(u8, Vec<u8>),
    Numbered(u8, u64),
    Leased(u64),
    Held(u64),
    Fenced,
    Emptied,
    Missed,
    Absent(u8),
    Lost(String, Fd, String),
    Open(bool),
    Unusable(String),
    Warning(String),
}

impl Event {
    pub(super) fn of(told: Told<'_>) -> Self {
        match told {
            Told::Placed { topic, position, publication, exclude } => Self::Placed {
                topic: topic.into(),
                position,
                payload: publication.payload.into(),
                key: publication.key.map(Into::into),
                exclude: exclude.into(),
            },
            Told::Unplaced { topic, publication, .. } => Self::Unplaced(topic.into(), publication.payload.into()),
            Told::Renewed(topic) => Self::Renewed(topic.into()),
            Told::Read(ticket, history) => Self::Read(ticket, history),
            Told::Forgotten(ticket) => Self::Forgotten(ticket),
            Told::Members(ticket, page) => Self::Members(ticket, page),
            Told::Failed(ticket) => Self::Failed(ticket),
            Told::News(news) => match news {
                News::Frame { from, frame } => Self::Frame(from, frame.into()),
                News::Numbered { host, above } => Self::Numbered(host, above),
                News::Leased(up_to) => Self::Leased(up_to),
                News::Held(until) => Self::Held(until),
                News::Fenced => Self::Fenced,
                News::Emptied => Self::Emptied,
                News::Missed => Self::Missed,
                News::Absent(host) => Self::Absent(host),
                News::Lost { topic, fd, info } => Self::Lost(topic.into(), fd, info.into()),
                News::Open(is_open) => Self::Open(is_open),
                News::Unusable(text) => Self::Unusable(text),
                News::Unreachable(text) | News::Warning(text) => Self::Warning(text),
            },
        }
    }
}

/// See the module documentation.
pub(super) struct Node {
    pub(super) redis: Redis,
    pub(super) heard: Vec<Event>,
    /// What was heard before this place was waited for already.
    pub(super) seen: usize,
    pub(super) host: u8,
    tickets: u64,
}

/// Options of topics: `h5:` and so on keep so many messages, `one:` for a second; `latest:` has keys, `order:` keeps
/// nothing.
pub(super) fn rules() -> TopicRules {
    let options = |pattern: &str, history, seconds, envelope, lagging| TopicOptions {
        pattern: pattern.into(),
        history,
        seconds: Duration::from_secs(seconds),
        presence: true,
        envelope,
        lagging,
        ttl: None,
    };
    TopicRules::new(vec![
        options("h5:*", 5, 300, false, None),
        options("h50:*", 50, 300, false, None),
        options("h9999:*", 9999, 300, false, None),
        options("one:*", 100, 1, false, None),
        options("latest:*", 3, 300, false, Some(Lagging::Latest)),
        options("order:*", 0, 300, true, None),
    ])
}

pub(super) const MOMENT: Moment = Moment { now: 0, unix: 0 };

impl Node {
    /// One that is not connected yet.
    pub(super) fn begin(server: &Server) -> Self {
        Self::begin_with(server, None)
    }

    /// The same with a file that keeps its number.
    pub(super) fn begin_with(server: &Server, number: Option<OwnedFd>) -> Self {
        let settings = BrokerSettings {
            address: RedisAddress::parse(&server.url()).expect("an address"),
            prefix: "p".into(),
            queue_size: 64 * 1024 * 1024,
            name: "one".into(),
        };
        let redis = Redis::new(Link::start(&settings).expect("a link"), "p", rules(), number);
        Self { redis, heard: Vec::new(), seen: 0, host: 0, tickets: 0 }
    }

    /// One that has a number.
    pub(super) fn new(server: &Server) -> Self {
        let mut node = Self::begin(server);
        node.take_number();
        node
    }

    pub(super) fn take_number(&mut self) {
        let Event::Numbered(host, above) = self.until(|event| matches!(event, Event::Numbered(..))) else {
            unreachable!("it was waited for")
        };
        self.host = host;
        self.redis.lease(above + 1000);
        self.until(|event| matches!(event, Event::Held(_)));
    }

    pub(super) fn fd(&self, number: u64) -> Fd {
        u64::from(self.host) << 45 | number
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket { asker: 1, serial: 2, number: self.tickets }
    }

    /// Wants a topic, and waits until its messages arrive.
    pub(super) fn want(&mut self, topic: &str) {
        self.redis.want(topic);
        let until = Instant::now() + LONG;
        while self.redis.core.topics.is_awaited(topic) {
            // Later waits begin here.
            self.seen = self.heard.len();
            let left = until.checked_duration_since(Instant::now());
            self.turn(left.expect("messages of the topic arrive"));
        }
    }

    pub(super) fn place(&mut self, topic: &str, text: &str) {
        let heard = &mut self.heard;
        let tell = &mut |told: Told<'_>| heard.push(Event::of(told));
        Broker::publish(&mut self.redis, topic, Publication::text(text), &[], MOMENT, tell);
    }

    /// Asks the broker something, and waits for the answer.
    pub(super) fn ask(&mut self, ask: impl FnOnce(&mut dyn Broker, Ticket, super::super::Tell<'_>)) -> Event {
        let ticket = self.ticket();
        let heard = &mut self.heard;
        ask(&mut self.redis, ticket, &mut |told| heard.push(Event::of(told)));
        self.until(|event| match event {
            Event::Read(of, _) | Event::Forgotten(of) | Event::Members(of, _) | Event::Failed(of) => *of == ticket,
            _ => false,
        })
    }

    pub(super) fn recover(&mut self, topic: &str, since: &[Position], last: usize) -> History {
        let answer = self.ask(|broker, ticket, tell| {
            broker.recover(ticket, topic, since, last, 1_000_000, MOMENT, tell);
        });
        let Event::Read(_, history) = answer else { panic!("{answer:?}") };
        history
    }

    pub(super) fn members(&mut self, topic: &str) -> Vec<Member> {
        let answer = self.ask(|broker, ticket, tell| broker.members(ticket, topic, 0, 4096, tell));
        let Event::Members(_, page) = answer else { panic!("{answer:?}") };
        page.entries
    }

    /// One turn of the hub: waits until something happens, at most for this time.
    pub(super) fn turn(&mut self, most: Duration) {
        self.redis.flush();
        let due = self.redis.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let wait = due.map_or(most, |due| due.min(most));
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let _ = poll(&mut [PollFd::from_borrowed_fd(self.redis.fileno(), PollFlags::IN)], Some(&wait));
        let heard = &mut self.heard;
        self.redis.hear(Instant::now(), &mut |told| heard.push(Event::of(told)));
        self.redis.flush();
    }

    /// Waits for an event, after those that were waited for before.
    pub(super) fn until(&mut self, mut is_it: impl FnMut(&Event) -> bool) -> Event {
        let until = Instant::now() + LONG;
        loop {
            while self.seen < self.heard.len() {
                self.seen += 1;
                let event = &self.heard[self.seen - 1];
                if is_it(event) {
                    return event.clone();
                }
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                let from = self.heard.len().saturating_sub(20);
                panic!("it has not happened; the last events: {:#?}", &self.heard[from..])
            };
            self.turn(left);
        }
    }

    /// Waits for these events, in any order.
    pub(super) fn until_all(&mut self, events: &[Event]) {
        let mut left = events.to_vec();
        self.until(|event| {
            left.retain(|waited| waited != event);
            left.is_empty()
        });
    }

    /// Runs for a while.
    pub(super) fn run(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.turn(left.min(Duration::from_millis(50)));
        }
    }

    /// Forgets what it has heard.
    pub(super) fn forget_heard(&mut self) {
        self.heard.clear();
        self.seen = 0;
    }

    /// The members that were lost.
    pub(super) fn lost(&self) -> HashSet<(String, Fd, String)> {
        let lost = self.heard.iter().filter_map(|event| match event {
            Event::Lost(topic, fd, info) => Some((topic.clone(), *fd, info.clone())),
            _ => None,
        });
        let all: Vec<_> = lost.collect();
        let set: HashSet<_> = all.iter().cloned().collect();
        assert_eq!(set.len(), all.len(), "none is lost twice");
        set
    }
}
