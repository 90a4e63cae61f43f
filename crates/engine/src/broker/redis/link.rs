//! The thread that talks to Redis, and its front, which the hub's thread holds.
//!
//! It has two connections: commands go through one, in one pipeline; messages come through the other. Names are
//! resolved and connections are made in the thread, so that nobody else waits. What waits in either direction is
//! bounded, in messages and in bytes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Poll, Waker};

use super::desk::{Desk, Orders};
use super::pipeline::Order;
use super::resp;
use super::thread::{self, Thread};
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

/// The reply to a command, as far as commands of this program have such replies.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    Nothing,
    Integer(i64),
    Bytes(&'a [u8]),
    /// Also a map: each key and then its value.
    List(Vec<Reply<'a>>),
}

/// What the link tells.
#[derive(Debug)]
pub(crate) enum Heard<'a> {
    /// Commands go to a server with this id, which changes when it is another process. Told for each connection.
    Connected { run_id: &'a str },
    /// The reply to a command, in the order of the commands; or the text of an error.
    Reply { tag: u64, reply: Result<Reply<'a>, &'a str> },
    /// The command has no reply: it was not sent in time, or the connection was lost before the reply.
    Lost { tag: u64, was_sent: bool },
    /// A message on a channel.
    Message { channel: &'a [u8], payload: &'a [u8] },
    /// Messages on this channel arrive from here on. Told again after each loss of the connection.
    Subscribed(&'a [u8]),
    /// Messages may have been lost before; from here on, all channels that are wanted are subscribed again.
    Resubscribed,
    /// A connection was lost, or seems dead, and why. It is made again. An attempt that fails is told of, too, unless
    /// for the same reason as the one before.
    Disconnected(&'a str),
    /// Redis refuses to be used, and why: a wrong password, for example. It is tried again. The same reason is told
    /// once.
    Unusable(&'a str),
}

impl Link {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there is no thread or descriptor.
    pub(crate) fn start(settings: &BrokerSettings) -> io::Result<Self> {
        let poll = Poll::new()?;
        let (desk, woken) = Desk::new(Waker::new(poll.registry(), thread::WOKEN)?)?;
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
