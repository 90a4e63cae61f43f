//! A connection's frames: however the network splits them, the events are the same and memory is bounded.
#![no_main]

#[path = "../../crates/wire/tests/peer/mod.rs"]
mod peer;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use peer::{Connection, Got, masked};
use wire::deflate::{Deflater, Parameters};
use wire::frame::Opcode;

#[derive(Arbitrary, Debug)]
struct Input {
    compression: bool,
    max_message_size: u16,
    sizes: Vec<u8>,
    pieces: Vec<Piece>,
}

/// The peer's input: mostly frames, so that the fuzzer gets past the header.
#[derive(Arbitrary, Debug)]
enum Piece {
    Frame { fin: bool, rsv1: bool, kind: u8, payload: Vec<u8> },
    Deflated { binary: bool, data: Vec<u8> },
    Text { fin: bool, text: String },
    Noise(Vec<u8>),
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Frame { fin, rsv1, kind, payload } => frame(*fin, *rsv1, opcode(*kind), payload),
            Self::Text { fin, text } => frame(*fin, false, Opcode::Text, text.as_bytes()),
            Self::Deflated { binary, data } => {
                let mut payload = Vec::new();
                Deflater::new().deflate(data, 15, &mut payload);
                let opcode = if *binary { Opcode::Binary } else { Opcode::Text };
                frame(true, true, opcode, &payload)
            }
            Self::Noise(bytes) => bytes.clone(),
        }
    }
}

/// A client's frame; a valid one if a server could not even encode the one requested.
fn frame(fin: bool, rsv1: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    if opcode.is_control() {
        masked(true, rsv1, opcode, &payload[..payload.len().min(125)])
    } else {
        masked(fin, rsv1, opcode, payload)
    }
}

fn opcode(kind: u8) -> Opcode {
    match kind % 8 {
        0 => Opcode::Text,
        1 => Opcode::Binary,
        2 => Opcode::Close,
        3 => Opcode::Ping,
        4 => Opcode::Pong,
        _ => Opcode::Continuation,
    }
}

fn receive_in_pieces(input: &Input, bytes: &[u8], sizes: &[usize]) -> Vec<Got> {
    let compression = input.compression.then_some(Parameters { server_max_window_bits: 15 });
    let mut connection = Connection::new(compression, input.max_message_size.into());
    let mut rest = bytes;
    let mut events = Vec::new();
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        events.extend(connection.receive(piece));
        rest = behind;
    }
    events
}

fuzz_target!(|input: Input| {
    let bytes: Vec<u8> = input.pieces.iter().flat_map(Piece::bytes).collect();
    let mut sizes: Vec<usize> = input.sizes.iter().map(|&size| usize::from(size) + 1).collect();
    sizes.push(1);
    let at_once = receive_in_pieces(&input, &bytes, &[usize::MAX]);
    assert_eq!(receive_in_pieces(&input, &bytes, &sizes), at_once);

    let most = usize::from(input.max_message_size);
    for event in at_once {
        match event {
            Got::Text(text) => assert!(text.len() <= most),
            Got::Binary(data) => assert!(data.len() <= most),
            Got::Ping(payload) | Got::Pong(payload) => assert!(payload.len() <= 125),
            Got::Close(_, reason) => assert!(reason.len() <= 123),
            Got::Failure(code) => assert!(matches!(code, 1002 | 1007 | 1009), "{code}"),
        }
    }
});
