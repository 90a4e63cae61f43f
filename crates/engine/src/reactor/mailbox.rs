//! The part of a reactor that every thread may use: the registry, and a bounded queue of commands that wakes the
//! reactor.
//!
//! The reactor carries out the commands, or passes them on to where they belong, in the order in which they arrive. So
//! one thread's requests reach any one connection in the order of the calls. Callers never wait: a full queue refuses
//! the command, and the refusal is counted.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::Waker;
use rustc_hash::FxHashMap;
use wire::frame::{DataOpcode, Fin};

use crate::connection::Connection;
use crate::connection::identity::{Identity, Life};
use crate::language::command::Command;
use crate::language::message::Message;
use crate::reactor::commands::Subscribed;
use crate::registry::Measured;
use crate::registry::Totals;
use crate::registry::{Fd, Info, Registry, Reservation, StuckCell, add};
use crate::settings::Settings;
use crate::system::table::Key;

/// The largest number of queued commands.
const MAX_COMMANDS: usize = 65_536;
/// The largest number of queued bytes.
const MAX_BYTES: usize = 64 * 1024 * 1024;

#[derive(Default)]
struct Queue {
    /// Whole frames.
    frames: Vec<u8>,
    count: usize,
}

/// See the module documentation.
pub struct Shared {
    /// All connections.
    pub registry: Registry,
    pub(crate) slot: u8,
    send_queue_size: usize,
    max_topics: usize,
    queue: Mutex<Queue>,
    /// Whether the reactor has already been woken for the queue.
    woken: AtomicBool,
    waker: Waker,
    ended: Mutex<FxHashMap<Fd, Ended>>,
}

/// Which process has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This one: the connection is open, or its `close` handler has not ended.
    This,
    /// Another one, the worker with this id; the connection is open.
    Worker(u8),
    /// None.
    Nobody,
}

/// A connection that is no longer open, and whose `close` handler has not ended. Its row in the registry is free, and
/// may already belong to another connection.
struct Ended {
    key: Key,
    info: Info,
}

/// A table with capacity for up to this many ended connections is not shrunk.
const RETAIN_ENDED: usize = 1024;

impl Shared {
    pub(crate) fn new(registry: Registry, slot: u8, settings: &Settings, waker: Waker) -> Self {
        let &Settings { send_queue_size, max_topics, .. } = settings;
        Self {
            registry,
            slot,
            send_queue_size,
            max_topics,
            queue: Mutex::default(),
            woken: AtomicBool::new(false),
            waker,
            ended: Mutex::default(),
        }
    }

    /// The counts of this process.
    pub fn totals(&self) -> &Totals {
        &self.registry.slot(self.slot).totals
    }

    /// The measurements of this process. For the reactor's thread only.
    pub fn measured(&self) -> &Measured {
        &self.registry.slot(self.slot).measured
    }

    /// Whether this process's worker is stuck.
    pub fn stuck(&self) -> &StuckCell {
        self.registry.stuck(self.slot)
    }

    /// The id of this process's worker.
    pub fn worker_id(&self) -> u8 {
        self.registry.slot(self.slot).worker_id.load(Ordering::Relaxed) as u8
    }

    /// Queues a command. Returns false, and counts the loss, if too many are already waiting.
    pub fn command(&self, command: Command<'_>) -> bool {
        let ends_subscription = match &command {
            Command::Unsubscribe { fd, .. } => Some(*fd),
            _ => None,
        };
        ends_subscription.iter().for_each(|fd| self.registry.begin_unsubscribe(*fd));
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let before = queue.frames.len();
        Message::Command(command).encode(&mut queue.frames);
        if queue.count >= MAX_COMMANDS || queue.frames.len() > MAX_BYTES && before > 0 {
            queue.frames.truncate(before);
            drop(queue);
            ends_subscription.iter().for_each(|fd| self.registry.end_unsubscribe(*fd));
            self.totals().commands_dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        queue.count += 1;
        drop(queue);
        self.wake();
        true
    }

    /// Reserves room for a message on its way to a connection of another thread or process. If its outbox is full,
    /// `tell` is called with the command that has the owner apply its policy.
    pub(crate) fn reserve(&self, fd: Fd, length: usize, tell: impl FnOnce(Command<'static>)) -> bool {
        if self.registry.is_behind(Registry::slot_of(fd)) {
            return false;
        }
        match self.registry.reserve(fd, length, self.send_queue_size) {
            Reservation::Kept => true,
            Reservation::NotOpen => false,
            Reservation::OutboxFull => {
                tell(Command::Overflow { fd, length: length as u64 });
                false
            }
            Reservation::TooMuchUnderway => {
                self.totals().commands_dropped.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Sends a push on its way, if the connection is open and its outbox has room.
    pub fn push(&self, fd: Fd, opcode: DataOpcode, fin: Fin, payload: &[u8]) -> bool {
        if self.registry.reaches(fd) {
            return self.command(Command::Push { fd, opcode, fin, payload });
        }
        let has_room = self.reserve(fd, payload.len(), |overflow| {
            self.command(overflow);
        });
        if !has_room {
            return false;
        }
        let sent = self.command(Command::Push { fd, opcode, fin, payload });
        if !sent {
            self.registry.arrived(fd, payload.len());
        }
        sent
    }

    /// Sends a subscription on its way.
    pub fn subscribe(&self, fd: Fd, topic: &str, info: Option<&str>) -> Subscribed {
        self.subscribe_with(fd, || self.command(Command::Subscribe { fd, topic, info }))
    }

    /// The same with `send`, which returns whether it succeeded.
    pub(crate) fn subscribe_with(&self, fd: Fd, send: impl FnOnce() -> bool) -> Subscribed {
        if self.registry.reaches(fd) {
            return if send() { Subscribed::Done } else { Subscribed::NotOpen };
        }
        match self.registry.may_have_room_for_topic(fd, self.max_topics) {
            Some(has_room) if send() => {
                if has_room {
                    Subscribed::Done
                } else {
                    Subscribed::NoRoom
                }
            }
            _ => Subscribed::NotOpen,
        }
    }

    /// Makes the reactor's descriptor readable; any number of calls wake it once.
    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) && self.waker.wake().is_err() {
            self.woken.store(false, Ordering::Release);
        }
    }

    /// Takes everything that is queued, as whole frames.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.woken.store(false, Ordering::Release);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *queue).frames
    }

    /// Counts a message that was queued for a connection.
    #[inline]
    pub(crate) fn count_out(&self, connection: &Connection, messages: usize, bytes: usize) {
        let Some((_, row)) = connection.identity.open() else { return };
        let row = self.registry.row(row);
        add(&row.messages_out, messages as u64);
        add(&row.bytes_out, bytes as u64);
    }

    /// Records how many bytes currently wait to be sent to a connection.
    #[inline]
    pub(crate) fn count_unsent(&self, connection: &Connection, unsent: usize) {
        match &connection.identity {
            Identity::Named { life: Life::Open { row }, .. } => {
                self.registry.row(*row).queued_bytes.store(unsent as u64, Ordering::Relaxed);
            }
            Identity::Named { fd, .. } => self.count_closing(*fd, unsent),
            Identity::Unnamed | Identity::Forgotten => {}
        }
    }

    /// Records how many topics an open connection is subscribed to.
    pub(crate) fn count_topics(&self, connection: &Connection) {
        if let Some((_, row)) = connection.identity.open() {
            self.registry.count_topics(row, connection.subscriptions.len());
        }
    }

    /// Records how many microseconds passed between a ping and its pong.
    pub(crate) fn note_latency(&self, connection: &Connection, micros: u64) {
        if let Some((_, row)) = connection.identity.open() {
            self.registry.note_latency(row, Duration::from_micros(micros));
        }
    }

    /// Records how many bytes all connections currently hold.
    pub(crate) fn count_held(&self, held: usize) {
        self.totals().held_bytes.store(held as u64, Ordering::Relaxed);
    }

    // ---- connections that have ended --------------------------------------------------------------------------------

    /// Information about a connection: any open one, or one of this process whose `close` handler has not ended.
    pub fn info(&self, fd: Fd) -> Option<Info> {
        // The order matters: a connection that ends in between is among the ended ones before its row is freed.
        self.registry.info(fd).or_else(|| self.ended().get(&fd).map(|ended| ended.info.clone()))
    }

    /// Which process has the connection.
    pub fn owner(&self, fd: Fd) -> Owner {
        let is_own = Registry::slot_of(fd) == self.slot && !self.registry.is_abroad(fd);
        // The order matters, as above.
        match self.registry.exists(fd) {
            true if is_own => Owner::This,
            true => Owner::Worker(self.registry.worker_of(fd)),
            false if is_own && self.ended().contains_key(&fd) => Owner::This,
            false => Owner::Nobody,
        }
    }

    /// Ends the connection `fd`, known to the reactor as `key`: frees its row, and keeps its counts. Returns true if
    /// another process wants to be notified.
    pub(crate) fn end(&self, fd: Fd, key: Key) -> bool {
        let Some(info) = self.registry.info(fd) else { return false };
        let (messages_in, messages_out) = (info.messages_in, info.messages_out);
        let (bytes_in, bytes_out) = (info.bytes_in, info.bytes_out);
        add(&self.registry.slot(self.slot).closing_bytes, info.queued_bytes);
        self.ended().insert(fd, Ended { key, info });
        let is_watched = self.registry.release(fd);
        // The order matters: a reader looks at the totals first, so it never counts the same messages twice.
        fence(Ordering::Release);
        let totals = self.totals();
        add(&totals.messages_in, messages_in);
        add(&totals.messages_out, messages_out);
        add(&totals.bytes_in, bytes_in);
        add(&totals.bytes_out, bytes_out);
        is_watched
    }

    /// The reactor's key of a connection that has ended and has not been forgotten.
    pub(crate) fn ended_key(&self, fd: Fd) -> Option<Key> {
        self.ended().get(&fd).map(|ended| ended.key)
    }

    /// Records how many bytes the outbox of an ended connection currently holds.
    #[cold]
    pub(crate) fn count_closing(&self, fd: Fd, unsent: usize) {
        if let Some(ended) = self.ended().get_mut(&fd) {
            let before = std::mem::replace(&mut ended.info.queued_bytes, unsent as u64);
            add(&self.registry.slot(self.slot).closing_bytes, (unsent as u64).wrapping_sub(before));
        }
    }

    /// Forgets a connection whose `close` handler has ended.
    pub(crate) fn forget(&self, fd: Fd) {
        self.count_closing(fd, 0);
        let mut ended = self.ended();
        ended.remove(&fd);
        if ended.is_empty() && ended.capacity() > RETAIN_ENDED {
            ended.shrink_to_fit();
        }
    }

    fn ended(&self) -> MutexGuard<'_, FxHashMap<Fd, Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
