//! An incoming message: fragments are merged, text is checked as it arrives, sizes are bounded.

use crate::deflate::Inflater;
use crate::error::Error;
use crate::event::Event;

pub(crate) const NOT_UTF8: Error = Error::invalid_data("text not UTF-8");

/// The type of a data message (RFC 6455 §5.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Text,
    Binary,
}

/// How the payload of a message is to be read, as determined by its first frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    pub(crate) kind: Kind,
    pub(crate) compressed: bool,
}

impl Format {
    /// The maximum number of payload bytes that a message of up to `max_message_size` can need.
    ///
    /// In the worst case DEFLATE spends 9 bits on a byte, and a few bytes on its blocks.
    #[inline]
    pub(crate) fn max_payload(self, max_message_size: usize) -> usize {
        if self.compressed {
            max_message_size.saturating_add(max_message_size / 8).saturating_add(64)
        } else {
            max_message_size
        }
    }

    /// The event for a message that is entirely in `payload`.
    ///
    /// # Errors
    ///
    /// 1007 if it is text that is not UTF-8 (RFC 6455 §8.1) or cannot be inflated; 1009 if it inflates to more than
    /// `max_message_size` bytes.
    #[inline(always)]
    pub(crate) fn event<'a>(
        self,
        payload: &'a [u8],
        max_message_size: usize,
        inflater: &'a mut Inflater,
    ) -> Result<Event<'a>, Error> {
        let data = if self.compressed { inflater.inflate_here(payload, max_message_size)? } else { payload };
        match self.kind {
            Kind::Text => simdutf8::basic::from_utf8(data).map(Event::Text).map_err(|_| NOT_UTF8),
            Kind::Binary => Ok(Event::Binary(data)),
        }
    }
}

/// The part that has arrived of a message that does not lie in one input as one frame.
#[derive(Debug)]
pub(crate) struct Message {
    format: Format,
    complete: bool,
    payload: Vec<u8>,
    /// How much of the payload is known to be UTF-8; after that come at most three bytes of an incomplete character.
    validated: usize,
}

impl Message {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, complete: false, payload: Vec::new(), validated: 0 }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// The number of bytes that have arrived.
    pub(crate) fn len(&self) -> usize {
        self.payload.len()
    }

    /// The memory held, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.payload.capacity()
    }

    /// Whether [`Message::finish`] has handed it out, so that only its memory remains to be freed.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Appends unmasked payload of a frame that has `outstanding` bytes yet to come.
    ///
    /// # Errors
    ///
    /// 1007 as soon as text can no longer become UTF-8, even in the middle of a frame.
    pub(crate) fn append(&mut self, bytes: &[u8], outstanding: u64) -> Result<(), Error> {
        self.make_room(bytes.len(), outstanding);
        self.payload.extend_from_slice(bytes);
        match self.format {
            Format { kind: Kind::Text, compressed: false } => self.validate(),
            _ => Ok(()),
        }
    }

    /// At each step the buffer at most doubles, whatever the frame claims, and never extends beyond the frame's end.
    fn make_room(&mut self, arrived: usize, outstanding: u64) {
        if self.payload.capacity() - self.payload.len() < arrived {
            let rest_of_frame = usize::try_from(outstanding).unwrap_or(usize::MAX).saturating_add(arrived);
            self.payload.reserve_exact(rest_of_frame.min(arrived.max(self.payload.len())));
        }
    }

    fn validate(&mut self) -> Result<(), Error> {
        match simdutf8::compat::from_utf8(&self.payload[self.validated..]) {
            Ok(_) => self.validated = self.payload.len(),
            Err(error) if error.error_len().is_none() => self.validated += error.valid_up_to(),
            Err(_) => return Err(NOT_UTF8),
        }
        Ok(())
    }

    /// The event for the whole message, whose last byte has been appended.
    ///
    /// # Errors
    ///
    /// Those of [`Format::event`]; also 1007 if text ends in the middle of a character.
    pub(crate) fn finish<'a>(
        &'a mut self,
        max_message_size: usize,
        inflater: &'a mut Inflater,
    ) -> Result<Event<'a>, Error> {
        self.complete = true;
        match self.format {
            Format { kind: Kind::Text, compressed: false } if self.validated == self.payload.len() => {
                // SAFETY: `validate` found the whole payload to be UTF-8, in pieces that each begin and end between two
                // characters, and nothing else has written to it.
                Ok(Event::Text(unsafe { str::from_utf8_unchecked(&self.payload) }))
            }
            Format { kind: Kind::Text, compressed: false } => Err(NOT_UTF8),
            format => format.event(&self.payload, max_message_size, inflater),
        }
    }
}
