//! Messages for many connections: gathered as long as they are for the same ones, encoded once, and compressed once for
//! each window size in use.

use std::ops::Range;
use std::sync::Arc;

use wire::deflate::Deflater;
use wire::frame::{self, DataOpcode, FirstByte, Opcode};

use crate::registry::Fd;
use crate::topics::policy::{Policy, Provisional};

/// The smallest window that permessage-deflate can be negotiated with here.
const MIN_WINDOW_BITS: u8 = 9;
/// What a message takes of an outbox's limit, at most, in addition to its frame.
const MESSAGE_COST: usize = 64;
/// Bytes of frames that are gathered.
const MAX_GATHERED: usize = 32 * 1024;

/// Successive messages for the same connections.
#[derive(Default)]
pub(crate) struct Gathered {
    /// The topic whose subscribers they are for; `None` means everyone.
    topic: Option<String>,
    exclude: Vec<Fd>,
    /// `None` if the topic has none. A message that may be replaced or left out is gathered alone.
    policy: Option<Box<Policy>>,
    /// Their frames, uncompressed, one after another.
    frames: Vec<u8>,
    messages: Vec<Place>,
    /// Bytes of all payloads.
    bytes: usize,
}

/// Where a message lies in `Gathered::frames`.
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
            && !self.is_provisional()
            && self.exclude == exclude
            && self.frames.len() + payload.len() <= MAX_GATHERED
    }

    /// Starts over, for the subscribers of `topic` or for everyone.
    pub(crate) fn begin(&mut self, topic: Option<&str>, policy: Option<Box<Policy>>, exclude: &[Fd]) {
        self.policy = policy;
        match (&mut self.topic, topic) {
            (Some(before), Some(topic)) => topic.clone_into(before),
            _ => self.topic = topic.map(str::to_owned),
        }
        self.exclude.extend_from_slice(exclude);
    }

    pub(crate) fn push(&mut self, opcode: DataOpcode, payload: &[u8]) {
        let begin = self.frames.len();
        frame::encode(&mut self.frames, FirstByte::whole(opcode.into()), payload);
        let end = self.frames.len();
        self.messages.push(Place { opcode, frame: begin..end, payload: end - payload.len()..end });
        self.bytes += payload.len();
    }

    /// Adds a message that has no form, so that those after it have the numbers that they would have.
    pub(crate) fn push_missing(&mut self) {
        let end = self.frames.len();
        self.messages.push(Place { opcode: DataOpcode::Text, frame: end..end, payload: end..end });
    }

    pub(crate) fn topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    pub(crate) fn exclude(&self) -> &[Fd] {
        &self.exclude
    }

    fn is_provisional(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.is_provisional())
    }

    /// The messages in the form in which they are delivered to each connection.
    pub(crate) fn into_messages(self) -> Fanout {
        Fanout { gathered: self, together: None, alone: Vec::new(), provisional: Vec::new() }
    }

    /// Clears everything; memory of ordinary size is kept for reuse.
    pub(crate) fn clear(&mut self) {
        self.exclude.clear();
        self.policy = None;
        self.frames.clear();
        self.frames.shrink_to(2 * MAX_GATHERED);
        self.messages.clear();
        self.bytes = 0;
    }
}

/// Gathered messages, and their frames in the forms requested so far.
pub(crate) struct Fanout {
    gathered: Gathered,
    together: Option<Arc<[u8]>>,
    /// Empty until one is requested.
    alone: Vec<Alone>,
    /// The only message in the forms in which it was queued, if it may be replaced or left out.
    provisional: Vec<Arc<Provisional>>,
}

/// One message's frame.
#[derive(Clone, Default)]
struct Alone {
    plain: Option<Arc<[u8]>>,
    /// By window size.
    compressed: [Option<Arc<[u8]>>; 7],
}

impl Fanout {
    /// Ends the fan-out: passes each of its frames to `count`, once. Returns the gathered messages, which are to be
    /// cleared, so that their memory can be reused.
    pub(crate) fn finish(self, mut count: impl FnMut(&Arc<[u8]>)) -> Gathered {
        drop(self.provisional);
        self.together.iter().for_each(&mut count);
        for Alone { plain, compressed } in self.alone {
            for frame in compressed.into_iter().flatten() {
                // If it is the plain frame, it is counted as that.
                if !plain.as_ref().is_some_and(|plain| Arc::ptr_eq(plain, &frame)) {
                    count(&frame);
                }
            }
            plain.iter().for_each(&mut count);
        }
        self.gathered
    }

    pub(crate) fn gathered(&self) -> &Gathered {
        &self.gathered
    }

    /// What applies to the messages while they wait.
    pub(crate) fn policy(&self) -> Option<&Policy> {
        self.gathered.policy.as_deref()
    }

    /// Whether this is one message, which may be replaced or left out.
    #[inline]
    pub(crate) fn is_provisional(&self) -> bool {
        self.gathered.is_provisional()
    }

    /// The only message, for connections that inflate with a window of `window_bits`, or without compression.
    pub(crate) fn provisional(&mut self, window_bits: Option<u8>, deflater: &mut Deflater) -> &Arc<Provisional> {
        let frame = Arc::clone(match window_bits {
            Some(bits) => self.compressed(0, bits, deflater),
            None => self.together(),
        });
        let known = self.provisional.iter().position(|known| Arc::ptr_eq(&known.frame, &frame));
        let place = known.unwrap_or_else(|| {
            let (label, in_order, deadline) = match &self.gathered.policy {
                Some(policy) => (policy.label.clone(), policy.in_order, policy.deadline),
                None => (None, false, u64::MAX),
            };
            self.provisional.push(Arc::new(Provisional { frame, label, in_order, deadline }));
            self.provisional.len() - 1
        });
        &self.provisional[place]
    }

    /// The memory that this takes until it is delivered, roughly.
    pub(crate) fn cost(&self) -> usize {
        let Gathered { frames, messages, exclude, .. } = &self.gathered;
        // The frames exist twice once any connection has been reached, in one form or the other.
        2 * frames.len() + size_of_val(&messages[..]) + 2 * size_of_val(&exclude[..])
    }

    /// The number of messages.
    pub(crate) fn len(&self) -> usize {
        self.gathered.messages.len()
    }

    /// The most that the messages from number `first` on take of an outbox's limit.
    pub(crate) fn cost_from(&self, first: usize) -> usize {
        let Gathered { frames, messages, .. } = &self.gathered;
        messages
            .get(first)
            .map_or(0, |place| frames.len() - place.frame.start + (messages.len() - first) * MESSAGE_COST)
    }

    /// Whether this message has no form, so that it cannot be delivered.
    pub(crate) fn is_missing(&self, index: usize) -> bool {
        self.gathered.messages[index].frame.is_empty()
    }

    /// Bytes of all payloads.
    pub(crate) fn bytes(&self) -> usize {
        self.gathered.bytes
    }

    /// The opcode and payload of one message.
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

    /// The frame of one message, for connections that inflate with a window of `window_bits`; the plain frame if that
    /// is shorter.
    pub(crate) fn compressed(&mut self, index: usize, window_bits: u8, deflater: &mut Deflater) -> &Arc<[u8]> {
        let window = usize::from(window_bits - MIN_WINDOW_BITS);
        if self.alone(index).compressed[window].is_none() {
            let (opcode, payload) = self.get(index);
            let frame = match deflater.shorter(payload, window_bits) {
                Some(deflated) => encode(opcode.into(), deflated),
                None => Arc::clone(self.plain(index)),
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
    frame::encode(&mut bytes, FirstByte::whole(opcode).compressed(), deflated);
    bytes.into()
}
