//! Messages that a topic has kept, as they cross between processes.

use crate::language::command::{content, maybe, position, put_maybe, put_position};
use crate::system::codec::{Malformed, Reader, put_u32, put_u64};
use crate::topics::publication::{Content, Position, Publication};

/// A message that was published before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldMessage {
    /// Its place in the order of the topic.
    pub offset: u64,
    /// When it was published, in milliseconds of Unix time.
    pub unix: u64,
    /// What `payload` is.
    pub content: Content,
    /// Its key, if that matters to subscribers that lag.
    pub key: Option<Box<str>>,
    /// The message.
    pub payload: Box<[u8]>,
}

impl OldMessage {
    /// The message as it was published.
    pub(crate) fn publication(&self) -> Publication<'_> {
        Publication { content: self.content, payload: &self.payload, key: self.key.as_deref() }
    }
}

/// Some messages of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// That of the topic's newest message, whether it is among these or not.
    pub position: Position,
    /// In the order that was asked for.
    pub messages: Vec<OldMessage>,
    /// Whether more were asked for than fit into one answer, or into the limit.
    pub goes_on: bool,
}

impl History {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_position(out, self.position);
        out.push(self.goes_on.into());
        for OldMessage { offset, unix, content, key, payload } in &self.messages {
            put_u64(out, *offset);
            put_u64(out, *unix);
            out.push(*content as u8);
            put_maybe(out, key.as_deref());
            put_u32(out, payload.len() as u32);
            out.extend_from_slice(payload);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (position, goes_on) = (position(reader)?, reader.flag()?);
        let mut messages = Vec::new();
        while !reader.is_empty() {
            let (offset, unix, content) = (reader.u64()?, reader.u64()?, content(reader)?);
            let (key, length) = (maybe(reader)?.map(Into::into), reader.u32()?);
            messages.push(OldMessage { offset, unix, content, key, payload: reader.bytes(length as usize)?.into() });
        }
        Ok(Self { position, messages, goes_on })
    }
}
