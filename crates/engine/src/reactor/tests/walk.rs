//! Random walks: clients, application and time do anything in any order, next to a model of what each side has to
//! receive. The invariants are checked after every turn.
//!
//! A failure names its seed. `HUBBUB_SEED=7 cargo test -p engine walk` repeats it, `HUBBUB_SEEDS=1000` takes that many
//! walks, and `HUBBUB_STEPS` sets their length.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wire::frame::{DataOpcode, Fin, Opcode};

use crate::endpoints::{Bodies, Endpoints};
use crate::reactor::answering::Part;
use crate::reactor::commands::Subscribed;
use crate::reactor::event::Token;
use crate::reactor::tests::application::{Seen, Who};
use crate::reactor::tests::client::{HANDSHAKE, HANDSHAKE_WITH_DEFLATE, Received, compressed_frame, frame};
use crate::reactor::tests::random::Random;
use crate::reactor::tests::simulation::{NO_HEADERS, Simulation};
use crate::registry::Fd;
use crate::settings::{Settings, SlowConsumer};
use crate::topics::options::{Lagging, TopicOptions, TopicRules};
use crate::topics::publication::{Content, Position, Publication};

/// The walks of an ordinary run.
const SEEDS: u64 = 3;
const STEPS: usize = 10_000;
/// Clients connected at the same time.
const MAX_CLIENTS: usize = 24;
const MAX_MESSAGE: usize = 2000;
const MAX_QUEUE: usize = 20_000;
const MAX_TOPICS: usize = 3;
const TOPICS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// The topic of whose messages only the latest is kept, and the one whose messages expire; in half of the walks.
const LATEST: &str = "d";
const BRIEF: &str = "e";
const KEYS: [Option<&str>; 4] = [None, Some("x"), Some("y"), Some("z")];
const FILE_SIZE: usize = 300_000;
/// Bytes that may be queued beyond `send_queue_size`: control frames, the answer to the handshake, and headers.
const OVERHEAD: usize = 600;

/// A message, whichever way it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Message {
    Text(String),
    Binary(Vec<u8>),
}

impl Message {
    fn opcode(&self) -> DataOpcode {
        match self {
            Self::Text(_) => DataOpcode::Text,
            Self::Binary(_) => DataOpcode::Binary,
        }
    }

    fn payload(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Adds the payload of a later fragment.
    fn join(&mut self, more: &Self) {
        match (self, more) {
            (Self::Text(text), Self::Text(more)) => text.push_str(more),
            (Self::Binary(bytes), more) => bytes.extend_from_slice(more.payload()),
            (Self::Text(_), Self::Binary(_)) => panic!("text is continued by text"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    WebSocket,
    Http,
}

/// Messages that may be lost, but stay in order: their topic and key.
type Stream = (&'static str, Option<&'static str>);

/// A client, and what is known about its connection.
struct Peer {
    kind: Kind,
    /// The percentage of its chances to read that it uses.
    diligence: usize,
    /// Messages that it has written, at least in part.
    written: Vec<Message>,
    /// The message that it is writing in fragments.
    writing: Option<Message>,
    /// How many of the written messages the application has received.
    delivered: usize,
    /// The code of its Close frame.
    closing: Option<u16>,
    /// Whether it has broken a rule, or ended its stream.
    is_broken: bool,
    /// Messages that are to be sent to it, in order.
    expected: Vec<Message>,
    /// The message that the application sends it in fragments, and the messages that wait for its end.
    fragmented: Option<(Message, Vec<Message>)>,
    /// How many of the expected messages have been received or passed over, and how many frames have been looked at.
    matched: usize,
    looked_at: usize,
    /// Messages that may be replaced or expire, and the place of the last one of each stream that has been received.
    passing: Vec<(Message, Stream)>,
    passed: BTreeMap<Stream, usize>,
    pings: usize,
    pongs: usize,
    topics: Vec<&'static str>,
    /// The marks of the answers to its requests, one after the other.
    answers: String,
}

impl Peer {
    fn new(kind: Kind, diligence: usize) -> Self {
        Self {
            kind,
            diligence,
            written: Vec::new(),
            writing: None,
            delivered: 0,
            closing: None,
            is_broken: false,
            expected: Vec::new(),
            fragmented: None,
            matched: 0,
            looked_at: 0,
            passing: Vec::new(),
            passed: BTreeMap::new(),
            pings: 0,
            pongs: 0,
            topics: Vec::new(),
            answers: String::new(),
        }
    }

    fn expect(&mut self, message: Message) {
        match &mut self.fragmented {
            Some((_, waiting)) => waiting.push(message),
            None => self.expected.push(message),
        }
    }

    /// Notes that a message of a stream has been received; false if it belongs to none.
    fn passes(&mut self, message: &Message) -> bool {
        let Some(place) = self.passing.iter().position(|(each, _)| each == message) else { return false };
        let before = self.passed.insert(self.passing[place].1, place);
        assert!(before.is_none_or(|before| before < place), "the messages of a stream are sent in order");
        true
    }

    /// Whether of each key the latest message has been received.
    fn has_latest(&self) -> bool {
        let latest: BTreeMap<Stream, usize> =
            self.passing.iter().enumerate().map(|(place, (_, stream))| (*stream, place)).collect();
        latest.iter().all(|(stream, place)| stream.0 == BRIEF || self.passed.get(stream) == Some(place))
    }
}

struct Walk {
    random: Random,
    has_topic_options: bool,
    simulation: Simulation,
    peers: Vec<Peer>,
    /// By connection.
    owners: BTreeMap<Fd, Who>,
    policy: SlowConsumer,
    messages: usize,
    looked_at: usize,
    answers: usize,
    /// Requests that are being answered in parts.
    begun: Vec<(Who, Token)>,
    /// `FILE_SIZE` bytes that can be an answer.
    file: File,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let policy = if random.chance(50) { SlowConsumer::Close } else { SlowConsumer::Drop };
        let seconds = |count| Duration::from_secs(count);
        let has_topic_options = random.chance(50);
        let mut simulation = Simulation::new(Settings {
            max_connections: 10,
            max_message_size: MAX_MESSAGE,
            send_queue_size: MAX_QUEUE,
            slow_consumer: policy,
            max_memory: if random.chance(50) { 1 << 30 } else { 60_000 },
            max_topics: MAX_TOPICS,
            topics: if has_topic_options { topic_options() } else { TopicRules::default() },
            compression: random.chance(40),
            compression_threshold: 300,
            receive_queue: 3,
            ping_interval: Some(seconds(5)),
            ping_timeout: Some(seconds(2)),
            message_timeout: Some(seconds(3)),
            handshake_timeout: seconds(4),
            close_timeout: seconds(2),
            keep_alive_timeout: seconds(3),
            endpoints: Endpoints {
                bodies: if random.chance(50) { Bodies::Streamed } else { Bodies::Whole },
                ..Endpoints::default()
            },
            ..Settings::small()
        });
        if random.chance(50) {
            simulation.reactor.backlog.max_at_once = random.below(4);
        }
        match random.below(4) {
            // Each turn does the minimum.
            0 | 1 => simulation.reactor.turn_time = Duration::ZERO,
            // A turn may end at any step.
            2 => simulation.time.pass_at_each_reading(Duration::from_micros(300)),
            _ => {}
        }
        let (peers, owners) = (Vec::new(), BTreeMap::new());
        let file = file_of(FILE_SIZE);
        Self {
            random,
            has_topic_options,
            simulation,
            peers,
            owners,
            policy,
            messages: 0,
            looked_at: 0,
            answers: 0,
            begun: Vec::new(),
            file,
        }
    }

    // ---- choices ----------------------------------------------------------------------------------------------------

    /// The clients that have not left.
    fn clients(&mut self) -> Vec<Who> {
        (0..self.peers.len()).filter(|who| !self.simulation.client(*who).has_left()).collect()
    }

    fn client(&mut self, kind: Kind) -> Option<Who> {
        let mut clients = self.clients();
        clients.retain(|who| self.peers[*who].kind == kind);
        self.random.pick(&clients)
    }

    fn either(&mut self) -> Kind {
        if self.random.chance(80) { Kind::WebSocket } else { Kind::Http }
    }

    /// A connection that is open, and its client.
    fn connection(&mut self) -> Option<(Fd, Who)> {
        let open = self.simulation.reactor.own_ids();
        let fd = self.random.pick(&open)?;
        Some((fd, self.owners[&fd]))
    }

    fn message(&mut self) -> Message {
        self.messages += 1;
        let length = if self.random.chance(70) { self.random.below(60) } else { self.random.below(MAX_MESSAGE - 40) };
        let text = format!("{}: ü{}", self.messages, "x".repeat(length));
        if self.random.chance(60) { Message::Text(text) } else { Message::Binary(text.into_bytes()) }
    }

    // ---- steps ------------------------------------------------------------------------------------------------------

    fn step(&mut self) {
        match self.random.below(100) {
            0..5 => self.connect(),
            5..18 => self.client_writes(),
            18..22 => self.client_flushes(),
            22..38 => self.client_reads(),
            38 => self.client_ends(),
            39..41 => self.client_requests(),
            41..50 => self.push(),
            50 => self.deliver_old(),
            51..57 => self.push_fragment(),
            57 => self.ping_or_disconnect(),
            58..60 => self.change_topics(),
            60..62 => self.go_on_answering(),
            62..68 => self.publish(),
            68..70 => self.command_from_another_thread(),
            70..73 => self.change_application(),
            73..81 => self.end_handlers(),
            81..92 => self.simulation.turn(),
            92..98 => self.simulation.run(),
            _ => {
                let most = if self.random.chance(90) { 500 } else { 8000 };
                let time = Duration::from_millis(self.random.below(most) as u64);
                self.simulation.pass(time);
            }
        }
        self.look();
    }

    fn connect(&mut self) {
        if self.clients().len() >= MAX_CLIENTS {
            return;
        }
        let who = self.simulation.connect();
        let kind = self.either();
        let diligence = self.random.pick(&[0, 30, 100, 100]).unwrap_or_default();
        self.peers.push(Peer::new(kind, diligence));
        if kind == Kind::WebSocket {
            let handshake = if self.random.chance(60) { HANDSHAKE } else { HANDSHAKE_WITH_DEFLATE };
            self.simulation.client(who).queue(handshake);
        }
        self.flush(who);
    }

    fn flush(&mut self, who: Who) {
        let most = if self.random.chance(70) { usize::MAX } else { self.random.below(100) };
        self.simulation.client(who).flush(most);
    }

    fn client_flushes(&mut self) {
        let kind = self.either();
        if let Some(who) = self.client(kind) {
            self.flush(who);
        }
    }

    fn client_writes(&mut self) {
        let Some(who) = self.client(Kind::WebSocket) else { return };
        for _ in 0..1 + self.random.below(5) {
            if self.peers[who].closing.is_some() || self.peers[who].is_broken {
                return;
            }
            let bytes = self.client_frame(who);
            self.simulation.client(who).queue(&bytes);
            self.flush(who);
        }
    }

    /// The next frame of a client, or something else.
    fn client_frame(&mut self, who: Who) -> Vec<u8> {
        match self.random.below(100) {
            0..60 => match self.peers[who].writing.take() {
                None => {
                    let message = self.message();
                    self.peers[who].written.push(message.clone());
                    if self.simulation.client(who).inflates && self.random.chance(50) {
                        compressed_frame(message.opcode().into(), message.payload())
                    } else {
                        frame(message.opcode().into(), true, message.payload())
                    }
                }
                // The message ends here.
                Some(mut whole) => {
                    let rest = self.continuation(&whole);
                    whole.join(&rest);
                    self.peers[who].written.push(whole);
                    frame(Opcode::Continuation, true, rest.payload())
                }
            },
            60..75 => match self.peers[who].writing.take() {
                None => {
                    let begin = self.message();
                    let bytes = frame(begin.opcode().into(), false, begin.payload());
                    self.peers[who].writing = Some(begin);
                    bytes
                }
                Some(mut whole) => {
                    let more = self.continuation(&whole);
                    whole.join(&more);
                    self.peers[who].writing = Some(whole);
                    frame(Opcode::Continuation, false, more.payload())
                }
            },
            75..90 => {
                self.peers[who].pings += 1;
                let number = self.peers[who].pings.to_string();
                frame(Opcode::Ping, true, number.as_bytes())
            }
            90..95 => frame(Opcode::Pong, true, b"nobody asked"),
            95..98 => {
                self.peers[who].closing = Some(4100);
                frame(Opcode::Close, true, &4100_u16.to_be_bytes())
            }
            98 => {
                self.peers[who].is_broken = true;
                frame(Opcode::Binary, true, &[0; MAX_MESSAGE + 1])
            }
            _ => {
                self.peers[who].is_broken = true;
                vec![0xff; 20]
            }
        }
    }

    /// A fragment that fits after the beginning of a message.
    fn continuation(&mut self, begin: &Message) -> Message {
        let length = self.random.below(50).min(MAX_MESSAGE - begin.payload().len());
        let text = "y".repeat(length);
        match begin {
            Message::Text(_) => Message::Text(text),
            Message::Binary(_) => Message::Binary(text.into()),
        }
    }

    fn client_reads(&mut self) {
        let kind = self.either();
        let Some(who) = self.client(kind) else { return };
        if !self.random.chance(self.peers[who].diligence) {
            return;
        }
        if self.random.chance(70) {
            self.simulation.client(who).read();
        } else {
            let most = 1 + self.random.below(3000);
            self.simulation.client(who).read_some(most);
        }
        if self.simulation.client(who).end.is_some() {
            self.simulation.client(who).leave();
            return;
        }
        if kind == Kind::Http {
            return;
        }
        let last = self.simulation.client(who).received.last().cloned();
        if self.peers[who].closing.is_some() || self.peers[who].is_broken || !self.random.chance(80) {
            return;
        }
        let answer = match last {
            Some(Received::Ping(payload)) => frame(Opcode::Pong, true, &payload),
            Some(Received::Close(..)) => {
                self.peers[who].closing = Some(4200);
                frame(Opcode::Close, true, &4200_u16.to_be_bytes())
            }
            _ => return,
        };
        self.simulation.client(who).queue(&answer);
        self.flush(who);
    }

    fn client_ends(&mut self) {
        let kind = self.either();
        let Some(who) = self.client(kind) else { return };
        let client = self.simulation.client(who);
        if self.random.chance(50) {
            client.leave();
        } else if client.has_written() {
            client.end_output();
        } else {
            return;
        }
        self.peers[who].is_broken = true;
    }

    fn client_requests(&mut self) {
        let Some(who) = self.client(Kind::Http) else { return };
        if self.peers[who].is_broken {
            return;
        }
        let length = self.random.below(1100);
        let bytes = match self.random.below(10) {
            0..5 => b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec(),
            5..8 => {
                let mut bytes =
                    format!("POST / HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n").into_bytes();
                bytes.resize(bytes.len() + length, b'b');
                bytes
            }
            8 => b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".to_vec(),
            _ => b"nonsense\r\n\r\n".to_vec(),
        };
        self.simulation.client(who).queue(&bytes);
        self.flush(who);
    }

    fn push(&mut self) {
        let Some((fd, who)) = self.connection() else { return };
        for _ in 0..1 + self.random.below(5) {
            let message = self.message();
            let pushed = self.simulation.reactor.push(fd, message.opcode(), Fin::Last, message.payload());
            if pushed == Ok(true) {
                self.peers[who].expect(message);
            } else {
                assert_eq!(pushed, Ok(false));
            }
        }
    }

    fn deliver_old(&mut self) {
        let Some((fd, who)) = self.connection() else { return };
        let messages: Vec<Message> = (0..self.random.below(4)).map(|_| self.message()).collect();
        let old: Vec<(Position, Publication<'_>)> = (1..)
            .zip(&messages)
            .map(|(offset, message)| {
                let content = Content::of(message.opcode());
                (Position { epoch: 1, offset }, Publication { content, payload: message.payload(), key: None })
            })
            .collect();
        let first = self.random.below(messages.len() + 1);
        let topic = self.random.pick(&TOPICS).unwrap_or_default();
        let reactor = &mut self.simulation.reactor;
        let mut old = reactor.fanout_of(topic, old);
        let Some(key) = reactor.settled_key(fd) else { return };
        let has_room = reactor.connections[key].cost() + old.cost_from(first) <= MAX_QUEUE;
        if self.policy == SlowConsumer::Close && !has_room {
            return;
        }
        let count = reactor.deliver_from(key, first, &mut old);
        reactor.end_fanout(old);
        // Messages that waited for the connection may have closed it, or it closes once an unfinished message has ended.
        let reactor = &self.simulation.reactor;
        let connection = reactor.open_key(fd).map(|key| &reactor.connections[key]);
        let is_open =
            connection.is_some_and(|it| it.deferred.as_ref().is_none_or(|deferred| deferred.closing.is_none()));
        if is_open {
            assert!(!has_room || count == messages.len() - first, "all old messages are queued");
            messages.into_iter().skip(first).for_each(|message| self.peers[who].expect(message));
        }
    }

    fn push_fragment(&mut self) {
        let Some((fd, who)) = self.connection() else { return };
        let fin = if self.random.chance(50) { Fin::Last } else { Fin::More };
        let Some((whole, _)) = &self.peers[who].fragmented else {
            let begin = self.message();
            if self.simulation.reactor.push(fd, begin.opcode(), Fin::More, begin.payload()) == Ok(true) {
                self.peers[who].fragmented = Some((begin, Vec::new()));
            }
            return;
        };
        let more = self.continuation(&whole.clone());
        if self.simulation.reactor.push(fd, DataOpcode::Continuation, fin, more.payload()) != Ok(true) {
            return;
        }
        let Some((mut whole, waiting)) = self.peers[who].fragmented.take() else { return };
        whole.join(&more);
        if fin == Fin::Last {
            self.peers[who].expected.push(whole);
            self.peers[who].expected.extend(waiting);
        } else {
            self.peers[who].fragmented = Some((whole, waiting));
        }
    }

    fn ping_or_disconnect(&mut self) {
        let Some((fd, _)) = self.connection() else { return };
        if self.random.chance(70) {
            self.simulation.reactor.ping(fd, b"there?");
        } else {
            self.simulation.reactor.disconnect(fd, 4000, "enough");
        }
    }

    fn change_topics(&mut self) {
        let Some((fd, who)) = self.connection() else { return };
        let Some(topic) = self.random.pick(&TOPICS) else { return };
        let topics = &mut self.peers[who].topics;
        let is_subscribed = topics.contains(&topic);
        if self.random.chance(60) {
            let has_room = is_subscribed || topics.len() < MAX_TOPICS;
            let subscribed = self.simulation.reactor.subscribe(fd, topic, None);
            // Messages gathered before may have overflowed the connection's outbox.
            if self.simulation.reactor.open_key(fd).is_some() {
                assert_eq!(subscribed, if has_room { Subscribed::Done } else { Subscribed::TooMany });
            }
            if has_room && !is_subscribed {
                topics.push(topic);
            }
        } else {
            self.simulation.reactor.unsubscribe(fd, topic);
            topics.retain(|each| *each != topic);
        }
    }

    fn publish(&mut self) {
        let message = self.message();
        let topic = self.random.pick(&TOPICS).filter(|_| self.random.chance(70));
        let excludes = self.random.chance(50);
        let excluded: Vec<Fd> = self.connection().map(|(fd, _)| fd).into_iter().filter(|_| excludes).collect();
        let key = self.random.pick(&KEYS).flatten();
        self.expect_of_many(topic, key, &message, &excluded);
        let (opcode, payload) = (message.opcode(), message.payload());
        match topic {
            Some(topic) => {
                let publication = Publication { content: Content::of(opcode), payload, key };
                self.simulation.reactor.publish(topic, publication, &excluded);
            }
            None => self.simulation.reactor.broadcast(opcode, payload, &excluded),
        }
    }

    fn expect_of_many(
        &mut self,
        topic: Option<&'static str>,
        key: Option<&'static str>,
        message: &Message,
        excluded: &[Fd],
    ) {
        let stream = match topic {
            Some(LATEST) if self.has_topic_options => Some((LATEST, key)),
            Some(BRIEF) if self.has_topic_options => Some((BRIEF, None)),
            _ => None,
        };
        for fd in self.simulation.reactor.own_ids() {
            let peer = &mut self.peers[self.owners[&fd]];
            if !excluded.contains(&fd) && topic.is_none_or(|topic| peer.topics.contains(&topic)) {
                match stream {
                    Some(stream) => peer.passing.push((message.clone(), stream)),
                    None => peer.expect(message.clone()),
                }
            }
        }
    }

    /// The command is carried out at the beginning of the turn that follows.
    fn command_from_another_thread(&mut self) {
        let message = self.message();
        let (opcode, payload) = (message.opcode(), message.payload().to_vec());
        let shared = self.simulation.reactor.shared().clone();
        if self.random.chance(50) {
            let Some((fd, who)) = self.connection() else { return };
            // The message may be dropped on its way.
            if self.policy == SlowConsumer::Drop && shared.push(fd, opcode, Fin::Last, &payload) {
                self.peers[who].expect(message);
            }
        } else {
            let topic = TOPICS[0];
            self.expect_of_many(Some(topic), None, &message, &[]);
            let publication = Publication { content: Content::of(opcode), payload: &payload, key: None };
            let exclude = std::borrow::Cow::Borrowed(&[][..]);
            assert!(shared.command(crate::language::command::Command::Publish { topic, publication, exclude }));
        }
        self.simulation.turn();
    }

    fn change_application(&mut self) {
        let yes = self.random.chance(50);
        let application = &mut self.simulation.application;
        match self.random.below(3) {
            0 => application.accepts = yes,
            1 => application.forgets = yes,
            _ => application.keeps_running = yes,
        }
    }

    /// Ends some handlers, whatever they are for.
    fn end_handlers(&mut self) {
        let Simulation { application, reactor, .. } = &mut self.simulation;
        if let Some(fd) = application.unforgotten.pop() {
            reactor.forget(fd);
        }
        let running: Vec<Fd> = application.running.iter().copied().collect();
        if let Some(fd) = self.random.pick(&running) {
            application.release(reactor, fd);
        }
        if let Some((who, token)) = application.handshakes.pop() {
            match self.random.below(10) {
                0 => reactor.refuse(token, 4003, "no"),
                1 => {
                    reactor.respond(token, 403, NO_HEADERS, b"no");
                }
                _ => application.accept(reactor, who, token),
            }
            reactor.done(token);
        }
        if let Some((who, token)) = application.requests.pop() {
            if self.random.chance(40) {
                let length = self.random.chance(20).then(|| self.random.below(1000) as u64);
                if reactor.begin_answer(token, 200, NO_HEADERS, length) {
                    self.begun.push((who, token));
                } else {
                    reactor.done(token);
                }
                return;
            }
            self.answers += 1;
            let mark = format!("answer {};", self.answers);
            self.peers[who].answers.push_str(&mark);
            if self.random.chance(50) {
                let filler = if self.random.chance(40) { self.random.below(60_000) } else { 0 };
                let body = mark + &"z".repeat(filler);
                if self.random.chance(50) {
                    reactor.respond(token, 200, NO_HEADERS, body.as_bytes());
                } else {
                    reactor.respond_kept(token, 200, NO_HEADERS, Box::new(body));
                }
            } else {
                // The file's last bytes are the answer's first.
                let length = 1 + self.random.below(FILE_SIZE);
                let file = self.file.try_clone().expect("a descriptor");
                let headers = [("Mark".to_owned(), mark)];
                reactor.respond_file(token, 200, &headers, file, (FILE_SIZE - length) as u64, length);
            }
            reactor.done(token);
        }
    }

    /// Takes some of the body of a request, sends a part of its answer, or ends it.
    fn go_on_answering(&mut self) {
        let Some(place) = self.begun.len().checked_sub(1).map(|most| self.random.below(most + 1)) else { return };
        let (who, token) = self.begun[place];
        let reactor = &mut self.simulation.reactor;
        if self.random.chance(50) {
            reactor.take_body(token);
        }
        let is_over = match self.random.below(10) {
            0..6 => {
                let mark = format!("answer {};", self.answers + 1);
                let filler = if self.random.chance(30) { self.random.below(60_000) } else { 0 };
                let content = mark.clone() + &"z".repeat(filler);
                let part = if self.random.chance(50) {
                    reactor.send_part(token, content.as_bytes())
                } else {
                    reactor.send_kept_part(token, Box::new(content))
                };
                if part == Part::Queued {
                    self.answers += 1;
                    self.peers[who].answers.push_str(&mark);
                }
                !matches!(part, Part::Queued | Part::Waits)
            }
            6..9 => {
                reactor.end_answer(token, NO_HEADERS);
                true
            }
            _ => {
                reactor.cut_answer(token);
                true
            }
        };
        if is_over {
            reactor.cut_answer(token);
            reactor.done(token);
            self.begun.swap_remove(place);
        }
    }

    // ---- the model --------------------------------------------------------------------------------------------------

    /// Compares what is new on both sides with what was to be expected.
    fn look(&mut self) {
        for seen in &self.simulation.application.seen[self.looked_at..] {
            let (fd, message) = match seen {
                Seen::Open(fd) => {
                    let who = (0..self.peers.len()).find(|who| self.simulation.application.fd(*who) == Some(*fd));
                    self.owners.insert(*fd, who.expect("a client"));
                    continue;
                }
                Seen::Text(fd, text) => (fd, Message::Text(text.clone())),
                Seen::Binary(fd, bytes) => (fd, Message::Binary(bytes.clone())),
                Seen::Close(fd, code, _) => {
                    let peer = &self.peers[self.owners[fd]];
                    let codes = [Some(1006), peer.closing];
                    assert!(codes.contains(&Some(*code)), "closed with {code} and not one of {codes:?}");
                    continue;
                }
                _ => continue,
            };
            let peer = &mut self.peers[self.owners[fd]];
            assert_eq!(peer.written.get(peer.delivered), Some(&message), "messages arrive whole and in order");
            peer.delivered += 1;
        }
        self.looked_at = self.simulation.application.seen.len();
        for who in 0..self.peers.len() {
            let client = self.simulation.client(who);
            let peer = &mut self.peers[who];
            for received in &client.received[peer.looked_at..] {
                let message = match received {
                    Received::Text(text) => Message::Text(text.clone()),
                    Received::Binary(bytes) => Message::Binary(bytes.clone()),
                    Received::Pong(payload) => {
                        let number: usize = str::from_utf8(payload).expect("text").parse().expect("a number");
                        assert!(peer.pongs < number && number <= peer.pings, "pongs answer pings, in order");
                        peer.pongs = number;
                        continue;
                    }
                    Received::Ping(_) | Received::Close(..) => continue,
                };
                if peer.passes(&message) {
                    continue;
                }
                let rest = &peer.expected[peer.matched..];
                let place = rest.iter().position(|each| *each == message);
                match self.policy {
                    SlowConsumer::Close => assert_eq!(place, Some(0), "messages are sent whole and in order"),
                    SlowConsumer::Drop => assert!(place.is_some(), "messages are sent in order"),
                }
                peer.matched += place.unwrap_or_default() + 1;
            }
            peer.looked_at = client.received.len();
        }
        for connection in self.simulation.reactor.connections.values() {
            if connection.is_open() {
                assert!(connection.cost() <= MAX_QUEUE + OVERHEAD, "{} bytes are queued", connection.cost());
            }
        }
    }

    // ---- the end ----------------------------------------------------------------------------------------------------

    /// Lets everybody catch up, and checks that nothing is missing. Then everybody leaves, and nothing may be left.
    fn finish(&mut self) {
        self.simulation.time.pass_at_each_reading(Duration::ZERO);
        let Simulation { application, .. } = &mut self.simulation;
        (application.accepts, application.forgets, application.keeps_running) = (true, true, false);
        for fd in self.simulation.reactor.own_ids() {
            let who = self.owners[&fd];
            if self.peers[who].fragmented.is_some()
                && self.simulation.reactor.push(fd, DataOpcode::Continuation, Fin::Last, b"") == Ok(true)
            {
                let (whole, waiting) = self.peers[who].fragmented.take().expect("there is one");
                self.peers[who].expected.push(whole);
                self.peers[who].expected.extend(waiting);
            }
        }
        for _ in 0..50 {
            while !self.simulation.application.running.is_empty() || !self.simulation.application.requests.is_empty() {
                self.end_handlers();
            }
            for (_, token) in std::mem::take(&mut self.begun) {
                self.simulation.reactor.end_answer(token, NO_HEADERS);
                self.simulation.reactor.done(token);
            }
            self.simulation.run();
            for who in 0..self.peers.len() {
                self.simulation.client(who).flush(usize::MAX);
                self.simulation.client(who).read();
            }
            self.look();
        }
        for fd in self.simulation.reactor.own_ids() {
            let who = self.owners[&fd];
            let has_written = self.simulation.client(who).has_written();
            let peer = &self.peers[who];
            assert!(has_written && peer.delivered == peer.written.len(), "an open connection has delivered everything");
            if self.policy == SlowConsumer::Close {
                assert_eq!(peer.matched, peer.expected.len(), "an open connection has received everything");
            }
            let is_dropped = self.simulation.stat("messages_dropped") > 0;
            assert!(is_dropped || peer.has_latest(), "an open connection has received the latest message of each key");
        }
        if self.random.chance(50) {
            self.simulation.reactor.close_all(1001, "bye");
        }
        for who in 0..self.peers.len() {
            if self.random.chance(50) {
                self.simulation.client(who).leave();
            }
        }
        self.simulation.run();
        (0..self.peers.len()).for_each(|who| self.simulation.client(who).leave());
        let Simulation { application, reactor, .. } = &mut self.simulation;
        application.forget_all(reactor);
        for (who, token) in std::mem::take(&mut application.handshakes) {
            application.accept(reactor, who, token);
        }
        self.simulation.pass(Duration::from_secs(60));
        // Requests that were still behind others.
        while let Some((_, token)) = self.simulation.application.requests.pop() {
            self.simulation.reactor.respond(token, 200, NO_HEADERS, b"too late");
            self.simulation.reactor.done(token);
            self.simulation.pass(Duration::from_secs(60));
        }
        self.look();
        self.nothing_is_left();
    }

    fn nothing_is_left(&mut self) {
        for (who, peer) in self.peers.iter().enumerate().filter(|(_, peer)| peer.kind == Kind::Http) {
            let received = marks(self.simulation.client(who).answers());
            assert!(peer.answers.starts_with(&received), "answers are sent in order: {received} of {}", peer.answers);
        }
        let Simulation { application, reactor, .. } = &self.simulation;
        assert_eq!(application.opened(), application.closed(), "each open has its close");
        assert!(reactor.is_empty(), "{} connections are left", reactor.len());
        assert_eq!(reactor.held(), 0, "memory is still accounted for");
        assert!(reactor.topics.count_subscriptions() == 0 && reactor.backlog.is_empty());
        let stat = |name| self.simulation.stat(name);
        assert_eq!(stat("accepted"), application.opened() as u64);
        assert_eq!(stat("closed"), stat("accepted"));
        assert_eq!([stat("connections"), stat("queued_bytes"), stat("outliving")], [0; 3]);
        let delivered: usize = self.peers.iter().map(|peer| peer.delivered).sum();
        assert!(stat("messages_in") >= delivered as u64);
        assert!(delivered > 0 && self.peers.iter().any(|peer| peer.matched > 0), "the walk has led somewhere");
    }
}

fn topic_options() -> TopicRules {
    let options = |pattern: &str, lagging, ttl| TopicOptions {
        pattern: pattern.into(),
        history: 0,
        seconds: Duration::ZERO,
        presence: false,
        envelope: false,
        lagging,
        ttl,
    };
    TopicRules::new(vec![
        options(LATEST, Some(Lagging::Latest), None),
        options(BRIEF, None, Some(Duration::from_millis(700))),
    ])
}

/// The marks in what an HTTP client has received.
fn marks(answers: &str) -> String {
    let starts = answers.match_indices("answer ");
    starts.filter_map(|(start, _)| answers[start..].split_inclusive(';').next()).collect()
}

/// An unnamed file.
fn file_of(size: usize) -> File {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("hubbub-walk-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, vec![b'f'; size]).expect("written");
    let file = File::open(&path).expect("a file");
    std::fs::remove_file(&path).expect("removed");
    file
}

/// Names the seed and the step of a walk that panics.
struct Report {
    seed: u64,
    step: usize,
}

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("step {} of the walk with HUBBUB_SEED={} failed", self.step, self.seed);
        }
    }
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}

fn walk(seed: u64) {
    let steps = number("HUBBUB_STEPS").unwrap_or(STEPS);
    let mut report = Report { seed, step: 0 };
    let mut walk = Walk::new(seed);
    while report.step < steps {
        walk.step();
        report.step += 1;
    }
    walk.finish();
}

#[test]
fn whatever_is_done_in_whatever_order_nothing_is_lost_or_left() {
    match number("HUBBUB_SEED") {
        Some(seed) => walk(seed),
        None => (0..number("HUBBUB_SEEDS").unwrap_or(SEEDS)).for_each(walk),
    }
}
