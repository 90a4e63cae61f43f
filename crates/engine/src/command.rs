//! Commands from other threads: a bounded queue that wakes the reactor.
//!
//! The reactor carries them out in the order in which they came, so what one thread asks for reaches any one
//! connection in the order of its calls. Nobody waits: a full queue refuses, and that is counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use mio::Waker;

use crate::registry::{Fd, Registry, add};
use crate::sending::DataOpcode;
use crate::settings::Settings;

/// Commands that may wait at a time.
const MOST_COMMANDS: usize = 65_536;
/// Bytes that may wait at a time.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// What anyone can ask of the reactor.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are those of the Reactor's methods")]
pub enum Command {
    Push {
        fd: Fd,
        opcode: DataOpcode,
        finish: bool,
        payload: Vec<u8>,
    },
    /// Another thread found the outbox too full for `length` more bytes: the policy is to be applied.
    Overflow {
        fd: Fd,
        length: usize,
    },
    Ping {
        fd: Fd,
        payload: Vec<u8>,
    },
    Disconnect {
        fd: Fd,
        code: u16,
        reason: String,
    },
    Subscribe {
        fd: Fd,
        topic: String,
    },
    Unsubscribe {
        fd: Fd,
        topic: String,
    },
    Publish {
        topic: String,
        opcode: DataOpcode,
        payload: Vec<u8>,
        exclude: Vec<Fd>,
    },
    Broadcast {
        opcode: DataOpcode,
        payload: Vec<u8>,
        exclude: Vec<Fd>,
    },
}

impl Command {
    /// The memory that it takes.
    fn cost(&self) -> usize {
        let beside = match self {
            Self::Push { payload, .. } | Self::Ping { payload, .. } => payload.len(),
            Self::Publish { topic, payload, exclude, .. } => topic.len() + payload.len() + size_of_val(&exclude[..]),
            Self::Broadcast { payload, exclude, .. } => payload.len() + size_of_val(&exclude[..]),
            Self::Disconnect { reason, .. } => reason.len(),
            Self::Subscribe { topic, .. } | Self::Unsubscribe { topic, .. } => topic.len(),
            Self::Overflow { .. } => 0,
        };
        size_of::<Self>() + beside
    }
}

/// What the reactor counts beside the registry's rows; each is written by the reactor's thread alone, but for
/// `commands_dropped`.
#[derive(Debug, Default)]
pub struct Totals {
    /// Open WebSockets.
    pub connections: AtomicU64,
    /// Handshakes accepted.
    pub accepted: AtomicU64,
    /// Handshakes refused, for whatever reason.
    pub refused: AtomicU64,
    /// WebSockets closed.
    pub closed: AtomicU64,
    /// The traffic of connections that are gone; that of the others stands in their rows, so that a message is counted
    /// in one place.
    pub(crate) past: Traffic<AtomicU64>,
    /// Connections closed with 1013 because their outbox was full.
    pub slow_consumers_closed: AtomicU64,
    /// Messages dropped because an outbox was full.
    pub messages_dropped: AtomicU64,
    /// Commands of other threads dropped because their queue was full.
    pub commands_dropped: AtomicU64,
}

#[derive(Default)]
struct Queue {
    commands: VecDeque<Command>,
    bytes: usize,
}

/// The part of the reactor that every thread may touch.
pub struct Shared {
    /// All connections.
    pub registry: Registry,
    /// What was counted.
    pub totals: Totals,
    send_queue_size: u64,
    queue: Mutex<Queue>,
    /// The reactor has been woken for what is in the queue.
    woken: AtomicBool,
    waker: Waker,
}

impl Shared {
    pub(crate) fn new(settings: &Settings, waker: Waker) -> std::io::Result<Self> {
        Ok(Self {
            registry: Registry::new(settings.max_connections)?,
            totals: Totals::default(),
            send_queue_size: settings.send_queue_size as u64,
            queue: Mutex::default(),
            woken: AtomicBool::new(false),
            waker,
        })
    }

    /// Sends a command on its way; false (and counted) if too many wait already.
    pub fn command(&self, command: Command) -> bool {
        let bytes = command.cost();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.commands.len() >= MOST_COMMANDS || queue.bytes + bytes > MOST_BYTES && queue.bytes > 0 {
            drop(queue);
            self.totals.commands_dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        queue.bytes += bytes;
        queue.commands.push_back(command);
        drop(queue);
        self.wake();
        true
    }

    /// Sends a push on its way, if the connection is open and its outbox has room for it.
    pub fn push(&self, fd: Fd, opcode: DataOpcode, finish: bool, payload: &[u8]) -> bool {
        let Some(row) = self.registry.find(fd).filter(|_| self.registry.exists(fd)) else {
            return false;
        };
        let length = payload.len() as u64;
        let queued = row.queued_bytes.load(Ordering::Relaxed);
        if queued > 0 && queued + length > self.send_queue_size {
            self.command(Command::Overflow { fd, length: payload.len() });
            return false;
        }
        let before = row.underway_bytes.fetch_add(length, Ordering::Relaxed);
        let has_room = queued + before == 0 || queued + before + length <= self.send_queue_size;
        if !has_room {
            self.totals.commands_dropped.fetch_add(1, Ordering::Relaxed);
        }
        let sent = has_room && self.command(Command::Push { fd, opcode, finish, payload: payload.to_vec() });
        if !sent {
            self.arrived(fd, payload.len());
        }
        sent
    }

    /// Makes the reactor's descriptor readable, once for any number of calls.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) && self.waker.wake().is_err() {
            self.woken.store(false, Ordering::Release);
        }
    }

    /// Takes all that waits.
    pub(crate) fn take(&self) -> VecDeque<Command> {
        self.woken.store(false, Ordering::Release);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Queue { commands, .. } = std::mem::take(&mut *queue);
        commands
    }

    /// A push of another thread is under way no more.
    pub(crate) fn arrived(&self, fd: Fd, length: usize) {
        if let Some(row) = self.registry.find(fd) {
            let less = |bytes: u64| Some(bytes.saturating_sub(length as u64));
            let _ = row.underway_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Messages and payload bytes since the start, and unsent bytes now.
    pub fn traffic(&self) -> Traffic<u64> {
        let mut sum = self.totals.past.load();
        for fd in self.registry.ids() {
            if let Some(info) = self.registry.info(fd) {
                sum.messages_in += info.messages_in;
                sum.messages_out += info.messages_out;
                sum.bytes_in += info.bytes_in;
                sum.bytes_out += info.bytes_out;
                sum.queued_bytes += info.queued_bytes;
            }
        }
        sum
    }

    /// Counts a message that was queued for a connection.
    #[inline]
    pub(crate) fn count_out(&self, row: usize, bytes: usize) {
        let row = self.registry.row(row);
        add(&row.messages_out, 1);
        add(&row.bytes_out, bytes as u64);
    }

    /// Notes how many bytes a connection's outbox holds now.
    #[inline]
    pub(crate) fn count_queued(&self, row: usize, unsent: usize) {
        self.registry.row(row).queued_bytes.store(unsent as u64, Ordering::Relaxed);
    }

    /// Frees the row of a connection that is gone, and keeps its counts.
    pub(crate) fn forget(&self, fd: Fd) {
        if let Some(info) = self.registry.info(fd) {
            self.registry.release(fd);
            add(&self.totals.past.messages_in, info.messages_in);
            add(&self.totals.past.messages_out, info.messages_out);
            add(&self.totals.past.bytes_in, info.bytes_in);
            add(&self.totals.past.bytes_out, info.bytes_out);
        }
    }
}

/// Messages, payload bytes, and unsent bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of `Info`")]
pub struct Traffic<T> {
    pub messages_in: T,
    pub messages_out: T,
    pub bytes_in: T,
    pub bytes_out: T,
    pub queued_bytes: T,
}

impl Traffic<AtomicU64> {
    fn load(&self) -> Traffic<u64> {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Traffic {
            messages_in: load(&self.messages_in),
            messages_out: load(&self.messages_out),
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
            queued_bytes: 0,
        }
    }
}
