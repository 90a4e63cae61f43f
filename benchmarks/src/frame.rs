//! The layout of a frame (RFC 6455 §5.2), for peers that are trusted to keep to it.

/// A text frame.
pub const TEXT: u8 = 0x1;
/// A close frame.
pub const CLOSE: u8 = 0x8;
/// A ping frame.
pub const PING: u8 = 0x9;
/// A pong frame.
pub const PONG: u8 = 0xA;

const FIN: u8 = 0x80;
/// RSV1: the payload is compressed (RFC 7692 §6).
const COMPRESSED: u8 = 0x40;
const MASKED: u8 = 0x80;

/// One whole frame at the start of some input.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The opcode, without the FIN and reserved bits.
    pub opcode: u8,
    /// Whether the payload is compressed.
    pub compressed: bool,
    /// The masking key, in frames from a client.
    pub key: Option<[u8; 4]>,
    /// The payload as it was sent: still masked, if there is a key.
    pub payload: &'a [u8],
    /// Bytes of the whole frame, header included.
    pub size: usize,
}

/// The frame at the start of `input`, or `None` while more bytes are needed.
pub fn parse(input: &[u8]) -> Option<Frame<'_>> {
    let [first, second] = *input.first_chunk()?;
    let (length, mut header) = match second & !MASKED {
        126 => (u16::from_be_bytes(*input[2..].first_chunk()?) as usize, 4),
        127 => (u64::from_be_bytes(*input[2..].first_chunk()?) as usize, 10),
        short => (usize::from(short), 2),
    };
    let key = if second & MASKED != 0 {
        let key = *input[header..].first_chunk()?;
        header += 4;
        Some(key)
    } else {
        None
    };
    let size = header + length;
    let payload = input.get(header..size)?;
    Some(Frame { opcode: first & 0xF, compressed: first & COMPRESSED != 0, key, payload, size })
}

/// Appends an unfragmented frame, masked if there is a key.
pub fn append(out: &mut Vec<u8>, opcode: u8, key: Option<[u8; 4]>, payload: &[u8]) {
    append_header(out, opcode, key, payload.len());
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut out[start..], key);
    }
}

/// Appends a client's frame as a server's: the same opcode and payload, unmasked.
pub fn append_unmasked(out: &mut Vec<u8>, frame: &Frame<'_>) {
    append(out, frame.opcode, None, frame.payload);
    let start = out.len() - frame.payload.len();
    mask(&mut out[start..], frame.key.unwrap_or_default());
}

/// Masks or unmasks in place (RFC 6455 §5.3), from the start of a payload.
pub fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(key)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

fn append_header(out: &mut Vec<u8>, opcode: u8, key: Option<[u8; 4]>, length: usize) {
    let masked = if key.is_some() { MASKED } else { 0 };
    out.push(FIN | opcode);
    match length {
        0..126 => out.push(masked | length as u8),
        126..0x1_0000 => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(key.as_ref().map_or(&[], |key| key.as_slice()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_parsed_as_it_was_appended() {
        for length in [0, 1, 7, 125, 126, 0xFFFF, 0x1_0000] {
            for key in [None, Some([1, 2, 3, 4])] {
                let payload = vec![b'x'; length];
                let mut bytes = Vec::new();
                append(&mut bytes, TEXT, key, &payload);

                assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
                let frame = parse(&bytes).expect("a whole frame");
                assert_eq!((frame.opcode, frame.size, frame.key), (TEXT, bytes.len(), key));

                let mut unmasked = Vec::new();
                append_unmasked(&mut unmasked, &frame);
                assert!(unmasked.ends_with(&payload));
            }
        }
    }
}
