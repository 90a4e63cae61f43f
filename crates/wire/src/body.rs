//! Request bodies: the bytes after a head in, the content out (RFC 9112 §6, §7.1).
//!
//! Only content that has arrived and the current line are kept: a length that a peer merely claims costs nothing. Where
//! RFC 9112 would let a server be lenient about chunks, this one is not: a proxy in front that reads a chunk's line
//! differently would see the next request begin elsewhere (RFC 9112 §11.2).

use crate::http::{BodyLength, Rejection, is_token_byte, valid_header_name, valid_header_value};

/// The longest line with a chunk's size, including its extensions; a longer one gets a 400.
pub const MAX_CHUNK_LINE: usize = 256;
/// Bytes of all chunk extensions and trailers of one body; more get a 431.
pub const MAX_EXTRAS: usize = 16 * 1024;

/// As many hexadecimal digits as a `u64` holds.
const MAX_SIZE_DIGITS: usize = 16;

const TOO_LARGE: Rejection = Rejection { status: 413, reason: "the request body is too large", headers: &[] };
const TOO_MANY_EXTRAS: Rejection =
    Rejection { status: 431, reason: "the chunk extensions and trailers are too large", headers: &[] };

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// This many bytes, the last of the body.
    Rest(u64),
    /// The line with a chunk's size.
    ChunkSize,
    /// This many bytes of a chunk.
    Chunk(u64),
    /// The empty line after a chunk's bytes.
    ChunkEnd,
    /// A trailer, or the empty line that ends them and the body.
    Trailer,
    /// Nothing: the body is complete.
    End,
}

/// Decodes one request's body.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    expected: Expected,
    limit: usize,
    /// Content that has arrived and not been taken.
    content: Vec<u8>,
    /// Bytes of all content that has arrived.
    total: u64,
    /// The part of a line that has arrived.
    line: Vec<u8>,
    extras: usize,
}

impl BodyDecoder {
    /// Creates a decoder for a body of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// 413 if `length` is greater than that.
    pub fn new(length: BodyLength, limit: usize) -> Result<Self, Rejection> {
        let expected = match length {
            BodyLength::None | BodyLength::Length(0) => Expected::End,
            BodyLength::Length(length) if length > limit as u64 => return Err(TOO_LARGE),
            BodyLength::Length(length) => Expected::Rest(length),
            BodyLength::Chunked => Expected::ChunkSize,
        };
        Ok(Self { expected, limit, content: Vec::new(), total: 0, line: Vec::new(), extras: 0 })
    }

    /// Whether the body is complete.
    pub fn is_complete(&self) -> bool {
        matches!(self.expected, Expected::End)
    }

    /// The content that has arrived so far, less what was taken.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Bytes of memory held for what has arrived.
    pub fn buffered(&self) -> usize {
        self.content.capacity() + self.line.capacity()
    }

    /// Returns the content that has arrived so far, less what was taken.
    pub fn into_content(self) -> Vec<u8> {
        self.content
    }

    /// Takes the content that has arrived since the last call.
    pub fn take_content(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.content)
    }

    /// Bytes still to come, if the peer has announced them.
    pub fn announced(&self) -> Option<u64> {
        match self.expected {
            Expected::Rest(left) => Some(left),
            Expected::End => Some(0),
            _ => None,
        }
    }

    /// Decodes the next bytes, and returns how many of them belong to the body: all of them, unless it ends among them
    /// ([`Self::is_complete`]).
    ///
    /// # Errors
    ///
    /// 400 for chunks that break the grammar (RFC 9112 §7.1), even where servers are often lenient: white space around
    /// a size or in an extension, a bare CR or LF, more than [`MAX_CHUNK_LINE`] bytes before a chunk. 413 for a chunk
    /// that makes the body too large, before its bytes have arrived. 431 for more than [`MAX_EXTRAS`] bytes of
    /// extensions and trailers. The decoder cannot be used afterwards.
    pub fn decode(&mut self, input: &[u8]) -> Result<usize, Rejection> {
        let mut rest = input;
        while !rest.is_empty() {
            match self.expected {
                Expected::End => break,
                Expected::Rest(left) => {
                    let left = self.receive_content(&mut rest, left);
                    self.expected = if left == 0 { Expected::End } else { Expected::Rest(left) };
                }
                Expected::Chunk(left) => {
                    let left = self.receive_content(&mut rest, left);
                    self.expected = if left == 0 { Expected::ChunkEnd } else { Expected::Chunk(left) };
                }
                Expected::ChunkSize | Expected::ChunkEnd | Expected::Trailer => self.take_line(&mut rest)?,
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Takes at most `left` bytes of content; returns how many are still to come.
    fn receive_content(&mut self, rest: &mut &[u8], left: u64) -> u64 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let (content, behind) = rest.split_at(count);
        self.content.extend_from_slice(content);
        self.total += count as u64;
        *rest = behind;
        left - count as u64
    }

    /// Takes as much of a line as has arrived, and handles the line once it is complete.
    fn take_line(&mut self, rest: &mut &[u8]) -> Result<(), Rejection> {
        let line_feed = rest.iter().position(|&byte| byte == b'\n');
        let (part, behind) = rest.split_at(line_feed.map_or(rest.len(), |index| index + 1));
        *rest = behind;
        if self.line.len() + part.len() > self.longest_line() {
            return Err(match self.expected {
                Expected::Trailer => TOO_MANY_EXTRAS,
                Expected::ChunkEnd => Rejection::bad_request("a chunk is longer than its size"),
                _ => Rejection::bad_request("the line with a chunk's size is too long"),
            });
        }
        self.line.extend_from_slice(part);
        if line_feed.is_none() {
            return Ok(());
        }
        let line = std::mem::take(&mut self.line);
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err(Rejection::bad_request("a line of a chunked body does not end in CRLF"));
        };
        self.expected = match self.expected {
            Expected::ChunkSize => self.chunk(line)?,
            // There was room only for its CRLF.
            Expected::ChunkEnd => Expected::ChunkSize,
            _ if line.is_empty() => Expected::End,
            _ => self.trailer(line)?,
        };
        Ok(())
    }

    /// The maximum length of the current line, including its end.
    fn longest_line(&self) -> usize {
        match self.expected {
            Expected::ChunkEnd => b"\r\n".len(),
            Expected::Trailer => MAX_EXTRAS - self.extras + b"\r\n".len(),
            _ => MAX_CHUNK_LINE,
        }
    }

    /// Reads `chunk-size [ chunk-ext ]` (RFC 9112 §7.1); the last chunk has the size 0.
    fn chunk(&mut self, line: &[u8]) -> Result<Expected, Rejection> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extensions) = line.split_at(digits);
        let size = str::from_utf8(size)
            .ok()
            .filter(|size| size.len() <= MAX_SIZE_DIGITS)
            .and_then(|size| u64::from_str_radix(size, 16).ok())
            .ok_or(Rejection::bad_request("invalid chunk size"))?;
        if !are_extensions(extensions) {
            return Err(Rejection::bad_request("invalid chunk extension"));
        }
        self.count_extras(extensions.len())?;
        if size > (self.limit as u64).saturating_sub(self.total) {
            return Err(TOO_LARGE);
        }
        Ok(if size == 0 { Expected::Trailer } else { Expected::Chunk(size) })
    }

    /// Checks a trailer like any header, and drops it: nothing asked for it (RFC 9112 §7.1.2).
    fn trailer(&mut self, line: &[u8]) -> Result<Expected, Rejection> {
        self.count_extras(line.len())?;
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or_default();
        let (name, value) = line.split_at(colon);
        if valid_header_name(name) && valid_header_value(value) {
            Ok(Expected::Trailer)
        } else {
            Err(Rejection::bad_request("invalid trailer"))
        }
    }

    fn count_extras(&mut self, length: usize) -> Result<(), Rejection> {
        self.extras += length;
        if self.extras > MAX_EXTRAS { Err(TOO_MANY_EXTRAS) } else { Ok(()) }
    }
}

/// Whether this is `*( ";" chunk-ext-name [ "=" chunk-ext-val ] )` (RFC 9112 §7.1.1), without the white space that only
/// badly behaved senders add.
fn are_extensions(mut bytes: &[u8]) -> bool {
    while let Some(extension) = bytes.strip_prefix(b";") {
        let (name, behind) = split_token(extension);
        if name.is_empty() {
            return false;
        }
        bytes = match behind.strip_prefix(b"=") {
            None => behind,
            Some(value) => match split_value(value) {
                None => return false,
                Some(behind) => behind,
            },
        };
    }
    bytes.is_empty()
}

/// The bytes after the token or quoted string (RFC 9110 §5.6.4) at the start of `bytes`.
fn split_value(bytes: &[u8]) -> Option<&[u8]> {
    let Some(mut quoted) = bytes.strip_prefix(b"\"") else {
        let (token, behind) = split_token(bytes);
        return (!token.is_empty()).then_some(behind);
    };
    loop {
        quoted = match quoted {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', escaped, behind @ ..] if is_text(*escaped) => behind,
            [byte, behind @ ..] if *byte != b'\\' && is_text(*byte) => behind,
            _ => return None,
        };
    }
}

fn split_token(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().take_while(|byte| is_token_byte(**byte)).count())
}

/// Whether a byte may appear in a quoted string, escaped or not.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}
