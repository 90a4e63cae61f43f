//! What has arrived on a connection, until it is whole frames. No I/O here.

use redis_protocol::resp3::types::RangeFrame;

use super::resp::{self, Framer};

/// Bytes that are read at a time.
pub(super) const CHUNK: usize = 64 * 1024;
/// A larger buffer is not kept when it is empty.
const MAX_KEPT: usize = 1024 * 1024;

/// A frame, and the bytes that it was decoded from.
pub(super) struct Frame<'i> {
    pub(super) decoded: RangeFrame,
    pub(super) bytes: &'i [u8],
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    framer: Framer,
}

impl Input {
    /// Room to read into. The buffer grows with what has arrived, not with what a frame claims to be.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
            if self.buffer.len() > MAX_KEPT {
                self.buffer = Vec::new();
            }
        }
        if self.buffer.len() - self.end < CHUNK / 4 {
            if self.begin > 0 {
                self.buffer.copy_within(self.begin..self.end, 0);
                (self.begin, self.end) = (0, self.end - self.begin);
            }
            if self.buffer.len() - self.end < CHUNK / 4 {
                let size = (2 * self.buffer.len()).max(CHUNK);
                self.buffer.resize(size, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// Notes that so much was read into the room.
    pub(super) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// If what has arrived is malformed, or too large.
    pub(super) fn next(&mut self) -> Result<Option<Frame<'_>>, &'static str> {
        let Some(length) = self.framer.find_end(&self.buffer[self.begin..self.end])? else { return Ok(None) };
        let bytes = &self.buffer[self.begin..self.begin + length];
        self.begin += length;
        Ok(Some(Frame { decoded: resp::decode(bytes)?, bytes }))
    }
}
