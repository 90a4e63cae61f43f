//! The parts that an outbox consists of, and what all outboxes share.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::topics::policy::Provisional;

/// Bytes gathered, or encrypted, at a time.
pub(super) const CHUNK: usize = 64 * 1024;

/// Buffers kept for reuse, so that a busy connection does not allocate in every turn.
#[derive(Default)]
pub(crate) struct Pool {
    free: Vec<Vec<u8>>,
    /// The memory of these buffers, in bytes.
    kept: usize,
    pub(super) gather: Vec<u8>,
    /// Bytes of all frames shared by outboxes, with each frame counted once.
    shared: usize,
}

impl Pool {
    const RETAIN_BYTES: usize = 4 * 1024 * 1024;

    pub(super) fn take(&mut self) -> Vec<u8> {
        let buffer = self.free.pop().unwrap_or_default();
        self.kept -= buffer.capacity();
        buffer
    }

    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        if self.kept + buffer.capacity() <= Self::RETAIN_BYTES && (1..=2 * CHUNK).contains(&buffer.capacity()) {
            self.kept += buffer.capacity();
            buffer.clear();
            self.free.push(buffer);
        }
    }

    /// Bytes of all frames shared by outboxes.
    pub(crate) fn shared(&self) -> usize {
        self.shared
    }

    /// Counts a frame of a fan-out that has been delivered to all, if an outbox has kept it.
    pub(crate) fn count_shared(&mut self, frame: &Arc<[u8]>) {
        if Arc::strong_count(frame) > 1 {
            self.shared += frame.len();
        }
    }

    /// Releases a shared frame for one outbox. The last outbox frees it; while the fan-out is still running, no outbox
    /// is the last.
    fn let_go(&mut self, frame: Arc<[u8]>) {
        if Arc::strong_count(&frame) == 1 {
            self.shared = self.shared.saturating_sub(frame.len());
        }
    }

    pub(super) fn drop_chunk(&mut self, chunk: Chunk) {
        match chunk {
            Chunk::Own(buffer) => self.give(buffer),
            Chunk::Shared(frame) => self.let_go(frame),
            Chunk::Provisional(provisional) => {
                if let Some(provisional) = Arc::into_inner(provisional) {
                    self.let_go(provisional.frame);
                }
            }
            Chunk::Kept(_) | Chunk::File(_) | Chunk::Hole => {}
        }
    }
}

/// Bytes of the application that are not copied, but kept until they have been sent. To drop them must not call anything.
pub type Kept = Box<dyn AsRef<[u8]> + Send>;

pub(super) enum Chunk {
    Own(Vec<u8>),
    /// A part of a response.
    Kept(Kept),
    Shared(Arc<[u8]>),
    /// A frame that other outboxes hold too, and that may be replaced or left out until it is begun.
    Provisional(Arc<Provisional>),
    /// Where a frame was that has been left out. Neither the first nor the last chunk is one.
    Hole,
    File(Box<FilePart>),
}

impl Chunk {
    /// What can be written right away: nothing of a file before it is read.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Kept(kept) => (**kept).as_ref(),
            Self::Shared(bytes) => bytes,
            Self::Provisional(provisional) => &provisional.frame,
            Self::File(_) | Self::Hole => &[],
        }
    }

    /// Bytes of memory held only by this chunk.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.capacity(),
            Self::Kept(kept) => (**kept).as_ref().len(),
            Self::Shared(_) | Self::Provisional(_) | Self::Hole | Self::File(_) => 0,
        }
    }

    /// The frame that may be replaced or left out, if it is one.
    pub(super) fn provisional(&self) -> Option<&Provisional> {
        match self {
            Self::Provisional(provisional) => Some(provisional),
            Self::Own(_) | Self::Kept(_) | Self::Shared(_) | Self::Hole | Self::File(_) => None,
        }
    }
}

/// The part of a file that is still to be sent.
pub(super) struct FilePart {
    pub(super) file: File,
    pub(super) offset: u64,
    pub(super) left: usize,
    /// Whether a piece of it has been read.
    pub(super) is_begun: bool,
    /// Whether it has to be read: the kernel cannot send this file.
    pub(super) is_unsendable: bool,
}

impl FilePart {
    /// Reads the next piece, of at most `most` bytes, into an empty `buffer`.
    pub(super) fn read_piece(&mut self, buffer: &mut Vec<u8>, most: usize) -> io::Result<()> {
        self.is_begun = true;
        buffer.resize(self.left.min(most), 0);
        self.file.read_exact_at(buffer, self.offset)?;
        self.offset += buffer.len() as u64;
        self.left -= buffer.len();
        Ok(())
    }
}
