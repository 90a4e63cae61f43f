//! Messages for many connections: gathered as long as they are for the same ones, encoded once, and compressed once for
//! each window size in use.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use wire::deflate::Deflater;
use wire::frame::{self, DataOpcode, Opcode};

use crate::connection::Connection;
use crate::connection::outbox::{Pool, Raw};
use crate::reactor::Reactor;
use crate::reactor::backlog::{Audience, Slice, Waiting};
use crate::reactor::commands::Counted;
use crate::registry::Fd;

/// Smallest window that permessage-deflate can be negotiated with here.
const FEWEST_WINDOW_BITS: u8 = 9;
/// Bytes of frames that are gathered.
const MUCH: usize = 32 * 1024;

/// Messages that came one right behind the other, for the same connections.
#[derive(Default)]
pub(crate) struct Gathered {
    /// Whose subscribers they are for; `None`: everyone.
    topic: Option<String>,
    exclude: Vec<Fd>,
    /// Their frames, uncompressed, one behind the other.
    frames: Vec<u8>,
    messages: Vec<Place>,
    /// Bytes of all payloads.
    bytes: usize,
}

/// Where a message stands in `Gathered::frames`.
struct Place {
    opcode: DataOpcode,
    frame: Range<usize>,
    payload: Range<usize>,
}

impl Gathered {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether a message may be added.
    pub(crate) fn takes(&self, topic: Option<&str>, payload: &[u8], exclude: &[Fd]) -> bool {
        !self.is_empty()
            && self.topic.as_deref() == topic
            && self.exclude == exclude
            && self.frames.len() + payload.len() <= MUCH
    }

    /// Begins anew, for the subscribers of `topic` or everyone.
    pub(crate) fn begin(&mut self, topic: Option<&str>, exclude: &[Fd]) {
        match (&mut self.topic, topic) {
            (Some(before), Some(topic)) => topic.clone_into(before),
            _ => self.topic = topic.map(str::to_owned),
        }
        self.exclude.extend_from_slice(exclude);
    }

    pub(crate) fn push(&mut self, opcode: DataOpcode, payload: &[u8]) {
        let begin = self.frames.len();
        frame::encode(&mut self.frames, opcode.into(), true, false, payload);
        let end = self.frames.len();
        self.messages.push(Place { opcode, frame: begin..end, payload: end - payload.len()..end });
        self.bytes += payload.len();
    }

    pub(crate) fn topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    pub(crate) fn exclude(&self) -> &[Fd] {
        &self.exclude
    }

    /// What is given to each connection.
    pub(crate) fn into_messages(self) -> Fanout {
        Fanout { gathered: self, together: None, alone: Vec::new() }
    }

    /// Forgets everything; memory of ordinary size is kept for the next time.
    pub(crate) fn clear(&mut self) {
        self.exclude.clear();
        self.frames.clear();
        self.frames.shrink_to(2 * MUCH);
        self.messages.clear();
        self.bytes = 0;
    }
}

/// Gathered messages, and their frames in the forms that have been asked for.
pub(crate) struct Fanout {
    gathered: Gathered,
    together: Option<Arc<[u8]>>,
    /// Empty until one is asked for.
    alone: Vec<Alone>,
}

/// One message's frame.
#[derive(Clone, Default)]
struct Alone {
    plain: Option<Arc<[u8]>>,
    /// By the size of the window.
    compressed: [Option<Arc<[u8]>>; 7],
}

impl Fanout {
    /// Ends the fan-out: counts the frames that outboxes have kept. Returns the messages that were gathered, to be
    /// forgotten; their memory can be used again.
    pub(crate) fn finish(self, pool: &mut Pool) -> Gathered {
        self.together.iter().for_each(|frame| pool.count_shared(frame));
        for Alone { plain, compressed } in self.alone {
            for frame in compressed.into_iter().flatten() {
                // Where it is the plain one, it is counted as that.
                if !plain.as_ref().is_some_and(|plain| Arc::ptr_eq(plain, &frame)) {
                    pool.count_shared(&frame);
                }
            }
            plain.iter().for_each(|frame| pool.count_shared(frame));
        }
        self.gathered
    }

    pub(crate) fn gathered(&self) -> &Gathered {
        &self.gathered
    }

    /// Memory that this takes until it is delivered, roughly.
    pub(crate) fn cost(&self) -> usize {
        let Gathered { frames, messages, exclude, .. } = &self.gathered;
        // The frames are there twice once a connection has been reached, in one form or the other.
        2 * frames.len() + size_of_val(&messages[..]) + 2 * size_of_val(&exclude[..])
    }

    /// How many messages there are.
    pub(crate) fn len(&self) -> usize {
        self.gathered.messages.len()
    }

    /// Bytes of all payloads.
    pub(crate) fn bytes(&self) -> usize {
        self.gathered.bytes
    }

    /// Opcode and payload of one message.
    pub(crate) fn get(&self, index: usize) -> (DataOpcode, &[u8]) {
        let gathered = &self.gathered;
        let Place { opcode, payload, .. } = &gathered.messages[index];
        (*opcode, &gathered.frames[payload.clone()])
    }

    /// The frames of all messages, for connections without compression.
    pub(crate) fn together(&mut self) -> &Arc<[u8]> {
        let gathered = &self.gathered;
        self.together.get_or_insert_with(|| gathered.frames.as_slice().into())
    }

    /// The frame of one message, for connections without compression.
    pub(crate) fn plain(&mut self, index: usize) -> &Arc<[u8]> {
        self.alone(index);
        let gathered = &self.gathered;
        let frame = gathered.messages[index].frame.clone();
        self.alone[index].plain.get_or_insert_with(|| gathered.frames[frame].into())
    }

    /// The frame of one message, for connections that inflate with a window of `window_bits`; the plain one where that
    /// is shorter.
    pub(crate) fn compressed(&mut self, index: usize, window_bits: u8, deflater: &mut Deflater) -> &Arc<[u8]> {
        let window = usize::from(window_bits - FEWEST_WINDOW_BITS);
        if self.alone(index).compressed[window].is_none() {
            let (opcode, payload) = self.get(index);
            let mut deflated = Vec::new();
            deflater.deflate(payload, window_bits, &mut deflated);
            let frame = if deflated.len() < payload.len() {
                encode(opcode.into(), &deflated)
            } else {
                Arc::clone(self.plain(index))
            };
            self.alone(index).compressed[window] = Some(frame);
        }
        self.alone(index).compressed[window].get_or_insert_with(|| unreachable!("filled above"))
    }

    fn alone(&mut self, index: usize) -> &mut Alone {
        if self.alone.is_empty() {
            self.alone.resize(self.len(), Alone::default());
        }
        &mut self.alone[index]
    }
}

fn encode(opcode: Opcode, deflated: &[u8]) -> Arc<[u8]> {
    let mut bytes = Vec::with_capacity(frame::MAX_SERVER_HEADER + deflated.len());
    frame::encode(&mut bytes, opcode, true, true, deflated);
    bytes.into()
}

impl Reactor {
    /// Keeps a message for many connections until something else is asked for, or the turn's writing begins: the next
    /// one may be for the same, and each of them is then visited once for both.
    pub(crate) fn gather(&mut self, topic: Option<&str>, opcode: DataOpcode, payload: &[u8], exclude: &[Fd]) {
        if !self.gathered.takes(topic, payload, exclude) {
            self.settle();
            self.gathered.begin(topic, exclude);
        }
        self.gathered.push(opcode, payload);
    }

    /// Queues the messages that have been gathered, or has them delivered in slices if they are for a crowd. Whatever
    /// they could be told apart from comes after this: another message, a subscription, a connection that opens.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if !self.gathered.is_empty() {
            self.fan_out(None);
        }
    }

    /// As [`Reactor::settle`], before something is done with the connection `key`: all that was published or broadcast
    /// until now is queued for it.
    #[inline]
    pub(crate) fn settle_for(&mut self, key: usize) {
        self.settle();
        if !self.backlog.is_empty() {
            self.catch_up(key);
        }
    }

    /// As [`Reactor::settle_for`] for the open connection `fd`; its key, if it is still open after that.
    #[inline]
    pub(crate) fn settled_key(&mut self, fd: Fd) -> Option<usize> {
        self.settle();
        let key = self.open_key(fd)?;
        if self.backlog.is_empty() {
            return Some(key);
        }
        self.catch_up(key);
        self.open_key(fd)
    }

    /// Delivers the messages that have been gathered; without a `slice` they are only queued. What the slice is too
    /// short for goes to the backlog, and so does what is for a crowd where there is no slice.
    pub(crate) fn fan_out(&mut self, mut slice: Option<&mut Slice>) {
        let gathered = std::mem::take(&mut self.gathered);
        let audience = match gathered.topic().map(|topic| self.topics.find(topic)) {
            None => Some(Audience::Everyone),
            Some(Some(id)) => Some(Audience::Topic(id)),
            Some(None) => None,
        };
        let Some(audience) = audience else {
            self.take_back(gathered);
            return;
        };
        let most = match audience {
            Audience::Everyone => self.connections.capacity(),
            Audience::Topic(id) => self.topics.size(id),
        };
        let mut waiting = Waiting::new(audience, most, gathered.into_messages());
        let is_crowd = most > self.backlog.few;
        if is_crowd && (slice.is_none() || !self.backlog.is_empty()) {
            self.add_to_backlog(waiting);
            return;
        }
        while let Some(key) = waiting.next(&self.topics) {
            let key = key as usize;
            let Some(connection) = self.connections.get(key).filter(|connection| connection.open) else { continue };
            let is_excluded = waiting.excludes(connection.fd);
            if !self.backlog.is_empty() {
                // Also one that is excluded: all that have been visited must have been caught up.
                self.catch_up(key);
            }
            if is_excluded {
                continue;
            }
            let messages = &mut waiting.messages;
            if !(slice.is_some() && self.write_through(key, messages)) {
                self.deliver(key, messages);
            }
            if slice.as_mut().is_some_and(|slice| slice.is_over()) {
                self.backlog.suspend(waiting, &self.topics);
                return;
            }
        }
        let gathered = waiting.messages.finish(&mut self.tools.pool);
        self.take_back(gathered);
    }

    /// Forgets gathered messages, and uses their memory for the next ones.
    fn take_back(&mut self, mut gathered: Gathered) {
        gathered.clear();
        self.gathered = gathered;
    }

    /// Writes messages straight to the socket of a connection that has nothing queued, without compression and TLS:
    /// most are of this kind, and its outbox need not be touched. False: they are still to be delivered.
    pub(crate) fn write_through(&mut self, key: usize, messages: &mut Fanout) -> bool {
        let connection = &mut self.connections[key];
        let may_wait = messages.bytes() <= self.settings.send_queue_size;
        let is_plain = connection.window_bits.is_none() && connection.tls.is_none();
        let has_nothing = connection.outbox.is_empty() && connection.fragmented.is_none() && !connection.blocked;
        let Some(socket) = connection.socket.as_ref().filter(|_| may_wait && is_plain && has_nothing) else {
            return false;
        };
        let (count, bytes) = (messages.len(), messages.bytes());
        let frames = messages.together();
        // An error will come again where errors are dealt with.
        let Ok(written) = Raw(socket).write(frames) else { return false };
        self.shared.count_out(connection.row, count, bytes);
        if written < frames.len() {
            connection.progress_at = self.clock.now;
            connection.outbox.share_rest(frames, written);
            self.queued(key);
        }
        true
    }

    pub(crate) fn deliver(&mut self, key: usize, messages: &mut Fanout) {
        let connection = &mut self.connections[key];
        let window = connection.window_bits;
        let has_room = connection.cost() + messages.bytes() <= self.settings.send_queue_size;
        if !(connection.open && connection.fragmented.is_none() && window.is_none() && has_room) {
            for index in 0..messages.len() {
                self.deliver_one(key, index, messages);
            }
            return;
        }
        connection.outbox.share(&mut self.tools.pool, messages.together());
        self.shared.count_out(connection.row, messages.len(), messages.bytes());
        self.queued(key);
    }

    /// Delivers message number `index` alone: its connection is compressed, or takes some of the messages at most.
    fn deliver_one(&mut self, key: usize, index: usize, messages: &mut Fanout) {
        let (opcode, payload) = messages.get(index);
        match &self.connections[key] {
            connection if !connection.open => return,
            Connection { fragmented: Some(fragmented), .. } => {
                if fragmented.closing.is_none() {
                    self.defer(key, opcode, true, payload);
                }
                return;
            }
            _ => {}
        }
        let length = payload.len();
        if !self.make_room(key, length, Counted::Everything) {
            return;
        }
        let connection = &mut self.connections[key];
        let tools = &mut self.tools;
        let frame = match connection.window_bits {
            Some(bits) if length >= self.settings.compression_threshold => {
                messages.compressed(index, bits, &mut tools.deflater)
            }
            _ => messages.plain(index),
        };
        connection.outbox.share(&mut tools.pool, frame);
        self.shared.count_out(connection.row, 1, length);
        self.queued(key);
    }
}
