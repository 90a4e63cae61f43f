//! The reading half of permessage-deflate (RFC 7692).

use std::io::{self, ErrorKind};

use flate2::{Decompress, FlushDecompress};

use crate::frame::{self, Frame};
use crate::messages::Messages;

/// The header with which a client offers compression, and leaves the terms to the server, as browsers do.
pub const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// The end of every message, which is not sent (RFC 7692 §7.2.2).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// The state that one connection needs to read its compressed messages.
pub struct Inflater {
    window: Decompress,
    /// Whether each message may refer to previous ones.
    takeover: bool,
}

impl Inflater {
    /// The inflater for the terms in a server's response.
    ///
    /// # Errors
    ///
    /// `InvalidData` if the server has not accepted the offer.
    pub fn agreed(response: &str) -> io::Result<Self> {
        let response = response.to_ascii_lowercase();
        if !response.contains("permessage-deflate") {
            return Err(io::Error::new(ErrorKind::InvalidData, "the server does not compress"));
        }
        let takeover = !response.contains("server_no_context_takeover");
        Ok(Self { window: Decompress::new(false), takeover })
    }

    /// Appends the text in a message's payload to `text`.
    fn inflate(&mut self, payload: &[u8], text: &mut Vec<u8>) -> io::Result<()> {
        if !self.takeover {
            self.window.reset(false);
        }
        for mut input in [payload, &TAIL] {
            // Text that did not fit comes out in the next turn, even after all input has been taken.
            while !input.is_empty() || text.len() == text.capacity() {
                text.reserve(input.len().max(4096));
                let before = self.window.total_in();
                self.window.decompress_vec(input, text, FlushDecompress::Sync).map_err(io::Error::other)?;
                input = &input[(self.window.total_in() - before) as usize..];
            }
        }
        Ok(())
    }
}

/// The compressed messages from one sender, as received by all receivers.
pub struct Deliveries {
    inflaters: Vec<Inflater>,
    /// For each message on the way, its number and a payload that was right: the same bytes mean the same again, unless
    /// they refer to previous messages.
    right: Vec<(u32, Vec<u8>)>,
    text: Vec<u8>,
}

impl Deliveries {
    /// Deliveries to connections with these `inflaters`, with `in_flight` messages on the way.
    pub fn new(inflaters: Vec<Inflater>, in_flight: u32) -> Self {
        Self { inflaters, right: vec![(u32::MAX, Vec::new()); in_flight as usize], text: Vec::new() }
    }

    /// Compares what `receiver` got with what `sender`'s message `number` should be, byte for byte.
    ///
    /// # Errors
    ///
    /// `InvalidData`, with the message that was expected; also if it arrived uncompressed.
    pub fn check(
        &mut self,
        messages: &Messages,
        frame: &Frame<'_>,
        receiver: usize,
        sender: u32,
        number: u32,
    ) -> io::Result<()> {
        if frame.opcode != frame::TEXT || !frame.compressed {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("message {number} came uncompressed")));
        }
        let inflater = &mut self.inflaters[receiver];
        let index = number as usize % self.right.len();
        let (known, payload) = &mut self.right[index];
        if !inflater.takeover && *known == number && payload == frame.payload {
            return Ok(());
        }
        self.text.clear();
        inflater.inflate(frame.payload, &mut self.text)?;
        messages.check_text(&self.text, sender, number)?;
        *known = number;
        payload.clear();
        payload.extend_from_slice(frame.payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    const TAKEOVER: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    const NO_TAKEOVER: &str = "sec-websocket-extensions: permessage-deflate; server_no_context_takeover\r\n";

    /// The payloads of `texts` as compressed by a server that keeps its window, or by one that does not.
    fn compressed(texts: &[&[u8]], takeover: bool) -> Vec<Vec<u8>> {
        let mut window = Compress::new(Compression::default(), false);
        let compress = |text: &&[u8]| {
            let mut payload = Vec::with_capacity(text.len() + 100);
            if !takeover {
                window.reset();
            }
            window.compress_vec(text, &mut payload, FlushCompress::Sync).expect("room for all");
            payload.strip_suffix(&TAIL).expect("the tail of a flush").to_vec()
        };
        texts.iter().map(compress).collect()
    }

    fn delivered(payload: &[u8]) -> Frame<'_> {
        Frame { opcode: frame::TEXT, compressed: true, key: None, payload, size: 0 }
    }

    #[test]
    fn messages_are_read_with_and_without_takeover() {
        let long = b"the same words, ".repeat(1000);
        let texts: [&[u8]; 3] = [b"first, and again first", b"first, and again second", &long];
        for (takeover, terms) in [(true, TAKEOVER), (false, NO_TAKEOVER)] {
            let mut inflater = Inflater::agreed(terms).expect("compression");
            for (text, payload) in texts.iter().zip(compressed(&texts, takeover)) {
                let mut read = Vec::new();
                inflater.inflate(&payload, &mut read).expect("a whole message");
                assert_eq!(read, *text);
            }
        }
    }

    #[test]
    fn a_server_that_does_not_compress_is_noticed() {
        assert!(Inflater::agreed("HTTP/1.1 101 Switching Protocols\r\n\r\n").is_err());

        let mut deliveries = Deliveries::new(vec![Inflater::agreed(NO_TAKEOVER).expect("compression")], 1);
        let plain = Frame { compressed: false, ..delivered(b"0000000000000000") };
        assert!(deliveries.check(&Messages::json(16, 1), &plain, 0, 0, 0).is_err());
    }

    #[test]
    fn every_delivery_is_checked() {
        let messages = Messages::json(16, 1);
        let right = compressed(&[b"0000000000000000"], false).remove(0);
        let wrong = compressed(&[b"0000000000000001"], false).remove(0);
        let terms = || Inflater::agreed(NO_TAKEOVER).expect("compression");
        let mut deliveries = Deliveries::new(vec![terms(), terms(), terms()], 1);

        assert!(deliveries.check(&messages, &delivered(&right), 0, 0, 0).is_ok());
        assert!(deliveries.check(&messages, &delivered(&right), 1, 0, 0).is_ok());
        assert!(deliveries.check(&messages, &delivered(&wrong), 2, 0, 0).is_err());
        assert!(deliveries.check(&messages, &delivered(&right), 2, 0, 1).is_err());
    }
}
