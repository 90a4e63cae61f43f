//! Messages that wait for room in an outbox.

use wire::frame::DataOpcode;

use crate::reactor::sending::Sending;
use crate::reactor::tests::application::{Seen, Who};
use crate::reactor::tests::simulation::Simulation;
use crate::registry::Fd;
use crate::settings::{Settings, SlowConsumer};

const SIZE: usize = 10_000;
const LIMIT: usize = 100_000;

fn simulation(slow_consumer: SlowConsumer) -> (Simulation, Who, Fd) {
    let mut simulation = Simulation::new(Settings { send_queue_size: LIMIT, slow_consumer, ..Settings::roomy() });
    let (who, fd) = simulation.open();
    (simulation, who, fd)
}

fn send(simulation: &mut Simulation, fd: Fd, length: usize) -> Sending {
    let sent = simulation.reactor.send(fd, DataOpcode::Binary, &vec![7; length]).expect("valid");
    simulation.run();
    sent
}

/// Sends until there is no more room. Returns how many messages were sent.
fn fill(simulation: &mut Simulation, fd: Fd) -> usize {
    let mut count = 0;
    while send(simulation, fd, SIZE) == Sending::Done {
        count += 1;
        assert!(count < 100, "it is never full");
    }
    count
}

fn rooms(simulation: &Simulation, fd: Fd) -> usize {
    simulation.application.count(|seen| *seen == Seen::Room(fd))
}

fn queued(simulation: &Simulation, fd: Fd) -> usize {
    simulation.reactor.shared().info(fd).expect("open").queued_bytes as usize
}

#[test]
fn room_is_reported_once_for_each_message_that_waits_and_the_outbox_is_never_full() {
    for slow_consumer in [SlowConsumer::Close, SlowConsumer::Drop] {
        let (mut simulation, who, fd) = simulation(slow_consumer);
        let mut sent = fill(&mut simulation, fd);
        for round in 0..20 {
            assert!(queued(&simulation, fd) > LIMIT / 2);
            assert_eq!(rooms(&simulation, fd), round);
            while rooms(&simulation, fd) == round {
                assert!(simulation.client(who).read_some(1024) > 0, "it has read everything and there is no room");
                simulation.run();
            }
            assert!(queued(&simulation, fd) <= LIMIT / 2);
            sent += fill(&mut simulation, fd);
        }
        while simulation.client(who).read_some(1 << 16) > 0 {
            simulation.run();
        }
        assert_eq!(simulation.client(who).received.len(), sent);
        assert_eq!(simulation.stat("messages_dropped") + simulation.stat("slow_consumers_closed"), 0);
    }
}

#[test]
fn a_message_as_long_as_the_whole_outbox_waits_until_it_is_empty() {
    let (mut simulation, who, fd) = simulation(SlowConsumer::Close);
    fill(&mut simulation, fd);
    assert_eq!(send(&mut simulation, fd, LIMIT), Sending::Waits);
    while rooms(&simulation, fd) == 0 {
        assert!(simulation.client(who).read_some(1024) > 0, "it has read everything and there is no room");
        simulation.run();
    }
    assert_eq!(queued(&simulation, fd), 0);
    assert_eq!(send(&mut simulation, fd, LIMIT), Sending::Done);
}

#[test]
fn nothing_is_reported_once_nobody_waits() {
    let (mut simulation, who, fd) = simulation(SlowConsumer::Close);
    fill(&mut simulation, fd);
    simulation.reactor.stop_awaiting_room(fd);
    simulation.client(who).read();
    simulation.run();
    assert_eq!(rooms(&simulation, fd), 0);
}

#[test]
fn the_end_of_the_connection_is_reported_once_to_all_who_wait() {
    let (mut simulation, who, fd) = simulation(SlowConsumer::Close);
    fill(&mut simulation, fd);
    simulation.reactor.watch(fd);
    simulation.client(who).leave();
    simulation.run();
    assert_eq!(simulation.application.count(|seen| *seen == Seen::Gone(fd)), 1);
    assert_eq!(rooms(&simulation, fd), 0);
    assert_eq!(send(&mut simulation, fd, SIZE), Sending::NotOpen);
}
