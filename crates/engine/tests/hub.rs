//! The hub between workers and programs, whose roles are played here.

mod support;

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::{
    Answer, Command, DataOpcode, Format, Hub, HubEvent, Leave, Message, OUTSIDE, Ownership, Page, Question, VERSION,
};
use support::{PATIENCE, settings};

/// A worker or a program.
struct Peer {
    stream: UnixStream,
    come: Vec<u8>,
}

impl Peer {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream, come: Vec::new() }
    }

    fn send(&mut self, message: &Message<'_>) {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.stream.write_all(&frame).expect("written");
    }

    /// Takes the next message, without its length; `None` at the end.
    fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(header) = self.come.first_chunk::<4>() {
                let length = u32::from_le_bytes(*header) as usize;
                if self.come.len() >= 4 + length {
                    let content = self.come[4..4 + length].to_vec();
                    self.come.drain(..4 + length);
                    return Some(content);
                }
            }
            let mut bytes = [0; 65_536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.come.extend_from_slice(&bytes[..count]),
                // The connection of a peer that was cut off with unread input is reset.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing comes: {error}"),
            }
        }
    }

    fn expect(&mut self, message: &Message<'_>) {
        let content = self.receive().expect("a message");
        assert_eq!(&Message::decode(&content).expect("a message"), message);
    }
}

fn worker(hub: &Hub, worker_id: u8) -> (u8, Peer) {
    let (slot, link) = hub.add_worker(worker_id).expect("a slot");
    (slot, Peer::new(link.into()))
}

/// Waits for an event, skipping others.
fn wait_for(hub: &Hub, is_wanted: impl Fn(&HubEvent) -> bool) -> HubEvent {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if let Some(event) = hub.events().into_iter().find(&is_wanted) {
            return event;
        }
        std::thread::yield_now();
    }
    panic!("the event does not come");
}

fn hub() -> Hub {
    Hub::new(&settings(), None, None, None).expect("a hub")
}

fn for_worker_1(payload: &[u8]) -> Message<'_> {
    Message::Command(Command::PipeMessage { from: 0, to: 1, format: Format::Binary, payload })
}

struct Control(PathBuf);

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn hub_with_control() -> (Hub, Control) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("hubbub-hub-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).expect("a socket");
    (Hub::new(&settings(), Some(listener.into()), None, None).expect("a hub"), Control(path))
}

fn program(path: &Path) -> Peer {
    let mut peer = Peer::new(UnixStream::connect(path).expect("connected"));
    peer.send(&Message::Hello { version: VERSION });
    peer.expect(&Message::Welcome { version: VERSION, send_queue_size: 1000, topics: Vec::new() });
    peer
}

#[test]
fn a_message_goes_to_the_worker_that_does_that_work_now() {
    let hub = hub();
    let ((_, mut zero), (old_slot, mut old)) = (worker(&hub, 0), worker(&hub, 1));
    zero.send(&Message::Ready);
    old.send(&Message::Ready);
    wait_for(&hub, |event| *event == HubEvent::Ready(old_slot));
    zero.send(&for_worker_1(b"to the old one"));
    old.expect(&for_worker_1(b"to the old one"));
    let (new_slot, mut new) = worker(&hub, 1);
    new.send(&Message::Ready);
    wait_for(&hub, |event| *event == HubEvent::Ready(new_slot));
    zero.send(&for_worker_1(b"to the new one"));
    new.expect(&for_worker_1(b"to the new one"));
    hub.leave(old_slot, Leave::Replace);
    old.expect(&Message::Leave(Leave::Replace));
}

#[test]
fn who_is_asked_to_leave_is_told_to() {
    let hub = hub();
    let (slot, mut worker) = worker(&hub, 0);
    worker.send(&Message::Ready);
    worker.send(&Message::Leaving);
    worker.expect(&Message::Leave(Leave::Terminate));
    wait_for(&hub, |event| *event == HubEvent::Leaving(slot));
}

#[test]
fn what_a_worker_had_sent_counts_though_it_is_gone() {
    let hub = hub();
    let ((slot, mut zero), (_, mut one)) = (worker(&hub, 0), worker(&hub, 1));
    one.send(&Message::Ready);
    wait_for(&hub, |event| matches!(event, HubEvent::Ready(_)));
    zero.send(&for_worker_1(b"last words"));
    drop(zero);
    hub.ended(slot);
    one.expect(&for_worker_1(b"last words"));
    one.expect(&Message::SenderGone);
}

#[test]
fn a_question_for_room_reaches_the_owner_and_its_answer_the_worker_that_asked() {
    let hub = hub();
    let ((asker, mut zero), (owner, mut one)) = (worker(&hub, 0), worker(&hub, 1));
    let fd = u64::from(owner) << 38 | 7;
    let question = Message::AwaitRoom { fd, host: 0, slot: asker, length: 9 };
    zero.send(&question);
    one.expect(&question);
    let answer = Message::Room { fd, host: 0, slot: asker };
    one.send(&answer);
    zero.expect(&answer);
    // A worker may answer only for its own connections, and ask only in its own name.
    zero.send(&answer);
    assert_eq!(zero.receive(), None);
    one.send(&question);
    assert_eq!(one.receive(), None);
}

#[test]
fn a_worker_that_takes_nothing_costs_a_bounded_queue() {
    let hub = hub();
    let ((_, mut zero), (_, mut one)) = (worker(&hub, 0), worker(&hub, 1));
    one.send(&Message::Ready);
    wait_for(&hub, |event| matches!(event, HubEvent::Ready(_)));
    let payload = vec![0; 1 << 20];
    for _ in 0..64 {
        zero.send(&for_worker_1(&payload));
    }
    wait_for(&hub, |event| matches!(event, HubEvent::Warning(text) if text.contains("worker 1 is not reading")));
    zero.send(&Message::Reload);
    wait_for(&hub, |event| matches!(event, HubEvent::Reload(_)));
    // The worker reads again: the queued commands arrive, and the number of lost ones is reported.
    let mut come = 0;
    while come < 30 {
        one.expect(&for_worker_1(&payload));
        come += 1;
    }
    wait_for(&hub, |event| matches!(event, HubEvent::Warning(text) if text.contains("caught up")));
}

#[test]
fn connections_are_spread_evenly_and_given_back_ones_go_to_others() {
    let hub = hub();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let mut reactors = [reactor(&hub, 0).0, reactor(&hub, 1).0];
    hub.listen(OwnedFd::from(listener), Ownership::Ours);
    let clients: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(address).expect("connected")).collect();
    turn_until(&mut reactors, |reactors| reactors.iter().map(engine::Reactor::len).sum::<usize>() == 10);
    assert_eq!([reactors[0].len(), reactors[1].len()], [5, 5]);
    // The first worker leaves, and the connections it was given go to the other.
    reactors[0].tell_leaving();
    turn_until(&mut reactors, |reactors| reactors[1].len() == 10);
    assert!(reactors[0].is_empty());
    drop(clients);
}

#[test]
fn what_a_worker_does_not_take_is_passed_to_another_and_not_back() {
    let hub = hub();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    // This worker runs no turns.
    let (_slow, link_of_slow) = reactor(&hub, 0);
    let mut quick = [reactor(&hub, 1).0];
    hub.listen(OwnedFd::from(listener), Ownership::Ours);
    let clients: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).expect("connected")).collect();
    turn_until(&mut quick, |quick| quick[0].len() == clients.len());
    // The slow worker always has fewer connections, but its queue was used at most once for each connection.
    let waiting = rustix::io::ioctl_fionread(&link_of_slow).expect("a number");
    assert!(waiting <= 32 * clients.len() as u64, "{waiting} bytes");
}

#[test]
fn a_worker_that_runs_no_turns_is_stuck_until_it_does_and_an_idle_one_is_not() {
    let stuck_after = Some(Duration::from_millis(200));
    let hub = Hub::new(&engine::Settings { stuck_after, ..settings() }, None, None, None).expect("a hub");
    let (stuck, idle) = (reactor(&hub, 0).0, reactor(&hub, 1).0);
    let (mut stuck, mut idle) = ([stuck], [idle]);
    // It runs a turn only when woken, as in an event loop.
    let mut events = Vec::new();
    turn_until(&mut idle, |_| {
        events.extend(hub.events());
        !events.is_empty()
    });
    assert_eq!(events, [HubEvent::Stuck { slot: 0, is_news: true }]);
    events.clear();
    turn_until(&mut stuck, |_| {
        events.extend(hub.events());
        !events.is_empty()
    });
    assert_eq!(events, [HubEvent::Moves(0)]);
}

/// A worker that takes connections once it runs turns, and its end of the link.
fn reactor(hub: &Hub, worker_id: u8) -> (engine::Reactor, OwnedFd) {
    let (slot, link) = hub.add_worker(worker_id).expect("a slot");
    let registry = engine::Registry::open(memory(hub)).expect("the registry");
    let mut reactor = engine::Reactor::new(settings(), registry, slot).expect("a reactor");
    let copy = link.try_clone().expect("a descriptor");
    reactor.join(link).expect("joined");
    reactor.tell_ready();
    wait_for(hub, |event| *event == HubEvent::Ready(slot));
    (reactor, copy)
}

/// Runs turns. A reactor that is asked to leave returns its connections.
fn turn_until(reactors: &mut [engine::Reactor], mut is_done: impl FnMut(&[engine::Reactor]) -> bool) {
    let begin = Instant::now();
    while !is_done(reactors) {
        assert!(begin.elapsed() < PATIENCE, "it does not come to that");
        for reactor in &mut *reactors {
            reactor.begin().expect("a turn");
            while let Some(leaves) = reactor.next(|event| matches!(event, engine::Event::Leave(_))) {
                if leaves {
                    reactor.return_sockets();
                }
            }
            reactor.finish();
        }
    }
}

fn memory(hub: &Hub) -> OwnedFd {
    // SAFETY: the hub keeps it open as long as it lives, and it is only duplicated here.
    let memory = unsafe { std::os::fd::BorrowedFd::borrow_raw(hub.memory()) };
    memory.try_clone_to_owned().expect("a descriptor")
}

#[test]
fn programs_are_answered() {
    let (hub, control) = hub_with_control();
    let mut program = program(&control.0);
    program.send(&Message::Ask(7, PATIENCE, Question::Connections));
    program.expect(&Message::Answer(7, Answer::Connections(Vec::new())));
    program.send(&Message::Ask(8, PATIENCE, Question::Do(Command::Disconnect { fd: 9, code: 1000, reason: "" })));
    program.expect(&Message::Answer(8, Answer::Done(false)));
    program.send(&Message::Ask(9, PATIENCE, Question::Subscribers("news")));
    program.expect(&Message::Answer(9, Answer::Count(0)));
    program.send(&Message::Ask(10, PATIENCE, Question::Flush));
    program.expect(&Message::Answer(10, Answer::Done(true)));
    drop(hub);
    assert_eq!(program.receive(), None);
}

/// A worker without subscribers that nevertheless counts as interested: a subscription sent to it has not been carried
/// out.
fn worker_that_is_asked(hub: &Hub, worker_id: u8) -> (u8, Peer) {
    let (slot, mut peer) = worker(hub, worker_id);
    peer.send(&Message::Ready);
    wait_for(hub, |event| *event == HubEvent::Ready(slot));
    peer.send(&Message::Command(Command::Subscribe { fd: u64::from(slot) << 38, topic: "news", info: None }));
    (slot, peer)
}

/// Takes messages until a question arrives, and returns its number.
fn question(peer: &mut Peer) -> u64 {
    loop {
        let content = peer.receive().expect("a message");
        if let Ok(Message::Ask(number, ..)) = Message::decode(&content) {
            return number;
        }
    }
}

#[test]
fn who_does_not_answer_in_time_is_named_and_not_waited_for() {
    let (hub, control) = hub_with_control();
    let ((_, mut zero), (slot, mut one)) = (worker_that_is_asked(&hub, 0), worker_that_is_asked(&hub, 1));
    let mut program = program(&control.0);
    program.send(&Message::Ask(7, Duration::from_millis(100), Question::Subscribers("news")));
    let number = question(&mut zero);
    zero.send(&Message::Answer(number, Answer::Count(2)));
    program.expect(&Message::Answer(7, Answer::Silent(vec![1])));
    // This answer is too late, and ignored.
    let number = question(&mut one);
    one.send(&Message::Answer(number, Answer::Count(3)));
    // A worker that is gone never answers, which counts as an answer.
    program.send(&Message::Ask(8, PATIENCE, Question::Subscribers("news")));
    let number = question(&mut zero);
    zero.send(&Message::Answer(number, Answer::Count(2)));
    question(&mut one);
    drop(one);
    hub.ended(slot);
    program.expect(&Message::Answer(8, Answer::Count(2)));
}

#[test]
fn a_program_may_send_messages_to_workers() {
    let (hub, control) = hub_with_control();
    let (slot, mut one) = worker(&hub, 1);
    one.send(&Message::Ready);
    wait_for(&hub, |event| *event == HubEvent::Ready(slot));
    let mut program = program(&control.0);
    let to = |to, payload| Command::PipeMessage { from: OUTSIDE, to, format: Format::Text, payload };
    program.send(&Message::Ask(7, PATIENCE, Question::Do(to(2, b""))));
    program.expect(&Message::Answer(7, Answer::NoWorker(2)));
    // Longer than a message for a connection may be.
    let long = [b'x'; 2000];
    program.send(&Message::Ask(8, PATIENCE, Question::Do(to(1, &long))));
    program.expect(&Message::Answer(8, Answer::Done(true)));
    one.expect(&Message::Command(to(1, &long)));
    // In the name of a worker it may not, nor without asking.
    let forged = Command::PipeMessage { from: 0, to: 1, format: Format::Text, payload: b"" };
    program.send(&Message::Ask(9, PATIENCE, Question::Do(forged)));
    assert_eq!(program.receive(), None);
}

#[test]
fn lists_of_several_workers_are_merged() {
    let (hub, control) = hub_with_control();
    let ((_, mut zero), (slot, mut one)) = (worker_that_is_asked(&hub, 0), worker_that_is_asked(&hub, 1));
    let mut program = program(&control.0);
    let topics = |names: &[&str], goes_on| {
        let entries = names.iter().map(|name| ((*name).to_owned(), 1)).collect();
        Answer::Topics(Page { entries, goes_on })
    };
    let everything = Question::Topics { prefix: "", after: "", limit: 3 };
    program.send(&Message::Ask(7, PATIENCE, everything.clone()));
    let number = question(&mut zero);
    zero.send(&Message::Answer(number, topics(&["a", "c", "e"], true)));
    let number = question(&mut one);
    one.send(&Message::Answer(number, topics(&["b", "d", "f"], true)));
    program.expect(&Message::Answer(7, topics(&["a", "b", "c"], true)));
    // An answer of another kind counts for nothing, and so does a worker that is gone.
    program.send(&Message::Ask(8, PATIENCE, Question::Members { topic: "news", after: 0, limit: u32::MAX }));
    let number = question(&mut zero);
    zero.send(&Message::Answer(number, topics(&["a"], false)));
    let number = question(&mut one);
    one.send(&Message::Answer(number, Answer::Members(Page { entries: vec![5, 6], goes_on: false })));
    program.expect(&Message::Answer(8, Answer::Members(Page { entries: vec![5, 6], goes_on: false })));
    program.send(&Message::Ask(9, PATIENCE, everything));
    let number = question(&mut zero);
    zero.send(&Message::Answer(number, topics(&["a"], false)));
    drop(one);
    hub.ended(slot);
    program.expect(&Message::Answer(9, topics(&["a"], false)));
}

#[test]
fn long_lists_that_a_program_does_not_read_are_refused() {
    // No more than needed: a program that reads nothing for 10 s is cut off.
    const COUNT: u64 = 30;
    let (hub, control) = hub_with_control();
    let (_, mut worker) = worker_that_is_asked(&hub, 0);
    let (mut program, mut other) = (program(&control.0), program(&control.0));
    let ids: Vec<u64> = (1..=65_536).collect();
    let list = Answer::Members(Page { entries: ids, goes_on: true });
    for number in 0..COUNT {
        program.send(&Message::Ask(number, PATIENCE, Question::Members { topic: "news", after: 0, limit: u32::MAX }));
    }
    let asked: Vec<u64> = (0..COUNT).map(|_| question(&mut worker)).collect();
    for number in asked {
        worker.send(&Message::Answer(number, list.clone()));
    }
    // Once this one is answered, so are those before it.
    other.send(&Message::Ask(7, PATIENCE, Question::Subscribers("news")));
    let asked = question(&mut worker);
    worker.send(&Message::Answer(asked, Answer::Count(3)));
    other.expect(&Message::Answer(7, Answer::Count(3)));
    let mut lists = 0;
    for number in 0..COUNT {
        let content = program.receive().expect("an answer");
        match Message::decode(&content).expect("an answer") {
            Message::Answer(answered, Answer::Refused) => assert_eq!(answered, number),
            message => {
                assert_eq!(message, Message::Answer(number, list.clone()));
                lists += 1;
            }
        }
    }
    // 8 MiB, and what the kernel holds.
    assert!((1..25).contains(&lists), "{lists}");
}

#[test]
fn questions_that_nobody_answers_do_not_use_up_what_a_program_may_ask() {
    let (hub, control) = hub_with_control();
    let (_, mut worker) = worker_that_is_asked(&hub, 0);
    let mut program = program(&control.0);
    for number in 0..5000 {
        program.send(&Message::Ask(number, Duration::from_millis(50), Question::Subscribers("news")));
    }
    question(&mut worker);
    for number in 0..5000 {
        program.expect(&Message::Answer(number, Answer::Silent(vec![0])));
    }
    program.send(&Message::Ask(9999, PATIENCE, Question::Flush));
    program.expect(&Message::Answer(9999, Answer::Done(true)));
}

#[test]
fn what_a_program_may_not_say_cuts_it_off() {
    let (hub, control) = hub_with_control();
    let (_, mut worker) = worker(&hub, 0);
    worker.send(&Message::Ready);
    let mut good = program(&control.0);
    let invalid = Command::Broadcast { opcode: DataOpcode::Text, payload: b"\xff", exclude: Cow::Borrowed(&[]) };
    let too_long = Command::Broadcast { opcode: DataOpcode::Binary, payload: &[0; 1001], exclude: Cow::Borrowed(&[]) };
    let piped = Command::PipeMessage { from: 0, to: 0, format: Format::Text, payload: b"" };
    let refused = [
        Message::Ready,
        Message::Shutdown,
        Message::Sockets(vec![b""]),
        Message::Answer(1, Answer::Done(true)),
        Message::Command(invalid),
        Message::Command(too_long),
        Message::Command(piped),
    ];
    for message in refused {
        let mut bad = program(&control.0);
        bad.send(&message);
        assert_eq!(bad.receive(), None, "{message:?}");
    }
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 100], &[0; 4]] {
        let mut bad = Peer::new(UnixStream::connect(&control.0).expect("connected"));
        bad.stream.write_all(garbage).expect("written");
        assert_eq!(bad.receive(), None);
    }
    good.send(&Message::Ask(1, PATIENCE, Question::Flush));
    good.expect(&Message::Answer(1, Answer::Done(true)));
}

#[test]
fn a_program_that_does_not_read_its_answers_is_cut_off() {
    let (_hub, control) = hub_with_control();
    let mut program = program(&control.0);
    let mut frame = Vec::new();
    Message::Ask(1, PATIENCE, Question::Stats).encode(&mut frame);
    let many = frame.repeat(1000);
    let mut written = Ok(());
    while written.is_ok() {
        written = program.stream.write_all(&many);
    }
}

#[test]
fn ids_go_on_after_a_restart_above_what_was_leased() {
    let path = std::env::temp_dir().join(format!("hubbub-lease-{}", std::process::id()));
    let _control = Control(path.clone());
    let options = || std::fs::File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let leased = || std::fs::read_to_string(&path).expect("a lease").trim().parse::<u64>().expect("a number");
    let first = Hub::new(&settings(), None, Some(options().expect("a file").into()), None).expect("a hub");
    let while_it_runs = leased();
    // This hub ends as if it had been killed: the next one begins above all ids that it may have given out.
    std::mem::forget(first);
    let second = Hub::new(&settings(), None, Some(options().expect("a file").into()), None).expect("a hub");
    assert!(leased() > while_it_runs);
    drop(second);
    assert_eq!(leased(), while_it_runs);
}
