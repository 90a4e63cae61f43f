//! Several hosts: the number of this one, and which others are alive. Written by the hub.

use std::sync::atomic::Ordering;

use rustix::time::{ClockId, clock_gettime};

use crate::registry::fd::{Fd, HOST_SHIFT, HOSTS};
use crate::registry::memory::Registry;

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

    /// The number of this host; 0 if it has none.
    #[inline]
    pub(crate) fn host(&self) -> u8 {
        self.header().host.load(Ordering::Relaxed) as u8
    }

    pub(crate) fn set_host(&self, host: u8) {
        self.header().host.store(host.into(), Ordering::Release);
    }

    /// Whether `fd` belongs to another host, one that is alive.
    pub(crate) fn is_abroad(&self, fd: Fd) -> bool {
        let host = Self::host_of(fd);
        host != 0 && host != self.host() && fd >> HOST_SHIFT < HOSTS as u64 && self.is_alive(host)
    }

    /// Whether another host is alive.
    pub(crate) fn is_alive(&self, host: u8) -> bool {
        let word = &self.header().hosts[usize::from(host) / 64];
        word.load(Ordering::Relaxed) >> (host % 64) & 1 == 1
    }

    pub(crate) fn set_alive(&self, host: u8, is_alive: bool) {
        let word = &self.header().hosts[usize::from(host) / 64];
        let bit = 1 << (host % 64);
        if is_alive { word.fetch_or(bit, Ordering::Relaxed) } else { word.fetch_and(!bit, Ordering::Relaxed) };
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
