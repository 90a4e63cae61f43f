//! Work in slices, over real sockets. Fan-outs run next to a model without any slices: whatever mix of requests is
//! made, each connection gets what the model says, in the model's order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use wire::frame::{DataOpcode, Fin};

use crate::connection::Wait;
use crate::reactor::Reactor;
use crate::reactor::commands::Subscribed;
use crate::reactor::event::{Event, Token};
use crate::registry::{Fd, Registry};
use crate::settings::Settings;
use crate::system::acceptor::Ownership;
use crate::system::clock::TimeSource;
use crate::system::clock::simulated::SimulatedTime;
use crate::system::table::Key;
use crate::topics::publication::Publication;

const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const LONG: Duration = Duration::from_secs(3600);
const STEPS: usize = crate::reactor::slice::STEPS_PER_LOOK as usize;

fn settings() -> Settings {
    Settings {
        max_connections: 1000,
        send_queue_size: 4 << 20,
        max_memory: usize::MAX,
        handshake_timeout: LONG,
        close_timeout: LONG,
        ..Settings::small()
    }
}

enum Step {
    Handshake(Token),
    Closed(Fd),
    Other,
}

/// A client, and what it has read so far.
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    has_upgraded: bool,
    /// The fragments so far of the unfinished message.
    unfinished: Option<String>,
    messages: Vec<String>,
    pings: usize,
    close_code: Option<u16>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.write_all(HANDSHAKE).expect("written");
        stream.set_nonblocking(true).expect("a flag");
        let (input, messages) = (Vec::new(), Vec::new());
        Self { stream, input, has_upgraded: false, unfinished: None, messages, pings: 0, close_code: None }
    }

    /// Reads what has arrived, and answers a Close frame.
    fn read(&mut self) {
        let mut bytes = [0; 65_536];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the connection broke: {error}"),
            }
        }
        if !self.has_upgraded {
            let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            assert!(self.input.starts_with(b"HTTP/1.1 101 "));
            self.input.drain(..end + 4);
            self.has_upgraded = true;
        }
        while let Some([first, length, ..]) = self.input.first_chunk::<2>() {
            let end = 2 + usize::from(*length);
            assert!(*length < 126, "the messages here are short");
            if self.input.len() < end {
                return;
            }
            let (first, payload) = (*first, self.input[2..end].to_vec());
            self.input.drain(..end);
            assert_eq!(self.close_code, None, "a frame follows the Close frame");
            match first & 0x0f {
                8 => {
                    self.close_code = Some(u16::from_be_bytes([payload[0], payload[1]]));
                    self.stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, payload[0], payload[1]]).expect("written");
                }
                9 => self.pings += 1,
                opcode => {
                    let text = String::from_utf8(payload).expect("text");
                    assert_eq!(opcode == 0, self.unfinished.is_some(), "{text} stands inside of another message");
                    let whole = self.unfinished.take().unwrap_or_default() + &text;
                    if first & 0x80 == 0 {
                        self.unfinished = Some(whole);
                    } else {
                        self.messages.push(whole);
                    }
                }
            }
        }
    }
}

/// What one connection should receive.
#[derive(Default)]
struct Expected {
    topics: BTreeSet<usize>,
    messages: Vec<String>,
    /// The message being sent in fragments, and the messages waiting for its end.
    fragmented: Option<(String, Vec<String>)>,
    close_code: Option<u16>,
}

impl Expected {
    fn gets(&mut self, text: &str) {
        match &mut self.fragmented {
            Some((_, waiting)) => waiting.push(text.to_owned()),
            None => self.messages.push(text.to_owned()),
        }
    }
}

/// A request. Connections are given by number: the same number may mean another connection later.
#[derive(Clone, Debug)]
enum Op {
    Open,
    Push(usize),
    Fragment(usize),
    LastFragment(usize),
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    Publish(usize, Vec<usize>),
    Broadcast(Vec<usize>),
    Disconnect(usize),
    Turn,
    Read(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (who, topic) = (0..1000_usize, 0..TOPICS.len());
    let exclude = || vec(0..1000_usize, 0..3);
    let op = prop_oneof![
        2 => Just(Op::Open),
        6 => who.clone().prop_map(Op::Push),
        1 => who.clone().prop_map(Op::Fragment),
        2 => who.clone().prop_map(Op::LastFragment),
        8 => (who.clone(), topic.clone()).prop_map(|(who, topic)| Op::Subscribe(who, topic)),
        3 => (who.clone(), topic.clone()).prop_map(|(who, topic)| Op::Unsubscribe(who, topic)),
        10 => (topic, exclude()).prop_map(|(topic, exclude)| Op::Publish(topic, exclude)),
        3 => exclude().prop_map(Op::Broadcast),
        3 => who.clone().prop_map(Op::Disconnect),
        6 => Just(Op::Turn),
        3 => who.prop_map(Op::Read),
    ];
    vec(op, 1..400)
}

struct Play {
    time: SimulatedTime,
    reactor: Reactor,
    address: SocketAddr,
    clients: Vec<Client>,
    /// By client: connections are accepted in the order in which the clients connect.
    fds: Vec<Fd>,
    expected: BTreeMap<Fd, Expected>,
    sent: usize,
    /// How often a turn ended with fan-outs still waiting.
    left_over: usize,
}

impl Play {
    fn new(few: usize) -> Self {
        Self::with(settings(), few)
    }

    fn with(settings: Settings, few: usize) -> Self {
        let registry = Registry::private(1000).expect("memory");
        let time = SimulatedTime::new();
        let source = TimeSource::Simulated(time.clone());
        let mut reactor = Reactor::with_time(source, settings, registry, 0).expect("a reactor");
        reactor.turn_time = Duration::ZERO;
        reactor.backlog.max_at_once = few;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        reactor.listen(listener.into(), Ownership::Ours).expect("watched");
        Self {
            time,
            reactor,
            address,
            clients: Vec::new(),
            fds: Vec::new(),
            expected: BTreeMap::new(),
            sent: 0,
            left_over: 0,
        }
    }

    fn turn(&mut self) {
        self.reactor.begin().expect("begun");
        loop {
            let step = self.reactor.next(|event| match event {
                Event::Handshake { token, .. } => Step::Handshake(token),
                Event::Closed { fd, .. } => Step::Closed(fd),
                _ => Step::Other,
            });
            match step {
                Some(Step::Handshake(token)) => {
                    let no_headers: [(String, String); 0] = [];
                    let fd = self.reactor.accept(token, None, &no_headers, None).expect("accepted");
                    self.expected.insert(fd, Expected::default());
                    self.fds.push(fd);
                }
                Some(Step::Closed(fd)) => self.reactor.forget(fd),
                Some(Step::Other) => {}
                None if self.reactor.go_on().expect("went on") => {}
                None => break,
            }
        }
        self.reactor.finish();
        self.left_over += usize::from(!self.reactor.backlog.is_empty());
    }

    fn open(&mut self) {
        self.clients.push(Client::connect(self.address));
        // A turn may end before it gets to the new connections.
        while self.fds.len() < self.clients.len() {
            self.turn();
        }
    }

    /// The connection with this number, if it is open.
    fn one(&self, who: usize) -> Option<Fd> {
        let fd = *self.fds.get(who % self.fds.len().max(1))?;
        (self.expected[&fd].close_code.is_none()).then_some(fd)
    }

    fn all(&self, who: &[usize]) -> Vec<Fd> {
        who.iter().filter_map(|who| self.fds.get(who % self.fds.len().max(1)).copied()).collect()
    }

    fn message(&mut self) -> String {
        self.sent += 1;
        format!("message {}", self.sent)
    }

    fn expect(&mut self, fd: Fd) -> &mut Expected {
        self.expected.get_mut(&fd).expect("a connection")
    }

    fn fragment(&mut self, fd: Fd, text: &str, fin: Fin) {
        let is_first = self.expected[&fd].fragmented.is_none();
        let opcode = if is_first { DataOpcode::Text } else { DataOpcode::Continuation };
        assert_eq!(self.reactor.push(fd, opcode, fin, text.as_bytes()), Ok(true));
        let expected = self.expect(fd);
        let (mut whole, waiting) = expected.fragmented.take().unwrap_or_default();
        whole += text;
        if fin == Fin::Last {
            expected.messages.push(whole);
            expected.messages.extend(waiting);
        } else {
            expected.fragmented = Some((whole, waiting));
        }
    }

    fn play(&mut self, op: &Op) {
        let text = self.message();
        match op {
            Op::Open => self.open(),
            Op::Turn => self.turn(),
            Op::Read(who) => {
                let who = who % self.clients.len().max(1);
                if let Some(client) = self.clients.get_mut(who) {
                    client.read();
                }
            }
            Op::Publish(topic, exclude) => {
                let exclude = self.all(exclude);
                self.reactor.publish(TOPICS[*topic], Publication::text(&text), &exclude);
                for (fd, expected) in &mut self.expected {
                    if expected.close_code.is_none() && expected.topics.contains(topic) && !exclude.contains(fd) {
                        expected.gets(&text);
                    }
                }
            }
            Op::Broadcast(exclude) => {
                let exclude = self.all(exclude);
                self.reactor.broadcast(DataOpcode::Text, text.as_bytes(), &exclude);
                for (fd, expected) in &mut self.expected {
                    if expected.close_code.is_none() && !exclude.contains(fd) {
                        expected.gets(&text);
                    }
                }
            }
            Op::Push(who) => {
                if let Some(fd) = self.one(*who) {
                    assert_eq!(self.reactor.push(fd, DataOpcode::Text, Fin::Last, text.as_bytes()), Ok(true));
                    self.expect(fd).gets(&text);
                }
            }
            Op::Fragment(who) => {
                if let Some(fd) = self.one(*who) {
                    self.fragment(fd, &text, Fin::More);
                }
            }
            Op::LastFragment(who) => {
                if let Some(fd) = self.one(*who).filter(|fd| self.expected[fd].fragmented.is_some()) {
                    self.fragment(fd, &text, Fin::Last);
                }
            }
            Op::Subscribe(who, topic) => {
                if let Some(fd) = self.one(*who) {
                    assert_eq!(self.reactor.subscribe(fd, TOPICS[*topic], None), Subscribed::Done);
                    self.expect(fd).topics.insert(*topic);
                }
            }
            Op::Unsubscribe(who, topic) => {
                if let Some(fd) = self.one(*who) {
                    assert!(self.reactor.unsubscribe(fd, TOPICS[*topic]));
                    self.expect(fd).topics.remove(topic);
                }
            }
            Op::Disconnect(who) => {
                if let Some(fd) = self.one(*who).filter(|fd| self.expected[fd].fragmented.is_none()) {
                    assert!(self.reactor.disconnect(fd, 4000, &text));
                    self.expect(fd).close_code = Some(4000);
                }
            }
        }
    }

    /// Ends every unfinished message, and reads everything under way.
    fn finish(&mut self) {
        for fd in self.fds.clone() {
            if self.expected[&fd].fragmented.is_some() {
                self.fragment(fd, "the end", Fin::Last);
            }
        }
        self.turn();
        while self.reactor.has_work() {
            self.turn();
        }
        self.clients.iter_mut().for_each(Client::read);
    }

    fn judge(&self) {
        for (client, fd) in self.clients.iter().zip(&self.fds) {
            let expected = &self.expected[fd];
            assert_eq!(client.messages, expected.messages);
            assert_eq!(client.close_code, expected.close_code);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_mixed_keeps_its_order(ops in ops(), begin in 1..60_usize, few in prop_oneof![Just(0), 1..40_usize]) {
        let mut play = Play::new(few);
        for who in 0..begin {
            play.open();
            for topic in 0..TOPICS.len() {
                if (who + topic) % 3 != 0 {
                    play.play(&Op::Subscribe(who, topic));
                }
            }
        }
        for op in &ops {
            play.play(op);
        }
        play.finish();
        play.judge();
    }
}

#[test]
fn a_fan_out_to_many_takes_many_turns_and_a_push_does_not_wait_for_it() {
    let mut play = Play::new(8);
    for _ in 0..200 {
        play.open();
    }
    play.play(&Op::Broadcast(vec![3]));
    play.play(&Op::Push(3));
    play.play(&Op::Push(100));
    play.turn();
    play.clients[3].read();
    play.clients[100].read();
    assert_eq!(play.clients[3].messages, ["message 2"]);
    assert_eq!(play.clients[100].messages, ["message 1", "message 3"]);
    play.finish();
    assert!(play.left_over >= 4, "{} turns ended before the fan-out did", play.left_over);
    play.judge();
}

#[test]
fn too_many_fan_outs_do_not_wait() {
    let mut play = Play::new(0);
    for _ in 0..20 {
        play.open();
    }
    for _ in 0..3 * super::MAX_WAITING {
        play.play(&Op::Publish(0, Vec::new()));
        play.play(&Op::Subscribe(play.sent, play.sent % TOPICS.len()));
        play.play(&Op::Broadcast(Vec::new()));
        play.play(&Op::Push(play.sent));
        assert!(play.reactor.backlog.queue.len() <= super::MAX_WAITING);
    }
    play.finish();
    play.judge();
}

#[test]
fn the_bytes_that_wait_are_bounded() {
    let mut play = Play::new(0);
    for _ in 0..3 {
        play.open();
    }
    let fd = play.fds[0];
    for _ in 0..100 {
        play.reactor.broadcast(DataOpcode::Binary, &[0; 1 << 20], &[]);
        play.reactor.ping(fd, b"");
        assert!(play.reactor.backlog.bytes <= super::MAX_BYTES);
    }
    while !play.reactor.backlog.is_empty() {
        play.turn();
    }
    assert_eq!(play.reactor.backlog.bytes, 0);
}

/// How many clients have received what is looked for, turn by turn, until all have.
fn by_turn(play: &mut Play, has_got: impl Fn(&Client) -> bool) -> Vec<usize> {
    let mut counts = vec![0];
    while counts.last() < Some(&play.clients.len()) {
        play.turn();
        play.clients.iter_mut().for_each(Client::read);
        counts.push(play.clients.iter().filter(|client| has_got(client)).count());
    }
    counts
}

#[test]
fn pings_that_are_due_together_are_sent_in_slices() {
    let mut play = Play::with(Settings { ping_interval: Some(LONG), ..settings() }, 8);
    for _ in 0..200 {
        play.open();
    }
    // All of them are due together.
    play.reactor.settings.ping_interval = Some(Duration::from_millis(1));
    (0..200).for_each(|place| play.reactor.wait(Key::of_place(place), Wait::Ping));
    play.time.pass(Duration::from_millis(50));
    let counts = by_turn(&mut play, |client| client.pings > 0);
    assert!(counts.windows(2).all(|two| two[1] - two[0] <= 2 * STEPS), "{counts:?}");
}

#[test]
fn all_connections_are_closed_in_slices() {
    let mut play = Play::new(8);
    for _ in 0..200 {
        play.open();
    }
    play.play(&Op::Publish(0, Vec::new()));
    play.reactor.close_all(1001, "");
    assert_eq!(play.reactor.own_ids().len(), 200 - STEPS);
    let counts = by_turn(&mut play, |client| client.close_code == Some(1001));
    assert!(counts.windows(2).all(|two| two[1] - two[0] <= 3 * STEPS), "{counts:?}");
}
