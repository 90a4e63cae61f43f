//! The receiving half of one server-side connection after its handshake: bytes in, events out.
//!
//! This file knows which frames may follow which. The contents of a frame are the business of [`frame`]; what becomes
//! of a message's payload is that of the module `message`.

use std::mem;

use crate::deflate::{Inflater, Parameters};
use crate::error::{Error, may_be_sent};
use crate::event::Event;
use crate::frame::{self, Header, Opcode};
use crate::mask::unmask;
use crate::message::{Format, Kind, Message};

/// The state of the receiving half: what may still come from the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Incoming {
    /// Frames, its Close being one of them.
    Frames,
    /// Its Close. Our own has been sent, and everything before the peer's is discarded.
    OnlyClose,
    /// Nothing: its Close has arrived, and what follows is ignored (RFC 6455 §5.5.1).
    Closed,
    /// Nothing that we would read: the peer broke the protocol (RFC 6455 §7.1.7).
    Broken,
}

/// The receiving half of a connection: plain data, with which another process could continue.
///
/// While idle, it holds no memory beyond its own size.
#[derive(Debug)]
pub struct Receiver {
    reader: Reader,
    incoming: Incoming,
}

impl Receiver {
    /// The receiver of a connection that has just completed its handshake; `compression` is what was agreed there.
    pub fn new(compression: Option<Parameters>) -> Self {
        let reader = Reader { message: None, frame: None, compression, progress: 0 };
        Self { reader, incoming: Incoming::Frames }
    }

    /// Takes bytes from the front of `input`. Returns how many were taken, and the next event if one is complete.
    ///
    /// `Ok(None)` means that everything that could be taken was taken. The rest is the start of a frame header or of a
    /// control frame, at most 130 bytes, and has to be passed again with more bytes after it. The bytes taken are
    /// overwritten.
    ///
    /// A message that lies in `input` as one uncompressed frame is handed out from there without a copy. The payload of
    /// any other message is gathered as it arrives, at most `max_message_size` bytes of it (slightly more for a
    /// compressed one), and freed by the next call. A compressed message is inflated by `inflater` at its end.
    ///
    /// After our Close, everything except the peer's Close is discarded; after the peer's Close, or an error,
    /// everything.
    ///
    /// # Errors
    ///
    /// What the connection has to be failed with (RFC 6455 §7.1.7): 1002 for a frame that breaks the rules or is not
    /// allowed at this point; 1007 for text that is not UTF-8, even in the middle of a frame, and for data that cannot
    /// be inflated; 1009 as soon as a message claims, or inflates to, more than `max_message_size` bytes.
    // Every message comes through here. A server that calls this from two places still wants no call in either.
    #[inline(always)]
    pub fn receive<'a>(
        &'a mut self,
        input: &'a mut [u8],
        max_message_size: usize,
        inflater: &'a mut Inflater,
    ) -> (usize, Result<Option<Event<'a>>, Error>) {
        let mut input = Input { rest: input, taken: 0 };
        let outcome = match self.incoming {
            Incoming::Frames => self.reader.next_event(&mut input, max_message_size, inflater),
            Incoming::OnlyClose => self.reader.next_close(&mut input),
            Incoming::Closed | Incoming::Broken => return (input.rest.len(), Ok(None)),
        };
        match outcome {
            Ok(Some(Event::Close { .. })) => self.incoming = Incoming::Closed,
            Ok(_) => {}
            Err(_) => self.incoming = Incoming::Broken,
        }
        (input.taken, outcome)
    }

    /// Whether a data frame has begun and is incomplete. In the middle of it a peer cannot send a pong (RFC 6455 §5.4).
    pub fn is_mid_frame(&self) -> bool {
        self.reader.frame.is_some()
    }

    /// Whether a data message has begun and is incomplete: one of its frames is arriving, or its last fragment has not
    /// arrived.
    pub fn is_mid_message(&self) -> bool {
        self.reader.message.as_ref().is_some_and(|message| !message.is_complete())
    }

    /// Changes whenever more of an unfinished message has arrived; while there is none, with every frame.
    pub fn progress(&self) -> u32 {
        self.reader.progress
    }

    /// Frees the memory of the message that was handed out last, which the next [`Receiver::receive`] would do too.
    pub fn free_handed_out(&mut self) {
        if self.reader.message.as_ref().is_some_and(Message::is_complete) {
            self.reader.message = None;
        }
    }

    /// Bytes of memory held for an incomplete message, or for the one handed out last.
    pub fn buffered(&self) -> usize {
        self.reader.message.as_ref().map_or(0, Message::capacity)
    }

    /// Whether neither side has sent Close, and the peer has kept to the protocol.
    pub fn is_open(&self) -> bool {
        self.incoming == Incoming::Frames
    }

    /// Whether the peer's half of the closing handshake is done.
    pub fn close_received(&self) -> bool {
        self.incoming == Incoming::Closed
    }

    /// Called when our Close has been sent: what has arrived of a message is freed, and the next event is the peer's
    /// Close.
    pub(crate) fn our_close_was_sent(&mut self) {
        if self.incoming == Incoming::Frames {
            self.incoming = Incoming::OnlyClose;
        }
        self.reader.message = None;
    }
}

/// Input from the peer that has not been taken yet.
struct Input<'a> {
    rest: &'a mut [u8],
    taken: usize,
}

impl<'a> Input<'a> {
    #[inline]
    fn take(&mut self, length: usize) -> &'a mut [u8] {
        let (front, rest) = mem::take(&mut self.rest).split_at_mut(length);
        self.rest = rest;
        self.taken += length;
        front
    }

    /// Takes `length` bytes, or all of them if there are fewer.
    fn take_up_to(&mut self, length: u64) -> &'a mut [u8] {
        self.take(usize::try_from(length).map_or(self.rest.len(), |length| length.min(self.rest.len())))
    }

    /// Takes the frame that begins with `header` and returns its payload, unmasked. If the frame is incomplete, it
    /// takes nothing and returns `None`.
    #[inline(always)]
    fn take_frame(&mut self, header: &Header) -> Option<&'a mut [u8]> {
        let payload_len = usize::try_from(header.payload_len).ok()?;
        if self.rest.len() - header.header_len < payload_len {
            return None;
        }
        self.take(header.header_len);
        let payload = self.take(payload_len);
        unmask(payload, header.mask, 0);
        Some(payload)
    }
}

/// A data frame whose payload is arriving.
#[derive(Debug)]
struct PartialFrame {
    /// Bytes of payload yet to come.
    outstanding: u64,
    mask: [u8; 4],
    /// The position of the next byte in the masking key, 0 to 3.
    mask_offset: u8,
    fin: bool,
}

impl PartialFrame {
    fn new(header: &Header) -> Self {
        Self { outstanding: header.payload_len, mask: header.mask, mask_offset: 0, fin: header.fin }
    }

    /// Takes the payload that has arrived, and unmasks it.
    fn take_payload<'a>(&mut self, input: &mut Input<'a>) -> &'a mut [u8] {
        let payload = input.take_up_to(self.outstanding);
        unmask(payload, self.mask, usize::from(self.mask_offset));
        self.mask_offset = ((usize::from(self.mask_offset) + payload.len()) % self.mask.len()) as u8;
        self.outstanding -= payload.len() as u64;
        payload
    }
}

/// Assembles the peer's frames into events.
#[derive(Debug)]
struct Reader {
    /// The incomplete message, or the one that was just handed out.
    message: Option<Message>,
    /// The frame whose payload is arriving. It belongs to `message` or, after our Close, to nothing.
    frame: Option<PartialFrame>,
    compression: Option<Parameters>,
    /// See [`Receiver::progress`].
    progress: u32,
}

impl Reader {
    /// The next event while neither side has sent Close; see [`Receiver::receive`] for the rest.
    #[inline(always)]
    fn next_event<'a>(
        &'a mut self,
        input: &mut Input<'a>,
        max_message_size: usize,
        inflater: &'a mut Inflater,
    ) -> Result<Option<Event<'a>>, Error> {
        if self.message.as_ref().is_some_and(Message::is_complete) {
            self.message = None;
        }
        loop {
            if let (Some(frame), Some(message)) = (&mut self.frame, &mut self.message) {
                let payload = frame.take_payload(input);
                self.progress = self.progress.wrapping_add(u32::from(!payload.is_empty()));
                message.append(payload, frame.outstanding)?;
                if frame.outstanding > 0 {
                    return Ok(None);
                }
                let fin = frame.fin;
                self.frame = None;
                if fin {
                    break;
                }
            }
            let Some(header) = frame::decode(input.rest)? else {
                return Ok(None);
            };
            if header.opcode.is_control() {
                check_control(&header)?;
                let Some(payload) = input.take_frame(&header) else {
                    return Ok(None);
                };
                // Between the fragments of a message, a control frame is not progress of the message.
                if self.message.is_none() {
                    self.progress = self.progress.wrapping_add(1);
                }
                return control_event(header.opcode, payload).map(Some);
            }
            let format = self.check_data(&header, max_message_size)?;
            if header.fin
                && self.message.is_none()
                && let Some(payload) = input.take_frame(&header)
            {
                self.progress = self.progress.wrapping_add(1);
                return format.event(payload, max_message_size, inflater).map(Some);
            }
            input.take(header.header_len);
            self.progress = self.progress.wrapping_add(1);
            self.message.get_or_insert_with(|| Message::new(format));
            self.frame = Some(PartialFrame::new(&header));
        }
        self.message.as_mut().map(|message| message.finish(max_message_size, inflater)).transpose()
    }

    /// The peer's Close, once we have sent ours; everything before it is skipped.
    fn next_close<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<Event<'a>>, Error> {
        loop {
            if let Some(frame) = &mut self.frame {
                frame.take_payload(input);
                if frame.outstanding > 0 {
                    return Ok(None);
                }
                self.frame = None;
            }
            let Some(header) = frame::decode(input.rest)? else {
                return Ok(None);
            };
            if header.opcode.is_control() {
                check_control(&header)?;
                let Some(payload) = input.take_frame(&header) else {
                    return Ok(None);
                };
                if header.opcode == Opcode::Close {
                    return close_event(payload).map(Some);
                }
            } else {
                input.take(header.header_len);
                self.frame = Some(PartialFrame::new(&header));
            }
        }
    }

    /// Checks that this data frame is allowed here and its message is not too long. Returns how the message is to be
    /// read.
    #[inline]
    fn check_data(&self, header: &Header, max_message_size: usize) -> Result<Format, Error> {
        if header.rsv1 && (self.compression.is_none() || header.opcode == Opcode::Continuation) {
            // RFC 7692 §6: "An endpoint MUST NOT set the Per-Message Compressed bit of control frames and non-first
            // fragments of a data message."
            return Err(Error::protocol("RSV1 set"));
        }
        let (format, length_so_far) = match (header.opcode, &self.message) {
            (Opcode::Text, None) => (Format { kind: Kind::Text, compressed: header.rsv1 }, 0),
            (Opcode::Binary, None) => (Format { kind: Kind::Binary, compressed: header.rsv1 }, 0),
            (Opcode::Continuation, Some(message)) => (message.format(), message.len()),
            (Opcode::Continuation, None) => {
                return Err(Error::protocol("continuation without a message"));
            }
            _ => return Err(Error::protocol("new message within another")),
        };
        let room = format.max_payload(max_message_size).saturating_sub(length_so_far);
        if header.payload_len > room as u64 { Err(Error::too_big()) } else { Ok(format) }
    }
}

/// Control frames are never compressed (RFC 7692 §6).
fn check_control(header: &Header) -> Result<(), Error> {
    if header.rsv1 { Err(Error::protocol("RSV1 set on a control frame")) } else { Ok(()) }
}

fn control_event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Error> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(payload)),
        Opcode::Pong => Ok(Event::Pong(payload)),
        _ => close_event(payload),
    }
}

/// The event for the contents of a Close frame (RFC 6455 §5.5.1).
fn close_event(payload: &[u8]) -> Result<Event<'_>, Error> {
    match payload.split_first_chunk() {
        Some((&code, reason)) => {
            let code = u16::from_be_bytes(code);
            if !may_be_sent(code) {
                return Err(Error::protocol("invalid close code"));
            }
            let reason = str::from_utf8(reason).map_err(|_| Error::invalid_data("close reason not UTF-8"))?;
            Ok(Event::Close { code: Some(code), reason })
        }
        None if payload.is_empty() => Ok(Event::Close { code: None, reason: "" }),
        None => Err(Error::protocol("close code cut short")),
    }
}
