//! How connections end, in every order of what the two sides do.

use std::time::Duration;

use wire::frame::{DataOpcode, Fin, Opcode};

use crate::connection::Wait;
use crate::reactor::Reactor;
use crate::reactor::shutdown::Requests;
use crate::reactor::tests::application::{Seen, Who};
use crate::reactor::tests::client::{End, HANDSHAKE, Received, frame};
use crate::reactor::tests::simulation::Simulation;
use crate::registry::Fd;
use crate::settings::Settings;

const CLOSE_TIMEOUT: Duration = Duration::from_secs(4);
const LONG: Duration = Duration::from_secs(3600);

fn settings() -> Settings {
    Settings {
        close_timeout: CLOSE_TIMEOUT,
        max_message_size: 1 << 20,
        send_queue_size: 4 << 20,
        max_memory: 1 << 30,
        ..Settings::small()
    }
}

fn opened() -> (Simulation, Who, Fd) {
    let mut simulation = Simulation::new(settings());
    let (who, fd) = simulation.open();
    (simulation, who, fd)
}

fn push(reactor: &mut Reactor, fd: Fd, text: &str) {
    assert_eq!(reactor.push(fd, DataOpcode::Text, Fin::Last, text.as_bytes()), Ok(true));
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
fn a_connection_that_is_failed_after_our_close_frame_holds_no_memory() {
    let (mut simulation, who, fd) = opened();
    // Its buffer goes back to those that are kept for reuse.
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
