//! Workers that wait for other workers' connections to end.

use super::thread::Routing;
use crate::language::message::Message;
use crate::registry::{Fd, Registry};

impl Routing {
    /// Registers a worker that wants to know when a connection is no longer open.
    pub(super) fn watch(&mut self, slot: u8, fd: Fd) {
        if self.desk.registry.is_abroad(fd) {
            *self.watchers.slots.entry(fd).or_default() |= 1 << slot;
            self.tell_host(Registry::host_of(fd), &Message::Watch(fd));
            return;
        }
        let (is_open, gone) = self.desk.registry.watch(fd);
        if let Some(gone) = gone {
            self.tell_watchers(gone);
        }
        if is_open {
            *self.watchers.slots.entry(fd).or_default() |= 1 << slot;
        } else {
            self.tell_gone(slot, fd);
        }
    }

    /// The same for another host.
    pub(super) fn watch_for_host(&mut self, host: u8, fd: Fd) {
        let (is_open, gone) = self.desk.registry.watch(fd);
        if let Some(gone) = gone {
            self.tell_watchers(gone);
        }
        if is_open {
            self.watchers.insert_host(host, fd);
        } else {
            self.tell_host(host, &Message::Gone(fd));
        }
    }

    /// Asks other hosts again about their connections: what they were asked, or what they said, may be lost.
    pub(super) fn watch_again(&mut self) {
        let fds: Vec<Fd> = self.watchers.slots.keys().copied().filter(|fd| self.desk.registry.is_abroad(*fd)).collect();
        for fd in fds {
            self.tell_host(Registry::host_of(fd), &Message::Watch(fd));
        }
    }

    pub(super) fn unwatch(&mut self, slot: u8, fd: Fd) {
        self.watchers.remove(slot, fd);
    }

    /// Notifies the watchers of a connection that is no longer open.
    pub(super) fn tell_watchers(&mut self, fd: Fd) {
        let mut slots = self.watchers.slots.remove(&fd).unwrap_or_default();
        while slots != 0 {
            self.tell_gone(slots.trailing_zeros() as u8, fd);
            slots &= slots - 1;
        }
        for host in self.watchers.take_hosts(fd) {
            self.tell_host(host, &Message::Gone(fd));
        }
    }

    /// Cleans up after a worker that is gone: it no longer waits for anything, and its connections are no longer open.
    pub(super) fn forget_watcher(&mut self, slot: u8) {
        self.watchers.slots.retain(|_, slots| {
            *slots &= !(1 << slot);
            *slots != 0
        });
        let is_its = |fd: &Fd| Registry::slot_of(*fd) == slot && !self.desk.registry.is_abroad(*fd);
        let mut gone: Vec<Fd> = self.watchers.slots.keys().copied().filter(is_its).collect();
        gone.extend(self.watchers.of_slot(slot));
        for fd in gone {
            self.tell_watchers(fd);
        }
    }

    /// Sent however much is waiting for that worker: it asked for each of these, and may ask for a limited number.
    fn tell_gone(&mut self, slot: u8, fd: Fd) {
        if let Some((link, _)) = self.worker(slot) {
            link.send(&Message::Gone(fd));
        }
    }
}
