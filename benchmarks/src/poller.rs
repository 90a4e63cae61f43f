//! Level-triggered epoll: what one turn leaves unread is reported again in the next.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::retry_on_intr;

const EVENTS_PER_TURN: usize = 1024;

/// An epoll instance and the events of its last turn.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    /// Creates a poller that watches nothing.
    ///
    /// # Errors
    ///
    /// The operating system's own.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS_PER_TURN) })
    }

    /// Watches `source` for input, and reports it as `token`.
    ///
    /// # Errors
    ///
    /// The operating system's own.
    pub fn add(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        epoll::add(&self.epoll, source, data(token), EventFlags::IN)?;
        Ok(())
    }

    /// Watches `source` for input, and for room to write if `writable`.
    ///
    /// # Errors
    ///
    /// The operating system's own.
    pub fn watch(&self, source: impl AsFd, token: usize, writable: bool) -> io::Result<()> {
        let flags = if writable { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(&self.epoll, source, data(token), flags)?;
        Ok(())
    }

    /// Waits until something is ready. Returns how many there are; [`Poller::ready`] gives each.
    ///
    /// # Errors
    ///
    /// `TimedOut` after `timeout` without anything, or the operating system's own.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        match self.poll(timeout)? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            count => Ok(count),
        }
    }

    /// Like [`Poller::wait`], but returns 0 instead of an error if nothing was ready.
    ///
    /// # Errors
    ///
    /// The operating system's own.
    pub fn poll(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout
            .map(|timeout| Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) });
        self.events.clear();
        // When a paused process resumes, its system call is interrupted.
        retry_on_intr(|| epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()))?;
        Ok(self.events.len())
    }

    /// The token of the last wait's event number `index`, and whether its socket has room again.
    pub fn ready(&self, index: usize) -> (usize, bool) {
        let event = self.events[index];
        let (flags, data) = (event.flags, event.data);
        (data.u64() as usize, flags.contains(EventFlags::OUT))
    }
}

fn data(token: usize) -> EventData {
    EventData::new_u64(token as u64)
}
