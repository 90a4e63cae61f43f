//! Waiting for the end of connections, this process's and others'.
//!
//! For a connection of another process the hub marks its row in the registry, and knows who waits. The process that
//! closes the connection finds the mark after it has freed the row, and tells the hub; the hub looks at the row after it
//! has marked it: the two cannot miss each other. The hub also tells of the connections of a process that is gone.

use rustc_hash::FxHashSet;

use crate::language::message::Message;
use crate::reactor::Reactor;
use crate::reactor::notice::Notice;
use crate::registry::{Fd, Registry};

/// Connections that may be watched at a time.
const MAX_WATCHED: usize = 65_536;

/// The connections whose end this process's application waits for.
pub(crate) type Watched = FxHashSet<Fd>;

/// What came of [`Reactor::watch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// [`crate::Event::Gone`] will tell.
    Begun,
    /// There is no such open connection.
    NotOpen,
    /// Too many are watched, or too much waits on its way to the hub.
    TooMany,
}

impl Reactor {
    /// Has [`crate::Event::Gone`] told once, as soon as the connection is open no more.
    pub fn watch(&mut self, fd: Fd) -> Watching {
        if !self.shared.registry.exists(fd) {
            return Watching::NotOpen;
        }
        if self.watched.contains(&fd) {
            return Watching::Begun;
        }
        if self.watched.len() >= MAX_WATCHED {
            return Watching::TooMany;
        }
        if Registry::slot_of(fd) != self.shared.slot && !self.uplink.send_to_hub(&Message::Watch(fd)) {
            return Watching::TooMany;
        }
        self.watched.insert(fd);
        Watching::Begun
    }

    /// Nobody here waits for its end any more.
    pub fn unwatch(&mut self, fd: Fd) {
        if self.watched.remove(&fd) && Registry::slot_of(fd) != self.shared.slot {
            // Should it not get there, the hub forgets it when the connection has ended.
            self.uplink.send_to_hub(&Message::Unwatch(fd));
        }
    }

    /// A connection of this process is open no more. Its row says whether other processes want to be told.
    pub(crate) fn tell_watchers(&mut self, fd: Fd, others_watch: bool) {
        self.note_gone(fd);
        if others_watch {
            self.uplink.tell_gone(fd);
        }
    }

    /// A connection is open no more, of whatever process.
    pub(crate) fn note_gone(&mut self, fd: Fd) {
        if self.watched.remove(&fd) {
            self.uplink.notices.push_back(Notice::Gone(fd));
        }
    }

    /// The hub is gone, and with it all other processes.
    pub(crate) fn note_others_gone(&mut self) {
        let own = self.shared.slot;
        let gone = self.watched.extract_if(|fd| Registry::slot_of(*fd) != own);
        self.uplink.notices.extend(gone.map(Notice::Gone));
    }
}
