//! The sending half of one server-side connection after its handshake: messages in, bytes out.
//!
//! This file knows what may follow what: the fragments of a message come one after the other, with nothing but control
//! frames between them (RFC 6455 §5.4), and nothing comes after Close (§5.5.1). The contents of a frame are the
//! business of [`frame`].

use std::fmt;

use crate::deflate::{Deflater, Parameters};
use crate::error::may_be_sent;
use crate::frame::{self, DataOpcode, Fin, FirstByte, MAX_CONTROL_PAYLOAD, Opcode};
use crate::receiver::Receiver;

/// The state after the frames that have been sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Only whole messages were sent. The next one may begin.
    Ready,
    /// A binary message has begun.
    Binary,
    /// A text message has begun, and its last fragment so far ends with this part of a character.
    Text(Unfinished),
    /// Close was sent, or this is not a WebSocket.
    Closed,
}

/// The sending half of a connection: plain data, with which another process could continue. It holds no memory beyond
/// its own size.
///
/// Every method that appends to `out` either appends whole frames or, with an error, nothing.
#[derive(Clone, Debug)]
pub struct Sender {
    state: State,
    /// The window that messages are compressed with, if that was agreed.
    window_bits: Option<u8>,
}

/// Why something may not be sent. Nothing was appended, and nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// Our Close has been sent, and nothing may follow it (RFC 6455 §5.5.1).
    Closed,
    /// A message is still being sent in fragments, and another may not begin before its end (RFC 6455 §5.4).
    Unfinished,
    /// No message has begun that could be continued.
    NothingToContinue,
    /// A text message would not be UTF-8 (RFC 6455 §5.6), or would end in the middle of a character.
    NotUtf8,
    /// The payload of a control frame has more than 125 bytes (RFC 6455 §5.5).
    ControlTooLong,
    /// A close code that may not be sent (RFC 6455 §7.4).
    CloseCode,
}

impl fmt::Display for SendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Closed => "nothing may be sent after Close",
            Self::Unfinished => "another message is not finished",
            Self::NothingToContinue => "there is no message to continue",
            Self::NotUtf8 => "text that is not UTF-8",
            Self::ControlTooLong => "the payload of a control frame has more than 125 bytes",
            Self::CloseCode => "a close code that may not be sent",
        })
    }
}

impl std::error::Error for SendError {}

/// A control frame other than Close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// To be answered with a pong with the same payload.
    Ping,
    /// The answer to a ping, or unsolicited.
    Pong,
}

/// How messages are compressed for connections that have agreed to it.
pub struct Compressor<'a> {
    /// Compresses for any number of connections, one after another.
    pub deflater: &'a mut Deflater,
    /// Messages of fewer bytes are not compressed.
    pub threshold: usize,
}

impl Sender {
    /// The sender of a connection that has just completed its handshake; `compression` is what was agreed there.
    pub fn new(compression: Option<Parameters>) -> Self {
        Self { state: State::Ready, window_bits: compression.map(|parameters| parameters.server_max_window_bits) }
    }

    /// The sender of a connection that is no WebSocket, or not yet: it sends nothing.
    pub const fn closed() -> Self {
        Self { state: State::Closed, window_bits: None }
    }

    /// The window that messages are compressed with, if that was agreed.
    #[inline]
    pub fn window_bits(&self) -> Option<u8> {
        self.window_bits
    }

    /// Whether a message may begin. If so, frames of whole messages that were encoded elsewhere may be sent too.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether a message is being sent in fragments, and has not ended.
    #[inline]
    pub fn is_mid_message(&self) -> bool {
        matches!(self.state, State::Binary | State::Text(_))
    }

    /// Whether our Close has been sent: nothing more may be.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Appends a whole message, compressed if that was agreed and makes it shorter.
    ///
    /// The caller knows that the payload of a text message is UTF-8: it is not checked.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`], [`SendError::Unfinished`]; [`SendError::NothingToContinue`] for a continuation.
    #[inline]
    pub fn message(
        &mut self,
        opcode: DataOpcode,
        payload: &[u8],
        compressor: Compressor<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        if self.state != State::Ready || opcode == DataOpcode::Continuation {
            return Err(self.why_not(opcode));
        }
        let first = FirstByte::whole(opcode.into());
        if let Some(bits) = self.window_bits
            && payload.len() >= compressor.threshold
            && let Some(deflated) = compressor.deflater.shorter(payload, bits)
        {
            frame::encode(out, first.compressed(), deflated);
        } else {
            frame::encode(out, first, payload);
        }
        Ok(())
    }

    /// Appends a fragment of a message: its first with the opcode of the message, the others as continuations (RFC 6455
    /// §5.4). Fragments are not compressed.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`], [`SendError::Unfinished`], [`SendError::NothingToContinue`], [`SendError::NotUtf8`].
    pub fn fragment(
        &mut self,
        opcode: DataOpcode,
        fin: Fin,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let next = self.after(opcode, fin, payload)?;
        frame::encode(out, FirstByte::fragment(opcode, fin), payload);
        self.state = next;
        Ok(())
    }

    /// Whether this fragment may be sent now, as [`Sender::fragment`] would answer.
    ///
    /// # Errors
    ///
    /// Those of [`Sender::fragment`].
    pub fn check_fragment(&self, opcode: DataOpcode, fin: Fin, payload: &[u8]) -> Result<(), SendError> {
        self.after(opcode, fin, payload).map(drop)
    }

    /// Appends a ping or pong. Both may be sent between the fragments of a message (RFC 6455 §5.4).
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`], [`SendError::ControlTooLong`].
    pub fn control(&mut self, control: Control, payload: &[u8], out: &mut Vec<u8>) -> Result<(), SendError> {
        if self.state == State::Closed {
            return Err(SendError::Closed);
        }
        if payload.len() > MAX_CONTROL_PAYLOAD {
            return Err(SendError::ControlTooLong);
        }
        let opcode = match control {
            Control::Ping => Opcode::Ping,
            Control::Pong => Opcode::Pong,
        };
        frame::encode(out, FirstByte::whole(opcode), payload);
        Ok(())
    }

    /// Appends Close, our half of the closing handshake, even in the middle of a message. From here on the connection's
    /// `receiver` waits only for the peer's half.
    ///
    /// `None` sends an empty frame, without the reason. A reason of more than 123 bytes is cut.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`]; [`SendError::CloseCode`] for a code that may not be sent (see [`may_be_sent`]).
    pub fn close(
        &mut self,
        receiver: &mut Receiver,
        code: Option<u16>,
        reason: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        if self.state == State::Closed {
            return Err(SendError::Closed);
        }
        if !code.is_none_or(may_be_sent) {
            return Err(SendError::CloseCode);
        }
        frame::encode_close(out, code, reason);
        self.state = State::Closed;
        receiver.our_close_was_sent();
        Ok(())
    }

    /// Why a message with this opcode may not begin.
    #[cold]
    fn why_not(&self, opcode: DataOpcode) -> SendError {
        match self.state {
            State::Closed => SendError::Closed,
            State::Ready => SendError::NothingToContinue,
            State::Binary | State::Text(_) if opcode == DataOpcode::Continuation => SendError::NothingToContinue,
            State::Binary | State::Text(_) => SendError::Unfinished,
        }
    }

    /// The state after a fragment, if it may be sent now.
    fn after(&self, opcode: DataOpcode, fin: Fin, payload: &[u8]) -> Result<State, SendError> {
        let is_continuation = opcode == DataOpcode::Continuation;
        let unfinished = match self.state {
            State::Closed => return Err(SendError::Closed),
            State::Ready if is_continuation => return Err(SendError::NothingToContinue),
            State::Ready => (opcode == DataOpcode::Text).then_some(Unfinished::NONE),
            State::Binary | State::Text(_) if !is_continuation => return Err(SendError::Unfinished),
            State::Binary => None,
            State::Text(unfinished) => Some(unfinished),
        };
        let unfinished = unfinished.map(|unfinished| unfinished.then(payload)).transpose()?;
        Ok(match (fin, unfinished) {
            (Fin::Last, Some(unfinished)) if !unfinished.is_empty() => return Err(SendError::NotUtf8),
            (Fin::Last, _) => State::Ready,
            (Fin::More, Some(unfinished)) => State::Text(unfinished),
            (Fin::More, None) => State::Binary,
        })
    }
}

/// The longest part of a character in UTF-8 that is not a whole one, in bytes.
const MAX_UNFINISHED: usize = 3;

/// The beginning of a character in UTF-8, whose end is in the next fragment. Empty between two characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Unfinished {
    bytes: [u8; MAX_UNFINISHED],
    length: u8,
}

impl Unfinished {
    const NONE: Self = Self { bytes: [0; MAX_UNFINISHED], length: 0 };

    fn is_empty(self) -> bool {
        self.length == 0
    }

    /// What is unfinished after `text`, which continues this.
    fn then(self, text: &[u8]) -> Result<Self, SendError> {
        let length = usize::from(self.length);
        if length == 0 {
            return Self::end_of(text);
        }
        let mut character = [0; MAX_UNFINISHED + 1];
        character[..length].copy_from_slice(&self.bytes[..length]);
        let mut unfinished = self;
        for (used, byte) in text.iter().enumerate().take(character.len() - length) {
            character[length + used] = *byte;
            unfinished = Self::end_of(&character[..=length + used])?;
            if unfinished.is_empty() {
                return Self::end_of(&text[used + 1..]);
            }
        }
        Ok(unfinished)
    }

    /// What is unfinished at the end of `text`, which begins with a character.
    fn end_of(text: &[u8]) -> Result<Self, SendError> {
        let end = match simdutf8::compat::from_utf8(text) {
            Ok(_) => return Ok(Self::NONE),
            Err(error) if error.error_len().is_none() => &text[error.valid_up_to()..],
            Err(_) => return Err(SendError::NotUtf8),
        };
        let mut bytes = [0; MAX_UNFINISHED];
        bytes[..end.len()].copy_from_slice(end);
        Ok(Self { bytes, length: end.len() as u8 })
    }
}
