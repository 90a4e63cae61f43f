//! Every connection keeps some messages in flight, and each has to come back unchanged.

use std::io;

use crate::client::Target;
use crate::control::Control;
use crate::messages::{self, Messages};
use crate::workload::{Clients, timed};

/// The size of an echo run.
#[derive(clap::Args)]
pub struct Echo {
    /// Connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Messages that each connection has on the way
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Bytes of a message
    #[arg(long, default_value_t = 64, value_parser = messages::size)]
    size: usize,
    /// Messages in all
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
}

/// Opens the connections, keeps them busy until all messages are back, and closes them.
///
/// # Errors
///
/// A lost connection, a wrong echo, or silence, with the number of the connection.
pub fn run(options: &Echo, target: Target, control: Control) -> io::Result<()> {
    let streams = target.open("/", options.connections)?;
    let mut clients = Clients::new(streams, target.timeout)?;
    let mut exchange = Exchange::new(options);
    timed(control, || {
        exchange.run(&mut clients)?;
        Ok(options.messages)
    })?;
    clients.close()
}

/// The numbers of the next message that a connection sends, and of the next that it receives back.
#[derive(Clone, Copy, Default)]
struct Next {
    sent: u32,
    received: u32,
}

struct Exchange {
    messages: Messages,
    next: Vec<Next>,
    in_flight: u32,
    unsent: u64,
    unanswered: u64,
}

impl Exchange {
    fn new(options: &Echo) -> Self {
        Self {
            messages: Messages::new(options.size, options.in_flight as usize),
            next: vec![Next::default(); options.connections],
            in_flight: options.in_flight,
            unsent: options.messages,
            unanswered: options.messages,
        }
    }

    fn run(&mut self, clients: &mut Clients) -> io::Result<()> {
        for number in 0..self.next.len() {
            self.send(clients, number, self.in_flight)?;
        }
        while self.unanswered > 0 {
            for index in 0..clients.wait()? {
                let mut answered = 0;
                let number = clients.receive(index, |number, frame| {
                    let next = &mut self.next[number].received;
                    self.messages.check(frame, number as u32, *next)?;
                    *next += 1;
                    answered += 1;
                    Ok(())
                })?;
                self.unanswered -= u64::from(answered);
                self.send(clients, number, answered)?;
            }
        }
        Ok(())
    }

    /// Sends `count` messages, or as many as are left, in one write.
    fn send(&mut self, clients: &mut Clients, number: usize, count: u32) -> io::Result<()> {
        let count = self.unsent.min(u64::from(count)) as u32;
        let first = self.next[number].sent;
        self.next[number].sent += count;
        self.unsent -= u64::from(count);
        let frames = self.messages.frames(number as u32, first..first + count);
        clients.send(number, frames)
    }
}
