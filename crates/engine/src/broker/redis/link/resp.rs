//! RESP3: commands as bytes, and whole frames in what arrives.
//!
//! redis-protocol decodes frames. It descends into them as deep as they go, and starts over each time that bytes arrive
//! for an incomplete one; so a [`Framer`] looks at the bytes first. It finds the end of a frame, looks at each byte once,
//! and lets no frame pass that is deep, large or of a kind that Redis does not send to this program.

use redis_protocol::resp3::decode::complete::decode_range;
use redis_protocol::resp3::types::RangeFrame;

/// The largest frame, in bytes. History is read in parts that are much smaller.
pub(super) const MAX_FRAME: usize = 64 * 1024 * 1024;
/// The longest line: a header, an error, a simple string.
const MAX_LINE: usize = 64 * 1024;
/// The elements that a frame may have at all its levels together. Decoded, each takes some 100 bytes.
const MAX_ELEMENTS: u64 = 1_000_000;
/// Lists in lists.
pub(super) const MAX_DEPTH: usize = 8;

/// Appends a command.
pub(super) fn encode(parts: &[&[u8]], into: &mut Vec<u8>) {
    encode_header(b'*', parts.len(), into);
    for part in parts {
        encode_part(part, into);
    }
}

/// Appends a command of a name and many arguments.
pub(super) fn encode_many<'a>(name: &[u8], arguments: impl ExactSizeIterator<Item = &'a [u8]>, into: &mut Vec<u8>) {
    encode_header(b'*', arguments.len() + 1, into);
    encode_part(name, into);
    for argument in arguments {
        encode_part(argument, into);
    }
}

fn encode_part(part: &[u8], into: &mut Vec<u8>) {
    encode_header(b'$', part.len(), into);
    into.extend_from_slice(part);
    into.extend_from_slice(b"\r\n");
}

fn encode_header(kind: u8, mut number: usize, into: &mut Vec<u8>) {
    // The digits of the largest number, the kind before them and the end of the line after them.
    let mut line = [0; 23];
    line[21..].copy_from_slice(b"\r\n");
    let mut begin = 21;
    loop {
        begin -= 1;
        line[begin] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    begin -= 1;
    line[begin] = kind;
    into.extend_from_slice(&line[begin..]);
}

/// Finds where the frame at the beginning of the input ends.
#[derive(Debug, Default)]
pub(super) struct Framer {
    /// What has been looked at.
    scanned: usize,
    /// How many elements are yet to come at each level.
    open: [u64; MAX_DEPTH],
    depth: usize,
    elements: u64,
}

impl Framer {
    /// The length of the first frame; `None` if more input is needed, which is to begin with the same bytes.
    ///
    /// # Errors
    /// Why no frame will come of this.
    pub(super) fn find_end(&mut self, input: &[u8]) -> Result<Option<usize>, &'static str> {
        loop {
            let Some(rest) = input.get(self.scanned..) else { return Ok(None) };
            let Some(line) = first_line(rest)? else { return Ok(None) };
            let after_line = line.len() + 2;
            let (kind, argument) = line.split_first().ok_or("a frame of no kind")?;
            match kind {
                b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => self.scanned += after_line,
                b'$' | b'=' | b'!' => {
                    let length = number(argument).filter(|length| *length <= MAX_FRAME as u64);
                    let end = after_line + length.ok_or("a text of no or of excessive length")? as usize;
                    let Some(end_of_line) = rest.get(end..end + 2) else { return self.check_size().map(|()| None) };
                    if end_of_line != b"\r\n" {
                        return Err("a text that is longer than it claims");
                    }
                    self.scanned += end + 2;
                }
                b'*' | b'~' | b'>' | b'%' => {
                    let per_entry = if *kind == b'%' { 2 } else { 1 };
                    let count = number(argument).and_then(|count| count.checked_mul(per_entry));
                    let count = count.ok_or("a list of no length")?;
                    self.elements = self.elements.saturating_add(count);
                    self.scanned += after_line;
                    if self.elements > MAX_ELEMENTS {
                        return Err("a list of excessive length");
                    }
                    if count > 0 {
                        *self.open.get_mut(self.depth).ok_or("lists that are nested too deep")? = count;
                        self.depth += 1;
                        continue;
                    }
                }
                _ => return Err("a frame of unknown kind"),
            }
            self.check_size()?;
            if self.element_ends() {
                return Ok(Some(std::mem::take(self).scanned));
            }
        }
    }

    /// Returns true if it was the last of the frame.
    fn element_ends(&mut self) -> bool {
        while let Some(level) = self.depth.checked_sub(1) {
            self.open[level] -= 1;
            if self.open[level] > 0 {
                return false;
            }
            self.depth = level;
        }
        true
    }

    fn check_size(&self) -> Result<(), &'static str> {
        if self.scanned > MAX_FRAME { Err("a frame of excessive length") } else { Ok(()) }
    }
}

/// The first line without its end, if that has arrived.
fn first_line(input: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let window = &input[..input.len().min(MAX_LINE)];
    match window.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(end) if window[end..].starts_with(b"\r\n") => Ok(Some(&window[..end])),
        Some(end) if window[end..] == *b"\r" && window.len() < MAX_LINE => Ok(None),
        Some(_) => Err("a line that ends wrongly"),
        None if window.len() < MAX_LINE => Ok(None),
        None => Err("a line of excessive length"),
    }
}

/// A length. RESP2's -1 for nothing, and RESP3's ? for an unknown one, are not sent to this program.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

/// Decodes one whole frame.
///
/// # Errors
/// If it is malformed.
pub(super) fn decode(frame: &[u8]) -> Result<RangeFrame, &'static str> {
    match decode_range(frame) {
        Ok(Some((decoded, length))) if length == frame.len() => Ok(decoded),
        _ => Err("a malformed frame"),
    }
}

/// The bytes of a text of any kind. `frame` is what it was decoded from.
pub(super) fn text<'f>(part: &RangeFrame, frame: &'f [u8]) -> Option<&'f [u8]> {
    match part {
        RangeFrame::BlobString { data, .. }
        | RangeFrame::SimpleString { data, .. }
        | RangeFrame::BigNumber { data, .. }
        | RangeFrame::VerbatimString { data, .. } => frame.get(data.0..data.1),
        _ => None,
    }
}

/// The text of an error. `frame` is what it was decoded from.
pub(super) fn error<'f>(part: &RangeFrame, frame: &'f [u8]) -> Option<&'f [u8]> {
    match part {
        RangeFrame::SimpleError { data, .. } | RangeFrame::BlobError { data, .. } => frame.get(data.0..data.1),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
