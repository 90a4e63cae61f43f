//! The unsent output of one connection: a queue of whole frames, written as far as the socket accepts them.
//!
//! Frames made for this connection alone are appended to one growing buffer. Frames of a fan-out are shared with the
//! other outboxes and only referred to. Every chunk begins with a frame, so that the frame being sent can be found
//! again. A frame that may be replaced or left out has a chunk of its own; of these, the index keeps track. An HTTP
//! connection's outbox holds responses instead, the last of which may end in part of a file.

mod chunk;
mod index;
mod sink;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use wire::frame;

use crate::connection::outbox::chunk::{CHUNK, Chunk, FilePart};
use crate::connection::outbox::index::Index;
use crate::tls::session::Session;
use crate::topics::policy::{Label, Provisional};

pub use crate::connection::outbox::chunk::Kept;
pub(crate) use crate::connection::outbox::chunk::Pool;
pub(crate) use crate::connection::outbox::sink::{Raw, Sink};

/// A buffer that has grown to this size is not appended to any more, and a new one is started. One more short frame
/// must not make the buffer grow beyond `CHUNK`, to twice as much memory.
const FULL: usize = CHUNK - 4096;
/// Chunks up to this length are copied together before they are written, which is cheaper than a longer `writev`.
const SMALL: usize = 2048;
/// Memory of a chunk in addition to its bytes: its place in the queue, and its share of an allocation.
const CHUNK_COST: usize = 64;
/// A shared frame up to this length may be copied.
const COPIED: usize = 512;
/// Memory for the few bytes between two parts that are kept: the end of one chunk of a body, and the length of the next.
const BETWEEN: usize = 32;
/// Spare memory that the last buffer of an outbox may have.
const SPARE: usize = 8 * 1024;
/// Slices of one `writev`.
const SLICES: usize = 64;
/// Bytes of a file read at a time; two such pieces may be in memory. A buffer of this size can be reused.
const PIECE: usize = 2 * CHUNK;
/// Bytes of a file that are read and written together with the head before them, if the kernel can send the rest.
const FIRST_PIECE: usize = 16 * 1024;

/// How far a write got.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing is left.
    Empty,
    /// The socket is full; the kernel will report when it accepts more.
    Blocked,
    /// The caller's budget is used up; the socket may accept more.
    OverBudget,
}

#[derive(Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that have been written.
    sent: usize,
    /// Unsent bytes of all chunks.
    bytes: usize,
    /// Memory of this outbox's own buffers, except the last chunk's, which may still grow.
    filled: usize,
    /// Usually `None`, so it takes little room in a structure that every message passes through.
    extra: Option<Box<Extra>>,
}

/// What most outboxes do not have.
#[derive(Default)]
struct Extra {
    /// Unsent bytes of the chunks before any frame: the answer to the handshake.
    preface: usize,
    /// Goes before all chunks: output that TLS has already encrypted, and TLS's own messages.
    sealed: Vec<u8>,
    index: Index,
}

impl Extra {
    fn is_needed(&self) -> bool {
        self.preface > 0 || self.sealed.capacity() > 0 || !self.index.is_empty()
    }
}

impl Outbox {
    /// Waiting bytes, encrypted or not.
    pub(crate) fn len(&self) -> usize {
        self.bytes + self.extra.as_ref().map_or(0, |extra| extra.sealed.len())
    }

    /// The memory that this takes, roughly: a queue of tiny frames consists mostly of overhead.
    pub(crate) fn cost(&self) -> usize {
        self.len() + self.chunks.len() * CHUNK_COST
    }

    /// Bytes of memory held only by this outbox; an empty one counts none.
    pub(crate) fn memory(&self) -> usize {
        let sealed = self.extra.as_ref().map_or(0, |extra| extra.sealed.capacity());
        if self.chunks.is_empty() {
            return sealed;
        }
        let index = self.extra.as_ref().map_or(0, |extra| extra.index.memory());
        self.filled + self.last_memory() + self.chunks.capacity() * size_of::<Chunk>() + sealed + index
    }

    /// Bytes of memory that this outbox keeps from being freed, alone or together with others.
    pub(crate) fn weight(&self) -> usize {
        let has_file = self.chunks.iter().rev().take(2).any(|chunk| matches!(chunk, Chunk::File(_)));
        self.memory().max(if has_file { 0 } else { self.bytes })
    }

    /// Memory of the last chunk.
    fn last_memory(&self) -> usize {
        self.chunks.back().map_or(0, Chunk::memory)
    }

    /// Returns the memory that a buffer does not need, as its contents may now wait for long.
    pub(crate) fn fit(&mut self) {
        if let Some(Chunk::Own(tail)) = self.chunks.back_mut()
            && tail.capacity() > SPARE
            && tail.len() < tail.capacity() / 4
        {
            tail.shrink_to(2 * tail.len());
        }
    }

    fn push_chunk(&mut self, chunk: Chunk) {
        self.filled += self.last_memory();
        self.chunks.push_back(chunk);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn has_sealed(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| !extra.sealed.is_empty())
    }

    /// Output of TLS itself goes here, after what it has encrypted so far.
    pub(crate) fn sealed(&mut self) -> &mut Vec<u8> {
        &mut self.extra.get_or_insert_default().sealed
    }

    /// Lets `write` append whole frames (or, before any frame, a response), and counts them. Returns what `write` does.
    #[inline]
    pub(crate) fn append<T>(&mut self, pool: &mut Pool, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if !matches!(self.chunks.back(), Some(Chunk::Own(tail)) if tail.len() < FULL) {
            self.push_chunk(Chunk::Own(pool.take()));
        }
        let Some(Chunk::Own(tail)) = self.chunks.back_mut() else { unreachable!("pushed above") };
        let before = tail.len();
        let result = write(tail);
        self.bytes += tail.len() - before;
        result
    }

    /// Queues a part of a response without a copy.
    pub(crate) fn keep(&mut self, kept: Kept) {
        self.bytes += (*kept).as_ref().len();
        self.push_chunk(Chunk::Kept(kept));
    }

    /// Appends a few bytes of a response that go between parts that are kept. They get little memory of their own: the
    /// pool's buffers may be large.
    pub(crate) fn append_between(&mut self, bytes: &[u8]) {
        if let Some(Chunk::Own(tail)) = self.chunks.back_mut()
            && tail.len() < FULL
        {
            tail.extend_from_slice(bytes);
        } else {
            let mut own = Vec::with_capacity(BETWEEN);
            own.extend_from_slice(bytes);
            self.push_chunk(Chunk::Own(own));
        }
        self.bytes += bytes.len();
    }

    /// Marks everything appended so far as a response rather than frames. The frames begin with a chunk of their own.
    pub(crate) fn end_preface(&mut self, pool: &mut Pool) {
        self.extra.get_or_insert_default().preface = self.bytes;
        self.push_chunk(Chunk::Own(pool.take()));
    }

    /// Queues a frame that other outboxes hold too. A short one is copied if something is already waiting: a reference
    /// would take more memory, and more time to write.
    #[inline]
    pub(crate) fn share(&mut self, pool: &mut Pool, frame: &Arc<[u8]>) {
        if frame.len() <= COPIED && !self.chunks.is_empty() {
            self.append(pool, |out| out.extend_from_slice(frame));
            return;
        }
        self.bytes += frame.len();
        self.push_chunk(Chunk::Shared(Arc::clone(frame)));
    }

    /// Queues the rest of one or more frames that other outboxes hold too; `sent` bytes have already been written.
    /// Nothing may be queued before them.
    pub(crate) fn share_rest(&mut self, frames: &Arc<[u8]>, sent: usize) {
        self.bytes = frames.len() - sent;
        self.sent = sent;
        self.push_chunk(Chunk::Shared(Arc::clone(frames)));
    }

    /// Queues a frame that may be replaced or left out until it is begun. If a frame with its label waits and has not
    /// been begun, it takes that one's place; or the last place, if there is an order to keep. Returns whether it
    /// replaces one.
    pub(crate) fn put(&mut self, pool: &mut Pool, provisional: &Arc<Provisional>) -> bool {
        let place = provisional.label.as_deref().and_then(|label| self.find(label));
        self.bytes += provisional.frame.len();
        let chunk = Chunk::Provisional(Arc::clone(provisional));
        match place {
            Some(place) if provisional.in_order => {
                self.leave_hole(place, pool);
                self.push_chunk(chunk);
                self.extra.get_or_insert_default().index.add(&self.chunks, self.chunks.len() - 1);
                self.close_holes(pool);
                return true;
            }
            Some(place) => {
                let before = std::mem::replace(&mut self.chunks[place], chunk);
                self.take_out(place, before, pool);
            }
            None => self.push_chunk(chunk),
        }
        let index = &mut self.extra.get_or_insert_default().index;
        index.add(&self.chunks, place.unwrap_or(self.chunks.len() - 1));
        place.is_some()
    }

    /// The bytes of the frame that one with this label would replace.
    pub(crate) fn replaceable(&mut self, label: &Label) -> usize {
        self.find(label).map_or(0, |place| self.chunks[place].bytes().len())
    }

    fn find(&mut self, label: &Label) -> Option<usize> {
        self.extra.as_mut().and_then(|extra| extra.index.find(&self.chunks, self.sent, label))
    }

    /// Whether a frame that waits might have expired.
    #[inline]
    pub(crate) fn may_have_expired(&self, now: u64) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.index.may_have_expired(now))
    }

    /// Leaves out the frames that have expired and have not been begun. Returns how many they were.
    pub(crate) fn leave_out_expired(&mut self, now: u64, pool: &mut Pool) -> usize {
        let mut count = 0;
        while let Some(extra) = &mut self.extra
            && let Some(place) = extra.index.take_expired(&self.chunks, self.sent, now)
        {
            self.leave_hole(place, pool);
            count += 1;
        }
        if count > 0 {
            self.close_holes(pool);
        }
        count
    }

    /// Forgets a frame, whose place stays empty.
    fn leave_hole(&mut self, place: usize, pool: &mut Pool) {
        let before = std::mem::replace(&mut self.chunks[place], Chunk::Hole);
        self.extra.get_or_insert_default().index.holes += 1;
        self.take_out(place, before, pool);
    }

    /// Forgets a frame that has been replaced or left out.
    fn take_out(&mut self, place: usize, chunk: Chunk, pool: &mut Pool) {
        self.bytes -= chunk.bytes().len();
        if let Some(extra) = &mut self.extra
            && let Some(provisional) = chunk.provisional()
        {
            extra.index.remove(place, provisional);
        }
        pool.drop_chunk(chunk);
    }

    /// Removes the holes at both ends of the queue, and all of them if there are many.
    fn close_holes(&mut self, pool: &mut Pool) {
        let Some(Extra { index, .. }) = self.extra.as_deref_mut() else { return };
        while let Some(Chunk::Hole) = self.chunks.front() {
            self.chunks.pop_front();
            index.remove_first(&Chunk::Hole);
        }
        while let Some(Chunk::Hole) = self.chunks.back() {
            self.chunks.pop_back();
            index.holes -= 1;
            self.filled -= self.chunks.back().map_or(0, Chunk::memory);
        }
        if index.has_many_holes(&self.chunks) {
            self.chunks.retain(|chunk| !matches!(chunk, Chunk::Hole));
            self.chunks.shrink_to(2 * self.chunks.len());
            index.rebuild(&self.chunks);
        }
        if self.bytes == 0 {
            // Nothing may be left but empty buffers.
            self.discard_plain(pool);
        }
        self.drop_extra();
    }

    /// Returns the memory of what is no longer needed.
    fn drop_extra(&mut self) {
        let Some(extra) = &mut self.extra else { return };
        if extra.index.is_empty() {
            extra.index = Index::default();
        }
        if !extra.is_needed() {
            self.extra = None;
        }
    }

    /// Queues `length` bytes of a file, starting at `offset`. They are read as they are sent. Nothing may be queued
    /// after them until they have been sent.
    pub(crate) fn append_file(&mut self, file: File, offset: u64, length: usize) {
        if length > 0 {
            self.bytes += length;
            self.push_chunk(Chunk::File(Box::new(FilePart {
                file,
                offset,
                left: length,
                is_begun: false,
                is_unsendable: false,
            })));
        }
    }

    /// Reads the next piece of a file, once nearly everything queued before it has been sent. If the socket sends files,
    /// only a first piece is read, to go along with the head.
    fn read_ahead(&mut self, pool: &mut Pool, sends_files: bool) -> io::Result<()> {
        let Some(Chunk::File(part)) = self.chunks.back_mut() else { return Ok(()) };
        let is_sent_by_kernel = sends_files && !part.is_unsendable;
        if self.bytes - part.left > SMALL || (is_sent_by_kernel && part.is_begun) {
            return Ok(());
        }
        let most = if is_sent_by_kernel && part.left > PIECE { FIRST_PIECE } else { PIECE };
        let mut piece = pool.take();
        part.read_piece(&mut piece, most)?;
        let part_is_left = part.left > 0;
        // It goes before the remainder of the file.
        let rest = self.chunks.pop_back().filter(|_| part_is_left);
        self.chunks.push_back(Chunk::Own(piece));
        if let Some(rest) = rest {
            self.push_chunk(rest);
        }
        Ok(())
    }

    /// Writes until nothing is left, the socket is full, or `budget` bytes have been written.
    ///
    /// # Errors
    /// The socket's errors, and those of reading a file, including one that ends too early.
    pub(crate) fn write_to<S: Sink>(&mut self, socket: &mut S, pool: &mut Pool, budget: usize) -> io::Result<Progress> {
        let mut written = 0;
        while self.bytes > 0 {
            if written >= budget {
                return Ok(Progress::OverBudget);
            }
            self.read_ahead(pool, S::SENDS_FILES)?;
            let outcome = match self.chunks.front_mut() {
                Some(Chunk::File(part)) => {
                    match socket.send_file(&part.file, part.offset, part.left.min(budget - written)) {
                        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                            part.is_unsendable = true;
                            continue;
                        }
                        outcome => outcome,
                    }
                }
                _ => self.write_once(socket, pool),
            };
            match outcome {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    written += count;
                    self.advance(count, pool);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Blocked);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Progress::Empty)
    }

    /// The same through TLS: each part is encrypted once the previous one has been written. What waits after a fatal
    /// alert or close_notify is discarded.
    pub(crate) fn write_sealed_to(
        &mut self,
        socket: &mut impl Write,
        session: &mut Session,
        pool: &mut Pool,
        budget: usize,
    ) -> io::Result<Progress> {
        let mut written = 0;
        loop {
            while self.has_sealed() {
                let sealed = self.sealed();
                match socket.write(sealed) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        written += count;
                        sealed.drain(..count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Blocked),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            pool.give(std::mem::take(self.sealed()));
            if session.output_has_ended() {
                // Earlier input from the peer may still be answered, but nothing more can be sent.
                self.clear(pool);
            }
            if self.bytes == 0 {
                return Ok(Progress::Empty);
            }
            if written >= budget {
                return Ok(Progress::OverBudget);
            }
            self.read_ahead(pool, false)?;
            *self.sealed() = pool.take();
            let count = self.seal(session, pool)?;
            self.advance(count, pool);
        }
    }

    /// Encrypts what comes next, up to `CHUNK` bytes; returns how many.
    fn seal(&mut self, session: &mut Session, pool: &mut Pool) -> io::Result<usize> {
        let Some(first) = self.chunks.front() else { return Ok(0) };
        let mut plain = &first.bytes()[self.sent..];
        if self.chunks.len() > 1 && plain.len() < CHUNK {
            self.gather(plain, pool);
            plain = &pool.gather;
        }
        let plain = &plain[..plain.len().min(CHUNK)];
        session.seal(plain, &mut self.extra.get_or_insert_default().sealed)?;
        Ok(plain.len())
    }

    /// Copies `first`, the rest of the first chunk (shorter than `CHUNK`), together with what follows it, up to `CHUNK`
    /// bytes.
    fn gather(&self, first: &[u8], pool: &mut Pool) {
        pool.gather.clear();
        pool.gather.extend_from_slice(first);
        for chunk in self.chunks.iter().skip(1) {
            let bytes = chunk.bytes();
            pool.gather.extend_from_slice(&bytes[..bytes.len().min(CHUNK - pool.gather.len())]);
            if pool.gather.len() >= CHUNK {
                break;
            }
        }
    }

    fn write_once(&self, socket: &mut impl Write, pool: &mut Pool) -> io::Result<usize> {
        let Some(first) = self.chunks.front() else {
            return Ok(0);
        };
        let rest = &first.bytes()[self.sent..];
        if self.chunks.len() == 1 {
            return socket.write(rest);
        }
        if self.bytes <= self.chunks.len() * SMALL {
            self.gather(rest, pool);
            return socket.write(&pool.gather);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        slices[0] = IoSlice::new(rest);
        let mut used = 1;
        for (slice, chunk) in slices[1..].iter_mut().zip(self.chunks.iter().skip(1)) {
            *slice = IoSlice::new(chunk.bytes());
            used += 1;
        }
        socket.write_vectored(&slices[..used])
    }

    fn advance(&mut self, mut count: usize, pool: &mut Pool) {
        self.bytes -= count;
        if let Some(extra) = &mut self.extra {
            extra.preface = extra.preface.saturating_sub(count);
            if !extra.is_needed() {
                self.extra = None;
            }
        }
        if let Some(Chunk::File(part)) = self.chunks.front_mut() {
            part.offset += count as u64;
            part.left -= count;
            if part.left == 0 {
                self.chunks.pop_front();
            }
            return;
        }
        while let Some(first) = self.chunks.front().filter(|first| !matches!(first, Chunk::File(_))) {
            let left = first.bytes().len() - self.sent;
            if count < left {
                self.sent += count;
                return;
            }
            count -= left;
            self.sent = 0;
            let Some(chunk) = self.chunks.pop_front() else { break };
            if !self.chunks.is_empty() {
                self.filled -= chunk.memory();
            }
            if let Some(extra) = &mut self.extra {
                extra.index.remove_first(&chunk);
            }
            pool.drop_chunk(chunk);
        }
        self.drop_extra();
        if self.chunks.capacity() > 16 {
            self.chunks.shrink_to(4);
        }
    }

    /// Discards everything except the rest of a frame (or response) that has been partly written: without that rest the
    /// peer could not read what follows.
    pub(crate) fn discard_unbegun(&mut self, pool: &mut Pool) {
        let Some(first) = self.chunks.front() else {
            return;
        };
        let bytes = first.bytes();
        let preface = self.extra.as_ref().map_or(0, |extra| extra.preface);
        let end = if preface > 0 { self.sent + preface } else { end_of_frame_under_way(bytes, self.sent) };
        // This is not a buffer of the pool, which may have far more memory than a Close frame needs.
        let rest = bytes[self.sent..end].to_vec();
        self.discard_plain(pool);
        self.bytes = rest.len();
        self.push_chunk(Chunk::Own(rest));
    }

    /// Discards what TLS has not encrypted yet.
    pub(crate) fn discard_plain(&mut self, pool: &mut Pool) {
        let mut extra = self.extra.take();
        self.clear(pool);
        if let Some(extra) = &mut extra {
            extra.preface = 0;
            extra.index = Index::default();
        }
        self.extra = extra;
        self.drop_extra();
    }

    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        for chunk in self.chunks.drain(..) {
            pool.drop_chunk(chunk);
        }
        *self = Self::default();
    }
}

/// The end of the frame in `bytes` that byte `sent` lies inside; `sent` itself if a frame begins there.
fn end_of_frame_under_way(bytes: &[u8], sent: usize) -> usize {
    let mut end = 0;
    while end < sent {
        match frame::server_frame_len(&bytes[end..]) {
            Some(length) if length <= bytes.len() - end => end += length,
            _ => return bytes.len(),
        }
    }
    end
}

#[cfg(test)]
mod tests;
