//! Who watches which connections.

use std::collections::HashMap;

use crate::registry::Fd;

/// Who watches which connections: a bit for each slot. A connection stands here until it has ended, so there are never
/// more than there are connections.
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
