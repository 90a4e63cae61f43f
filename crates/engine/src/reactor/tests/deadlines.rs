//! Each deadline expires when it is due, and not a millisecond earlier.
//!
//! Deadlines are checked in steps of the timer wheel. The times here are whole steps, so that nothing is rounded.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use wire::frame::{DataOpcode, Fin, Opcode};

use crate::connection::Wait;
use crate::reactor::answering::Part;
use crate::reactor::tests::application::{Seen, Who};
use crate::reactor::tests::client::{End, HANDSHAKE, Received, frame};
use crate::reactor::tests::simulation::{NO_HEADERS, Simulation};
use crate::settings::Settings;
use crate::system::acceptor::Ownership;
use crate::tls::certificate::CertificateFiles;

const TICK: Duration = Duration::from_millis(1);
/// Between two steps of the wheel.
const STEP: Duration = Duration::from_millis(16);
/// All limits are different, so that no test passes because of another limit.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(16 * 500);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(16 * 300);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(16 * 700);
const PING_INTERVAL: Duration = Duration::from_millis(16 * 1100);
const PING_TIMEOUT: Duration = Duration::from_millis(16 * 200);
const MESSAGE_TIMEOUT: Duration = Duration::from_millis(16 * 900);

fn settings() -> Settings {
    Settings {
        handshake_timeout: HANDSHAKE_TIMEOUT,
        close_timeout: CLOSE_TIMEOUT,
        keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
        ping_interval: Some(PING_INTERVAL),
        ping_timeout: Some(PING_TIMEOUT),
        message_timeout: Some(MESSAGE_TIMEOUT),
        max_message_size: 1 << 20,
        send_queue_size: 1 << 20,
        max_body_size: 1 << 20,
        max_memory: 1 << 30,
        ..Settings::small()
    }
}

/// All kinds of waiting. The match in [`case`] fails to compile if one is missing there, and this if one is missing
/// here.
const ALL: [Wait; 10] = [
    Wait::Nothing,
    Wait::Head,
    Wait::Body,
    Wait::Part,
    Wait::KeepAlive,
    Wait::Ping,
    Wait::Pong,
    Wait::Continuation,
    Wait::Taking,
    Wait::Close,
];
const _: () = assert!(ALL.len() == Wait::Close as usize + 1, "a kind of waiting is not tested");

/// How a connection comes to wait, for how long, and what shows that the time is over.
struct Case {
    begin: fn(&mut Simulation) -> Who,
    limit: Option<Duration>,
    is_over: fn(&mut Simulation, Who) -> bool,
}

fn case(wait: Wait) -> Case {
    match wait {
        Wait::Nothing => Case {
            begin: |simulation| {
                simulation.application.accepts = false;
                let who = simulation.connect();
                simulation.client(who).write(HANDSHAKE);
                who
            },
            limit: None,
            is_over: |simulation, who| simulation.client(who).end.is_some(),
        },
        Wait::Head => Case {
            begin: |simulation| {
                let who = simulation.connect();
                simulation.client(who).write(b"GET / HTTP/1.1\r\n");
                who
            },
            limit: Some(HANDSHAKE_TIMEOUT),
            is_over: |simulation, who| simulation.client(who).status() == Some(408),
        },
        Wait::Body => Case {
            begin: |simulation| {
                let who = simulation.connect();
                simulation.client(who).write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\nhalf");
                who
            },
            limit: Some(HANDSHAKE_TIMEOUT),
            is_over: |simulation, who| simulation.client(who).status() == Some(408),
        },
        Wait::Part => Case {
            begin: |simulation| {
                let (who, token) = simulation.ask_for_page();
                assert!(simulation.reactor.begin_answer(token, 200, NO_HEADERS, None));
                while simulation.reactor.send_part(token, &[b'x'; 10_000]) == Part::Queued {
                    simulation.run();
                }
                who
            },
            limit: Some(KEEP_ALIVE_TIMEOUT),
            is_over: |simulation, _| simulation.reactor.is_empty(),
        },
        Wait::KeepAlive => Case {
            begin: |simulation| {
                let who = simulation.connect();
                answer_one_request(simulation, who, b"answer");
                who
            },
            limit: Some(KEEP_ALIVE_TIMEOUT),
            is_over: |simulation, who| simulation.client(who).end.is_some(),
        },
        Wait::Ping => Case {
            begin: |simulation| simulation.open().0,
            limit: Some(PING_INTERVAL),
            is_over: |simulation, who| simulation.client(who).received == [Received::Ping(Vec::new())],
        },
        Wait::Pong => Case {
            begin: |simulation| {
                let (who, _) = simulation.open();
                simulation.pass(PING_INTERVAL);
                who
            },
            limit: Some(PING_TIMEOUT),
            is_over: |simulation, who| simulation.client(who).close_code() == Some(1011),
        },
        Wait::Continuation => Case {
            begin: |simulation| {
                let (who, fd) = simulation.open();
                fragment(simulation, who);
                assert!(simulation.reactor.disconnect(fd, 4000, "enough"));
                who
            },
            limit: Some(CLOSE_TIMEOUT),
            is_over: |simulation, who| simulation.client(who).close_code() == Some(4000),
        },
        Wait::Taking => Case {
            begin: |simulation| {
                let (who, fd) = simulation.open();
                push(simulation, who, 500_000);
                assert!(simulation.reactor.disconnect(fd, 4000, ""));
                who
            },
            limit: Some(CLOSE_TIMEOUT),
            is_over: |simulation, _| simulation.reactor.is_empty(),
        },
        Wait::Close => Case {
            begin: |simulation| {
                let (who, fd) = simulation.open();
                assert!(simulation.reactor.disconnect(fd, 4000, ""));
                simulation.run();
                simulation.client(who).read();
                who
            },
            limit: Some(CLOSE_TIMEOUT),
            is_over: |simulation, who| simulation.client(who).end.is_some(),
        },
    }
}

/// Answers one request of a client and keeps the connection.
fn answer_one_request(simulation: &mut Simulation, who: Who, body: &[u8]) {
    simulation.client(who).write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    simulation.run();
    let (_, token) = simulation.application.requests.pop().expect("a request");
    assert!(simulation.reactor.respond(token, 200, NO_HEADERS, body));
    simulation.run();
}

/// Sends the client the beginning of a message.
fn fragment(simulation: &mut Simulation, who: Who) {
    let fd = simulation.application.fd(who).expect("open");
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Text, Fin::More, b"begun"), Ok(true));
    simulation.run();
}

/// Sends the client a message of this length.
fn push(simulation: &mut Simulation, who: Who, length: usize) {
    let fd = simulation.application.fd(who).expect("open");
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Binary, Fin::Last, &vec![7; length]), Ok(true));
    simulation.run();
}

/// What a connection waits for.
fn wait_of(simulation: &Simulation) -> Wait {
    let connection = simulation.reactor.connections.values().next().expect("a connection");
    connection.wait
}

/// Makes the limit of `wait` longer.
fn extend(settings: &mut Settings, wait: Wait, by: Duration) {
    match wait {
        Wait::Nothing => {}
        Wait::Head | Wait::Body => settings.handshake_timeout += by,
        Wait::KeepAlive | Wait::Part => settings.keep_alive_timeout += by,
        Wait::Ping => settings.ping_interval = settings.ping_interval.map(|limit| limit + by),
        Wait::Pong => settings.ping_timeout = settings.ping_timeout.map(|limit| limit + by),
        Wait::Continuation | Wait::Taking | Wait::Close => settings.close_timeout += by,
    }
}

#[test]
fn each_wait_ends_at_its_moment() {
    // The deadlines are at a step of the wheel, or just after one: that one would be a millisecond too early.
    for (wait, after_step) in ALL.into_iter().flat_map(|wait| [(wait, Duration::ZERO), (wait, TICK)]) {
        let Case { begin, limit, is_over } = case(wait);
        let mut settings = settings();
        extend(&mut settings, wait, after_step);
        let simulation = &mut Simulation::new(settings);
        let who = begin(simulation);
        simulation.run();
        assert_eq!(wait_of(simulation), wait);
        let Some(limit) = limit else {
            simulation.pass(Duration::from_secs(365 * 24 * 3600));
            simulation.client(who).read();
            assert!(!is_over(simulation, who), "{wait:?} has no limit");
            continue;
        };
        simulation.pass(limit + after_step - TICK);
        assert_eq!(wait_of(simulation), wait, "it still waits");
        if !matches!(wait, Wait::Taking | Wait::Part) {
            simulation.client(who).read();
        }
        simulation.turn();
        assert!(!is_over(simulation, who), "{wait:?} ends too early");
        simulation.pass(if after_step.is_zero() { TICK } else { STEP });
        simulation.client(who).read();
        assert!(is_over(simulation, who), "{wait:?} ends too late");
    }
}

// ---- requests -------------------------------------------------------------------------------------------------------

#[test]
fn a_client_that_sends_nothing_is_closed_without_an_answer() {
    let mut simulation = Simulation::new(settings());
    let who = simulation.connect();
    simulation.pass(HANDSHAKE_TIMEOUT);
    let client = simulation.client(who);
    client.read();
    assert_eq!((client.answers(), client.end), ("", Some(End::Closed)));
    assert_eq!(simulation.stat("refused"), 0);
}

#[test]
fn a_head_that_trickles_gains_no_time() {
    let mut simulation = Simulation::new(settings());
    let who = simulation.connect();
    for byte in b"GET / HTTP/1.1\r\nHost: h" {
        simulation.client(who).write(&[*byte]);
        simulation.pass(HANDSHAKE_TIMEOUT / 25);
    }
    assert_eq!(simulation.stat("refused"), 0);
    simulation.pass(2 * HANDSHAKE_TIMEOUT / 25);
    simulation.client(who).read();
    assert_eq!(simulation.client(who).status(), Some(408));
}

#[test]
fn every_16_kib_of_a_body_extend_its_deadline_by_a_second_but_not_into_the_future() {
    let mut simulation = Simulation::new(settings());
    let who = simulation.connect();
    simulation.client(who).write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n");
    simulation.run();
    // All of it arrives at once, so the gained time would extend into the future, and does not count.
    simulation.client(who).write(&[b'b'; 160 * 1024]);
    simulation.pass(HANDSHAKE_TIMEOUT - 2 * TICK);
    assert_eq!(simulation.stat("refused"), 0);
    // This arrives in time, and gains three of the eight seconds that have passed.
    simulation.client(who).write(&[b'b'; 48 * 1024]);
    simulation.pass(2 * TICK + Duration::from_secs(3) - TICK);
    assert_eq!(simulation.stat("refused"), 0);
    simulation.pass(STEP);
    simulation.client(who).read();
    assert_eq!(simulation.client(who).status(), Some(408));
}

#[test]
fn a_handshake_of_tls_that_is_not_finished_is_refused() {
    let directory = std::env::temp_dir().join(format!("hubbub-simulated-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let (certfile, keyfile) = (directory.join("chain.pem"), directory.join("key.pem"));
    let files = CertificateFiles { certfile, keyfile, keyfile_password: None, ca_certs: None };
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&files.certfile, made.cert.pem()).expect("written");
    std::fs::write(&files.keyfile, made.signing_key.serialize_pem()).expect("written");
    let mut simulation = Simulation::new(Settings { certificate: Some(files), ..settings() });
    std::fs::remove_dir_all(directory).expect("removed");
    let who = simulation.connect();
    // The beginning of a handshake record.
    simulation.client(who).write(&[22, 3, 1, 2, 0, 1, 0]);
    simulation.pass(HANDSHAKE_TIMEOUT - TICK);
    assert_eq!((simulation.stat("refused"), simulation.reactor.newcomers()), (0, 1));
    simulation.pass(TICK);
    assert_eq!(simulation.application.seen, [Seen::Refused(None)]);
    assert!(simulation.reactor.held() > 0);
    simulation.client(who).leave();
    simulation.run();
    assert_eq!((simulation.reactor.len(), simulation.reactor.held()), (0, 0));
}

#[test]
fn the_time_between_two_requests_begins_when_the_answer_is_sent_and_ends_with_the_next_byte() {
    let mut simulation = Simulation::new(settings());
    let who = simulation.connect();
    answer_one_request(&mut simulation, who, b"");
    simulation.pass(KEEP_ALIVE_TIMEOUT - TICK);
    simulation.client(who).write(b"G");
    // From here on the time limit for a request's head applies.
    simulation.pass(HANDSHAKE_TIMEOUT - TICK);
    simulation.client(who).write(b"ET / HTTP/1.1\r\nHost: here\r\n\r\n");
    simulation.run();
    assert_eq!(simulation.application.requests.len(), 1);
}

// ---- messages -------------------------------------------------------------------------------------------------------

fn without_pings() -> Settings {
    Settings { ping_interval: None, ..settings() }
}

#[test]
fn an_unfinished_message_has_message_timeout_from_its_last_progress() {
    let mut simulation = Simulation::new(without_pings());
    let (who, fd) = simulation.open();
    let whole = frame(Opcode::Binary, true, &[7; 100]);
    for part in whole[..20].chunks(4) {
        simulation.client(who).write(part);
        simulation.pass(MESSAGE_TIMEOUT - TICK);
        // Neither a ping between fragments nor an application that sends something is progress, as tested below.
        assert_eq!(simulation.application.ending(fd), None);
    }
    simulation.pass(STEP);
    simulation.client(who).read();
    assert_eq!(simulation.client(who).close_code(), Some(1008));
}

#[test]
fn pings_are_no_progress_of_a_message() {
    for after_step in [Duration::ZERO, TICK] {
        let message_timeout = Some(MESSAGE_TIMEOUT + after_step);
        let mut simulation = Simulation::new(Settings { message_timeout, ..without_pings() });
        let (who, _) = simulation.open();
        simulation.client(who).write(&frame(Opcode::Binary, false, b"begun"));
        simulation.run();
        for _ in 0..3 {
            simulation.pass(MESSAGE_TIMEOUT / 4);
            simulation.client(who).send(Opcode::Ping, b"");
        }
        simulation.pass(MESSAGE_TIMEOUT / 4 + after_step - TICK);
        simulation.client(who).read();
        assert_eq!(simulation.client(who).close_code(), None);
        simulation.pass(if after_step.is_zero() { TICK } else { STEP });
        simulation.client(who).read();
        assert_eq!(simulation.client(who).close_code(), Some(1008));
    }
}

#[test]
fn a_message_is_not_late_while_its_handler_is_behind() {
    let mut simulation = Simulation::new(Settings { receive_queue: 1, ..without_pings() });
    let (who, fd) = simulation.open();
    simulation.application.keeps_running = true;
    for text in ["handled", "waiting"] {
        simulation.client(who).text(text);
    }
    simulation.client(who).write(&frame(Opcode::Text, true, b"late")[..8]);
    simulation.run();
    simulation.pass(10 * MESSAGE_TIMEOUT);
    assert!(simulation.reactor.shared().registry.exists(fd));
    simulation.application.keeps_running = false;
    simulation.application.release(&mut simulation.reactor, fd);
    simulation.run();
    simulation.pass(MESSAGE_TIMEOUT - TICK);
    assert!(simulation.reactor.shared().registry.exists(fd));
    simulation.pass(STEP);
    assert!(!simulation.reactor.shared().registry.exists(fd));
}

// ---- idle connections -----------------------------------------------------------------------------------------------

/// Eight parts of whole steps.
const IDLE_TIMEOUT: Duration = Duration::from_millis(16 * 8 * 100);
const IDLE_PART: Duration = Duration::from_millis(16 * 100);

fn closing_idle() -> Settings {
    Settings { idle_timeout: Some(IDLE_TIMEOUT), ..settings() }
}

fn close_code_of(simulation: &mut Simulation, who: Who) -> Option<u16> {
    simulation.client(who).read();
    simulation.client(who).close_code()
}

#[test]
fn without_messages_a_connection_is_closed_though_pings_are_answered() {
    let mut simulation = Simulation::new(Settings { ping_interval: Some(IDLE_PART), ..closing_idle() });
    let (who, _) = simulation.open();
    for _ in 0..7 {
        simulation.pass(IDLE_PART);
        simulation.client(who).send(Opcode::Pong, b"");
        simulation.client(who).send(Opcode::Ping, b"there?");
        simulation.run();
        assert_eq!(close_code_of(&mut simulation, who), None);
    }
    simulation.pass(IDLE_PART - TICK);
    assert_eq!(close_code_of(&mut simulation, who), None);
    simulation.pass(TICK);
    assert_eq!(close_code_of(&mut simulation, who), Some(1000));
}

#[test]
fn messages_in_either_direction_prolong_its_time() {
    for ping_interval in [None, Some(PING_INTERVAL)] {
        let mut simulation = Simulation::new(Settings { ping_interval, ping_timeout: None, ..closing_idle() });
        let (who, fd) = simulation.open();
        for is_sent in [true, false, true, false] {
            simulation.pass(IDLE_TIMEOUT - IDLE_PART / 2);
            if is_sent {
                simulation.reactor.push(fd, DataOpcode::Text, Fin::Last, b"pushed").expect("open");
            } else {
                simulation.client(who).text("sent");
            }
            simulation.run();
            assert_eq!(close_code_of(&mut simulation, who), None);
        }
        simulation.pass(IDLE_TIMEOUT - TICK);
        assert_eq!(close_code_of(&mut simulation, who), None);
        simulation.pass(IDLE_PART + STEP);
        assert_eq!(close_code_of(&mut simulation, who), Some(1000));
    }
}

#[test]
fn a_connection_is_not_idle_while_its_handler_runs_or_a_message_arrives() {
    let mut simulation = Simulation::new(Settings { ping_interval: None, message_timeout: None, ..closing_idle() });
    let (who, fd) = simulation.open();
    simulation.application.keeps_running = true;
    simulation.client(who).text("handled");
    simulation.run();
    simulation.pass(3 * IDLE_TIMEOUT);
    assert!(simulation.reactor.shared().registry.exists(fd));
    simulation.application.keeps_running = false;
    simulation.application.release(&mut simulation.reactor, fd);
    simulation.run();
    let slow = frame(Opcode::Text, true, b"slow");
    for byte in &slow[..6] {
        simulation.pass(IDLE_TIMEOUT - IDLE_PART / 2);
        simulation.client(who).write(&[*byte]);
        simulation.run();
        assert_eq!(close_code_of(&mut simulation, who), None);
    }
    // It stops in the middle.
    simulation.pass(IDLE_TIMEOUT + IDLE_PART + STEP);
    assert_eq!(close_code_of(&mut simulation, who), Some(1000));
}

#[test]
fn a_fragmented_message_that_is_never_finished_does_not_keep_it() {
    let mut simulation = Simulation::new(Settings { ping_interval: None, ..closing_idle() });
    let (who, fd) = simulation.open();
    simulation.reactor.push(fd, DataOpcode::Text, Fin::More, b"begun").expect("open");
    simulation.run();
    simulation.pass(IDLE_TIMEOUT + IDLE_PART + STEP + CLOSE_TIMEOUT);
    assert_eq!(close_code_of(&mut simulation, who), Some(1000));
}

#[test]
fn it_is_closed_although_closing_takes_longer_than_it_may_be_idle() {
    let close_timeout = 2 * IDLE_TIMEOUT;
    for by_application in [false, true] {
        let mut simulation = Simulation::new(Settings { ping_interval: None, close_timeout, ..closing_idle() });
        let (who, fd) = simulation.open();
        simulation.reactor.push(fd, DataOpcode::Text, Fin::More, b"begun").expect("open");
        simulation.run();
        simulation.pass(IDLE_PART);
        if by_application {
            assert!(simulation.reactor.disconnect(fd, 4000, ""));
            simulation.run();
        }
        for _ in 0..2 * 8 * 2 {
            simulation.pass(IDLE_PART);
        }
        let code = close_code_of(&mut simulation, who);
        assert_eq!(code, Some(if by_application { 4000 } else { 1000 }));
    }
}

#[test]
fn a_message_that_is_sent_in_fragments_keeps_it_as_long_as_there_are_more() {
    let mut simulation = Simulation::new(Settings { ping_interval: None, ..closing_idle() });
    let (who, fd) = simulation.open();
    for number in 0..6 {
        let opcode = if number == 0 { DataOpcode::Text } else { DataOpcode::Continuation };
        let fin = if number == 5 { Fin::Last } else { Fin::More };
        assert_eq!(simulation.reactor.push(fd, opcode, fin, b"part"), Ok(true));
        simulation.run();
        simulation.pass(IDLE_TIMEOUT - IDLE_PART);
        assert_eq!(close_code_of(&mut simulation, who), None);
    }
}

// ---- pings ----------------------------------------------------------------------------------------------------------

#[test]
fn a_pong_starts_the_interval_at_its_ping() {
    let mut simulation = Simulation::new(settings());
    let (who, _) = simulation.open();
    for count in 1..5 {
        // The first interval begins with the connection, and each further one with the ping.
        simulation.pass(if count == 1 { PING_INTERVAL } else { PING_INTERVAL - PING_TIMEOUT / 2 } - TICK);
        simulation.client(who).read();
        assert_eq!(simulation.client(who).received.len(), count - 1);
        simulation.pass(TICK);
        simulation.client(who).read();
        assert_eq!(simulation.client(who).received.len(), count);
        simulation.pass(PING_TIMEOUT / 2);
        simulation.client(who).send(Opcode::Pong, b"");
        simulation.run();
    }
}

#[test]
fn pings_keep_their_interval_although_a_pong_may_take_longer() {
    let mut simulation = Simulation::new(Settings { ping_timeout: Some(10 * PING_INTERVAL), ..settings() });
    let (who, _) = simulation.open();
    for count in 1..5 {
        simulation.pass(PING_INTERVAL);
        let client = simulation.client(who);
        client.read();
        assert_eq!(client.received.len(), count);
        client.send(Opcode::Pong, b"");
        simulation.run();
    }
}

#[test]
fn the_latency_is_the_time_between_a_ping_and_its_pong() {
    for ping_timeout in [None, Some(PING_TIMEOUT)] {
        let mut simulation = Simulation::new(Settings { ping_timeout, ..settings() });
        let (who, fd) = simulation.open();
        let latency = |simulation: &Simulation| simulation.reactor.shared().info(fd).expect("open").latency;
        simulation.client(who).send(Opcode::Pong, b"nobody asked");
        simulation.run();
        assert_eq!(latency(&simulation), None);
        let mut since_ping = Duration::ZERO;
        for time in [3 * TICK, Duration::ZERO, PING_TIMEOUT / 2] {
            let before = latency(&simulation);
            simulation.pass(PING_INTERVAL - since_ping);
            simulation.pass(time);
            assert_eq!(latency(&simulation), before, "until the pong arrives, the last one counts");
            simulation.client(who).send(Opcode::Pong, b"");
            simulation.run();
            assert_eq!(latency(&simulation), Some(time));
            simulation.pass(TICK);
            simulation.client(who).send(Opcode::Pong, b"again");
            simulation.run();
            assert_eq!(latency(&simulation), Some(time));
            since_ping = time + TICK;
        }
    }
}

#[test]
fn a_pong_is_not_late_in_the_middle_of_a_frame_that_makes_progress() {
    let mut simulation = Simulation::new(settings());
    let (who, fd) = simulation.open();
    simulation.pass(PING_INTERVAL);
    let mut rest = frame(Opcode::Binary, true, &[7; 100]);
    for part in rest.drain(..90).collect::<Vec<u8>>().chunks(10) {
        simulation.client(who).write(part);
        simulation.pass(PING_TIMEOUT - TICK);
    }
    assert!(simulation.reactor.shared().registry.exists(fd));
    simulation.pass(STEP);
    assert!(!simulation.reactor.shared().registry.exists(fd), "there was no more progress");
}

#[test]
fn a_pong_is_not_late_while_the_socket_is_not_read() {
    let mut simulation = Simulation::new(Settings { receive_queue: 1, ..settings() });
    let (who, fd) = simulation.open();
    simulation.application.keeps_running = true;
    for text in ["handled", "waiting", "not read"] {
        simulation.client(who).text(text);
    }
    simulation.run();
    simulation.pass(PING_INTERVAL);
    simulation.client(who).send(Opcode::Pong, b"");
    simulation.pass(20 * PING_TIMEOUT);
    assert!(simulation.reactor.shared().registry.exists(fd), "the pong is in the kernel");
    simulation.application.keeps_running = false;
    simulation.application.release(&mut simulation.reactor, fd);
    simulation.pass(PING_TIMEOUT);
    assert!(simulation.reactor.shared().registry.exists(fd));
}

#[test]
fn a_ping_waits_behind_output_that_is_being_taken() {
    let mut simulation = Simulation::new(settings());
    let (who, fd) = simulation.open();
    push(&mut simulation, who, 800_000);
    simulation.pass(PING_INTERVAL);
    for _ in 0..10 {
        for _ in 0..20 {
            simulation.client(who).read_some(2048);
            simulation.run();
        }
        simulation.pass(PING_TIMEOUT - TICK);
        assert!(simulation.reactor.shared().registry.exists(fd));
    }
    simulation.pass(5 * PING_TIMEOUT);
    assert!(!simulation.reactor.shared().registry.exists(fd), "it has stalled");
}

#[test]
fn a_pause_does_not_take_back_the_time_that_a_slow_reader_has_earned() {
    let mut simulation = Simulation::new(Settings { receive_queue: 1, ..settings() });
    let (who, fd) = simulation.open();
    push(&mut simulation, who, 800_000);
    simulation.pass(PING_INTERVAL);
    // Enough for four periods.
    for _ in 0..50 {
        simulation.client(who).read_some(2048);
        simulation.run();
    }
    simulation.pass(PING_TIMEOUT);
    simulation.application.keeps_running = true;
    for text in ["handled", "waiting"] {
        simulation.client(who).text(text);
    }
    simulation.run();
    simulation.application.keeps_running = false;
    simulation.application.release(&mut simulation.reactor, fd);
    simulation.pass(3 * PING_TIMEOUT - TICK);
    assert!(simulation.reactor.shared().registry.exists(fd));
    simulation.pass(2 * PING_TIMEOUT);
    assert!(!simulation.reactor.shared().registry.exists(fd));
}

// ---- the reactor's own ----------------------------------------------------------------------------------------------

#[test]
fn accepting_is_tried_again_after_100_ms() {
    let mut simulation = Simulation::new(settings());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    // A socket that cannot be accepted from, as when there are no descriptors left.
    let broken = listener.try_clone().expect("a copy");
    simulation.reactor.listen(listener.into(), Ownership::Ours).expect("watched");
    rustix::net::shutdown(&broken, rustix::net::Shutdown::Both).expect("shut down");
    simulation.run();
    let paused = |simulation: &Simulation| simulation.application.count(|seen| *seen == Seen::AcceptPaused);
    assert_eq!(paused(&simulation), 1);
    simulation.pass(Duration::from_millis(99));
    simulation.turn();
    assert_eq!(paused(&simulation), 1);
    simulation.pass(TICK);
    assert_eq!(paused(&simulation), 2);
    rustix::net::listen(&broken, 1).expect("listening again");
    let _client = TcpStream::connect(broken.local_addr().expect("an address")).expect("connected");
    simulation.pass(Duration::from_millis(100));
    simulation.run_until(|simulation| simulation.reactor.len() == 1);
}

#[test]
fn memory_goes_back_to_the_system_a_second_after_much_was_freed() {
    let mut simulation = Simulation::new(Settings { send_queue_size: 64 << 20, ..without_pings() });
    let (who, _) = simulation.open();
    push(&mut simulation, who, 20 << 20);
    simulation.client(who).leave();
    simulation.run();
    let at = simulation.reactor.budget.trim_at;
    assert_eq!(at, Some(simulation.reactor.clock.now + 1000));
    simulation.pass(Duration::from_millis(999));
    simulation.turn();
    assert_eq!(simulation.reactor.budget.trim_at, at);
    simulation.pass(TICK);
    assert_eq!(simulation.reactor.budget.trim_at, None);
}

#[test]
fn descriptors_are_looked_for_again_after_a_second() {
    let mut simulation = Simulation::new(without_pings());
    simulation.time.pass(Duration::from_secs(5));
    simulation.turn();
    let at = simulation.reactor.clock.now + 1000;
    simulation.reactor.uplink.retry_at = Some(at);
    simulation.turn();
    simulation.pass(Duration::from_millis(999));
    simulation.turn();
    assert_eq!(simulation.reactor.uplink.retry_at, Some(at));
    simulation.pass(TICK);
    assert_eq!(simulation.reactor.uplink.retry_at, None);
}

#[test]
fn a_deadline_beyond_the_wheels_horizon_is_kept_to_the_millisecond() {
    let hour = Duration::from_secs(3600);
    let mut simulation = Simulation::new(Settings { ping_interval: Some(hour), ..settings() });
    let (who, _) = simulation.open();
    simulation.pass(hour - TICK);
    simulation.client(who).read();
    assert_eq!(simulation.client(who).received, []);
    simulation.pass(TICK);
    simulation.client(who).read();
    assert_eq!(simulation.client(who).received.len(), 1);
}

#[test]
fn many_deadlines_at_once_take_several_turns_and_none_is_lost() {
    let mut simulation = Simulation::new(Settings { max_connections: 300, ..settings() });
    let opened: Vec<(Who, _)> = (0..300).map(|_| simulation.open()).collect();
    simulation.reactor.turn_time = Duration::ZERO;
    simulation.pass(PING_INTERVAL - TICK);
    let turns = simulation.turns;
    simulation.pass(TICK);
    assert!(simulation.turns - turns > 5, "{} turns", simulation.turns - turns);
    for (who, _) in opened {
        simulation.client(who).read();
        assert_eq!(simulation.client(who).received, [Received::Ping(Vec::new())]);
    }
}

#[test]
fn a_deadline_set_outside_a_turn_is_kept() {
    let mut simulation = Simulation::new(without_pings());
    let (who, fd) = simulation.open();
    simulation.client(who).read();
    simulation.pass(Duration::from_millis(16 * 7));
    simulation.reactor.next_deadline();
    simulation.reactor.disconnect(fd, 4000, "");
    assert!(simulation.reactor.has_earlier_deadline());
    simulation.pass(CLOSE_TIMEOUT - TICK);
    assert_eq!(simulation.reactor.len(), 1);
    simulation.pass(TICK);
    assert!(simulation.reactor.is_empty());
}
