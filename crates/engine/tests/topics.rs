//! Topics with memory in a server of several workers: a hub and reactors in one thread, with clients on TCP.

mod support;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use engine::{
    Answer, Content, Event, Fd, Hub, Joined, MemberEvent, Ownership, Position, Publication, Question, Reactor,
    TopicOptions, TopicRules,
};
use support::{PATIENCE, settings};

const HISTORY: usize = 50;

fn with_topics() -> engine::Settings {
    let options = TopicOptions {
        pattern: "room".into(),
        history: HISTORY,
        seconds: Duration::from_secs(60),
        presence: true,
        envelope: false,
        lagging: None,
        ttl: None,
    };
    engine::Settings { topics: TopicRules::new(vec![options]), send_queue_size: 100_000, ..settings() }
}

struct Worker {
    reactor: Reactor,
    slot: u8,
    answers: Vec<(u64, Answer)>,
    members: Vec<(MemberEvent, Fd, String)>,
    /// The ids of connections that nobody has been told.
    opened: VecDeque<Fd>,
}

/// A server whose workers run turns when asked to.
struct Server {
    hub: Hub,
    workers: Vec<Worker>,
    address: SocketAddr,
    questions: u64,
}

impl Server {
    fn new(workers: u8) -> Self {
        let hub = Hub::new(&with_topics(), None, None, None).expect("a hub");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let mut server = Self { hub, workers: Vec::new(), address, questions: 0 };
        for worker_id in 0..workers {
            server.add_worker(worker_id);
        }
        server.hub.listen(OwnedFd::from(listener), Ownership::Ours);
        server
    }

    fn add_worker(&mut self, worker_id: u8) {
        let (slot, link) = self.hub.add_worker(worker_id).expect("a slot");
        // SAFETY: the hub keeps it open as long as it lives, and it is only duplicated here.
        let memory = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.hub.memory()) };
        let registry =
            engine::Registry::open(memory.try_clone_to_owned().expect("a descriptor")).expect("the registry");
        let mut reactor = Reactor::new(with_topics(), registry, slot).expect("a reactor");
        reactor.join(link).expect("joined");
        reactor.tell_ready();
        let worker = Worker { reactor, slot, answers: Vec::new(), members: Vec::new(), opened: VecDeque::new() };
        self.workers.push(worker);
    }

    /// Ends a worker without a word.
    fn kill(&mut self, place: usize) -> Vec<Fd> {
        let mut worker = self.workers.remove(place);
        let fds = worker.reactor.own_ids();
        worker.reactor.abandon();
        drop(worker.reactor);
        self.hub.ended(worker.slot);
        fds
    }

    fn turn(&mut self) {
        for Worker { reactor, answers, members, opened, .. } in &mut self.workers {
            reactor.begin().expect("a turn");
            loop {
                let (mut token, mut member) = (None, None);
                let step = reactor.next(|event| match event {
                    Event::Handshake { token: asked, .. } => token = Some(asked),
                    Event::Answered { number, answer } => answers.push((number, *answer)),
                    Event::Member { event, fd, number, info, .. } => {
                        member = Some((event, fd, number, info.to_owned()))
                    }
                    _ => {}
                });
                if let Some((event, fd, number, info)) = member {
                    reactor.tells_of_member(event, fd, number);
                    members.push((event, fd, info));
                }
                if let Some(token) = token {
                    let no_headers: [(&str, &str); 0] = [];
                    opened.extend(reactor.accept(token, None, &no_headers, None));
                }
                if step.is_none() {
                    break;
                }
            }
            reactor.finish();
        }
    }

    fn turn_until<T>(&mut self, mut is_done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(result) = is_done(self) {
                return result;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not come to that");
            self.turn();
        }
    }

    /// A client, the place of its worker, and its id.
    fn connect(&mut self) -> (Client, usize, Fd) {
        let mut stream = TcpStream::connect(self.address).expect("connected");
        let head = b"GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head).expect("written");
        let (place, fd) = self.turn_until(|server| {
            let opened = server.workers.iter_mut().enumerate();
            opened.filter_map(|(place, worker)| Some((place, worker.opened.pop_front()?))).next()
        });
        stream.set_nonblocking(true).expect("non-blocking");
        (Client { stream, come: Vec::new(), has_answer: false }, place, fd)
    }

    /// A client of each worker.
    fn clients(&mut self) -> Vec<(Client, Fd)> {
        let mut found: Vec<Option<(Client, Fd)>> = self.workers.iter().map(|_| None).collect();
        while found.iter().any(Option::is_none) {
            let (client, place, fd) = self.connect();
            found[place] = Some((client, fd));
        }
        found.into_iter().flatten().collect()
    }

    fn publish(&mut self, from: usize, number: u64) {
        let text = format!("{number},");
        let publication = Publication { content: Content::Text, payload: text.as_bytes(), key: None };
        self.workers[from].reactor.publish("room", publication, &[]);
    }

    /// Has a worker ask something, and waits for the answer.
    fn ask(&mut self, place: usize, ask: impl FnOnce(&mut Reactor, u64)) -> Answer {
        self.questions += 1;
        let number = self.questions;
        ask(&mut self.workers[place].reactor, number);
        self.answer(place, number)
    }

    fn answer(&mut self, place: usize, number: u64) -> Answer {
        self.turn_until(|server| {
            let answers = &mut server.workers[place].answers;
            let found = answers.iter().position(|(other, _)| *other == number)?;
            Some(answers.swap_remove(found).1)
        })
    }

    fn join(&mut self, place: usize, fd: Fd, since: Option<Position>, last: u32) -> Joined {
        let answer = self.ask(place, |reactor, number| reactor.join_topic(number, fd, "room", since, last, None));
        let Answer::Joined(joined) = answer else { panic!("{answer:?}") };
        joined
    }

    fn presence(&mut self, place: usize) -> Vec<Fd> {
        let question = Question::Presence { topic: "room", after: 0, limit: 100 };
        let answer = self.ask(place, |reactor, number| reactor.ask(number, &question));
        let Answer::Presence(page) = answer else { panic!("{answer:?}") };
        page.entries.into_iter().map(|(fd, _)| fd).collect()
    }

    /// Waits until a client has got just these numbers.
    fn expect(&mut self, client: &mut Client, numbers: impl IntoIterator<Item = u64>) {
        let expected: Vec<u64> = numbers.into_iter().collect();
        let got = self.turn_until(|_| {
            let got = client.numbers();
            (got.len() >= expected.len()).then_some(got)
        });
        assert_eq!(got, expected);
    }
}

struct Client {
    stream: TcpStream,
    come: Vec<u8>,
    has_answer: bool,
}

impl Client {
    /// All numbers that it has got so far.
    fn numbers(&mut self) -> Vec<u64> {
        let mut bytes = [0; 65_536];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(count) if count > 0 => self.come.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                _ => break,
            }
        }
        if !self.has_answer
            && let Some(end) = self.come.windows(4).position(|four| four == b"\r\n\r\n")
        {
            self.come.drain(..end + 4);
            self.has_answer = true;
        }
        // A header is not ASCII, or a control character; numbers end with a comma.
        let text: String =
            self.come.iter().filter(|byte| byte.is_ascii_digit() || **byte == b',').map(|byte| *byte as char).collect();
        text.split_terminator(',').map(|number| number.parse().expect("a number")).collect()
    }
}

#[test]
fn all_workers_have_one_order_and_one_history() {
    let mut server = Server::new(3);
    let mut clients = server.clients();
    let mut position = Position::default();
    for (place, (_, fd)) in clients.iter().enumerate() {
        position = server.join(place, *fd, None, 0).position;
    }
    for number in 1..=30 {
        server.publish(number as usize % 3, number);
        server.turn();
    }
    let orders: Vec<Vec<u64>> = clients
        .iter_mut()
        .map(|(client, _)| {
            server.turn_until(|_| {
                let got = client.numbers();
                (got.len() == 30).then_some(got)
            })
        })
        .collect();
    assert!(orders.iter().all(|order| *order == orders[0]));
    // Whoever comes back gets the same, also if another worker asks for it.
    for asker in 0..3 {
        let (mut client, _, fd) = server.connect();
        let joined = server.join(asker, fd, Some(Position { offset: 10, ..position }), 0);
        assert_eq!(joined, Joined { recovered: true, count: 20, position: Position { offset: 30, ..position } });
        server.expect(&mut client, orders[0][10..].iter().copied());
    }
}

#[test]
fn joins_at_full_speed_lose_nothing_and_get_nothing_twice() {
    let mut server = Server::new(2);
    // It shows the order.
    let (mut watcher, watching) = server.clients().remove(0);
    let start = server.join(0, watching, None, 0).position;
    let mut published = 0;
    let mut joins = Vec::new();
    for round in 0..40u64 {
        let (client, _, fd) = server.connect();
        let asker = round as usize % 2;
        server.questions += 1;
        let number = server.questions;
        // From here on it must get everything, whatever is asked for of what was before.
        let from = published;
        let (since, last) = match round % 3 {
            0 => (Some(Position { offset: from, ..start }), 0),
            1 => (None, 5),
            _ => (None, 0),
        };
        server.workers[asker].reactor.join_topic(number, fd, "room", since, last, None);
        for _ in 0..7 {
            published += 1;
            server.publish(asker, published);
            if published % 3 == 0 {
                server.turn();
            }
        }
        joins.push((client, asker, number, from));
    }
    let order = server.turn_until(|_| {
        let got = watcher.numbers();
        (got.len() as u64 == published).then_some(got)
    });
    for (mut client, asker, number, from) in joins {
        let answer = server.answer(asker, number);
        assert!(matches!(answer, Answer::Joined(_)), "{answer:?}");
        let got = server.turn_until(|_| {
            let got = client.numbers();
            (got.last() == order.last()).then_some(got)
        });
        let first = order.iter().position(|number| *number == got[0]).expect("a number");
        assert_eq!(got, order[first..]);
        // Those of the worker that asked for the join.
        let missing: Vec<u64> =
            order[..first].iter().copied().filter(|number| (from + 1..=from + 7).contains(number)).collect();
        assert!(missing.is_empty(), "{missing:?} were published after the join");
    }
}

#[test]
fn members_of_a_killed_worker_leave_once() {
    use MemberEvent::{Joined, Left};
    let mut server = Server::new(3);
    let clients = server.clients();
    for (place, (_, fd)) in clients.iter().enumerate() {
        server.join(place, *fd, None, 0);
    }
    let all: Vec<Fd> = clients.iter().map(|(_, fd)| *fd).collect();
    let sorted = |mut fds: Vec<Fd>| {
        fds.sort_unstable();
        fds
    };
    assert_eq!(server.presence(2), sorted(all.clone()));
    for (place, fd) in all.iter().enumerate() {
        assert_eq!(server.workers[place].members, [(Joined, *fd, "null".into())]);
    }
    server.kill(0);
    assert_eq!(server.presence(0), sorted(all[1..].to_vec()));
    let left = |server: &Server| -> Vec<Fd> {
        let events = server.workers.iter().flat_map(|worker| &worker.members);
        events.filter(|(event, _, _)| *event == Left).map(|(_, fd, _)| *fd).collect()
    };
    server.turn_until(|server| (!left(server).is_empty()).then_some(()));
    // All workers die, and those that take their place tell of the others.
    server.kill(0);
    server.kill(0);
    server.add_worker(0);
    server.turn_until(|server| (left(server).len() == 2).then_some(()));
    assert_eq!(sorted(left(&server)), sorted(all[1..].to_vec()));
    assert!(server.presence(0).is_empty());
}
