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
    waiting: FxHashMap<Fd, Vec<(Place, usize)>>,
    /// The connections of other hosts that had room for what waits, and for which it was not sent yet.
    granted: FxHashSet<Fd>,
    /// The connections of other hosts that turned out not to be open, until the application has stopped waiting.
    gone: FxHashSet<Fd>,
}

/// A process that waits: its host, if that is another one, or else 0; and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: u8,
    pub(crate) slot: u8,
}

impl AwaitedRoom {
    pub(crate) fn remove(&mut self, fd: Fd) -> bool {
        self.granted.remove(&fd);
        self.fds.remove(&fd)
    }

    /// Records that a connection of another host is not open: its row is not in this host's registry.
    pub(crate) fn note_gone_abroad(&mut self, fd: Fd) {
        self.gone.insert(fd);
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
    pub(crate) fn take_others(&mut self, is_own: impl Fn(Fd) -> bool) -> impl Iterator<Item = Fd> {
        self.fds.extract_if(move |fd| !is_own(*fd))
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
                    self.note_waiting(fd, key, self.own_place(), payload.len());
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
                self.note_waiting(fd, key, self.own_place(), payload.len());
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
        self.awaited_room.gone.remove(&fd);
        if !self.awaited_room.remove(fd) {
            return;
        }
        let own = self.own_place();
        if !self.is_own(fd) {
            if !self.is_watched(fd) {
                self.uplink.send_to_hub(&Message::Unwatch(fd));
            }
        } else if let Some(key) = self.open_key(fd) {
            self.forget_waiting(fd, key, |place, _| place == own);
        }
    }

    /// Records that another process waits for room for a message of this length.
    pub(crate) fn await_room_for_other(&mut self, fd: Fd, length: usize, place: Place) {
        // If it is not open, the hub says so.
        if let Some(key) = self.settled_key(fd) {
            self.note_waiting(fd, key, place, length);
            self.tell_room(key);
        }
    }

    /// Reports room in a connection of any process.
    pub(crate) fn note_room(&mut self, fd: Fd) {
        if self.awaited_room.contains(fd) {
            if self.shared.registry.is_abroad(fd) {
                self.awaited_room.granted.insert(fd);
            }
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
        let (own, limit) = (self.own_place(), self.settings.send_queue_size);
        let connection = &self.connections[key];
        // The end of the message that holds the deferred ones back may be among those that wait.
        let unsent = if connection.deferred.is_some() { connection.outbox.len() } else { connection.unsent() };
        let cost = connection.cost();
        let shared = Arc::clone(&self.shared);
        let has_room = |place, length| match place == own {
            true if !has_room(unsent, cost, length, limit) => false,
            _ => shared.registry.room(fd, length, limit) == Room::Enough,
        };
        let told = self.forget_waiting(fd, key, has_room);
        for place in told {
            if place == own {
                self.note_room(fd);
            } else {
                let Place { host, slot } = place;
                self.uplink.send_to_hub(&Message::Room { fd, host, slot });
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
    fn forget_waiting(&mut self, fd: Fd, key: Key, is_over: impl Fn(Place, usize) -> bool) -> Vec<Place> {
        let Some(waiting) = self.awaited_room.waiting.get_mut(&fd) else { return Vec::new() };
        let over: Vec<Place> =
            waiting.extract_if(.., |(place, length)| is_over(*place, *length)).map(|(place, _)| place).collect();
        if waiting.is_empty() {
            self.awaited_room.waiting.remove(&fd);
            self.connections[key].awaited = false;
        }
        over
    }

    fn own_place(&self) -> Place {
        Place { host: 0, slot: self.shared.slot }
    }

    fn note_waiting(&mut self, fd: Fd, key: Key, place: Place, length: usize) {
        self.connections[key].awaited = true;
        let waiting = self.awaited_room.waiting.entry(fd).or_default();
        match waiting.iter_mut().find(|(other, _)| *other == place) {
            Some(known) => known.1 = length,
            None => waiting.push((place, length)),
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
        if self.shared.registry.is_abroad(fd) {
            return self.send_abroad(fd, opcode, payload);
        }
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
        self.await_room_of_other(fd, 0, payload.len());
        Sending::Waits
    }

    /// The same for a connection of another host, whose outbox is not known here: each message waits until its process
    /// says that there is room.
    fn send_abroad(&mut self, fd: Fd, opcode: DataOpcode, payload: &[u8]) -> Sending {
        if !self.uplink.is_linked() || self.awaited_room.gone.contains(&fd) {
            return Sending::NotOpen;
        }
        if self.shared.registry.reaches(fd) && self.awaited_room.granted.remove(&fd) {
            if self.try_away(Command::Push { fd, opcode, fin: Fin::Last, payload }) {
                return Sending::Done;
            }
            self.awaited_room.granted.insert(fd);
        }
        self.await_room_of_other(fd, self.shared.registry.host(), payload.len());
        Sending::Waits
    }

    /// Asks the process of a connection to say when its outbox has room. `host`: see [`Place`].
    fn await_room_of_other(&mut self, fd: Fd, host: u8, length: usize) {
        // What cannot be sent to the hub now is sent when the caller tries again.
        let is_watched = self.is_watched(fd) || self.awaited_room.contains(fd);
        let has_place = self.awaited_room.has_place_for(fd);
        if has_place && (is_watched || self.uplink.send_to_hub(&Message::Watch(fd))) {
            self.awaited_room.fds.insert(fd);
            let (slot, length) = (self.shared.slot, length as u64);
            self.uplink.send_to_hub(&Message::AwaitRoom { fd, host, slot, length });
        }
    }
}

/// Whether a message of `length` bytes may be queued: `unsent` bytes wait, which count as `cost` of at most `limit`.
fn has_room(unsent: usize, cost: usize, length: usize, limit: usize) -> bool {
    unsent == 0 || (unsent <= limit / 2 && cost + length <= limit)
}
