//! What is published: a message, and where it stands among those of its topic.

use wire::frame::DataOpcode;

/// What a message is, as its publisher gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Content {
    /// Bytes.
    Binary = 0,
    /// Text.
    Text = 1,
    /// Text that is JSON, made from a value.
    Json = 2,
}

impl Content {
    /// The content with this number.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Binary, Self::Text, Self::Json].into_iter().find(|content| *content as u8 == byte)
    }

    /// The content of a message that is not published by its meaning, but sent with this opcode.
    pub(crate) fn of(opcode: DataOpcode) -> Self {
        if opcode == DataOpcode::Text { Self::Text } else { Self::Binary }
    }

    /// The opcode of a message with this content.
    pub(crate) fn opcode(self) -> DataOpcode {
        match self {
            Self::Binary => DataOpcode::Binary,
            Self::Text | Self::Json => DataOpcode::Text,
        }
    }
}

/// A message for the subscribers of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication<'a> {
    /// What `payload` is.
    pub content: Content,
    /// The message; UTF-8 unless it is binary.
    pub payload: &'a [u8],
    /// Of the messages with one key, a subscriber that lags gets only the newest, if the topic's options say so.
    pub key: Option<&'a str>,
}

#[cfg(test)]
impl<'a> Publication<'a> {
    /// A text without a key.
    pub(crate) fn text(text: &'a str) -> Self {
        Self { content: Content::Text, payload: text.as_bytes(), key: None }
    }
}

/// A place in the order of a topic's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Differs whenever the offsets start again at 1; never 0. Outside of this crate it is a text, see
    /// [`Position::epoch_text`].
    pub epoch: u64,
    /// The number of the message, from 1 on; 0 comes before all of them.
    pub offset: u64,
}

impl Position {
    /// Whether there are messages between this position and a later one.
    pub(crate) fn precedes(self, other: Self) -> bool {
        other.offset > if self.epoch == other.epoch { self.offset } else { 0 }
    }

    /// The epoch in the form that applications and clients see: hexadecimal digits in lower case, without leading
    /// zeros; nothing if there is no position. A number of this size would lose digits in JavaScript.
    pub fn epoch_text(self) -> String {
        if self.epoch == 0 { String::new() } else { format!("{:x}", self.epoch) }
    }

    /// The epoch with this text, if it is one that [`Position::epoch_text`] returns.
    pub fn parse_epoch(text: &str) -> Option<u64> {
        let is_canonical = !text.starts_with('0') && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_canonical { u64::from_str_radix(text, 16).ok() } else { None }
    }
}

/// The largest offset: JavaScript holds no larger number exactly. After it, a new epoch begins.
pub const MAX_OFFSET: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_one_text() {
        for epoch in [1, 0xf, 0x10, 0xdead_beef, u64::MAX] {
            let text = Position { epoch, offset: 0 }.epoch_text();
            assert_eq!(Position::parse_epoch(&text), Some(epoch), "{text}");
        }
        assert_eq!(Position { epoch: 0xAB, offset: 7 }.epoch_text(), "ab");
        for text in ["", "0", "00", "0ab", "AB", "+1", "-1", " 1", "1 ", "g", "0x1", "10000000000000000", "é"] {
            assert_eq!(Position::parse_epoch(text), None, "{text:?}");
        }
    }
}
