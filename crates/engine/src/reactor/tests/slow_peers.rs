//! Peers that read slowly or not at all, and the memory that they take.

use std::time::Duration;

use wire::frame::{DataOpcode, Fin, Opcode};

use crate::reactor::event::Relief;
use crate::reactor::tests::application::{Seen, Who};
use crate::reactor::tests::client::{End, Received, frame};
use crate::reactor::tests::simulation::{CLOSE_TIMEOUT, NO_HEADERS, Simulation};
use crate::registry::Fd;
use crate::settings::{Settings, SlowConsumer};
use crate::topics::publication::Publication;

fn push(simulation: &mut Simulation, fd: Fd, length: usize) {
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Binary, Fin::Last, &vec![7; length]), Ok(true));
    simulation.run();
}

/// Has a client read this many bytes, a few at a time.
fn take(simulation: &mut Simulation, who: Who, mut bytes: usize) {
    while bytes > 0 {
        let taken = simulation.client(who).read_some(bytes.min(2048));
        simulation.run();
        if taken == 0 {
            return;
        }
        bytes -= taken;
    }
}

// ---- progress -------------------------------------------------------------------------------------------------------

#[test]
fn a_slow_but_steady_reader_gets_everything_before_the_close_frame() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, fd) = simulation.open();
    push(&mut simulation, fd, 900_000);
    simulation.reactor.disconnect(fd, 4000, "");
    let mut periods = 0;
    while simulation.client(who).close_code().is_none() {
        // In each period, a little more than has to be taken.
        take(&mut simulation, who, 40 * 1024);
        simulation.pass(CLOSE_TIMEOUT);
        periods += 1;
        assert!(periods < 100 && simulation.client(who).end.is_none(), "cut off after {periods} periods");
    }
    assert!(periods > 15, "{periods} periods");
    assert_eq!(simulation.client(who).received.len(), 2);
}

#[test]
fn a_reader_that_stalls_is_cut_off() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, fd) = simulation.open();
    push(&mut simulation, fd, 900_000);
    simulation.reactor.disconnect(fd, 4000, "");
    for _ in 0..3 {
        take(&mut simulation, who, 40 * 1024);
        simulation.pass(CLOSE_TIMEOUT);
    }
    assert_eq!(simulation.reactor.len(), 1);
    // The data that it took in the last period pays for two periods; after those it has taken nothing.
    simulation.pass(4 * CLOSE_TIMEOUT);
    assert!(simulation.reactor.is_empty());
    assert_eq!(simulation.application.ending(fd), Some((1006, "4000")));
}

#[test]
fn a_long_answer_takes_as_long_as_its_reader_keeps_reading() {
    let keep_alive_timeout = Duration::from_secs(2);
    let mut simulation = Simulation::new(Settings { keep_alive_timeout, ..Settings::roomy() });
    let (who, token) = simulation.ask_for_page();
    simulation.reactor.respond(token, 200, NO_HEADERS, &[b'z'; 500_000]);
    let mut periods = 0;
    while simulation.client(who).end.is_none() {
        take(&mut simulation, who, 40 * 1024);
        simulation.pass(keep_alive_timeout);
        periods += 1;
    }
    // The connection counted as idle as soon as the rest of the answer was written.
    assert!(simulation.client(who).answers().len() > 500_000 && periods > 10, "cut off after {periods} periods");
}

#[test]
fn time_that_a_slow_reader_has_earned_does_not_count_once_it_has_everything() {
    let keep_alive_timeout = Duration::from_secs(2);
    let mut simulation = Simulation::new(Settings { keep_alive_timeout, ..Settings::roomy() });
    let (who, token) = simulation.ask_for_page();
    simulation.reactor.respond(token, 200, NO_HEADERS, &[b'z'; 500_000]);
    simulation.pass(keep_alive_timeout);
    // This is enough for four periods.
    take(&mut simulation, who, 100 * 1024);
    simulation.pass(keep_alive_timeout);
    take(&mut simulation, who, 500_000);
    simulation.pass(keep_alive_timeout + Duration::from_millis(16));
    simulation.client(who).read();
    assert_eq!(simulation.client(who).end, Some(End::Closed));
}

#[test]
fn the_next_request_waits_until_the_answer_has_been_taken() {
    let mut simulation = Simulation::new(Settings::roomy());
    let who = simulation.connect();
    for _ in 0..2 {
        simulation.client(who).write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    }
    simulation.run();
    let (_, token) = simulation.application.requests.pop().expect("a request");
    assert!(simulation.application.requests.is_empty());
    simulation.reactor.respond(token, 200, NO_HEADERS, &[b'z'; 100_000]);
    simulation.run();
    assert!(simulation.application.requests.is_empty());
    for _ in 0..20 {
        simulation.client(who).read();
        simulation.run();
    }
    assert_eq!(simulation.application.requests.len(), 1);
}

// ---- back-pressure --------------------------------------------------------------------------------------------------

#[test]
fn a_handler_that_lags_stops_reading_its_own_connection_only() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (slow, slow_fd) = simulation.open();
    simulation.application.keeps_running = true;
    for _ in 0..100 {
        simulation.client(slow).text("x");
    }
    simulation.run();
    simulation.application.keeps_running = false;
    let (quick, quick_fd) = simulation.open();
    for _ in 0..100 {
        simulation.client(quick).text("x");
    }
    simulation.run();
    assert_eq!(simulation.application.texts(slow_fd).len(), 1);
    assert_eq!(simulation.application.texts(quick_fd).len(), 100);
    simulation.application.release(&mut simulation.reactor, slow_fd);
    simulation.run();
    assert_eq!(simulation.application.texts(slow_fd).len(), 100);
}

#[test]
fn half_a_frame_dropped_by_a_slow_consumer_is_still_finished() {
    let mut simulation = Simulation::new(Settings { send_queue_size: 50_000, ..Settings::roomy() });
    let (who, fd) = simulation.open();
    for _ in 0..2 {
        push(&mut simulation, fd, 20_000);
    }
    // The first is partly in the kernel, and nothing more fits.
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Binary, Fin::Last, &[7; 40_000]), Ok(false));
    simulation.run();
    for _ in 0..10 {
        simulation.client(who).read();
        simulation.run();
    }
    let client = simulation.client(who);
    assert_eq!(client.received.len(), 2);
    assert_eq!((client.received[0].clone(), client.close_code()), (Received::Binary(vec![7; 20_000]), Some(1013)));
}

#[test]
fn pings_to_a_client_that_is_not_read_are_answered_when_it_reads() {
    let mut simulation =
        Simulation::new(Settings { slow_consumer: SlowConsumer::Drop, send_queue_size: 30_000, ..Settings::roomy() });
    let (who, fd) = simulation.open();
    push(&mut simulation, fd, 100_000);
    for _ in 0..5 {
        simulation.client(who).send(Opcode::Ping, b"now?");
    }
    simulation.run();
    assert!(simulation.reactor.shared().registry.exists(fd), "pongs without room are dropped");
    for _ in 0..20 {
        simulation.client(who).read();
        simulation.run();
    }
    simulation.client(who).send(Opcode::Ping, b"now!");
    simulation.run();
    simulation.client(who).read();
    assert_eq!(simulation.client(who).received.last(), Some(&Received::Pong(b"now!".into())));
}

// ---- memory ---------------------------------------------------------------------------------------------------------

/// Three clients that hold memory: output of 200 and of 100 KB, and an unfinished message of 50 KB.
fn holders(max_memory: usize) -> (Simulation, [(Who, Fd); 3]) {
    let mut simulation = Simulation::new(Settings { max_memory, ..Settings::roomy() });
    let opened = [(); 3].map(|()| simulation.open());
    for (fd, messages) in [(opened[0].1, 50), (opened[1].1, 25)] {
        for _ in 0..messages {
            let _ = simulation.reactor.push(fd, DataOpcode::Binary, Fin::Last, &[7; 4000]);
        }
        simulation.run();
    }
    simulation.client(opened[2].0).write(&frame(Opcode::Binary, false, &[7; 50_000]));
    simulation.run();
    (simulation, opened)
}

#[test]
fn max_memory_closes_the_largest_holder_and_no_other() {
    let (simulation, _) = holders(1 << 30);
    let held = simulation.reactor.held();
    assert!((350_000..700_000).contains(&held), "{held} bytes");
    let (simulation, _) = holders(held);
    assert_eq!((simulation.stat("memory_closed"), simulation.stat("connections")), (0, 3));
    let (mut simulation, opened) = holders(held - 1);
    assert_eq!((simulation.stat("memory_closed"), simulation.stat("connections")), (1, 2));
    assert!(simulation.reactor.held() <= held - held / 8);
    let relieved = simulation.application.seen.iter().find_map(|seen| match seen {
        Seen::Relieved(relief) => Some(*relief),
        _ => None,
    });
    assert!(matches!(relieved, Some(Relief { output: 1, input: 0, bodies: 0, freed }) if freed > 100_000));
    for _ in 0..20 {
        simulation.client(opened[0].0).read();
        simulation.run();
    }
    assert_eq!(simulation.client(opened[0].0).close_code(), Some(1013));
}

#[test]
fn max_memory_closes_unfinished_input_too() {
    let mut simulation = Simulation::new(Settings { max_memory: 300_000, ..Settings::roomy() });
    let (who, fd) = simulation.open();
    let body = simulation.connect();
    simulation.client(body).write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 900\r\n\r\n");
    simulation.run();
    for _ in 0..10 {
        simulation.client(who).write(&frame(Opcode::Continuation, false, &[7; 40_000]));
        simulation.run();
        if simulation.stat("connections") == 0 {
            break;
        }
        // The first fragment has another opcode.
        if simulation.client(who).close_code().is_some() {
            break;
        }
    }
    assert_eq!(simulation.application.ending(fd).map(|(code, _)| code), Some(1006));
    simulation.client(body).write(&[b'b'; 900]);
    simulation.run();
    assert_eq!(simulation.application.requests.len(), 1, "a small request is not closed");
}

#[test]
fn memory_is_zero_when_everybody_has_left() {
    let (mut simulation, opened) = holders(1 << 30);
    simulation.reactor.broadcast(DataOpcode::Binary, &[7; 100_000], &[]);
    simulation.run();
    assert!(simulation.reactor.tools.pool.shared() >= 100_000, "the frame is counted once for all");
    for (who, _) in opened {
        simulation.client(who).leave();
        simulation.run();
    }
    assert_eq!((simulation.reactor.held(), simulation.stat("held_bytes")), (0, 0));
}

#[test]
fn what_is_held_is_counted_before_a_turn_goes_on() {
    let (mut simulation, opened) = holders(1 << 30);
    let before = simulation.stat("held_bytes");
    simulation.reactor.begin().expect("begun");
    for _ in 0..100 {
        let _ = simulation.reactor.push(opened[0].1, DataOpcode::Binary, Fin::Last, &[7; 4000]);
    }
    simulation.reactor.go_on().expect("went on");
    assert!(simulation.stat("held_bytes") >= before + 400_000);
    simulation.reactor.finish();
}

#[test]
fn a_message_that_waits_in_the_backlog_does_not_go_inside_one_cut_short_for_memory() {
    let mut simulation = Simulation::new(Settings { max_memory: 300_000, ..Settings::roomy() });
    let [(who, fd), (_, other)] = [(); 2].map(|()| simulation.open());
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Text, Fin::More, b"begun"), Ok(true));
    for _ in 0..50 {
        assert_eq!(simulation.reactor.push(fd, DataOpcode::Continuation, Fin::More, &[b'x'; 4000]), Ok(true));
        simulation.run();
    }
    simulation.reactor.backlog.max_at_once = 0;
    simulation.reactor.broadcast(DataOpcode::Text, b"to all", &[]);
    simulation.reactor.settle();
    assert!(!simulation.reactor.backlog.is_empty());
    // Another connection exceeds the memory limit, but this one holds the most.
    while simulation.stat("memory_closed") == 0 {
        assert_eq!(simulation.reactor.push(other, DataOpcode::Binary, Fin::Last, &[7; 4000]), Ok(true));
    }
    simulation.run();
    for _ in 0..30 {
        simulation.client(who).read();
        simulation.run();
    }
    let client = simulation.client(who);
    assert_eq!((client.texts().len(), client.close_code()), (0, Some(1013)));
    assert!(simulation.reactor.shared().registry.exists(other));
}

#[test]
fn a_subscriber_closed_for_memory_in_a_fan_out_does_not_make_others_receive_it_twice() {
    let mut simulation = Simulation::new(Settings { max_memory: 400_000, ..Settings::roomy() });
    let opened = [(); 4].map(|()| simulation.open());
    for (_, fd) in opened {
        simulation.reactor.subscribe(fd, "news", None);
    }
    // The subscribers are visited from the last to the first. The first holds the most, so it is closed while the
    // second is visited, and the last one would take its place.
    push(&mut simulation, opened[0].1, 300_000);
    push(&mut simulation, opened[1].1, 60_000);
    for number in 0..100 {
        let text = format!("{number} {}", "x".repeat(480));
        simulation.reactor.publish("news", Publication::text(&text), &[]);
        simulation.reactor.settle();
    }
    simulation.run();
    assert_eq!(simulation.stat("memory_closed"), 1);
    for (who, _) in &opened[2..] {
        for _ in 0..10 {
            simulation.client(*who).read();
            simulation.run();
        }
        assert_eq!(simulation.client(*who).texts().len(), 100);
    }
}
