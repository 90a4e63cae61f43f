//! The frame codec (RFC 6455 §5.2): the contents of one frame's header, and nothing about how frames follow each other.

use crate::error::Error;

/// The largest payload of a control frame, in bytes (RFC 6455 §5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// The longest reason of a Close frame, in bytes: its code takes two (RFC 6455 §5.5.1).
pub const MAX_CLOSE_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

/// The longest header of a server's frame, in bytes: two and a 64-bit length, without a masking
/// key.
pub const MAX_SERVER_HEADER: usize = 10;

/// A length up to this is stored in the second byte itself.
const MAX_INLINE_LENGTH: usize = 125;
const FIN: u8 = 0b1000_0000;
const RSV1: u8 = 0b0100_0000;
const RSV2_AND_RSV3: u8 = 0b0011_0000;
const MASKED: u8 = 0b1000_0000;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// The kind of a frame (RFC 6455 §5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Opcode {
    /// Another fragment of the current message.
    Continuation = 0,
    /// The first frame of a text message.
    Text = 1,
    /// The first frame of a binary message.
    Binary = 2,
    /// One half of the closing handshake.
    Close = 8,
    /// To be answered with a pong with the same payload.
    Ping = 9,
    /// The answer to a ping, or unsolicited.
    Pong = 10,
}

impl Opcode {
    /// Close, ping and pong: never fragmented, and allowed between the fragments of a message (RFC
    /// 6455 §5.5).
    #[inline]
    pub const fn is_control(self) -> bool {
        is_control(self as u8)
    }

    /// The opcode in the lower four bits of a frame's first byte.
    ///
    /// # Errors
    /// 1002 for a reserved opcode.
    #[inline]
    pub fn from_bits(bits: u8) -> Result<Self, Error> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return Err(Error::protocol("reserved opcode")),
        })
    }
}

/// Whether a frame with this first byte is a control frame.
#[inline]
pub const fn is_control(first_byte: u8) -> bool {
    first_byte & 0b1000 != 0
}

/// The opcodes of data frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DataOpcode {
    /// The next fragment of the current message.
    Continuation = Opcode::Continuation as u8,
    /// UTF-8 text.
    Text = Opcode::Text as u8,
    /// Bytes.
    Binary = Opcode::Binary as u8,
}

impl DataOpcode {
    /// Its four bits in a frame's header.
    #[inline]
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// The data opcode with these four bits; `None` if they belong to no data frame.
    #[inline]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Continuation, Self::Text, Self::Binary].get(usize::from(byte)).copied()
    }
}

impl From<DataOpcode> for Opcode {
    fn from(opcode: DataOpcode) -> Self {
        match opcode {
            DataOpcode::Continuation => Self::Continuation,
            DataOpcode::Text => Self::Text,
            DataOpcode::Binary => Self::Binary,
        }
    }
}

/// Whether a frame is the last of its message: the FIN bit (RFC 6455 §5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fin {
    /// Another fragment follows.
    More = 0,
    /// The message ends here.
    Last = 1,
}

/// The first byte of a server's frame: its opcode, and which part of its message it carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FirstByte(u8);

impl FirstByte {
    /// Of a frame that is a whole message, or a control frame.
    #[inline]
    pub const fn whole(opcode: Opcode) -> Self {
        Self(opcode as u8 | FIN)
    }

    /// Of a fragment of a message.
    #[inline]
    pub const fn fragment(opcode: DataOpcode, fin: Fin) -> Self {
        match fin {
            Fin::More => Self(opcode as u8),
            Fin::Last => Self(opcode as u8 | FIN),
        }
    }

    /// The same, of a compressed message's first frame (RFC 7692 §6).
    #[inline]
    pub const fn compressed(self) -> Self {
        Self(self.0 | RSV1)
    }
}

/// The header of a client's frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Whether this is the last frame of its message.
    pub fin: bool,
    /// The bit that permessage-deflate sets on a compressed message's first frame (RFC 7692 §6).
    pub rsv1: bool,
    /// The kind of the frame.
    pub opcode: Opcode,
    /// The masking key.
    pub mask: [u8; 4],
    /// The length of the payload, in bytes, as the peer claims.
    pub payload_len: u64,
    /// The length of the header itself, in bytes.
    pub header_len: usize,
}

/// Decodes a client's frame header from the front of `bytes`; `Ok(None)` if more bytes are needed.
///
/// # Errors
///
/// 1002 as soon as the bytes show it: RSV2 or RSV3 set, an unknown opcode, a frame that is not masked (RFC 6455 §5.1),
/// a length that is not in its shortest form or has its top bit set (§5.2), a control frame that is fragmented or
/// longer than 125 bytes (§5.5).
#[inline]
pub fn decode(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    if first & RSV2_AND_RSV3 != 0 {
        return Err(Error::protocol("reserved bits set"));
    }
    let opcode = Opcode::from_bits(first & 0b1111)?;
    let fin = first & FIN != 0;
    if opcode.is_control() && !fin {
        return Err(Error::protocol("fragmented control frame"));
    }
    let Some(&second) = bytes.get(1) else {
        return Ok(None);
    };
    if second & MASKED == 0 {
        return Err(Error::protocol("frame not masked"));
    }
    let length = second & !MASKED;
    if opcode.is_control() && length > MAX_CONTROL_PAYLOAD as u8 {
        return Err(Error::protocol("control frame too long"));
    }
    let (payload_len, mask_at) = match length {
        LENGTH_16 => {
            let Some(field) = bytes[2..].first_chunk() else {
                return Ok(None);
            };
            let length = u16::from_be_bytes(*field);
            if usize::from(length) <= MAX_INLINE_LENGTH {
                return Err(Error::protocol("length not in its shortest form"));
            }
            (u64::from(length), 4)
        }
        LENGTH_64 => {
            let Some(field) = bytes[2..].first_chunk() else {
                return Ok(None);
            };
            let length = u64::from_be_bytes(*field);
            if length <= u64::from(u16::MAX) {
                return Err(Error::protocol("length not in its shortest form"));
            }
            if length > i64::MAX as u64 {
                return Err(Error::protocol("length with its top bit set"));
            }
            (length, 10)
        }
        length => (u64::from(length), 2),
    };
    let Some(&mask) = bytes[mask_at..].first_chunk() else {
        return Ok(None);
    };
    Ok(Some(Header { fin, rsv1: first & RSV1 != 0, opcode, mask, payload_len, header_len: mask_at + mask.len() }))
}

/// Appends the header of a server's frame, which is never masked (RFC 6455 §5.1).
///
/// The payload of a control frame must have at most 125 bytes.
#[inline(always)]
pub fn encode_header(out: &mut Vec<u8>, FirstByte(first): FirstByte, payload_len: usize) {
    debug_assert!(!is_control(first) || payload_len <= MAX_CONTROL_PAYLOAD);
    if payload_len <= MAX_INLINE_LENGTH {
        out.extend_from_slice(&[first, payload_len as u8]);
    } else if let Ok(length) = u16::try_from(payload_len) {
        let [high, low] = length.to_be_bytes();
        out.extend_from_slice(&[first, LENGTH_16, high, low]);
    } else {
        out.extend_from_slice(&[first, LENGTH_64]);
        out.extend_from_slice(&(payload_len as u64).to_be_bytes());
    }
}

/// Appends a server's whole frame, with the rules of [`encode_header`].
#[inline(always)]
pub fn encode(out: &mut Vec<u8>, first: FirstByte, payload: &[u8]) {
    out.reserve(MAX_SERVER_HEADER + payload.len());
    encode_header(out, first, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a Close frame (RFC 6455 §5.5.1).
///
/// Without a code the payload is empty, and `reason` is left out. A reason of more than 123 bytes is cut between two
/// characters.
pub fn encode_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    let first = FirstByte::whole(Opcode::Close);
    let Some(code) = code else {
        return encode(out, first, &[]);
    };
    let code = code.to_be_bytes();
    let reason = cut(reason, MAX_CLOSE_REASON);
    encode_header(out, first, code.len() + reason.len());
    out.extend_from_slice(&code);
    out.extend_from_slice(reason.as_bytes());
}

/// The longest prefix of `text` that has at most `limit` bytes and ends between two characters.
fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rfind(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

/// The whole length (header and payload) of the server's frame at the start of `bytes`; `None` if the header is
/// incomplete.
pub fn server_frame_len(bytes: &[u8]) -> Option<usize> {
    match *bytes.get(1)? {
        LENGTH_16 => bytes[2..].first_chunk().map(|field| 4 + usize::from(u16::from_be_bytes(*field))),
        LENGTH_64 => bytes[2..].first_chunk().map(|field| 10 + u64::from_be_bytes(*field) as usize),
        length => Some(2 + usize::from(length)),
    }
}
