//! One connection publishes, and each message has to reach every subscriber, in order.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::client::Target;
use crate::control::Control;
use crate::inflater::{Deliveries, Inflater};
use crate::messages::{self, Messages};
use crate::workload::{Clients, timed};

/// The sender's number in every message.
pub(super) const PUBLISHER: u32 = 0;

/// The size of a fan-out run.
#[derive(clap::Args)]
pub struct Fanout {
    /// Connections that every message goes to
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 128, value_parser = messages::size)]
    size: usize,
    /// Messages that the publisher has on the way
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Messages in all; the result counts their deliveries
    #[arg(long, default_value_t = 1000)]
    publishes: u32,
    /// Milliseconds to wait before publishing, so that the server has finished its work and waits for events
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Have the deliveries compressed, and send JSON, which is worth it
    #[arg(long)]
    deflate: bool,
}

/// Subscribes on `/fanout`, publishes on `/`, until every subscriber has every message, and closes.
///
/// # Errors
///
/// A lost connection, a wrong or missing message, or silence, with the number of the connection.
pub fn run(options: &Fanout, target: Target, control: Control) -> io::Result<()> {
    let Fanout { subscribers, size, in_flight, publishes, pause, deflate } = *options;
    let (mut streams, mut publishing) = if deflate {
        let (streams, inflaters) = target.open_compressed("/fanout", subscribers)?.into_iter().unzip();
        (streams, Publishing::compressed(inflaters, size, in_flight))
    } else {
        (target.open("/fanout", subscribers)?, Publishing::new(subscribers, size, in_flight))
    };
    streams.extend(target.open("/", 1)?);
    publishing.pause = Duration::from_millis(pause);
    let mut clients = Clients::new(streams, target.timeout)?;
    timed(control, || publishing.run(publishes, &mut clients))?;
    clients.close()
}

/// Messages from one connection, the last, to all the others.
pub(super) struct Publishing {
    messages: Messages,
    /// Reads the messages if they are compressed.
    deliveries: Option<Deliveries>,
    /// The number of the next message that each subscriber gets.
    next: Vec<u32>,
    /// How many subscribers still wait for each message on the way, from message `completed` on. Messages complete in
    /// order, since every subscriber receives them in that order.
    waiting: Vec<usize>,
    published: u32,
    completed: u32,
    /// How long to wait before publishing.
    pause: Duration,
}

impl Publishing {
    /// Publishing to this many subscribers messages of `size` bytes, with `in_flight` of them on the way.
    pub(super) fn new(subscribers: usize, size: usize, in_flight: u32) -> Self {
        Self::of(Messages::new(size, in_flight as usize), None, subscribers, in_flight)
    }

    /// The same, to subscribers that receive them compressed.
    fn compressed(inflaters: Vec<Inflater>, size: usize, in_flight: u32) -> Self {
        let subscribers = inflaters.len();
        let deliveries = Deliveries::new(inflaters, in_flight);
        Self::of(Messages::json(size, in_flight as usize), Some(deliveries), subscribers, in_flight)
    }

    fn of(messages: Messages, deliveries: Option<Deliveries>, subscribers: usize, in_flight: u32) -> Self {
        Self {
            messages,
            deliveries,
            next: vec![0; subscribers],
            waiting: vec![0; in_flight as usize],
            published: 0,
            completed: 0,
            pause: Duration::ZERO,
        }
    }

    /// Publishes until every subscriber has `publishes` messages. Returns the number of deliveries.
    ///
    /// # Errors
    ///
    /// A lost connection, a wrong or missing message, or silence, with the number of the connection.
    pub(super) fn run(&mut self, publishes: u32, clients: &mut Clients) -> io::Result<u64> {
        while self.completed < publishes {
            let room = self.waiting.len() as u32 - (self.published - self.completed);
            let count = room.min(publishes - self.published);
            if count > 0 && !self.pause.is_zero() {
                sleep(self.pause);
            }
            self.publish(clients, count)?;
            for index in 0..clients.wait()? {
                clients.receive(index, |number, frame| {
                    let next = &mut self.next[number];
                    match &mut self.deliveries {
                        None => self.messages.check(frame, PUBLISHER, *next),
                        Some(compressed) => compressed.check(&self.messages, frame, number, PUBLISHER, *next),
                    }?;
                    let slot = *next as usize % self.waiting.len();
                    self.waiting[slot] -= 1;
                    *next += 1;
                    Ok(())
                })?;
            }
            while self.completed < self.published && *self.slot(self.completed) == 0 {
                self.completed += 1;
            }
        }
        Ok(u64::from(publishes) * self.next.len() as u64)
    }

    /// Publishes `count` messages in one write.
    fn publish(&mut self, clients: &mut Clients, count: u32) -> io::Result<()> {
        let numbers = self.published..self.published + count;
        for number in numbers.clone() {
            *self.slot(number) = self.next.len();
        }
        self.published += count;
        clients.send(self.next.len(), self.messages.frames(PUBLISHER, numbers))
    }

    fn slot(&mut self, number: u32) -> &mut usize {
        let slots = self.waiting.len();
        &mut self.waiting[number as usize % slots]
    }
}
