//! Calls from other threads: a turn carries out as many of them as its time allows.

use std::time::Duration;

use wire::frame::{DataOpcode, Fin};

use crate::reactor::tests::simulation::Simulation;
use crate::registry::Fd;
use crate::settings::Settings;

/// More calls than one turn carries out.
const MANY: usize = 2000;

fn push_from_thread(simulation: &Simulation, fd: Fd, number: usize) {
    let text = number.to_string();
    assert!(simulation.reactor.shared().push(fd, DataOpcode::Text, Fin::Last, text.as_bytes()));
}

#[test]
fn calls_that_are_announced_while_earlier_ones_are_carried_out_are_taken_too() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, fd) = simulation.open();
    simulation.reactor.turn_time = Duration::ZERO;
    (0..MANY).for_each(|number| push_from_thread(&simulation, fd, number));
    simulation.turn();
    assert!(!simulation.reactor.commands.is_empty(), "one turn has carried out all of them");
    push_from_thread(&simulation, fd, MANY);
    // The client reads nothing, so only the calls themselves can cause a turn.
    simulation.run();
    while simulation.client(who).read_some(64 * 1024) > 0 {
        simulation.run();
    }
    let expected: Vec<String> = (0..=MANY).map(|number| number.to_string()).collect();
    assert_eq!(simulation.client(who).texts(), expected);
}
