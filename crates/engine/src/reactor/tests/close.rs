//! How connections end, for every order in which the two sides act.

use std::time::Duration;

use wire::frame::{DataOpcode, Fin, Opcode};

use crate::connection::Wait;
use crate::reactor::Reactor;
use crate::reactor::shutdown::Requests;
use crate::reactor::tests::application::{Seen, Who};
use crate::reactor::tests::client::{End, HANDSHAKE, Received, frame};
use crate::reactor::tests::simulation::{CLOSE_TIMEOUT, NO_HEADERS, Simulation};
use crate::reactor::watching::Watching;
use crate::registry::{Fd, Registry};
use crate::settings::Settings;

const LONG: Duration = Duration::from_secs(3600);

fn opened() -> (Simulation, Who, Fd) {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, fd) = simulation.open();
    (simulation, who, fd)
}

fn push(reactor: &mut Reactor, fd: Fd, text: &str) {
    assert_eq!(reactor.push(fd, DataOpcode::Text, Fin::Last, text.as_bytes()), Ok(true));
}

// ---- every order ----------------------------------------------------------------------------------------------------

/// An action of one of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    ServerCloses,
    ClientCloses,
    ClientEndsOutput,
    ClientReads,
    ServerTurns,
}

const ACTS: [Act; 5] =
    [Act::ServerCloses, Act::ClientCloses, Act::ClientEndsOutput, Act::ClientReads, Act::ServerTurns];

/// The state of the connection when the first side begins to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    /// The server has begun a message of its own, and others wait for its end.
    ServersMessageBegun,
    /// The client has sent the first fragment of a message.
    ClientsMessageBegun,
    /// The client has sent a part of a frame, and can never send its Close frame.
    ClientsFrameBegun,
    /// More is queued than the socket takes.
    Output,
    /// A handler is running, and a message waits for it.
    HandlerRunning,
}

const BEFORE: [Before; 6] = [
    Before::Nothing,
    Before::ServersMessageBegun,
    Before::ClientsMessageBegun,
    Before::ClientsFrameBegun,
    Before::Output,
    Before::HandlerRunning,
];

fn orders(acts: &[Act]) -> Vec<Vec<Act>> {
    if acts.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (place, first) in acts.iter().enumerate() {
        let mut others = acts.to_vec();
        others.remove(place);
        all.extend(orders(&others).into_iter().map(|mut order| {
            order.insert(0, *first);
            order
        }));
    }
    all
}

fn begin(before: Before, simulation: &mut Simulation, who: Who, fd: Fd) {
    let reactor = &mut simulation.reactor;
    match before {
        Before::Nothing => {}
        Before::ServersMessageBegun => {
            assert_eq!(reactor.push(fd, DataOpcode::Text, Fin::More, b"begun"), Ok(true));
            push(reactor, fd, "deferred");
        }
        Before::ClientsMessageBegun => simulation.client(who).write(&frame(Opcode::Text, false, b"begun")),
        Before::ClientsFrameBegun => simulation.client(who).write(&frame(Opcode::Text, true, b"whole")[..8]),
        Before::Output => push(reactor, fd, &"long".repeat(100_000)),
        Before::HandlerRunning => {
            simulation.application.keeps_running = true;
            simulation.client(who).text("first");
            simulation.client(who).text("second");
        }
    }
    simulation.run();
}

fn play(before: Before, order: &[Act]) {
    let (mut simulation, who, fd) = opened();
    begin(before, &mut simulation, who, fd);
    // `None` until it is known whether the server closed first, and whether the client's Close frame counts.
    let mut clients_code = None;
    let mut has_ended = false;
    for act in order {
        match act {
            Act::ServerCloses => {
                simulation.reactor.disconnect(fd, 4000, "server");
            }
            Act::ClientCloses => {
                if !has_ended && before != Before::ClientsFrameBegun {
                    clients_code = Some(4100);
                }
                simulation.client(who).close(4100);
            }
            Act::ClientEndsOutput => {
                has_ended = true;
                simulation.client(who).end_output();
            }
            Act::ClientReads => simulation.client(who).read(),
            Act::ServerTurns => simulation.turn(),
        }
    }
    simulation.run();
    while let Some(running) = simulation.application.running.pop_first() {
        simulation.reactor.release(running);
        simulation.run();
    }
    for _ in 0..50 {
        simulation.client(who).read();
        simulation.run();
    }
    simulation.pass(2 * CLOSE_TIMEOUT);
    simulation.client(who).read();
    assert!(simulation.reactor.is_empty(), "the connection is over");
    assert!(simulation.client(who).end.is_some(), "the client sees the end");
    let (code, _) = simulation.application.ending(fd).expect("`close` has run");
    assert_eq!(code, clients_code.unwrap_or(1006));
    assert_eq!(simulation.stat("closed"), 1);
    let received = &simulation.client(who).received;
    let closes = received.iter().filter(|each| matches!(each, Received::Close(..))).count();
    assert!(closes <= 1, "one Close frame at most");
    // A client that has not broken any rule gets an answer.
    if clients_code.is_some() {
        assert_eq!(closes, 1);
    }
}

#[test]
fn every_order_of_closing_ends_the_connection_once_and_with_the_right_code() {
    for before in BEFORE {
        for order in orders(&ACTS) {
            let story = std::panic::catch_unwind(|| play(before, &order));
            assert!(story.is_ok(), "{before:?}, then {order:?}");
        }
    }
}

// ---- the server first -----------------------------------------------------------------------------------------------

#[test]
fn what_was_queued_goes_before_the_close_frame() {
    let (mut simulation, who, fd) = opened();
    for number in 0..1000 {
        push(&mut simulation.reactor, fd, &format!("{number}"));
    }
    assert!(simulation.reactor.disconnect(fd, 4000, "done"));
    assert!(!simulation.reactor.disconnect(fd, 4001, "again"), "it is no longer open");
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Text, Fin::Last, b"late"), Ok(false));
    simulation.run();
    let client = simulation.client(who);
    client.read();
    assert_eq!(client.texts().len(), 1000);
    assert_eq!(client.received.last(), Some(&Received::Close(Some(4000), "done".into())));
    assert_eq!(client.end, None, "the client closes first");
    client.close(4000);
    simulation.run();
    assert_eq!(simulation.application.ending(fd), Some((4000, "")));
    simulation.client(who).read();
    assert_eq!(simulation.client(who).end, Some(End::Closed));
}

#[test]
fn a_client_that_never_answers_is_1006_with_our_code_as_the_reason() {
    let (mut simulation, who, fd) = opened();
    assert!(simulation.reactor.disconnect(fd, 4000, ""));
    simulation.client(who).text("too late");
    simulation.pass(CLOSE_TIMEOUT);
    assert_eq!(simulation.application.ending(fd), Some((1006, "4000")));
    assert_eq!(simulation.application.texts(fd), [""; 0], "messages after our Close frame are discarded");
}

#[test]
fn messages_that_wait_for_their_handler_are_dropped_by_our_own_close() {
    let (mut simulation, who, fd) = opened();
    simulation.application.keeps_running = true;
    for text in ["handled", "waiting"] {
        simulation.client(who).text(text);
    }
    simulation.run();
    simulation.reactor.disconnect(fd, 4000, "");
    simulation.client(who).close(4000);
    simulation.run();
    assert_eq!(simulation.application.ending(fd), None, "the handler still runs");
    simulation.application.release(&mut simulation.reactor, fd);
    simulation.run();
    assert_eq!(simulation.application.texts(fd), ["handled"]);
    assert_eq!(simulation.application.ending(fd), Some((4000, "")));
}

#[test]
fn closing_inside_a_fragmented_message_waits_for_its_end_and_what_waits_for_that() {
    let (mut simulation, who, fd) = opened();
    let reactor = &mut simulation.reactor;
    assert_eq!(reactor.push(fd, DataOpcode::Text, Fin::More, b"one "), Ok(true));
    push(reactor, fd, "deferred");
    assert!(reactor.disconnect(fd, 4000, ""));
    assert!(!reactor.disconnect(fd, 4001, ""), "it is closing already");
    assert_eq!(reactor.push(fd, DataOpcode::Text, Fin::Last, b"after the close"), Ok(false));
    simulation.run();
    simulation.client(who).read();
    assert_eq!(simulation.client(who).received, []);
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Continuation, Fin::Last, b"message"), Ok(true));
    simulation.run();
    let client = simulation.client(who);
    client.read();
    assert_eq!(client.texts(), ["one message", "deferred"]);
    assert_eq!(client.close_code(), Some(4000));
}

#[test]
fn nothing_goes_inside_a_message_that_is_given_up() {
    let (mut simulation, who, fd) = opened();
    // A broadcast reaches this connection last, and takes more than one turn.
    for _ in 0..99 {
        simulation.open();
    }
    simulation.reactor.turn_time = Duration::ZERO;
    simulation.reactor.backlog.max_at_once = 0;
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Text, Fin::More, b"never finished"), Ok(true));
    simulation.reactor.disconnect(fd, 4000, "");
    simulation.pass(CLOSE_TIMEOUT - Duration::from_millis(1));
    simulation.reactor.broadcast(DataOpcode::Text, b"to all", &[]);
    simulation.time.pass(Duration::from_millis(1));
    simulation.turn();
    assert!(!simulation.reactor.backlog.is_empty());
    simulation.run();
    simulation.client(who).read();
    assert_eq!(simulation.client(who).received, [Received::Close(Some(4000), String::new())]);
}

// ---- the client first -----------------------------------------------------------------------------------------------

#[test]
fn a_client_that_closes_is_answered_with_its_code_and_the_server_closes_the_socket() {
    for (payload, code) in [(&b""[..], 1005), (&[0x03, 0xe8], 1000), (&[0x10, 0x04, b'o', b'k'], 4100)] {
        let (mut simulation, who, fd) = opened();
        push(&mut simulation.reactor, fd, "queued before");
        simulation.client(who).send(Opcode::Close, payload);
        // Input after a Close frame is ignored.
        simulation.client(who).text("after the close");
        simulation.run();
        let client = simulation.client(who);
        client.read();
        assert_eq!(client.texts(), ["queued before"]);
        assert_eq!((client.close_code(), client.end), (Some(code), Some(End::Closed)));
        assert_eq!(
            simulation.application.ending(fd),
            Some((code, str::from_utf8(payload.get(2..).unwrap_or_default()).expect("text")))
        );
        assert_eq!(simulation.application.texts(fd), [""; 0]);
    }
}

#[test]
fn messages_before_the_clients_close_frame_are_all_handled() {
    let (mut simulation, who, fd) = opened();
    simulation.application.keeps_running = true;
    let client = simulation.client(who);
    for text in ["one", "two", "three"] {
        client.text(text);
    }
    client.close(1000);
    simulation.run();
    while simulation.application.running.contains(&fd) {
        assert_eq!(simulation.application.ending(fd), None);
        simulation.application.release(&mut simulation.reactor, fd);
        simulation.run();
    }
    assert_eq!(simulation.application.texts(fd), ["one", "two", "three"]);
    assert_eq!(simulation.application.ending(fd), Some((1000, "")));
}

#[test]
fn a_close_frame_inside_the_clients_own_message_counts() {
    let (mut simulation, who, fd) = opened();
    simulation.client(who).write(&frame(Opcode::Text, false, b"never finished"));
    simulation.client(who).close(1001);
    simulation.run();
    assert_eq!(simulation.application.ending(fd), Some((1001, "")));
    assert_eq!(simulation.application.texts(fd), [""; 0]);
}

#[test]
fn both_at_once_is_one_close_frame_from_each_side() {
    let (mut simulation, who, fd) = opened();
    simulation.client(who).close(4100);
    simulation.reactor.disconnect(fd, 4000, "");
    simulation.run();
    let client = simulation.client(who);
    client.read();
    assert_eq!(client.received, [Received::Close(Some(4000), String::new())]);
    assert_eq!(client.end, Some(End::Closed));
    assert_eq!(simulation.application.ending(fd), Some((4100, "")));
}

// ---- without a Close frame ------------------------------------------------------------------------------------------

#[test]
fn a_client_that_ends_its_stream_still_receives_what_is_queued() {
    let (mut simulation, who, fd) = opened();
    push(&mut simulation.reactor, fd, &"long".repeat(50_000));
    simulation.client(who).end_output();
    simulation.run();
    assert_eq!(simulation.application.ending(fd), Some((1006, "")));
    assert_eq!(simulation.client(who).end, None);
    for _ in 0..100 {
        simulation.client(who).read();
        simulation.run();
    }
    let client = simulation.client(who);
    assert_eq!(client.texts().len(), 1);
    assert_eq!((client.end, client.is_cut()), (Some(End::Closed), false));
}

#[test]
fn a_client_that_resets_its_connection_is_gone_at_once() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, fd) = simulation.open_by_tcp();
    push(&mut simulation.reactor, fd, &"long".repeat(500_000));
    simulation.run();
    simulation.client(who).reset();
    simulation.run_until(|simulation| simulation.reactor.is_empty());
    assert_eq!(simulation.application.ending(fd), Some((1006, "")));
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_frame_is_1006() {
    let (mut simulation, who, fd) = opened();
    simulation.client(who).text("whole");
    simulation.client(who).write(&frame(Opcode::Text, true, b"not whole")[..9]);
    simulation.client(who).leave();
    simulation.run();
    assert_eq!(simulation.application.texts(fd), ["whole"]);
    assert_eq!(simulation.application.ending(fd), Some((1006, "")));
    assert!(simulation.reactor.is_empty());
}

// ---- lingering ------------------------------------------------------------------------------------------------------

#[test]
fn after_a_broken_rule_input_is_discarded_until_the_client_leaves() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, fd) = simulation.open_by_tcp();
    // A reserved opcode, and then more than the sockets' buffers hold.
    simulation.client(who).write(&[0x83, 0x80]);
    simulation.client(who).queue(&vec![0; 5_000_000]);
    simulation.run_until(|simulation| {
        simulation.client(who).flush(usize::MAX);
        simulation.client(who).has_written()
    });
    // A reset would destroy the Close frame.
    simulation.run_until(|simulation| {
        simulation.client(who).read();
        simulation.client(who).end.is_some()
    });
    let client = simulation.client(who);
    assert_eq!((client.close_code(), client.end), (Some(1002), Some(End::Closed)));
    assert_eq!(simulation.application.ending(fd), Some((1006, "1002")));
    assert_eq!(simulation.reactor.len(), 1, "our end is closed, and theirs is awaited");
    simulation.client(who).end_output();
    simulation.run_until(|simulation| simulation.reactor.is_empty());
}

#[test]
fn lingering_ends_at_close_timeout() {
    let (mut simulation, who, _) = opened();
    simulation.client(who).write(&[0x83, 0x80]);
    simulation.run();
    simulation.pass(CLOSE_TIMEOUT - Duration::from_millis(1));
    assert_eq!(simulation.reactor.len(), 1);
    simulation.pass(Duration::from_millis(1));
    assert!(simulation.reactor.is_empty());
}

#[test]
fn a_connection_that_is_failed_after_our_close_frame_holds_no_memory() {
    let (mut simulation, who, fd) = opened();
    // Its buffer returns to the pool.
    push(&mut simulation.reactor, fd, &"long".repeat(2000));
    simulation.run();
    simulation.client(who).read();
    simulation.reactor.disconnect(fd, 4000, "");
    simulation.run();
    simulation.client(who).write(&[0x83, 0x80]);
    simulation.run();
    let connection = simulation.reactor.connections.values().next().expect("it lingers");
    assert_eq!(connection.wait, Wait::Close);
    assert_eq!(connection.output_memory(), 0);
}

// ---- handlers -------------------------------------------------------------------------------------------------------

#[test]
fn a_connection_that_is_gone_keeps_nothing_for_a_handler_that_still_runs() {
    let (mut simulation, who, fd) = opened();
    simulation.application.forgets = false;
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Text, Fin::More, b"begun"), Ok(true));
    push(&mut simulation.reactor, fd, &"deferred".repeat(1000));
    simulation.client(who).leave();
    simulation.run();
    assert_eq!(simulation.application.ending(fd), Some((1006, "")));
    assert_eq!((simulation.reactor.len(), simulation.reactor.outliving()), (1, 1));
    assert_eq!(simulation.reactor.held(), 0);
    assert_eq!([simulation.stat("connections"), simulation.stat("queued_bytes")], [0, 0]);
    assert!(simulation.reactor.shared().info(fd).is_some(), "its handler may still ask about it");
    simulation.application.forget_all(&mut simulation.reactor);
    simulation.run();
    assert!(simulation.reactor.is_empty());
    assert_eq!((simulation.reactor.outliving(), simulation.reactor.shared().info(fd)), (0, None));
}

#[test]
fn a_handler_that_waits_for_room_is_woken_by_the_end() {
    let (mut simulation, who, fd) = opened();
    simulation.application.keeps_running = true;
    simulation.client(who).text("run");
    simulation.run();
    push(&mut simulation.reactor, fd, &"long".repeat(800_000));
    simulation.run();
    assert_eq!(simulation.application.count(|seen| *seen == Seen::Drain(fd)), 0);
    simulation.client(who).leave();
    simulation.run();
    assert_eq!(simulation.application.count(|seen| *seen == Seen::Drain(fd)), 1);
    assert_eq!(simulation.application.ending(fd), None, "`close` waits for the running handler");
    simulation.application.release(&mut simulation.reactor, fd);
    simulation.run();
    assert_eq!(simulation.application.ending(fd), Some((1006, "")));
}

#[test]
fn a_watched_connection_is_reported_once_when_it_is_no_longer_open() {
    let (mut simulation, who, fd) = opened();
    let (_, other) = simulation.open();
    assert_eq!(simulation.reactor.watch(fd), Watching::Begun);
    assert_eq!(simulation.reactor.watch(fd), Watching::Begun);
    assert_eq!(simulation.reactor.watch(other), Watching::Begun);
    simulation.reactor.unwatch(other);
    let gone = |simulation: &Simulation| simulation.application.count(|seen| matches!(seen, Seen::Gone(_)));
    simulation.run();
    assert_eq!(gone(&simulation), 0);
    simulation.client(who).leave();
    simulation.reactor.disconnect(other, 1000, "");
    simulation.run();
    assert!(simulation.application.seen.contains(&Seen::Gone(fd)));
    assert_eq!(gone(&simulation), 1);
    assert_eq!(simulation.reactor.watch(fd), Watching::NotOpen);
}

// ---- before the WebSocket -------------------------------------------------------------------------------------------

#[test]
fn a_handshake_refused_with_a_code_has_no_events() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, token) = simulation.ask_for_handshake();
    simulation.reactor.refuse(token, 4003, "go away");
    simulation.run();
    let client = simulation.client(who);
    client.read();
    assert_eq!(client.received, [Received::Close(Some(4003), "go away".into())]);
    client.close(4003);
    simulation.run();
    assert!(simulation.reactor.is_empty());
    assert_eq!((simulation.application.opened(), simulation.stat("refused")), (0, 1));
}

#[test]
fn a_client_that_leaves_before_its_handshake_is_accepted_is_opened_and_closed() {
    let mut simulation = Simulation::new(Settings::roomy());
    simulation.application.accepts = false;
    let who = simulation.connect();
    simulation.client(who).write(HANDSHAKE);
    simulation.run();
    simulation.client(who).leave();
    simulation.pass(LONG);
    assert_eq!(simulation.reactor.outliving(), 1, "only its handler is left");
    let (_, token) = simulation.application.handshakes.pop().expect("a handshake");
    simulation.application.accept(&mut simulation.reactor, who, token);
    simulation.run();
    let fd = simulation.application.fd(who).expect("accepted");
    assert_eq!(simulation.application.ending(fd), Some((1006, "")));
    assert!(simulation.reactor.is_empty() && simulation.reactor.outliving() == 0);
}

#[test]
fn an_answer_to_a_token_of_another_connection_is_ignored() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, token) = simulation.ask_for_handshake();
    assert!(simulation.reactor.respond(token, 403, NO_HEADERS, b""));
    simulation.client(who).leave();
    simulation.run();
    assert!(simulation.reactor.is_empty());
    // The next connection has the same place in the table.
    let next = simulation.connect();
    simulation.client(next).write(HANDSHAKE);
    simulation.run();
    assert!(!simulation.reactor.respond(token, 500, NO_HEADERS, b""));
    assert_eq!(simulation.reactor.accept(token, None, NO_HEADERS, None), None);
    simulation.reactor.refuse(token, 4000, "");
    let (_, token) = simulation.application.handshakes.pop().expect("a handshake");
    simulation.application.accept(&mut simulation.reactor, next, token);
    simulation.run();
    assert!(simulation.application.fd(next).is_some());
}

// ---- shutdown -------------------------------------------------------------------------------------------------------

#[test]
fn closing_everything_closes_each_connection_as_its_stage_allows() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (web_socket, fd) = simulation.open();
    let [idle, body, asked, late] = [(); 4].map(|()| simulation.connect());
    simulation.client(body).write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\nhalf");
    simulation.client(asked).write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    simulation.run();
    simulation.reactor.stop_accepting(Requests::Answered);
    simulation.client(web_socket).text("not read any more");
    simulation.run();
    assert_eq!(simulation.reactor.unanswered(), 2);
    simulation.reactor.close_all(1001, "bye");
    simulation.run();
    for who in [web_socket, idle, body, asked] {
        simulation.client(who).read();
    }
    assert_eq!(simulation.client(web_socket).received, [Received::Close(Some(1001), "bye".into())]);
    assert_eq!(simulation.client(idle).end, Some(End::Closed));
    assert_eq!(simulation.client(body).status(), Some(503));
    assert_eq!(simulation.client(asked).end, None, "its handler still runs");
    // A client that sends a request now is turned away.
    simulation.client(late).write(HANDSHAKE);
    simulation.run();
    simulation.client(late).read();
    let (_, token) = simulation.application.requests.pop().expect("a request");
    simulation.reactor.respond(token, 200, NO_HEADERS, b"the last answer");
    simulation.run();
    simulation.client(asked).read();
    assert!(simulation.client(asked).answers().contains("Connection: close"));
    assert_eq!(simulation.client(asked).end, Some(End::Closed));
    simulation.client(web_socket).close(1001);
    simulation.run();
    assert_eq!(simulation.application.ending(fd), Some((1001, "")));
    simulation.pass(CLOSE_TIMEOUT);
    assert!(simulation.reactor.is_empty());
}

#[test]
fn cutting_everything_off_counts_the_answers_that_are_cut() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (_, fd) = simulation.open();
    let who = simulation.connect();
    simulation.client(who).write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    simulation.run();
    let (_, token) = simulation.application.requests.pop().expect("a request");
    simulation.reactor.respond(token, 200, NO_HEADERS, &[b'x'; 500_000]);
    push(&mut simulation.reactor, fd, &"long".repeat(500_000));
    simulation.run();
    assert_eq!(simulation.reactor.abort_all(), 1);
    simulation.run();
    assert!(simulation.reactor.is_empty());
    assert_eq!(simulation.application.ending(fd), Some((1006, "")));
}

#[test]
fn handlers_that_do_not_end_are_not_waited_for_at_the_end() {
    let (mut simulation, who, fd) = opened();
    simulation.application.keeps_running = true;
    for text in ["one", "two"] {
        simulation.client(who).text(text);
    }
    simulation.client(who).close(1000);
    simulation.run();
    simulation.application.keeps_running = false;
    simulation.application.running.clear();
    simulation.reactor.release_all();
    simulation.run();
    assert_eq!(simulation.application.texts(fd), ["one", "two"]);
    assert_eq!(simulation.application.ending(fd), Some((1000, "")));
}

#[test]
fn who_connects_after_the_host_was_counted_as_dead_is_not_closed_with_the_others() {
    let (mut simulation, before, fd) = opened();
    let (after, later) = simulation.open();
    simulation.reactor.close_fenced(Registry::counter_of(fd));
    simulation.run();
    for who in [before, after] {
        simulation.client(who).read();
    }
    assert_eq!(simulation.client(before).close_code(), Some(1012));
    assert_eq!(simulation.client(after).close_code(), None);
    assert!(simulation.reactor.shared().info(later).is_some());
}
