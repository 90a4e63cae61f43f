//! The link against a real Redis.

mod cost;
mod failures;
mod hostile;
mod proxy;
mod sentinels;
pub(crate) mod server;
mod silence;
mod streams;

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::server::Server;
use super::{Heard, Link, Reply};
use crate::redis_address::RedisAddress;
use crate::settings::BrokerSettings;

/// How long a test waits for what has to happen.
const LONG: Duration = Duration::from_secs(60);
/// A patience that does not matter.
const PATIENT: Duration = Duration::from_secs(60);

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Connected(String),
    Reply(u64, Result<String, String>),
    Lost(u64),
    Message(String, String),
    Subscribed(String),
    Resubscribed,
    Disconnected(String),
    Unusable(String),
    Warning(String),
}

impl Event {
    fn is_trouble(&self) -> bool {
        matches!(self, Self::Disconnected(_) | Self::Unusable(_))
    }
}

/// A link, and what was heard of it.
struct Ears {
    link: Link,
    heard: Vec<Event>,
    /// What was heard before this place was waited for already.
    seen: usize,
}

impl Ears {
    fn with(url: &str, queue_size: usize) -> Self {
        let settings = BrokerSettings {
            address: RedisAddress::parse(url).expect("an address"),
            prefix: "test".into(),
            queue_size,
            name: "one".into(),
        };
        Self { link: Link::start(&settings).expect("a link"), heard: Vec::new(), seen: 0 }
    }

    fn new(url: &str) -> Self {
        Self::with(url, 64 * 1024 * 1024)
    }

    /// With a link that is connected, and subscribed to a channel.
    fn on(url: &str, channel: &str) -> Self {
        let mut ears = Self::new(url);
        ears.link.subscribe(channel.as_bytes());
        ears.link.flush();
        let (mut connected, mut subscribed) = (false, false);
        ears.until(|event| {
            connected |= matches!(event, Event::Connected(_));
            subscribed |= matches!(event, Event::Subscribed(_));
            connected && subscribed
        });
        ears
    }

    fn command(&mut self, tag: u64, parts: &[&str]) {
        let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
        assert!(self.link.command(tag, PATIENT, &parts), "there is room");
        self.link.flush();
    }

    /// Waits for the reply to a command.
    fn ask(&mut self, parts: &[&str]) -> Result<String, String> {
        self.command(u64::MAX, parts);
        match self.until(|event| matches!(event, Event::Reply(u64::MAX, _) | Event::Lost(u64::MAX))) {
            Event::Reply(_, reply) => reply,
            event => panic!("{event:?}"),
        }
    }

    /// Publishes a message on a channel of this link, and waits until it has arrived. Nothing says that the reply comes
    /// first.
    fn publish(&mut self, channel: &str, payload: &str) {
        self.command(u64::MAX, &["PUBLISH", channel, payload]);
        let message = Event::Message(channel.into(), payload.into());
        let (mut is_published, mut has_arrived) = (false, false);
        self.until(|event| {
            is_published |= *event == Event::Reply(u64::MAX, Ok("1".into()));
            has_arrived |= *event == message;
            is_published && has_arrived
        });
    }

    /// Waits until commands are taken and all channels are subscribed again. Returns the id of the server.
    fn until_renewed(&mut self) -> String {
        let (mut connected, mut is_renewed) = (None, false);
        self.until(|event| {
            match event {
                Event::Connected(run_id) => connected = Some(run_id.clone()),
                Event::Resubscribed => is_renewed = true,
                _ => {}
            }
            connected.is_some() && is_renewed
        });
        connected.expect("it is connected")
    }

    fn hear(&mut self) {
        let heard = &mut self.heard;
        self.link.hear(&mut |event| heard.push(owned(event)));
    }

    fn poll(&mut self, wait: Duration) {
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let fd = self.link.fileno();
        let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&wait));
    }

    /// Waits for an event, after those that were waited for before.
    fn until(&mut self, mut is_it: impl FnMut(&Event) -> bool) -> Event {
        self.within(LONG, &mut is_it).unwrap_or_else(|| {
            let from = self.heard.len().saturating_sub(20);
            panic!("it has not happened; the last events: {:#?}", &self.heard[from..])
        })
    }

    fn within(&mut self, time: Duration, is_it: &mut dyn FnMut(&Event) -> bool) -> Option<Event> {
        let until = Instant::now() + time;
        loop {
            while self.seen < self.heard.len() {
                self.seen += 1;
                let event = &self.heard[self.seen - 1];
                if is_it(event) {
                    return Some(event.clone());
                }
            }
            let left = until.checked_duration_since(Instant::now())?;
            self.poll(left);
            self.hear();
        }
    }
}

fn owned(heard: Heard<'_>) -> Event {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match heard {
        Heard::Connected { run_id } => Event::Connected(run_id.into()),
        Heard::Reply { tag, reply } => Event::Reply(tag, reply.map(|reply| shown(&reply)).map_err(str::to_owned)),
        Heard::Lost { tag } => Event::Lost(tag),
        Heard::Message { channel, payload } => Event::Message(text(channel), text(payload)),
        Heard::Subscribed(channel) => Event::Subscribed(text(channel)),
        Heard::Resubscribed => Event::Resubscribed,
        Heard::Disconnected(reason) => Event::Disconnected(reason.into()),
        Heard::Unusable(reason) => Event::Unusable(reason.into()),
        Heard::Warning(text) => Event::Warning(text.into()),
    }
}

fn shown(reply: &Reply<'_>) -> String {
    match reply {
        Reply::Nothing => "nothing".into(),
        Reply::Integer(number) => number.to_string(),
        Reply::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::List(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
    }
}

#[test]
fn replies_come_in_the_order_of_the_commands() {
    let Some(server) = Server::start(&[]) else { return };
    let mut ears = Ears::new(&server.url());
    ears.command(1, &["SET", "key", "value"]);
    ears.command(2, &["GET", "key"]);
    ears.command(3, &["INCR", "key"]);
    ears.command(4, &["GET", "no such key"]);
    ears.command(5, &["RPUSH", "list", "a", "b"]);
    ears.command(6, &["LRANGE", "list", "0", "-1"]);
    ears.command(7, &["HSET", "hash", "one", "1"]);
    ears.command(8, &["HGETALL", "hash"]);
    ears.command(9, &["EVAL", "return {1, {'a', {}}, false}", "0"]);
    ears.command(10, &["NO-SUCH-COMMAND"]);
    ears.command(11, &["EVAL", "return 1.5", "0"]);
    ears.until(|event| matches!(event, Event::Reply(11, _)));
    let Event::Connected(run_id) = &ears.heard[0] else { panic!("{:?}", ears.heard) };
    assert_eq!(run_id.len(), 40);
    let replies = ears.heard[1..].iter().map(|event| match event {
        Event::Reply(tag, Ok(reply)) => (*tag, reply.as_str()),
        Event::Reply(tag, Err(error)) => (*tag, error.split_once(' ').map_or("", |(code, _)| code)),
        event => panic!("{event:?}"),
    });
    let expected = [
        (1, "OK"),
        (2, "value"),
        (3, "ERR"),
        (4, "nothing"),
        (5, "2"),
        (6, "[a b]"),
        (7, "1"),
        (8, "[one 1]"),
        (9, "[1 [a []] nothing]"),
        (10, "ERR"),
        (11, "1"),
    ];
    assert_eq!(replies.collect::<Vec<_>>(), expected);
}

#[test]
fn messages_arrive_on_the_channels_that_are_wanted() {
    let Some(server) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "news");
    assert_eq!(ears.ask(&["PUBLISH", "news", "first"]), Ok("1".into()));
    assert_eq!(ears.ask(&["PUBLISH", "else", "second"]), Ok("0".into()));
    ears.link.subscribe(b"else");
    ears.link.unsubscribe(b"else");
    ears.link.subscribe(b"else");
    ears.link.unsubscribe(b"news");
    ears.link.subscribe(b"last");
    ears.link.flush();
    let mut awaited = 2;
    ears.until(|event| {
        awaited -= i32::from(matches!(event, Event::Subscribed(_)));
        awaited == 0
    });
    assert_eq!(ears.ask(&["PUBLISH", "news", "third"]), Ok("0".into()));
    ears.publish("else", "fourth");
    let messages = ears.heard.iter().filter(|event| matches!(event, Event::Message(..)));
    assert_eq!(messages.count(), 2);
    assert!(!ears.heard.iter().any(|event| event.is_trouble() || *event == Event::Resubscribed));
}

#[test]
fn a_hundred_thousand_messages_keep_their_order() {
    const COUNT: u64 = 100_000;
    let Some(server) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "news");
    for number in 0..COUNT {
        let payload = number.to_string();
        while !ears.link.command(number, PATIENT, &[b"PUBLISH", b"news", payload.as_bytes()]) {
            ears.link.flush();
            ears.poll(LONG);
            ears.hear();
        }
        if number % 100 == 0 {
            ears.link.flush();
        }
    }
    ears.link.flush();
    let (mut next_reply, mut next_message) = (0, 0);
    ears.until(|event| {
        match event {
            Event::Reply(tag, Ok(_)) => {
                assert_eq!(*tag, next_reply);
                next_reply += 1;
            }
            Event::Message(_, payload) => {
                assert_eq!(*payload, next_message.to_string());
                next_message += 1;
            }
            event => panic!("{event:?}"),
        }
        (next_reply, next_message) == (COUNT, COUNT)
    });
}
