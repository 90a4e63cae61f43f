//! The thread that talks to Redis, and its front, which the hub's thread holds.
//!
//! It has two connections: commands go through one, in one pipeline; messages come through the other. Names are
//! resolved and connections are made in the thread, so that nobody else waits. What waits in either direction is
//! bounded, in messages and in bytes.

mod back_off;
mod connection;
mod desk;
mod greeting;
mod heard;
mod input;
mod interest;
mod pipeline;
mod pulse;
mod report;
mod resolver;
mod resp;
mod stream;
mod thread;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Poll, Waker};

use self::desk::{Desk, Orders};
pub(crate) use self::heard::{Heard, Reply};
use self::pipeline::Order;
use self::thread::{Thread, WOKEN};
use crate::settings::BrokerSettings;

/// Commands that may be on their way, whatever their size.
const MAX_COMMANDS: usize = 1_000_000;

/// See the module documentation.
pub(crate) struct Link {
    desk: Arc<Desk>,
    woken: UnixStream,
    thread: Option<JoinHandle<()>>,
    /// The process that runs the thread.
    process: u32,
    /// What was not passed to the thread yet, and when the first of it was queued.
    orders: Orders,
    queued_at: Instant,
    /// The commands whose end was not heard of, and their bytes.
    commands: usize,
    bytes: usize,
    max_bytes: usize,
}

impl Link {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there is no thread or descriptor.
    pub(crate) fn start(settings: &BrokerSettings) -> io::Result<Self> {
        let poll = Poll::new()?;
        let (desk, woken) = Desk::new(Waker::new(poll.registry(), WOKEN)?)?;
        let desk = Arc::new(desk);
        let thread = Thread::new(Arc::clone(&desk), poll, settings);
        let thread = std::thread::Builder::new().name("hubbub-redis".into()).spawn(move || thread.run())?;
        Ok(Self {
            desk,
            woken,
            thread: Some(thread),
            process: std::process::id(),
            orders: Orders::default(),
            queued_at: Instant::now(),
            commands: 0,
            bytes: 0,
            max_bytes: settings.queue_size,
        })
    }

    /// Readable when there is something to hear.
    pub(crate) fn fileno(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }

    /// Queues a command; `tag` comes back with its reply. A command that cannot be sent within `patience` is lost.
    /// Returns false if it does not fit into the queue, which holds each command until its end was heard of.
    pub(crate) fn command(&mut self, tag: u64, patience: Duration, parts: &[&[u8]]) -> bool {
        let from = self.orders.bytes.len();
        let at_least = self.bytes + parts.iter().map(|part| part.len()).sum::<usize>();
        if at_least > self.max_bytes || self.commands >= MAX_COMMANDS {
            return false;
        }
        resp::encode(parts, &mut self.orders.bytes);
        let size = self.orders.bytes.len() - from;
        let small = u32::try_from(size).ok().filter(|_| self.bytes + size <= self.max_bytes);
        let Some(small) = small else {
            self.orders.bytes.truncate(from);
            return false;
        };
        // One look at the clock is enough for all commands of a turn: they are lost a little early, but never late.
        if self.orders.commands.is_empty() {
            self.queued_at = Instant::now();
        }
        self.orders.commands.push(Order { tag, size: small, deadline: self.queued_at + patience });
        self.commands += 1;
        self.bytes += size;
        true
    }

    /// Wants the messages of a channel, until [`Link::unsubscribe`].
    pub(crate) fn subscribe(&mut self, channel: &[u8]) {
        self.orders.channels.push((channel.into(), true));
    }

    /// Ends what [`Link::subscribe`] has begun.
    pub(crate) fn unsubscribe(&mut self, channel: &[u8]) {
        self.orders.channels.push((channel.into(), false));
    }

    /// Passes what was queued to the thread.
    pub(crate) fn flush(&mut self) {
        if !self.orders.is_empty() {
            self.desk.order(&mut self.orders);
        }
    }

    /// Takes what the thread has to tell.
    pub(crate) fn hear(&mut self, tell: &mut dyn FnMut(Heard<'_>)) {
        for report in self.desk.take_reports(&self.woken) {
            let (commands, bytes) = report.tell(tell);
            self.commands -= commands;
            self.bytes -= bytes;
            self.desk.return_report(report);
        }
    }
}

impl Drop for Link {
    /// Sends what is queued, if Redis takes it at once.
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if std::process::id() == self.process {
            self.flush();
            self.desk.close();
            let _ = thread.join();
        } else {
            // A forked child has the handle, but not the thread. The sockets are on the thread's stack.
            std::mem::forget(thread);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
