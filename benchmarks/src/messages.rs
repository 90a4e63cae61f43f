//! The messages of a run: the sender and the message number, in 16 hexadecimal digits, then a fixed text.
//!
//! Only the digits differ, so frames are laid out and masked once, and each send rewrites 16 bytes.

use std::io;
use std::ops::Range;

use crate::frame::{self, Frame};

const DIGITS: usize = 16;

/// Not zero, so that servers cannot skip the unmasking.
const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// Reads the size of a message, in bytes, from the command line. The digits have to fit.
///
/// # Errors
///
/// What is wrong with it.
pub fn size(argument: &str) -> Result<usize, String> {
    match argument.parse() {
        Ok(size) if size >= DIGITS => Ok(size),
        Ok(_) => Err(format!("a message has at least {DIGITS} bytes")),
        Err(error) => Err(format!("{error}")),
    }
}

/// A series of masked text frames, complete except for their digits, and the text to expect back.
pub struct Messages {
    frames: Vec<u8>,
    frame_size: usize,
    text: Vec<u8>,
}

impl Messages {
    /// Room for `batch` messages of `size` bytes.
    pub fn new(size: usize, batch: usize) -> Self {
        Self::of((b' '..=b'~').cycle().take(size).collect(), batch)
    }

    /// Room for `batch` messages that are worth compressing: `size` bytes of JSON.
    pub fn json(size: usize, batch: usize) -> Self {
        Self::of(quotes(size), batch)
    }

    fn of(text: Vec<u8>, batch: usize) -> Self {
        let mut frames = Vec::new();
        frame::append(&mut frames, frame::TEXT, Some(KEY), &text);
        let frame_size = frames.len();
        Self { frames: frames.repeat(batch), frame_size, text }
    }

    /// The masked frames of a sender's messages `sequence`, one after another.
    pub fn frames(&mut self, sender: u32, sequence: Range<u32>) -> &[u8] {
        let total = sequence.len() * self.frame_size;
        let header = self.frame_size - self.text.len();
        for (frame, number) in self.frames.chunks_exact_mut(self.frame_size).zip(sequence) {
            let mut digits = digits(sender, number);
            frame::mask(&mut digits, KEY);
            frame[header..header + DIGITS].copy_from_slice(&digits);
        }
        &self.frames[..total]
    }

    /// Compares a frame from the server with what it should be, byte for byte.
    ///
    /// # Errors
    ///
    /// `InvalidData`, with the message that was expected.
    pub fn check(&self, frame: &Frame<'_>, sender: u32, number: u32) -> io::Result<()> {
        if frame.opcode == frame::TEXT && frame.key.is_none() && !frame.compressed {
            return self.check_text(frame.payload, sender, number);
        }
        let found = format!("opcode {:#x}, masked or compressed, with {} bytes", frame.opcode, frame.payload.len());
        Err(self.expected(sender, number, &found))
    }

    /// Compares the text of a message from the server with what it should be, byte for byte.
    ///
    /// # Errors
    ///
    /// The same as for [`Messages::check`].
    pub fn check_text(&self, text: &[u8], sender: u32, number: u32) -> io::Result<()> {
        let same = text.len() == self.text.len()
            && text[..DIGITS] == digits(sender, number)
            && text[DIGITS..] == self.text[DIGITS..];
        if same {
            return Ok(());
        }
        let start = String::from_utf8_lossy(&text[..text.len().min(DIGITS)]);
        Err(self.expected(sender, number, &format!("{} bytes: {start:?}", text.len())))
    }

    fn expected(&self, sender: u32, number: u32, found: &str) -> io::Error {
        let size = self.text.len();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected message {number} of connection {sender} ({size} bytes), got {found}"),
        )
    }
}

/// JSON like that of a price feed, always the same.
fn quotes(size: usize) -> Vec<u8> {
    let mut text = String::from("[");
    let mut random = 1_u32;
    while text.len() < size {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (symbol, price, amount) = (random >> 24, random >> 8 & 0xFFFF, random >> 12 & 0x3FF);
        text += &format!(r#"{{"symbol":"S{symbol}","price":{}.{:02},"amount":{amount}}},"#, price / 100, price % 100);
    }
    text.truncate(size);
    text.into_bytes()
}

fn digits(sender: u32, number: u32) -> [u8; DIGITS] {
    let value = u64::from(sender) << 32 | u64::from(number);
    std::array::from_fn(|index| b"0123456789abcdef"[(value >> (60 - 4 * index)) as usize & 0xF])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echoed(frame: &Frame<'_>) -> Vec<u8> {
        let mut payload = frame.payload.to_vec();
        frame::mask(&mut payload, frame.key.expect("a masked frame"));
        payload
    }

    #[test]
    fn a_batch_carries_its_sequence() {
        let mut messages = Messages::new(64, 4);
        let sent = messages.frames(7, 10..12).to_vec();
        let first = frame::parse(&sent).expect("a whole frame");
        let second = frame::parse(&sent[first.size..]).expect("a whole frame");

        assert_eq!(sent.len(), 2 * first.size);
        assert!(echoed(&first).starts_with(b"000000070000000a"));
        assert!(echoed(&second).starts_with(b"000000070000000b"));
    }

    #[test]
    fn a_wrong_echo_is_noticed() {
        let mut messages = Messages::new(64, 1);
        let sent = messages.frames(7, 10..11).to_vec();
        let payload = echoed(&frame::parse(&sent).expect("a whole frame"));
        let check = |payload: &[u8], number| {
            let frame = Frame { opcode: frame::TEXT, compressed: false, key: None, payload, size: 0 };
            messages.check(&frame, 7, number)
        };

        assert!(check(&payload, 10).is_ok());
        assert!(check(&payload, 11).is_err());
        assert!(check(&payload[..63], 10).is_err());
        for position in 0..payload.len() {
            let mut wrong = payload.clone();
            wrong[position] ^= 1;
            assert!(check(&wrong, 10).is_err(), "byte {position}");
        }
    }
}
