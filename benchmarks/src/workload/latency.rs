//! Messages on a fixed schedule, whatever the server does: how long after its due time does each come back?
//!
//! A client that waits for one answer before it sends the next message asks less often just when the server is slow,
//! and so leaves out what it should have measured (coordinated omission). Here a message that could not be sent in time
//! counts as waiting since it was due.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Target;
use crate::control::Control;
use crate::messages::{self, Messages};
use crate::workload::{Clients, timed_with};

/// The size of a latency run.
#[derive(clap::Args)]
pub struct Latency {
    /// Connections, which take turns
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 64, value_parser = messages::size)]
    size: usize,
    /// Messages in a second, over all connections
    #[arg(long, default_value_t = 10_000.0)]
    rate: f64,
    /// Messages in all
    #[arg(long, default_value_t = 10_000)]
    messages: u64,
}

/// Opens the connections, sends each message when it is due, until all are back, and closes.
///
/// The result tells in µs how long the messages took from their due time (`p50`, `p99`, `p99.9` and `max`), and how
/// late the load generator itself sent the latest one in a hundred (`late`). It does not sleep in between, so that it
/// never has to be woken.
///
/// # Errors
///
/// A lost connection, a wrong echo, or silence, with the number of the connection.
pub fn run(options: &Latency, target: Target, control: Control) -> io::Result<()> {
    let streams = target.open("/", options.connections)?;
    let timeout = target.timeout;
    let mut clients = Clients::new(streams, timeout)?;
    timed_with(control, || {
        let mut schedule = Schedule::new(options);
        schedule.run(&mut clients, timeout)?;
        Ok((options.messages, schedule.found()))
    })?;
    clients.close()
}

/// Message `n` of the schedule is due `n / rate` seconds after the start, on connection `n % connections`.
struct Schedule {
    messages: Messages,
    connections: usize,
    rate: f64,
    total: u64,
    sent: u64,
    /// The number of the next message that each connection gets back.
    next: Vec<u32>,
    started: Instant,
    latencies: Vec<Duration>,
    delays: Vec<Duration>,
}

impl Schedule {
    fn new(options: &Latency) -> Self {
        Self {
            messages: Messages::new(options.size, 1),
            connections: options.connections,
            rate: options.rate,
            total: options.messages,
            sent: 0,
            next: vec![0; options.connections],
            started: Instant::now(),
            latencies: Vec::with_capacity(options.messages as usize),
            delays: Vec::with_capacity(options.messages as usize),
        }
    }

    fn run(&mut self, clients: &mut Clients, timeout: Duration) -> io::Result<()> {
        let mut heard = Instant::now();
        while (self.latencies.len() as u64) < self.total {
            self.send_due(clients)?;
            let ready = clients.poll()?;
            for index in 0..ready {
                clients.receive(index, |number, frame| {
                    let sequence = self.next[number];
                    self.messages.check(frame, number as u32, sequence)?;
                    self.next[number] += 1;
                    let due = self.due(u64::from(sequence) * self.connections as u64 + number as u64);
                    self.latencies.push(self.started.elapsed().saturating_sub(due));
                    Ok(())
                })?;
            }
            if ready > 0 {
                heard = Instant::now();
            } else if heard.elapsed() > timeout {
                let silence = format!("nothing came for {} s", timeout.as_secs_f64());
                return Err(io::Error::new(ErrorKind::TimedOut, silence));
            }
        }
        Ok(())
    }

    /// Sends everything that is due by now.
    fn send_due(&mut self, clients: &mut Clients) -> io::Result<()> {
        let now = self.started.elapsed();
        while self.sent < self.total && self.due(self.sent) <= now {
            let connections = self.connections as u64;
            let (number, sequence) = ((self.sent % connections) as usize, (self.sent / connections) as u32);
            clients.send(number, self.messages.frames(number as u32, sequence..sequence + 1))?;
            self.delays.push(self.started.elapsed() - self.due(self.sent));
            self.sent += 1;
        }
        Ok(())
    }

    /// When a message is due, counted from the start.
    fn due(&self, message: u64) -> Duration {
        Duration::from_secs_f64(message as f64 / self.rate)
    }

    fn found(&mut self) -> Value {
        self.latencies.sort_unstable();
        self.delays.sort_unstable();
        json!({
            "p50": micros(percentile(&self.latencies, 500)),
            "p99": micros(percentile(&self.latencies, 990)),
            "p99.9": micros(percentile(&self.latencies, 999)),
            "max": micros(percentile(&self.latencies, 1000)),
            "late": micros(percentile(&self.delays, 990)),
        })
    }
}

/// The smallest of the `sorted` values that this many in a thousand of them do not exceed.
fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    let rank = (per_mille * sorted.len()).div_ceil(1000);
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;
    use crate::client::ACCEPT;
    use crate::frame;

    const STALL: Duration = Duration::from_millis(100);

    /// Serves one connection: after the first input it pauses for a while, then echoes everything.
    fn stalling_server() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        thread::spawn(move || -> io::Result<()> {
            let mut stream = listener.accept()?.0;
            let mut input = vec![0; 4096];
            let _request = stream.read(&mut input)?;
            stream.write_all(format!("HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n").as_bytes())?;
            let mut kept = stream.read(&mut input)?;
            thread::sleep(STALL);
            loop {
                let mut taken = 0;
                let mut echoes = Vec::new();
                while let Some(frame) = frame::parse(&input[taken..kept]) {
                    frame::append_unmasked(&mut echoes, &frame);
                    taken += frame.size;
                }
                stream.write_all(&echoes)?;
                input.copy_within(taken..kept, 0);
                kept -= taken;
                match stream.read(&mut input[kept..])? {
                    0 => return Ok(()),
                    read => kept += read,
                }
            }
        });
        port
    }

    #[test]
    fn all_that_is_due_while_the_server_stalls_has_waited_since_then() {
        let timeout = Duration::from_secs(15);
        let target = Target { port: stalling_server(), timeout, tls: None };
        let streams = target.open("/", 1).expect("a connection");
        let mut clients = Clients::new(streams, timeout).expect("a poller");
        let mut schedule = Schedule::new(&Latency { connections: 1, size: 64, rate: 1000.0, messages: 200 });
        schedule.run(&mut clients, timeout).expect("all echoes");

        // A client that waits for each answer would have seen one slow message.
        let waited = |time| schedule.latencies.iter().filter(|latency| **latency >= time).count();
        assert!(waited(STALL / 2) >= 50);
        assert!(waited(STALL * 9 / 10) >= 10);
        assert_eq!(schedule.latencies.len(), 200);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<Duration> = (1..=1000).map(Duration::from_micros).collect();
        assert_eq!(percentile(&sorted, 500), Duration::from_micros(500));
        assert_eq!(percentile(&sorted, 990), Duration::from_micros(990));
        assert_eq!(percentile(&sorted, 999), Duration::from_micros(999));
        assert_eq!(percentile(&sorted, 1000), Duration::from_micros(1000));
        assert_eq!(percentile(&sorted[..1], 999), Duration::from_micros(1));
    }

    #[test]
    fn a_message_is_due_by_its_number_alone() {
        let schedule = Schedule::new(&Latency { connections: 64, size: 64, rate: 1000.0, messages: 10 });
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(250), Duration::from_millis(250));
    }
}
