//! Each limit at its edge: the last that fits, and the first that does not.

use std::time::Duration;

use wire::frame::{DataOpcode, Fin, Opcode};

use crate::language::command::MAX_PIPED;
use crate::language::command::{Command, Format};
use crate::reactor::commands::Subscribed;
use crate::reactor::event::Shortage;
use crate::reactor::tests::application::{Seen, Who};
use crate::reactor::tests::client::{HANDSHAKE, frame};
use crate::reactor::tests::simulation::Simulation;
use crate::reactor::{EVENTS_PER_TURN, READ_BUDGET};
use crate::registry::Fd;
use crate::settings::{Settings, SlowConsumer};

/// The largest number of commands from other threads that wait.
const MAX_COMMANDS: usize = 65_536;
/// The largest number of `pipe_message` handlers running at the same time.
const MAX_PIPE_HANDLERS: usize = 1024;
/// Messages of one connection before it is another's turn.
const MESSAGES_PER_VISIT: usize = 64;

fn settings() -> Settings {
    Settings { max_memory: 1 << 30, ..Settings::small() }
}

/// Runs the same twice: with what just fits, and with one more.
fn edge(limit: usize, is_refused: impl Fn(usize) -> bool) {
    assert!(!is_refused(limit), "{limit} fits");
    assert!(is_refused(limit + 1), "{} does not fit", limit + 1);
}

// ---- input ----------------------------------------------------------------------------------------------------------

#[test]
fn max_message_size_in_one_frame() {
    let largest = settings().max_message_size;
    for opcode in [Opcode::Text, Opcode::Binary] {
        edge(largest, |length| {
            let mut simulation = Simulation::new(settings());
            let (who, fd) = simulation.open();
            simulation.client(who).send(opcode, &vec![b'x'; length]);
            simulation.run();
            simulation.client(who).read();
            let has_arrived =
                simulation.application.count(|seen| matches!(seen, Seen::Text(..) | Seen::Binary(..))) == 1;
            assert_eq!(has_arrived, simulation.application.ending(fd).is_none());
            simulation.client(who).close_code() == Some(1009)
        });
    }
}

#[test]
fn max_message_size_in_fragments() {
    edge(settings().max_message_size, |length| {
        let mut simulation = Simulation::new(settings());
        let (who, _) = simulation.open();
        let client = simulation.client(who);
        client.write(&frame(Opcode::Binary, false, &vec![7; length - 1]));
        client.write(&frame(Opcode::Continuation, true, &[7]));
        simulation.run();
        simulation.client(who).read();
        simulation.client(who).close_code() == Some(1009)
    });
}

#[test]
fn max_header_size() {
    edge(settings().max_header_size, |length| {
        let mut simulation = Simulation::new(settings());
        let who = simulation.connect();
        let mut head = b"GET / HTTP/1.1\r\nHost: here\r\nFiller: ".to_vec();
        head.resize(length - 4, b'x');
        head.extend(b"\r\n\r\n");
        simulation.client(who).write(&head);
        simulation.run();
        simulation.client(who).read();
        simulation.client(who).status() == Some(431)
    });
}

#[test]
fn max_header_size_of_a_head_that_does_not_end() {
    edge(settings().max_header_size, |length| {
        let mut simulation = Simulation::new(settings());
        let who = simulation.connect();
        let mut head = b"GET / HTTP/1.1\r\nHost: here\r\nFiller: ".to_vec();
        head.resize(length, b'x');
        for part in head.chunks(100) {
            simulation.client(who).write(part);
            simulation.run();
        }
        simulation.client(who).read();
        simulation.client(who).status() == Some(431)
    });
}

#[test]
fn max_body_size() {
    for is_chunked in [false, true] {
        edge(settings().max_body_size, |length| {
            let mut simulation = Simulation::new(settings());
            let who = simulation.connect();
            let client = simulation.client(who);
            if is_chunked {
                client.write(b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n");
                client.write(format!("{length:x}\r\n{}\r\n0\r\n\r\n", "b".repeat(length)).as_bytes());
            } else {
                let head = format!("POST / HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n");
                client.write(format!("{head}{}", "b".repeat(length)).as_bytes());
            }
            simulation.run();
            simulation.client(who).read();
            let has_arrived = simulation.application.seen == [Seen::Request(vec![b'b'; length])];
            assert_eq!(has_arrived, simulation.client(who).status().is_none());
            simulation.client(who).status() == Some(413)
        });
    }
}

#[test]
fn receive_queue() {
    let mut simulation = Simulation::new(settings());
    let (who, fd) = simulation.open();
    simulation.application.keeps_running = true;
    let limit = settings().receive_queue;
    let numbers: Vec<String> = (0..3 * limit).map(|number| number.to_string()).collect();
    let mut written = 0;
    let mut write = |simulation: &mut Simulation, count: usize| {
        for _ in 0..count {
            simulation.client(who).text(&numbers[written]);
            written += 1;
        }
        simulation.run();
        let connection = simulation.reactor.connections.values().next().expect("a connection");
        connection.paused_at.is_some()
    };
    // One message is being handled, the others wait.
    assert!(!write(&mut simulation, 1 + limit - 1), "there is room for one more");
    assert!(write(&mut simulation, 1), "the socket is not read any more");
    write(&mut simulation, limit);
    assert_eq!(simulation.stat("messages_in"), 1 + limit as u64, "what is beyond the limit stays in the kernel");
    let mut handled = 1;
    while simulation.application.running.contains(&fd) {
        simulation.application.release(&mut simulation.reactor, fd);
        simulation.run();
        handled = simulation.application.texts(fd).len();
    }
    assert_eq!(simulation.application.texts(fd), numbers[..handled]);
    assert_eq!(handled, 1 + 2 * limit);
}

#[test]
fn bytes_of_the_receive_queue() {
    // Beyond the first message, as many bytes as the largest message has.
    edge(settings().max_message_size, |length| {
        let mut simulation = Simulation::new(settings());
        let (who, _) = simulation.open();
        simulation.application.keeps_running = true;
        for length in [1, 1000, length - 500, 500, 1] {
            simulation.client(who).send(Opcode::Binary, &vec![7; length]);
        }
        simulation.run();
        // The last message is read only if the ones before it leave room.
        simulation.stat("messages_in") < 5
    });
}

// ---- output ---------------------------------------------------------------------------------------------------------

/// A client that reads nothing, with something in its outbox, and how many bytes of room are left there.
fn stalled(policy: SlowConsumer) -> (Simulation, Who, Fd, usize) {
    let send_queue_size = 100_000;
    let mut simulation = Simulation::new(Settings { send_queue_size, slow_consumer: policy, ..settings() });
    let (who, fd) = simulation.open();
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Binary, Fin::Last, &[7; 80_000]), Ok(true));
    simulation.run();
    let connection = simulation.reactor.connections.values().next().expect("a connection");
    let room = send_queue_size - connection.cost();
    (simulation, who, fd, room)
}

fn read_all(simulation: &mut Simulation, who: Who) {
    for _ in 0..30 {
        simulation.client(who).read();
        simulation.run();
    }
}

#[test]
fn send_queue_size_closes_a_slow_consumer() {
    let (.., room) = stalled(SlowConsumer::Close);
    edge(room, |length| {
        let (mut simulation, who, fd, _) = stalled(SlowConsumer::Close);
        let pushed = simulation.reactor.push(fd, DataOpcode::Binary, Fin::Last, &vec![8; length]);
        simulation.run();
        let is_closed = !simulation.reactor.shared().registry.exists(fd);
        assert_eq!(pushed, Ok(!is_closed));
        assert_eq!(simulation.stat("slow_consumers_closed"), u64::from(is_closed));
        read_all(&mut simulation, who);
        let client = simulation.client(who);
        // The frame being sent is finished. The rest is discarded if it is closed.
        assert_eq!(client.received.len(), 2);
        assert_eq!(client.close_code(), is_closed.then_some(1013));
        is_closed
    });
}

#[test]
fn send_queue_size_drops_a_message() {
    let (.., room) = stalled(SlowConsumer::Drop);
    edge(room, |length| {
        let (mut simulation, who, fd, _) = stalled(SlowConsumer::Drop);
        let pushed = simulation.reactor.push(fd, DataOpcode::Binary, Fin::Last, &vec![8; length]);
        simulation.run();
        let is_dropped = pushed == Ok(false);
        assert_eq!(simulation.stat("messages_dropped"), u64::from(is_dropped));
        read_all(&mut simulation, who);
        assert_eq!(simulation.client(who).received.len(), if is_dropped { 1 } else { 2 });
        assert!(simulation.reactor.shared().registry.exists(fd));
        is_dropped
    });
}

#[test]
fn send_queue_size_counts_deferred_messages() {
    let begin = || {
        let (mut simulation, _, fd, _) = stalled(SlowConsumer::Drop);
        assert_eq!(simulation.reactor.push(fd, DataOpcode::Text, Fin::More, b"begun"), Ok(true));
        let connection = simulation.reactor.connections.values().next().expect("a connection");
        let room = simulation.reactor.settings.send_queue_size - connection.cost();
        (simulation, fd, room)
    };
    let (.., room) = begin();
    edge(room, |length| {
        let (mut simulation, fd, _) = begin();
        simulation.reactor.push(fd, DataOpcode::Binary, Fin::Last, &vec![8; length]) == Ok(false)
    });
}

#[test]
fn send_queue_size_is_the_same_for_other_threads() {
    let (simulation, _, fd, _) = stalled(SlowConsumer::Close);
    let info = simulation.reactor.shared().info(fd).expect("open");
    edge(simulation.reactor.settings.send_queue_size - info.queued_bytes as usize, |length| {
        let (simulation, _, fd, _) = stalled(SlowConsumer::Close);
        !simulation.reactor.shared().push(fd, DataOpcode::Binary, Fin::Last, &vec![8; length])
    });
}

#[test]
fn an_empty_outbox_takes_a_message_of_any_size() {
    for policy in [SlowConsumer::Close, SlowConsumer::Drop] {
        let mut simulation = Simulation::new(Settings { send_queue_size: 100, slow_consumer: policy, ..settings() });
        let (who, fd) = simulation.open();
        assert_eq!(simulation.reactor.push(fd, DataOpcode::Binary, Fin::Last, &[7; 200_000]), Ok(true));
        read_all(&mut simulation, who);
        assert_eq!(simulation.client(who).received.len(), 1);
    }
}

#[test]
fn drain_follows_once_more_than_half_was_queued() {
    let begin = || {
        let mut simulation = Simulation::new(Settings { send_queue_size: 2000, ..settings() });
        let opened = simulation.open();
        (simulation, opened)
    };
    // A message with this payload has a header of four bytes.
    edge(1000 - 4, |length| {
        let (mut simulation, (_, fd)) = begin();
        assert_eq!(simulation.reactor.push(fd, DataOpcode::Binary, Fin::Last, &vec![7; length]), Ok(true));
        simulation.run();
        simulation.application.count(|seen| *seen == Seen::Drain(fd)) == 1
    });
}

// ---- connections ----------------------------------------------------------------------------------------------------

#[test]
fn max_connections() {
    let mut simulation = Simulation::new(Settings { max_connections: 3, ..settings() });
    let opened = [(); 3].map(|()| simulation.open());
    simulation.application.accepts = false;
    let refused = simulation.connect();
    simulation.client(refused).write(HANDSHAKE);
    simulation.run();
    assert!(simulation.application.handshakes.is_empty(), "no handler is asked");
    simulation.application.accepts = true;
    simulation.client(refused).read();
    assert_eq!(simulation.client(refused).status(), Some(503));
    assert!(simulation.client(refused).answers().contains("Retry-After: "));
    assert_eq!(simulation.stat("refused"), 1);
    // The place is free as soon as either side begins to close.
    assert!(simulation.reactor.disconnect(opened[1].1, 1000, ""));
    simulation.open();
    assert_eq!(simulation.stat("connections"), 3);
}

#[test]
fn the_last_place_may_be_gone_by_the_time_a_handshake_is_accepted() {
    let mut simulation = Simulation::new(Settings { max_connections: 1, ..settings() });
    simulation.application.accepts = false;
    let clients = [simulation.connect(), simulation.connect()];
    for who in clients {
        simulation.client(who).write(HANDSHAKE);
    }
    simulation.run();
    for (who, token) in std::mem::take(&mut simulation.application.handshakes) {
        simulation.application.accept(&mut simulation.reactor, who, token);
    }
    simulation.run();
    simulation.client(clients[1]).read();
    assert_eq!(simulation.client(clients[1]).status(), Some(503));
    assert_eq!((simulation.application.opened(), simulation.stat("accepted")), (1, 1));
}

#[test]
fn sockets_of_any_kind() {
    let mut simulation = Simulation::new(Settings { max_connections: 1, ..settings() });
    simulation.skips_invariants = true;
    let most = simulation.reactor.most_connections();
    for _ in 0..most - 1 {
        simulation.connect();
    }
    assert!(simulation.reactor.has_space());
    let last = simulation.connect();
    assert!(!simulation.reactor.has_space());
    simulation.client(last).leave();
    simulation.run();
    assert!(simulation.reactor.has_space());
}

#[test]
fn handlers_that_outlive_their_connections() {
    let mut simulation = Simulation::new(Settings { max_connections: 1, ..settings() });
    simulation.skips_invariants = true;
    simulation.application.forgets = false;
    let most = simulation.reactor.most_connections();
    for count in 0..most {
        assert_eq!((simulation.reactor.outliving(), simulation.reactor.is_overrun()), (count, false));
        let (who, _) = simulation.open();
        simulation.client(who).leave();
        simulation.run();
    }
    assert!(simulation.reactor.is_overrun());
    let refused = simulation.connect();
    simulation.client(refused).write(HANDSHAKE);
    simulation.run();
    simulation.client(refused).read();
    assert_eq!(simulation.client(refused).status(), Some(503));
    assert!(simulation.application.seen.contains(&Seen::Shortage(Shortage::Handlers(most))));
    let ended = simulation.application.unforgotten.pop().expect("a handler");
    simulation.reactor.forget(ended);
    simulation.run();
    simulation.open();
}

// ---- topics and commands --------------------------------------------------------------------------------------------

#[test]
fn max_topics() {
    let mut simulation = Simulation::new(Settings { max_topics: 3, ..settings() });
    let (_, fd) = simulation.open();
    for topic in ["a", "b", "c"] {
        assert_eq!(simulation.reactor.subscribe(fd, topic, None), Subscribed::Done);
    }
    assert_eq!(simulation.reactor.subscribe(fd, "d", None), Subscribed::TooMany);
    assert_eq!(simulation.reactor.subscribe(fd, "a", None), Subscribed::Done, "it is subscribed already");
    assert_eq!(simulation.stat("subscriptions_refused"), 1);
    // Another thread cannot know for certain, so its request is judged by the reactor.
    assert_eq!(simulation.reactor.shared().subscribe(fd, "e", None), Subscribed::NoRoom);
    simulation.run();
    assert_eq!(simulation.stat("subscriptions_refused"), 2);
    assert!(simulation.application.seen.contains(&Seen::TopicsExceeded(fd)));
    assert!(simulation.reactor.unsubscribe(fd, "b"));
    assert_eq!(simulation.reactor.shared().subscribe(fd, "e", None), Subscribed::Done);
    simulation.run();
    assert_eq!(simulation.reactor.subscribers("e"), 1);
    assert_eq!(simulation.stat("subscriptions_refused"), 2);
}

#[test]
fn commands_from_other_threads() {
    let mut simulation = Simulation::new(settings());
    let (_, fd) = simulation.open();
    let shared = simulation.reactor.shared().clone();
    for number in 0..MAX_COMMANDS {
        assert!(shared.command(Command::Ping { fd, payload: b"" }), "{number} wait");
    }
    assert!(!shared.command(Command::Ping { fd, payload: b"" }));
    assert_eq!(simulation.stat("commands_dropped"), 1);
    simulation.turn();
    assert!(shared.command(Command::Ping { fd, payload: b"" }));
}

#[test]
fn bytes_of_messages_between_workers() {
    let mut simulation = Simulation::new(settings());
    let message = vec![7; MAX_PIPED / 2];
    assert!(simulation.reactor.send_message(0, Format::Binary, &message));
    assert!(simulation.reactor.send_message(0, Format::Binary, &message));
    assert!(!simulation.reactor.send_message(0, Format::Binary, &[7]));
    assert_eq!(simulation.stat("commands_dropped"), 1);
    simulation.run();
    assert!(simulation.reactor.send_message(0, Format::Binary, &[7]));
    simulation.run();
    assert_eq!(simulation.application.count(|seen| matches!(seen, Seen::PipeMessage(_))), 3);
}

#[test]
fn handlers_of_messages_between_workers() {
    let mut simulation = Simulation::new(settings());
    for _ in 0..MAX_PIPE_HANDLERS + 1 {
        assert!(simulation.reactor.send_message(0, Format::Text, b"x"));
    }
    let handled = |simulation: &Simulation| simulation.application.count(|seen| matches!(seen, Seen::PipeMessage(_)));
    simulation.run();
    assert_eq!(handled(&simulation), MAX_PIPE_HANDLERS);
    simulation.reactor.pipe_message_done();
    simulation.run();
    assert_eq!(handled(&simulation), MAX_PIPE_HANDLERS + 1);
}

// ---- a turn ---------------------------------------------------------------------------------------------------------

/// The order in which messages were handled, by client.
fn handled(simulation: &Simulation) -> Vec<Fd> {
    let fds = simulation.application.seen.iter().filter_map(|seen| match seen {
        Seen::Binary(fd, _) => Some(*fd),
        _ => None,
    });
    fds.collect()
}

#[test]
fn a_turn_handles_so_many_events_and_leaves_the_rest_to_the_next() {
    let mut simulation = Simulation::new(settings());
    let opened = [(); 4].map(|()| simulation.open());
    let each = EVENTS_PER_TURN / 4 + 50;
    for (who, _) in opened {
        simulation.client(who).write(&frame(Opcode::Binary, true, b"x").repeat(each));
    }
    simulation.turn();
    assert_eq!(handled(&simulation).len(), EVENTS_PER_TURN);
    assert!(simulation.reactor.has_work());
    simulation.run();
    assert_eq!(handled(&simulation).len(), 4 * each);
}

#[test]
fn connections_with_many_messages_take_turns() {
    let mut simulation = Simulation::new(settings());
    let opened = [(); 2].map(|()| simulation.open());
    for (who, _) in opened {
        simulation.client(who).write(&frame(Opcode::Binary, true, b"x").repeat(500));
    }
    simulation.turn();
    let handled = handled(&simulation);
    assert_eq!(handled.len(), 1000);
    let longest = handled.chunk_by(|one, other| one == other).map(<[Fd]>::len).max();
    assert_eq!(longest, Some(MESSAGES_PER_VISIT));
}

#[test]
fn a_turn_ends_when_its_time_is_over() {
    let mut simulation = Simulation::new(settings());
    let (who, _) = simulation.open();
    simulation.client(who).write(&frame(Opcode::Binary, true, b"x").repeat(400));
    simulation.time.pass_at_each_reading(Duration::from_millis(1));
    simulation.turn();
    let first = handled(&simulation).len();
    assert!((8..200).contains(&first), "{first} messages");
    simulation.time.pass_at_each_reading(Duration::ZERO);
    simulation.run();
    assert_eq!(handled(&simulation).len(), 400);
}

#[test]
fn a_connection_that_is_read_at_length_does_not_hold_up_another() {
    let mut simulation = Simulation::new(Settings { max_message_size: 1 << 20, ..settings() });
    let [(one, one_fd), (much, much_fd), (other, other_fd)] = [(); 3].map(|()| simulation.open());
    // More than one read takes, and no more than the kernel holds.
    let message = vec![7; READ_BUDGET / 2 + 1000];
    simulation.client(much).write(&frame(Opcode::Binary, true, &message).repeat(2));
    assert!(simulation.client(much).has_written());
    for who in [one, other] {
        simulation.client(who).send(Opcode::Binary, b"x");
    }
    simulation.turn();
    let handled = handled(&simulation);
    assert_eq!(handled.len(), 4);
    assert!([one_fd, other_fd].iter().all(|fd| handled[..3].contains(fd)) && handled[3] == much_fd, "{handled:?}");
}
