//! What the hub's thread and the supervisor share: requests in one direction, events in the other.

use std::collections::VecDeque;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::language::message::Leave;
use crate::registry::{Registry, SLOTS};
use crate::system::acceptor::Ownership;

/// Log entries that may wait for the supervisor.
const MAX_ENTRIES: usize = 100;

/// Events for the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubEvent {
    /// The worker in this slot accepts connections.
    Ready(u8),
    /// The worker in this slot has been asked to leave, and is about to.
    Leaving(u8),
    /// The worker in this slot wants all workers replaced.
    Reload(u8),
    /// The worker in this slot wants the server to stop.
    Shutdown(u8),
    /// Another program wants the server to send its clients away within this time, and to stop then.
    Drain(Duration),
    /// The event loop of a worker is stuck.
    Stuck {
        /// The worker's slot.
        slot: u8,
        /// Whether this has not been reported yet, not even by the worker itself.
        is_news: bool,
    },
    /// A worker that the hub had reported as stuck is running again.
    Moves(u8),
    /// This host has this number among the others.
    Numbered(u8),
    /// The broker cannot be reached for now, and why.
    Unreachable(String),
    /// The broker can be reached, after it could not.
    Reachable,
    /// This host cannot be one of the others, and why. It is tried again.
    Unusable(String),
    /// To be logged as a warning.
    Warning(String),
}

/// Requests from the supervisor to the hub's thread.
pub(super) enum Request {
    Listen(OwnedFd, Ownership),
    Add { slot: u8, worker_id: u8, stream: OwnedFd },
    Leave { slot: u8, why: Leave },
    Drain { slot: u8, time: Duration },
    Ended { slot: u8 },
    StopAccepting,
    Close,
}

/// The data that the hub's thread and its callers share.
pub(super) struct Desk {
    pub(super) registry: Registry,
    pub(super) requests: Mutex<VecDeque<Request>>,
    pub(super) events: Mutex<VecDeque<HubEvent>>,
    /// Which slots are taken.
    pub(super) slots: Mutex<[bool; SLOTS]>,
    /// Where to continue the search for a free slot, so that a slot is not reused at once.
    pub(super) next_slot: AtomicU64,
    /// A byte written here wakes the thread; one written to the next wakes the supervisor.
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
        let is_entry = matches!(event, HubEvent::Unreachable(_) | HubEvent::Reachable | HubEvent::Warning(_));
        if is_entry && events.len() >= MAX_ENTRIES {
            return;
        }
        events.push_back(event);
        drop(events);
        // If there is no room for a byte, there is already one.
        let _ = (&self.wake_supervisor).write(&[0]);
    }
}
