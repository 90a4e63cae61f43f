//! Sending as a connection's outbox has room, in this process and others.
//!
//! A message is queued only while no more than half of `send_queue_size` is queued, so that sending never applies the
//! slow-consumer policy. Otherwise the caller is told when there is room. For a connection of another process, its
//! process is asked to report it, over the same link as everything sent before.
//!
//! The frame that ends a fragmented message does not wait for the messages that are held back until it is sent.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use wire::frame::{DataOpcode, Fin};

use crate::language::command::Command;
use crate::language::message::Message;
use crate::reactor::notice::Notice;
use crate::reactor::{PushError, Reactor};
use crate::registry::{Fd, Registry, Room};
use crate::system::table::Key;

/// The largest number of connections for whose outboxes this process's application waits.
const MAX_AWAITED: usize = 65_536;

/// Who waits for room in outboxes.
#[derive(Default)]
pub(crate) struct AwaitedRoom {
    /// The connections of any process that this process's application waits for.
    fds: FxHashSet<Fd>,
    /// Who waits for connections of this process: the slot of the waiting process, and the length of its message. Each
    /// of these connections has its `awaited` set. A process is listed once for a connection.
    waiting: FxHashMap<Fd, Vec<(u8, usize)>>,
}

impl AwaitedRoom {
    pub(crate) fn remove(&mut self, fd: Fd) -> bool {
        self.fds.remove(&fd)
    }

    pub(crate) fn contains(&self, fd: Fd) -> bool {
        self.fds.contains(&fd)
    }

    fn has_place_for(&self, fd: Fd) -> bool {
        self.contains(fd) || self.fds.len() < MAX_AWAITED
    }

    /// Whether a process waits for room in the outbox of a connection of this one.
    #[cfg(test)]
    pub(crate) fn is_awaited(&self, fd: Fd) -> bool {
        self.waiting.contains_key(&fd)
    }

    /// Removes and returns the connections of all processes but one.
    pub(crate) fn take_others(&mut self, own_slot: u8) -> impl Iterator<Item = Fd> {
        self.fds.extract_if(move |fd| Registry::slot_of(*fd) != own_slot)
    }
}

/// The result of [`Reactor::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// The message is queued, or on its way to another process's connection.
    Done,
    /// There is no such open connection, or it is about to be closed.
    NotOpen,
    /// Nothing was queued. [`crate::Event::Room`] or [`crate::Event::Gone`] will follow, unless a process is stopped or
    /// has died, or too much is waiting for one: try again after a while in any case.
    Waits,
}

impl Reactor {
    /// Queues a whole message, if its outbox has room for it.
    ///
    /// # Errors
    /// As for [`Reactor::push`].
    pub fn send(&mut self, fd: Fd, opcode: DataOpcode, payload: &[u8]) -> Result<Sending, PushError> {
        let Some(key) = self.settled_key(fd) else {
            return Ok(self.send_to_other(fd, opcode, payload));
        };
        if !self.has_room_for(key, opcode, payload.len()) {
            self.write_all_out(key);
            if !self.connections[key].is_open() {
                return Ok(Sending::NotOpen);
            }
            if !self.has_room_for(key, opcode, payload.len()) {
                if self.awaits_room(fd) {
                    self.note_waiting(fd, key, self.shared.slot, payload.len());
                }
                return Ok(Sending::Waits);
            }
        }
        // Messages of other processes may be on their way to the same outbox.
        let limit = self.settings.send_queue_size;
        if opcode != DataOpcode::Continuation
            && self.shared.registry.reserve_calmly(fd, payload.len(), limit) == Room::TooLittle
        {
            if self.awaits_room(fd) {
                self.note_waiting(fd, key, self.shared.slot, payload.len());
            }
            return Ok(Sending::Waits);
        }
        let queued = self.push(fd, opcode, Fin::Last, payload);
        if opcode != DataOpcode::Continuation {
            self.shared.registry.arrived(fd, payload.len());
        }
        let queued = queued?;
        Ok(if queued { Sending::Done } else { Sending::NotOpen })
    }

    /// No longer waits for room in the outbox of a connection.
    pub fn stop_awaiting_room(&mut self, fd: Fd) {
        if !self.awaited_room.remove(fd) {
            return;
        }
        let own = self.shared.slot;
        if Registry::slot_of(fd) != own {
            if !self.is_watched(fd) {
                self.uplink.send_to_hub(&Message::Unwatch(fd));
            }
        } else if let Some(key) = self.open_key(fd) {
            self.forget_waiting(fd, key, |slot, _| slot == own);
        }
    }

    /// Records that another process waits for room for a message of this length.
    pub(crate) fn await_room_for_other(&mut self, fd: Fd, length: usize, slot: u8) {
        // If it is not open, the hub says so.
        if let Some(key) = self.settled_key(fd) {
            self.note_waiting(fd, key, slot, length);
            self.tell_room(key);
        }
    }

    /// Reports room in a connection of any process.
    pub(crate) fn note_room(&mut self, fd: Fd) {
        if self.awaited_room.contains(fd) {
            self.uplink.notices.push_back(Notice::Room(fd));
        }
    }

    /// Tells those that wait for room in the outbox of a connection, as far as there is room for their messages.
    #[cold]
    pub(crate) fn tell_room(&mut self, key: Key) {
        let Some((fd, _)) = self.connections[key].identity.open() else {
            self.tell_room_for_part(key);
            return;
        };
        let (own, limit) = (self.shared.slot, self.settings.send_queue_size);
        let connection = &self.connections[key];
        // The end of the message that holds the deferred ones back may be among those that wait.
        let unsent = if connection.deferred.is_some() { connection.outbox.len() } else { connection.unsent() };
        let cost = connection.cost();
        let shared = Arc::clone(&self.shared);
        let has_room = |slot, length| match slot == own {
            true if !has_room(unsent, cost, length, limit) => false,
            _ => shared.registry.room(fd, length, limit) == Room::Enough,
        };
        let told = self.forget_waiting(fd, key, has_room);
        for slot in told {
            if slot == own {
                self.note_room(fd);
            } else {
                self.uplink.send_to_hub(&Message::Room { fd, slot });
            }
        }
    }

    /// Forgets all who wait for room in the outbox of a connection that is no longer open.
    pub(crate) fn forget_all_waiting(&mut self, fd: Fd, key: Key) {
        if std::mem::take(&mut self.connections[key].awaited) {
            self.awaited_room.waiting.remove(&fd);
        }
    }

    /// Removes and returns the processes for which `is_over` returns true; it is given the length of their messages.
    fn forget_waiting(&mut self, fd: Fd, key: Key, is_over: impl Fn(u8, usize) -> bool) -> Vec<u8> {
        let Some(waiting) = self.awaited_room.waiting.get_mut(&fd) else { return Vec::new() };
        let over: Vec<u8> =
            waiting.extract_if(.., |(slot, length)| is_over(*slot, *length)).map(|(slot, _)| slot).collect();
        if waiting.is_empty() {
            self.awaited_room.waiting.remove(&fd);
            self.connections[key].awaited = false;
        }
        over
    }

    fn note_waiting(&mut self, fd: Fd, key: Key, slot: u8, length: usize) {
        self.connections[key].awaited = true;
        let waiting = self.awaited_room.waiting.entry(fd).or_default();
        match waiting.iter_mut().find(|(other, _)| *other == slot) {
            Some(place) => place.1 = length,
            None => waiting.push((slot, length)),
        }
    }

    fn has_room_for(&self, key: Key, opcode: DataOpcode, length: usize) -> bool {
        let connection = &self.connections[key];
        let unsent = match opcode {
            DataOpcode::Continuation => connection.outbox.len(),
            DataOpcode::Text | DataOpcode::Binary => connection.unsent(),
        };
        has_room(unsent, connection.cost(), length, self.settings.send_queue_size)
    }

    /// Registers that this process's application waits for room. Returns false if it waits for too many connections.
    fn awaits_room(&mut self, fd: Fd) -> bool {
        let has_place = self.awaited_room.has_place_for(fd);
        if has_place {
            self.awaited_room.fds.insert(fd);
        }
        has_place
    }

    /// The same as `send`, for a connection of another process.
    #[cold]
    fn send_to_other(&mut self, fd: Fd, opcode: DataOpcode, payload: &[u8]) -> Sending {
        let slot = Registry::slot_of(fd);
        if !self.uplink.is_linked() || slot == self.shared.slot || !self.shared.registry.exists(fd) {
            return Sending::NotOpen;
        }
        if !self.shared.registry.is_behind(slot) {
            let limit = self.settings.send_queue_size;
            let room = match opcode {
                DataOpcode::Continuation => self.shared.registry.reserve(fd, payload.len(), limit).into(),
                DataOpcode::Text | DataOpcode::Binary => self.shared.registry.reserve_calmly(fd, payload.len(), limit),
            };
            match room {
                Room::NotOpen => return Sending::NotOpen,
                Room::Enough if self.try_away(Command::Push { fd, opcode, fin: Fin::Last, payload }) => {
                    return Sending::Done;
                }
                Room::Enough => self.shared.registry.arrived(fd, payload.len()),
                Room::TooLittle => {}
            }
        }
        // What cannot be sent to the hub now is sent when the caller tries again.
        let is_watched = self.is_watched(fd) || self.awaited_room.contains(fd);
        let has_place = self.awaited_room.has_place_for(fd);
        if has_place && (is_watched || self.uplink.send_to_hub(&Message::Watch(fd))) {
            self.awaited_room.fds.insert(fd);
            let (slot, length) = (self.shared.slot, payload.len() as u64);
            self.uplink.send_to_hub(&Message::AwaitRoom { fd, slot, length });
        }
        Sending::Waits
    }
}

/// Whether a message of `length` bytes may be queued: `unsent` bytes wait, which count as `cost` of at most `limit`.
fn has_room(unsent: usize, cost: usize, length: usize, limit: usize) -> bool {
    unsent == 0 || (unsent <= limit / 2 && cost + length <= limit)
}
