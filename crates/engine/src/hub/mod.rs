//! The hub: a thread of the master that accepts connections and passes them to workers, and passes commands on.
//!
//! It has a [`Link`] to each worker; other programs connect to its control socket. It looks at a command only to find
//! its destination. It never waits: each worker has a bounded queue, and whatever does not fit is dropped and counted.
//! A program that sends faster than the workers accept is not read for a while, but not for long if a worker has
//! stopped accepting anything.
//!
//! The supervisor makes requests with [`Hub`]'s methods, from any thread, and takes [`HubEvent`]s when [`Hub::fileno`]
//! is readable.

mod abroad;
mod asked_hosts;
mod attendance;
pub(crate) mod client;
mod desk;
mod handover;
mod hosts;
mod hosts_questions;
mod inbound;
mod interest;
mod lease;
mod peer;
mod pulse;
mod questions;
mod routing;
mod stuck;
mod thread;
mod topics;
mod turned_away;
mod turning_away;
mod watchers;
mod watching;

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

pub use desk::HubEvent;
use desk::{Desk, Request, lock};
use lease::Lease;
use thread::Routing;

use crate::broker::Broker;
use crate::broker::memory::Memory;
use crate::broker::redis::Redis;
use crate::language::message::Leave;
use crate::registry::Metrics;
use crate::registry::{Registry, SLOTS, Way};
use crate::settings::Settings;
use crate::system::acceptor::Ownership;

/// See the module documentation.
pub struct Hub {
    desk: Arc<Desk>,
    woken: UnixStream,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The process that runs the thread.
    process: u32,
}

impl Hub {
    /// Starts the hub's thread.
    ///
    /// `control` is a listening Unix socket for other programs. `lease` is a file that says up to which counter ids
    /// have ever been given out; without it, only the clock does. `number` is a file that keeps this host's number among
    /// several.
    ///
    /// # Errors
    /// If there is no memory for the registry, or no thread; or if the lease cannot be read or written, or leaves no id
    /// that is certain to be new.
    pub fn new(
        settings: &Settings,
        control: Option<OwnedFd>,
        lease: Option<OwnedFd>,
        number: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let registry = Registry::shared(settings.max_connections)?;
        let lease = Lease::new(lease);
        let warning = begin_to_count(&registry, &lease)?;
        let broker: Box<dyn Broker> = match &settings.broker {
            None => Memory::for_settings(settings),
            Some(broker) => Redis::start(broker, settings, number)?,
        };
        let (thread_end, wake_thread) = pair()?;
        let (woken, wake_supervisor) = pair()?;
        let desk = Arc::new(Desk {
            registry,
            requests: Mutex::default(),
            events: Mutex::default(),
            slots: Mutex::new([false; SLOTS]),
            next_slot: AtomicU64::new(0),
            wake_thread,
            wake_supervisor,
            is_closed: AtomicBool::new(false),
        });
        if let Some(control) = &control {
            rustix::io::ioctl_fionbio(control, true)?;
        }
        if let Some(warning) = warning {
            desk.tell(HubEvent::Warning(warning));
        }
        if settings.broker.is_some() {
            desk.registry.set_way(Way::Open);
            desk.registry.set_degraded(true);
        }
        let routing = Routing::new(Arc::clone(&desk), thread_end, settings, control, lease, broker);
        let failing = Arc::clone(&desk);
        let run = move || {
            if std::panic::catch_unwind(AssertUnwindSafe(|| routing.run())).is_err() {
                failing.tell(HubEvent::Warning(
                    "the hub has failed, which is a bug in Hubbub; stopping the server".into(),
                ));
                failing.tell(HubEvent::Shutdown(0));
            }
        };
        let thread = std::thread::Builder::new().name("hubbub-hub".into()).spawn(run)?;
        Ok(Self { desk, woken, thread: Mutex::new(Some(thread)), process: std::process::id() })
    }

    /// The descriptor of the registry's memory, for workers to inherit.
    pub fn memory(&self) -> RawFd {
        self.desk.registry.memory().map_or(-1, |memory| memory.as_raw_fd())
    }

    /// The descriptor that becomes readable when there are events.
    pub fn fileno(&self) -> RawFd {
        self.woken.as_raw_fd()
    }

    /// Takes the events that have arrived.
    pub fn events(&self) -> Vec<HubEvent> {
        while matches!((&self.woken).read(&mut [0; 256]), Ok(256)) {}
        lock(&self.desk.events).drain(..).collect()
    }

    /// Accepts connections from a listening socket.
    pub fn listen(&self, listener: OwnedFd, ownership: Ownership) {
        self.ask(Request::Listen(listener, ownership));
    }

    /// Makes room for a worker process. Returns its slot and its end of the link.
    ///
    /// # Errors
    /// If all slots are taken, or no descriptor is left.
    pub fn add_worker(&self, worker_id: u8) -> io::Result<(u8, OwnedFd)> {
        let (stream, workers_end) = UnixStream::pair()?;
        let slot = {
            let mut slots = lock(&self.desk.slots);
            let begin = self.desk.next_slot.load(Ordering::Relaxed) as usize;
            let free = (begin..begin + SLOTS).map(|slot| slot % SLOTS).find(|slot| !slots[*slot]);
            let slot = free.ok_or_else(|| io::Error::other("there are too many worker processes"))?;
            slots[slot] = true;
            self.desk.next_slot.store(slot as u64 + 1, Ordering::Relaxed);
            slot as u8
        };
        self.ask(Request::Add { slot, worker_id, stream: stream.into() });
        Ok((slot, workers_end.into()))
    }

    /// Passes no more connections to a worker, and tells it to leave.
    pub fn leave(&self, slot: u8, why: Leave) {
        self.ask(Request::Leave { slot, why });
    }

    /// Has a worker let no more clients in, and close its connections one after the other within this time.
    pub fn drain(&self, slot: u8, time: Duration) {
        self.ask(Request::Drain { slot, time });
    }

    /// Clears what a worker's process left behind, and frees its slot. The process must certainly be gone.
    pub fn ended(&self, slot: u8) {
        self.ask(Request::Ended { slot });
    }

    /// Counts a worker that was replaced after it had died.
    pub fn restarted(&self, worker_id: u8) {
        if let Some(count) = self.desk.registry.header().restarts.get(usize::from(worker_id)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The measurements of all processes.
    pub fn metrics(&self) -> Metrics {
        self.desk.registry.metrics()
    }

    /// Closes the listening sockets.
    pub fn stop_accepting(&self) {
        self.ask(Request::StopAccepting);
    }

    /// Ends the thread. No other requests may follow.
    pub fn close(&self) {
        let Some(thread) = lock(&self.thread).take() else { return };
        if std::process::id() == self.process {
            self.ask(Request::Close);
            let _ = thread.join();
        } else {
            // A forked child has the handle, but not the thread.
            std::mem::forget(thread);
        }
    }

    fn ask(&self, request: Request) {
        if !self.desk.is_closed.load(Ordering::Acquire) {
            lock(&self.desk.requests).push_back(request);
            let _ = (&self.desk.wake_thread).write(&[0]);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.close();
    }
}

/// Determines where ids begin, and leases the first of them. Returns a warning, if there is one.
fn begin_to_count(registry: &Registry, lease: &Lease) -> io::Result<Option<String>> {
    let warning = registry.begin_above(lease.read()?, SystemTime::now()).map_err(io::Error::other)?;
    lease.begin(registry)?;
    Ok(warning)
}

fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (one, other) = UnixStream::pair()?;
    one.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    Ok((one, other))
}
