//! Waiting for connections to end, in this process and others.
//!
//! For a connection of another process, the hub marks its row in the registry, and knows who waits. The process that
//! closes the connection checks for the mark after it has freed the row, and notifies the hub; the hub checks the row
//! after it has marked it. So the two cannot miss each other. The hub also reports the connections of a process that
//! has died.

use rustc_hash::FxHashSet;

use crate::language::message::Message;
use crate::reactor::Reactor;
use crate::reactor::notice::Notice;
use crate::registry::{Fd, Registry};

/// The largest number of connections watched at the same time.
const MAX_WATCHED: usize = 65_536;

/// The connections whose end this process's application is waiting for.
pub(crate) type Watched = FxHashSet<Fd>;

/// The result of [`Reactor::watch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// [`crate::Event::Gone`] will follow.
    Begun,
    /// There is no such open connection.
    NotOpen,
    /// Too many are watched, or too much is waiting to be sent to the hub.
    TooMany,
}

impl Reactor {
    /// Requests one [`crate::Event::Gone`], as soon as the connection is no longer open.
    pub fn watch(&mut self, fd: Fd) -> Watching {
        let is_own = self.is_own(fd);
        if !self.shared.registry.exists(fd) && !self.shared.registry.is_abroad(fd) {
            return Watching::NotOpen;
        }
        if self.watched.contains(&fd) {
            return Watching::Begun;
        }
        if self.watched.len() >= MAX_WATCHED {
            return Watching::TooMany;
        }
        let is_known = is_own || self.awaited_room.contains(fd);
        if !is_known && !self.uplink.send_to_hub(&Message::Watch(fd)) {
            return Watching::TooMany;
        }
        self.watched.insert(fd);
        Watching::Begun
    }

    /// Whether the connection is, or was, this process's.
    pub(crate) fn is_own(&self, fd: Fd) -> bool {
        Registry::slot_of(fd) == self.shared.slot && !self.shared.registry.is_abroad(fd)
    }

    /// Stops waiting for the end of a connection.
    pub fn unwatch(&mut self, fd: Fd) {
        if self.watched.remove(&fd) && !self.is_own(fd) && !self.awaited_room.contains(fd) {
            // If this does not arrive, the hub forgets the watch when the connection has ended.
            self.uplink.send_to_hub(&Message::Unwatch(fd));
        }
    }

    /// Whether the application waits for the end of a connection.
    pub(crate) fn is_watched(&self, fd: Fd) -> bool {
        self.watched.contains(&fd)
    }

    /// Handles the end of a connection of any process.
    pub(crate) fn note_gone(&mut self, fd: Fd) {
        let is_awaited = self.awaited_room.remove(fd);
        if is_awaited && self.shared.registry.is_abroad(fd) {
            self.awaited_room.note_gone_abroad(fd);
        }
        if self.watched.remove(&fd) | is_awaited {
            self.uplink.notices.push_back(Notice::Gone(fd));
        }
    }

    /// Called when the hub is gone, and all other processes with it.
    pub(crate) fn note_others_gone(&mut self) {
        let shared = std::sync::Arc::clone(&self.shared);
        let is_own = |fd: Fd| Registry::slot_of(fd) == shared.slot && !shared.registry.is_abroad(fd);
        let mut gone: Watched = self.watched.extract_if(|fd| !is_own(*fd)).collect();
        gone.extend(self.awaited_room.take_others(is_own));
        self.uplink.notices.extend(gone.into_iter().map(Notice::Gone));
    }
}
