//! permessage-deflate (RFC 7692), without context takeover on either side.
//!
//! Every message is compressed by itself, so a connection keeps no zlib state: one [`Inflater`] and one [`Deflater`]
//! serve all the connections of a thread, and a connection can move to another process between any two messages.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::error::Error;

/// The end of a sync flush. It is not sent (RFC 7692 §7.2.1), and is put back before inflating (§7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The smallest window that zlib can compress with; the RFC allows 8 too.
const MIN_WINDOW_BITS: u8 = 9;
const MAX_WINDOW_BITS: u8 = 15;

/// The parameters agreed with one client.
///
/// The client's window is not among them: inflating with the largest window works for every smaller one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// The base-2 logarithm of the window that we compress with, 9 to 15.
    pub server_max_window_bits: u8,
}

/// A Sec-WebSocket-Extensions header that does not follow the grammar (RFC 6455 §9.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MalformedExtensions;

/// Goes through every offer of every Sec-WebSocket-Extensions header in order, and takes the first acceptable one.
///
/// Returns the agreed parameters with the value for the response's header, or `None` if nothing is acceptable. An offer
/// with an unknown or repeated parameter, a bad value, or a `server_max_window_bits` of 8 (which zlib cannot keep) is
/// declined, and the next one considered (RFC 7692 §7.1).
///
/// # Errors
///
/// If a header breaks the grammar of RFC 6455 §9.1, for which the handshake has to fail.
pub fn negotiate<'a>(
    headers: impl Iterator<Item = &'a str>,
) -> Result<Option<(Parameters, String)>, MalformedExtensions> {
    let mut accepted = None;
    for header in headers {
        let mut cursor = Cursor { rest: header };
        while let Some(offer) = cursor.offer()? {
            accepted = accepted.or_else(|| accept(&offer));
        }
    }
    Ok(accepted)
}

/// The answer to one offer, if it is acceptable.
///
/// Both `no_context_takeover` parameters may appear in the response whether or not they were offered (RFC 7692 §7.1.1).
fn accept(offer: &Offer<'_>) -> Option<(Parameters, String)> {
    if offer.name != "permessage-deflate" {
        return None;
    }
    let mut server_max_window_bits = None;
    for (index, &(name, value)) in offer.parameters.iter().enumerate() {
        if offer.parameters[..index].iter().any(|&(earlier, _)| earlier == name) {
            return None;
        }
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(value)) => {
                window_bits(value)?;
            }
            ("server_max_window_bits", Some(value)) => {
                server_max_window_bits = Some(window_bits(value).filter(|&bits| bits >= MIN_WINDOW_BITS)?);
            }
            _ => return None,
        }
    }
    let mut response = "permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned();
    if let Some(bits) = server_max_window_bits {
        response.push_str(&format!("; server_max_window_bits={bits}"));
    }
    let parameters = Parameters { server_max_window_bits: server_max_window_bits.unwrap_or(MAX_WINDOW_BITS) };
    Some((parameters, response))
}

/// A `*_max_window_bits` value: 8 to 15, without leading zeros (RFC 7692 §7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    match value {
        "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15" => value.parse().ok(),
        _ => None,
    }
}

/// One element of a Sec-WebSocket-Extensions header.
struct Offer<'a> {
    name: &'a str,
    parameters: Vec<(&'a str, Option<&'a str>)>,
}

/// Reads a Sec-WebSocket-Extensions header from front to back.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    /// The next offer; `None` at the header's end. Empty elements of the list are skipped (RFC 9110 §5.6.1.2).
    fn offer(&mut self) -> Result<Option<Offer<'a>>, MalformedExtensions> {
        while self.eat(',') {}
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut offer = Offer { name: self.token()?, parameters: Vec::new() };
        while self.eat(';') {
            let name = self.token()?;
            let value = if self.eat('=') { Some(self.value()?) } else { None };
            offer.parameters.push((name, value));
        }
        if self.rest.is_empty() || self.rest.starts_with(',') { Ok(Some(offer)) } else { Err(MalformedExtensions) }
    }

    /// Takes `delimiter` and any white space around it.
    fn eat(&mut self, delimiter: char) -> bool {
        let trimmed = self.rest.trim_start_matches([' ', '\t']);
        let found = trimmed.strip_prefix(delimiter);
        self.rest = found.unwrap_or(trimmed).trim_start_matches([' ', '\t']);
        found.is_some()
    }

    fn token(&mut self) -> Result<&'a str, MalformedExtensions> {
        let end = self.rest.bytes().position(|byte| !crate::http::is_token_byte(byte)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(MalformedExtensions);
        }
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(token)
    }

    /// A parameter's value: a token, or a token in quotes (RFC 6455 §9.1).
    fn value(&mut self) -> Result<&'a str, MalformedExtensions> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            return self.token();
        };
        self.rest = quoted;
        let token = self.token()?;
        self.rest = self.rest.strip_prefix('"').ok_or(MalformedExtensions)?;
        Ok(token)
    }
}

/// Inflates messages of any number of connections, one after another.
pub struct Inflater {
    state: Decompress,
    /// The last message inflated by [`Inflater::inflate_here`].
    output: Vec<u8>,
}

/// The buffer size that [`Inflater::inflate_here`] and [`Deflater::shorter`] keep for the next message; a larger buffer
/// is freed.
const RETAIN_OUTPUT: usize = 64 * 1024;

/// The smallest step by which the output grows.
const OUTPUT_STEP: usize = 4096;

impl Inflater {
    /// Creates a state for the largest window, which works for every client's.
    pub fn new() -> Self {
        Self { state: Decompress::new(false), output: Vec::new() }
    }

    /// Inflates one whole message, given without its 00 00 ff ff tail, and appends it to `out`.
    ///
    /// `out` grows with what has actually been inflated, never by more than `limit + 1` bytes.
    ///
    /// # Errors
    ///
    /// 1009 as soon as the message is longer than `limit` bytes. 1007 if the data is not DEFLATE: neither RFC names a
    /// code for it, and it is "data within a message that was not consistent with the type of the message" (RFC 6455
    /// §7.4.1).
    pub fn inflate(&mut self, compressed: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = out.len();
        self.state.reset(false);
        self.feed(compressed, start, limit, out)?;
        self.feed(&TAIL, start, limit, out)
    }

    /// Like [`Inflater::inflate`], into a buffer of the inflater's own that is valid until the next message.
    pub(crate) fn inflate_here(&mut self, compressed: &[u8], limit: usize) -> Result<&[u8], Error> {
        let mut output = std::mem::take(&mut self.output);
        output.clear();
        output.shrink_to(RETAIN_OUTPUT);
        self.inflate(compressed, limit, &mut output)?;
        self.output = output;
        Ok(&self.output)
    }

    fn feed(&mut self, mut input: &[u8], start: usize, limit: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        loop {
            let produced = out.len() - start;
            if out.len() == out.capacity() {
                out.reserve_exact(produced.max(OUTPUT_STEP).min((limit - produced).saturating_add(1)));
            }
            let consumed_before = self.state.total_in();
            let status = self
                .state
                .decompress_vec(input, out, FlushDecompress::Sync)
                .map_err(|_| Error::invalid_data("invalid compressed data"))?;
            if out.len() - start > limit {
                return Err(Error::too_big());
            }
            input = &input[(self.state.total_in() - consumed_before) as usize..];
            if status == Status::StreamEnd {
                // A sender may end its blocks with BFINAL set (RFC 7692 §7.2.3.4); zlib takes more only after a reset.
                self.state.reset(false);
            }
            if input.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

/// Compresses messages for any number of connections, one after another.
#[derive(Default)]
pub struct Deflater {
    /// One state for each window size, 9 to 15 bits, created on first use.
    states: [Option<Compress>; (MAX_WINDOW_BITS - MIN_WINDOW_BITS + 1) as usize],
    /// The last message compressed by [`Deflater::shorter`].
    output: Vec<u8>,
}

impl Deflater {
    /// Creates a deflater without any zlib state.
    pub fn new() -> Self {
        Self::default()
    }

    /// The compressed `data`, as [`Deflater::deflate`] would append it, in a buffer of the deflater's own that is valid
    /// until the next message; `None` if compressing does not make it shorter.
    ///
    /// # Panics
    ///
    /// If `window_bits` is not 9 to 15.
    pub fn shorter(&mut self, data: &[u8], window_bits: u8) -> Option<&[u8]> {
        let mut output = std::mem::take(&mut self.output);
        output.clear();
        output.shrink_to(RETAIN_OUTPUT);
        self.deflate(data, window_bits, &mut output);
        self.output = output;
        (self.output.len() < data.len()).then_some(&self.output)
    }

    /// Appends the compressed `data`, without its 00 00 ff ff tail, as the payload of a message's
    /// frames.
    ///
    /// # Panics
    ///
    /// If `window_bits` is not 9 to 15.
    pub fn deflate(&mut self, data: &[u8], window_bits: u8, out: &mut Vec<u8>) {
        assert!((MIN_WINDOW_BITS..=MAX_WINDOW_BITS).contains(&window_bits), "a window of {window_bits} bits");
        let state = self.states[usize::from(window_bits - MIN_WINDOW_BITS)]
            .get_or_insert_with(|| Compress::new_with_window_bits(Compression::default(), false, window_bits));
        state.reset();
        let mut input = data;
        loop {
            out.reserve(input.len() / 2 + 64);
            let consumed_before = state.total_in();
            state.compress_vec(input, out, FlushCompress::Sync).expect("a state that was reset takes any data");
            input = &input[(state.total_in() - consumed_before) as usize..];
            if input.is_empty() && out.len() < out.capacity() {
                break;
            }
        }
        debug_assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - TAIL.len());
    }
}
