//! What commands and messages cost in this process: `cargo test --release -p engine cost_of -- --ignored --nocapture`.

use std::process::{Command, Stdio};

use rustix::time::{ClockId, clock_gettime};

use super::*;

const PAYLOAD: &[u8] = &[b'x'; 64];

/// The CPU time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Publishes so many messages a second for five seconds, and prints what one costs.
fn publish(per_second: u64) {
    const TICK: Duration = Duration::from_millis(1);
    let Some(server) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "news");
    let (total, per_tick) = (5 * per_second, per_second / 1000);
    let (begin, begin_cpu) = (Instant::now(), cpu_time());
    let (mut sent, mut replies) = (0, 0);
    while replies < total {
        let due = (begin.elapsed().as_millis() as u64 + 1) * per_tick;
        while sent < due.min(total) {
            assert!(ears.link.command(sent, PATIENT, &[b"PUBLISH", b"test:h:7", PAYLOAD]));
            sent += 1;
        }
        ears.link.flush();
        ears.poll(TICK);
        ears.link.hear(&mut |heard| replies += u64::from(matches!(heard, Heard::Reply { .. })));
    }
    let (took, cost) = (begin.elapsed(), cpu_time() - begin_cpu);
    println!("{total} published in {took:.2?}: {:.0} ns of CPU each", cost.as_nanos() as f64 / total as f64);
}

#[test]
#[ignore = "a measurement"]
fn cost_of_publishing() {
    publish(100_000);
    publish(10_000);
}

#[test]
#[ignore = "a measurement"]
fn cost_of_publishing_as_fast_as_possible() {
    const TOTAL: u64 = 3_000_000;
    let Some(server) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "news");
    let (begin, begin_cpu) = (Instant::now(), cpu_time());
    let (mut sent, mut replies) = (0, 0);
    while replies < TOTAL {
        let until = (sent + 200).min(TOTAL);
        while sent < until && ears.link.command(sent, PATIENT, &[b"PUBLISH", b"test:h:7", PAYLOAD]) {
            sent += 1;
        }
        ears.link.flush();
        if sent - replies > 10_000 || sent == TOTAL {
            ears.poll(LONG);
        }
        ears.link.hear(&mut |heard| replies += u64::from(matches!(heard, Heard::Reply { .. })));
    }
    let (took, cost) = (begin.elapsed(), cpu_time() - begin_cpu);
    let rate = TOTAL as f64 / took.as_secs_f64();
    println!("{rate:.0} published a second: {:.0} ns of CPU each", cost.as_nanos() as f64 / TOTAL as f64);
}

#[test]
#[ignore = "a measurement"]
fn cost_of_messages() {
    const TOTAL: u64 = 1_000_000;
    let Some(server) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "test:t:news");
    let mut publisher = Command::new("redis-benchmark")
        .args([
            "-p",
            &server.port.to_string(),
            "-n",
            &TOTAL.to_string(),
            "-P",
            "50",
            "-c",
            "2",
            "PUBLISH",
            "test:t:news",
        ])
        .arg("x".repeat(64))
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-benchmark");
    let (begin, begin_cpu) = (Instant::now(), cpu_time());
    let mut messages = 0;
    while messages < TOTAL {
        ears.poll(LONG);
        ears.link.hear(&mut |heard| messages += u64::from(matches!(heard, Heard::Message { .. })));
    }
    let (took, cost) = (begin.elapsed(), cpu_time() - begin_cpu);
    publisher.wait().expect("it ends");
    let rate = TOTAL as f64 / took.as_secs_f64();
    println!("{rate:.0} messages a second: {:.0} ns of CPU each", cost.as_nanos() as f64 / TOTAL as f64);
}
