//! A connection to talk to, and the frames that a client sends it.

use wire::deflate::{Inflater, Parameters};
use wire::event::Event;
use wire::frame::{self, FirstByte, Opcode};
use wire::mask::unmask;
use wire::receiver::Receiver;

/// An event that has outlived its buffers, or the code of an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Failure(u16),
}

impl From<Event<'_>> for Got {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(data) => Self::Binary(data.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close { code, reason } => Self::Close(code, reason.to_owned()),
        }
    }
}

/// A server's connection, with the bytes that have arrived but have not been taken.
pub struct Connection {
    pub receiver: Receiver,
    pub inflater: Inflater,
    pub unread: Vec<u8>,
    max_message_size: usize,
}

impl Connection {
    pub fn new(compression: Option<Parameters>, max_message_size: usize) -> Self {
        Self { receiver: Receiver::new(compression), inflater: Inflater::new(), unread: Vec::new(), max_message_size }
    }

    /// What happens when `bytes` arrive at once; asserts that no more is kept than has arrived or is allowed.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<Got> {
        self.unread.extend_from_slice(bytes);
        let mut events = Vec::new();
        loop {
            let (taken, outcome) = self.receiver.receive(&mut self.unread, self.max_message_size, &mut self.inflater);
            let event = match outcome {
                Ok(event) => event.map(Got::from),
                Err(error) => Some(Got::Failure(error.code)),
            };
            self.unread.drain(..taken);
            let most_gathered = self.max_message_size + self.max_message_size / 8 + 64;
            assert!(self.receiver.buffered() <= most_gathered, "{}", self.receiver.buffered());
            match event {
                Some(event) => events.push(event),
                None => break,
            }
        }
        assert!(self.unread.len() <= 130, "{} bytes left", self.unread.len());
        events
    }
}

/// A client's frame, masked, with the given header bits.
pub fn masked(fin: bool, rsv1: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = Vec::new();
    frame::encode_header(&mut bytes, FirstByte::whole(opcode), payload.len());
    bytes[0] = opcode as u8 | if fin { 0x80 } else { 0 } | if rsv1 { 0x40 } else { 0 };
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&MASK);
    let payload_at = bytes.len();
    bytes.extend_from_slice(payload);
    unmask(&mut bytes[payload_at..], MASK, 0);
    bytes
}
