//! The input of one connection while it is being parsed.

use crate::system::table::Key;

/// The input that is being parsed, and the connection it belongs to.
pub(crate) struct Visit {
    pub(super) key: Key,
    pub(super) serial: u32,
    /// Input kept from before, followed by what was read since; `None` if the reactor's buffer holds it.
    pub(super) own: Option<Vec<u8>>,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) messages_left: usize,
    pub(super) has_read: bool,
}

/// When a connection is visited again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Return {
    /// In this turn or the next: there is more to do.
    Soon,
    /// Once it may be read, and there is something to read.
    WhenReadable,
}

impl Visit {
    /// Input that has not been used yet; `buffer` is the reactor's.
    pub(super) fn unused<'a>(&'a self, buffer: &'a [u8]) -> &'a [u8] {
        &self.own.as_deref().unwrap_or(buffer)[self.from..self.to]
    }

    /// Makes room in the reactor's buffer. The rest of its input is short (a partial header, a partial head).
    #[inline]
    pub(super) fn keep_rest(&mut self, buffer: &[u8]) {
        if self.from < self.to && self.own.is_none() {
            self.own = Some(buffer[self.from..self.to].to_vec());
            self.to -= self.from;
            self.from = 0;
        }
    }

    /// Appends `input`, which lies at the front of the reactor's buffer, to the rest.
    #[inline]
    pub(super) fn append(&mut self, input: &[u8]) {
        match &mut self.own {
            Some(own) if self.from < self.to => {
                own.drain(..self.from);
                own.extend_from_slice(input);
                self.to = own.len();
            }
            _ => {
                self.own = None;
                self.to = input.len();
            }
        }
        self.from = 0;
    }
}
