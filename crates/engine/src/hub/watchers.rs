//! Which slots watch which connections.

use std::collections::HashMap;

use crate::registry::Fd;

/// Which slots watch which connections: one bit per slot. An entry remains until its connection has ended, so there are
/// never more entries than connections.
#[derive(Default)]
pub(super) struct Watchers {
    pub(super) slots: HashMap<Fd, u128>,
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
}
