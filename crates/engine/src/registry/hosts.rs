//! Several hosts: the number of this one, and which others are alive. Written by the hub.

use std::sync::atomic::{Ordering, fence};

use rustix::time::{ClockId, clock_gettime};

use crate::registry::fd::{COUNTER, Fd, HOST_SHIFT, HOSTS};
use crate::registry::memory::{MAX_HOST_NAME, Registry};

/// A server among several that are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo {
    /// From 1 to 255, or 0 if it has none yet.
    pub number: u8,
    /// What people call it; at most [`MAX_HOST_NAME`] bytes.
    pub name: Box<str>,
    /// When its server was started, in milliseconds of Unix time by its own clock.
    pub started_at: u64,
    /// Its open connections.
    pub connections: u64,
    /// Milliseconds since it was heard from.
    pub age: u64,
}

/// The broker of several hosts, as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerMetrics {
    /// Whether it can be reached.
    pub is_up: bool,
    /// How often it was lost.
    pub losses: u64,
    /// The hosts that are alive, this one included.
    pub hosts: u64,
}

/// The state of the way to other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Way {
    /// This server is alone: it has no broker of several hosts.
    None = 0,
    /// What is sent is on its way, or waits until the broker is back.
    Open = 1,
    /// Too much waits.
    Full = 2,
}

impl Registry {
    /// The number of the host that an id belongs to.
    #[inline]
    pub(crate) fn host_of(fd: Fd) -> u8 {
        (fd >> HOST_SHIFT) as u8
    }

    /// The counter in an id.
    pub(crate) fn counter_of(fd: Fd) -> u64 {
        fd & COUNTER
    }

    /// The number of this host; 0 if it has none.
    #[inline]
    pub(crate) fn host(&self) -> u8 {
        self.header().host.load(Ordering::Relaxed) as u8
    }

    /// Gives out ids above a counter in the name of a host, as far as they are leased.
    pub(crate) fn begin_above_for_host(&self, host: u8, above: u64) {
        // No id is given out in between: counters below `above` are not new in the new name.
        self.header().first.fetch_max(above, Ordering::AcqRel);
        self.header().host.store(host.into(), Ordering::Release);
    }

    /// Whether `fd` belongs to another host, one that is alive.
    pub(crate) fn is_abroad(&self, fd: Fd) -> bool {
        let host = Self::host_of(fd);
        host != 0 && host != self.host() && fd >> HOST_SHIFT < HOSTS as u64 && self.is_alive(host)
    }

    /// Whether `fd` belongs to another host, and what is sent there now is on its way.
    pub(crate) fn reaches(&self, fd: Fd) -> bool {
        self.is_abroad(fd) && self.way() == Way::Open
    }

    /// Whether another host is alive.
    pub(crate) fn is_alive(&self, host: u8) -> bool {
        let word = &self.header().alive[usize::from(host) / 64];
        word.load(Ordering::Relaxed) >> (host % 64) & 1 == 1
    }

    pub(crate) fn set_alive(&self, host: u8, is_alive: bool) {
        let word = &self.header().alive[usize::from(host) / 64];
        let bit = 1 << (host % 64);
        if is_alive {
            word.fetch_or(bit, Ordering::Relaxed)
        } else {
            word.fetch_and(!bit, Ordering::Relaxed)
        };
    }

    /// What operators want to know about the broker; `None` without one.
    pub(super) fn broker_metrics(&self) -> Option<BrokerMetrics> {
        (self.way() != Way::None).then(|| BrokerMetrics {
            is_up: !self.is_degraded(),
            // Before the first connection it was not there either.
            losses: self.header().ways_lost.load(Ordering::Relaxed).saturating_sub(1),
            hosts: self.header().alive.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum(),
        })
    }

    /// Records what a host has told about itself just now.
    pub(crate) fn note_host(&self, host: &HostInfo) {
        let row = &self.header().hosts[usize::from(host.number)];
        let version = row.version.load(Ordering::Relaxed);
        row.version.store(version | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        row.started_at.store(host.started_at, Ordering::Relaxed);
        row.connections.store(host.connections, Ordering::Relaxed);
        row.heard_at.store(boot_now().saturating_sub(host.age), Ordering::Relaxed);
        let mut name = [0; MAX_HOST_NAME];
        let length = host.name.len().min(MAX_HOST_NAME);
        name[..length].copy_from_slice(&host.name.as_bytes()[..length]);
        for (cell, bytes) in row.name.iter().zip(name.as_chunks::<8>().0) {
            cell.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        row.version.store((version | 1) + 1, Ordering::Release);
        self.set_alive(host.number, true);
    }

    /// What is known about a host that is alive. `None` also if the hub is just writing it, or was killed while it did.
    fn host_info(&self, number: u8) -> Option<HostInfo> {
        if !self.is_alive(number) {
            return None;
        }
        let row = &self.header().hosts[usize::from(number)];
        let version = row.version.load(Ordering::Acquire);
        let mut name = [0; MAX_HOST_NAME];
        for (bytes, cell) in name.as_chunks_mut::<8>().0.iter_mut().zip(&row.name) {
            *bytes = cell.load(Ordering::Relaxed).to_ne_bytes();
        }
        let [started_at, connections, heard_at] =
            [&row.started_at, &row.connections, &row.heard_at].map(|cell| cell.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let is_whole = version.is_multiple_of(2) && row.version.load(Ordering::Relaxed) == version;
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        let name = String::from_utf8_lossy(&name[..length]).into();
        is_whole.then(|| HostInfo { number, name, started_at, connections, age: boot_now().saturating_sub(heard_at) })
    }

    /// All hosts that are alive, this one included, in the order of their numbers. None without a broker.
    pub fn hosts(&self) -> Vec<HostInfo> {
        (1..=u8::MAX).filter_map(|number| (0..3).find_map(|_| self.host_info(number))).collect()
    }

    /// The state of the way to other hosts.
    #[inline]
    pub(crate) fn way(&self) -> Way {
        match self.header().way.load(Ordering::Relaxed) {
            0 => Way::None,
            1 => Way::Open,
            _ => Way::Full,
        }
    }

    pub(crate) fn set_way(&self, way: Way) {
        self.header().way.store(way as u64, Ordering::Relaxed);
    }

    /// Records whether the broker cannot be reached.
    pub(crate) fn set_degraded(&self, is_degraded: bool) {
        if is_degraded && self.header().is_degraded.load(Ordering::Relaxed) == 0 {
            self.header().ways_lost.fetch_add(1, Ordering::Relaxed);
        }
        self.header().is_degraded.store(is_degraded.into(), Ordering::Relaxed);
    }

    /// Whether the broker cannot be reached, so that other hosts hear nothing; or does not renew the number of this host,
    /// so that it may not give out ids.
    pub fn is_degraded(&self) -> bool {
        self.header().is_degraded.load(Ordering::Relaxed) != 0 || self.host() != 0 && !self.may_give_ids()
    }

    /// Until when ids may be given out, by [`boot_now`].
    pub(crate) fn set_ids_until(&self, until: u64) {
        self.header().ids_until.store(until, Ordering::Release);
    }

    /// Whether ids may be given out in the name of this host. Checked for each one: a process that was stopped, with the
    /// whole host or alone, must not go on with a number that has been given to another host.
    pub(crate) fn may_give_ids(&self) -> bool {
        let until = self.header().ids_until.load(Ordering::Acquire);
        until == u64::MAX || boot_now() < until
    }
}

/// Milliseconds of a clock that goes on while the machine sleeps.
pub(crate) fn boot_now() -> u64 {
    #[cfg(target_os = "linux")]
    let now = clock_gettime(ClockId::Boottime);
    #[cfg(not(target_os = "linux"))]
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
