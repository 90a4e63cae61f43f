//! Which slots watch which connections.

use std::collections::HashMap;

use crate::registry::{Fd, Registry};

/// Which slots watch which connections: one bit per slot. An entry remains until its connection has ended, so there are
/// never more entries than connections.
#[derive(Default)]
pub(super) struct Watchers {
    pub(super) slots: HashMap<Fd, u128>,
    /// The other hosts that watch connections of this one.
    hosts: HashMap<Fd, Vec<u8>>,
}

impl Watchers {
    pub(super) fn remove(&mut self, slot: u8, fd: Fd) {
        if let Some(slots) = self.slots.get_mut(&fd) {
            *slots &= !(1 << slot);
            if *slots == 0 {
                self.slots.remove(&fd);
            }
        }
    }

    /// Notes that a host watches a connection of this one.
    pub(super) fn insert_host(&mut self, host: u8, fd: Fd) {
        let hosts = self.hosts.entry(fd).or_default();
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }

    pub(super) fn remove_host(&mut self, host: u8, fd: Fd) {
        if let Some(hosts) = self.hosts.get_mut(&fd) {
            hosts.retain(|other| *other != host);
            if hosts.is_empty() {
                self.hosts.remove(&fd);
            }
        }
    }

    /// Forgets the watches of a host that is gone.
    pub(super) fn forget_host(&mut self, host: u8) {
        self.hosts.retain(|_, hosts| {
            hosts.retain(|other| *other != host);
            !hosts.is_empty()
        });
    }

    /// Removes and returns the hosts that watch a connection.
    pub(super) fn take_hosts(&mut self, fd: Fd) -> Vec<u8> {
        if self.hosts.is_empty() { Vec::new() } else { self.hosts.remove(&fd).unwrap_or_default() }
    }

    /// The watched connections of another host.
    pub(super) fn of_host(&self, host: u8) -> Vec<Fd> {
        self.slots.keys().copied().filter(|fd| Registry::host_of(*fd) == host).collect()
    }

    /// The connections watched by other hosts that belong to a slot.
    pub(super) fn of_slot(&self, slot: u8) -> Vec<Fd> {
        self.hosts.keys().copied().filter(|fd| Registry::slot_of(*fd) == slot).collect()
    }
}
