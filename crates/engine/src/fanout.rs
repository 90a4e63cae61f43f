//! One message for many connections: encoded once, and compressed once for each window size in use.

use std::sync::Arc;

use wire::deflate::Deflater;
use wire::frame::{self, Opcode};

use crate::sending::DataOpcode;

/// Smallest window that permessage-deflate can be negotiated with here.
const FEWEST_WINDOW_BITS: u8 = 9;

/// A message, and its frames as they are asked for.
pub(crate) struct Fanout<'a> {
    opcode: Opcode,
    payload: &'a [u8],
    plain: Option<Arc<[u8]>>,
    compressed: [Option<Arc<[u8]>>; 7],
}

impl<'a> Fanout<'a> {
    pub(crate) fn new(opcode: Opcode, payload: &'a [u8]) -> Self {
        Self { opcode, payload, plain: None, compressed: [const { None }; 7] }
    }

    pub(crate) fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The frame for connections without compression.
    pub(crate) fn plain(&mut self) -> &Arc<[u8]> {
        self.plain.get_or_insert_with(|| encode(self.opcode, false, self.payload))
    }

    /// The frame for connections that inflate with a window of `window_bits`; the plain one where that is shorter.
    pub(crate) fn compressed(&mut self, window_bits: u8, deflater: &mut Deflater) -> &Arc<[u8]> {
        let index = usize::from(window_bits - FEWEST_WINDOW_BITS);
        if self.compressed[index].is_none() {
            let mut deflated = Vec::new();
            deflater.deflate(self.payload, window_bits, &mut deflated);
            self.compressed[index] = Some(if deflated.len() < self.payload.len() {
                encode(self.opcode, true, &deflated)
            } else {
                Arc::clone(self.plain())
            });
        }
        self.compressed[index].get_or_insert_with(|| unreachable!("filled above"))
    }
}

/// The frames of messages that go to the same connections, one behind the other.
pub(crate) fn together(messages: &[(DataOpcode, &[u8])]) -> Arc<[u8]> {
    let room = messages.iter().map(|(_, payload)| frame::MAX_SERVER_HEADER + payload.len()).sum();
    let mut bytes = Vec::with_capacity(room);
    for (opcode, payload) in messages {
        frame::encode(&mut bytes, (*opcode).into(), true, false, payload);
    }
    bytes.into()
}

fn encode(opcode: Opcode, compressed: bool, payload: &[u8]) -> Arc<[u8]> {
    let mut bytes = Vec::with_capacity(frame::MAX_SERVER_HEADER + payload.len());
    frame::encode(&mut bytes, opcode, true, compressed, payload);
    bytes.into()
}
