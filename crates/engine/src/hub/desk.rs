//! What the hub's thread and the supervisor share: requests one way, events the other.

use std::collections::VecDeque;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::language::message::Leave;
use crate::registry::{Registry, SLOTS};

/// Log entries that may wait for the supervisor.
const MAX_ENTRIES: usize = 100;

/// What the supervisor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubEvent {
    /// The worker of this slot takes connections.
    Ready(u8),
    /// It has been asked to leave, and is about to.
    Leaving(u8),
    /// It wants all workers replaced.
    Reload(u8),
    /// It wants the server to stop.
    Shutdown(u8),
    /// The event loop of this slot's worker stands still. `is_news`: the worker has not said so itself.
    Stuck {
        /// The worker's.
        slot: u8,
        /// Whether nobody has said so yet.
        is_news: bool,
    },
    /// A worker moves again of which the hub has said that it was stuck.
    Moves(u8),
    /// To be logged as a warning.
    Warning(String),
}

/// What the supervisor asks of the thread.
pub(super) enum Request {
    Listen(OwnedFd),
    Add { slot: u8, worker_id: u8, stream: OwnedFd },
    Leave { slot: u8, why: Leave },
    Ended { slot: u8 },
    StopAccepting,
    Close,
}

/// What the hub's thread and its callers share.
pub(super) struct Desk {
    pub(super) registry: Registry,
    pub(super) requests: Mutex<VecDeque<Request>>,
    pub(super) events: Mutex<VecDeque<HubEvent>>,
    /// Slots that are taken.
    pub(super) slots: Mutex<[bool; SLOTS]>,
    /// Where the search for a free one goes on, so that one is not used again at once.
    pub(super) next_slot: AtomicU64,
    /// A byte here wakes the thread; one there wakes the supervisor.
    pub(super) wake_thread: UnixStream,
    pub(super) wake_supervisor: UnixStream,
    pub(super) is_closed: AtomicBool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    pub(super) fn tell(&self, event: HubEvent) {
        let mut events = lock(&self.events);
        let is_entry = matches!(event, HubEvent::Warning(_));
        if is_entry && events.len() >= MAX_ENTRIES {
            return;
        }
        events.push_back(event);
        drop(events);
        // If there is no room for a byte, there is one already.
        let _ = (&self.wake_supervisor).write(&[0]);
    }
}
