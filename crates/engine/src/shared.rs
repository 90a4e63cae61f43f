//! The part of a reactor that every thread may touch: the registry, and a bounded queue of commands that wakes the
//! reactor.
//!
//! The reactor carries the commands out (or passes them on to where they belong) in the order in which they came, so
//! what one thread asks for reaches any one connection in the order of its calls. Nobody waits: a full queue refuses,
//! and that is counted.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Mutex, PoisonError};

use mio::Waker;

use crate::command::Command;
use crate::message::Message;
use crate::metrics::Measured;
use crate::registry::{Fd, Registry, Reservation, StuckCell, add};
use crate::sending::DataOpcode;
use crate::stats::Totals;

/// Commands that may wait at a time.
const MOST_COMMANDS: usize = 65_536;
/// Bytes that may wait at a time.
const MOST_BYTES: usize = 64 * 1024 * 1024;

#[derive(Default)]
struct Queue {
    /// Whole frames.
    frames: Vec<u8>,
    count: usize,
}

/// See the file's head.
pub struct Shared {
    /// All connections.
    pub registry: Registry,
    pub(crate) slot: u8,
    send_queue_size: usize,
    queue: Mutex<Queue>,
    /// The reactor has been woken for what is in the queue.
    woken: AtomicBool,
    waker: Waker,
}

impl Shared {
    pub(crate) fn new(registry: Registry, slot: u8, send_queue_size: usize, waker: Waker) -> Self {
        Self { registry, slot, send_queue_size, queue: Mutex::default(), woken: AtomicBool::new(false), waker }
    }

    /// What this process has counted.
    pub fn totals(&self) -> &Totals {
        &self.registry.slot(self.slot).totals
    }

    /// What this process has measured; for the reactor's thread only.
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

    /// Sends a command on its way; false (and counted) if too many wait already.
    pub fn command(&self, command: Command<'_>) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let before = queue.frames.len();
        Message::Command(command).encode(&mut queue.frames);
        if queue.count >= MOST_COMMANDS || queue.frames.len() > MOST_BYTES && before > 0 {
            queue.frames.truncate(before);
            drop(queue);
            self.totals().commands_dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        queue.count += 1;
        drop(queue);
        self.wake();
        true
    }

    /// Keeps room for a message on its way to a connection of another thread or process. If its outbox is full, `tell`
    /// is given the command that has the owner apply its policy.
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

    /// Sends a push on its way, if the connection is open and its outbox has room for it.
    pub fn push(&self, fd: Fd, opcode: DataOpcode, finish: bool, payload: &[u8]) -> bool {
        let has_room = self.reserve(fd, payload.len(), |overflow| {
            self.command(overflow);
        });
        if !has_room {
            return false;
        }
        let sent = self.command(Command::Push { fd, opcode, finish, payload });
        if !sent {
            self.registry.arrived(fd, payload.len());
        }
        sent
    }

    /// Makes the reactor's descriptor readable, once for any number of calls.
    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) && self.waker.wake().is_err() {
            self.woken.store(false, Ordering::Release);
        }
    }

    /// Takes all that waits: whole frames.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.woken.store(false, Ordering::Release);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *queue).frames
    }

    /// Counts a message that was queued for a connection.
    #[inline]
    pub(crate) fn count_out(&self, row: usize, messages: usize, bytes: usize) {
        let row = self.registry.row(row);
        add(&row.messages_out, messages as u64);
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
            // In this order: who counts looks at the totals first, and finds nothing in both places.
            fence(Ordering::Release);
            let totals = self.totals();
            add(&totals.messages_in, info.messages_in);
            add(&totals.messages_out, info.messages_out);
            add(&totals.bytes_in, info.bytes_in);
            add(&totals.bytes_out, info.bytes_out);
        }
    }
}
