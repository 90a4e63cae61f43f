//! What the thread has to tell, in two buffers that are passed to the hub and back.

use redis_protocol::resp3::types::RangeFrame;

use super::heard::{Heard, Reply};
use super::resp;

/// Bytes of memory for a message, in addition to its own.
const OVERHEAD: usize = 32;
/// Buffers that are larger are not kept.
const MAX_KEPT: usize = 1024 * 1024;

/// One thing to tell. Numbers without a name are lengths of texts, which are in order in a buffer of their own.
#[derive(Debug)]
enum Item {
    Connected(u32),
    /// The value follows.
    Reply {
        tag: u64,
        cost: u32,
    },
    Refusal {
        tag: u64,
        cost: u32,
    },
    Lost {
        tag: u64,
        cost: u32,
    },
    Message {
        channel: u32,
        payload: u32,
    },
    Subscribed(u32),
    Resubscribed,
    Disconnected(u32),
    Unusable(u32),
    Warning(u32),
    // Values: of a reply, or in a list.
    Nothing,
    Integer(i64),
    Bytes(u32),
    /// So many values follow.
    List(u32),
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Report {
    items: Vec<Item>,
    texts: Vec<u8>,
    /// What its messages take of the room for messages.
    messages: usize,
}

impl Report {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes that its messages take.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    pub(super) fn connected(&mut self, run_id: &str) {
        let length = self.text(run_id.as_bytes());
        self.items.push(Item::Connected(length));
    }

    pub(super) fn lost(&mut self, tag: u64, cost: u32) {
        self.items.push(Item::Lost { tag, cost });
    }

    pub(super) fn message(&mut self, channel: &[u8], payload: &[u8]) {
        self.messages += channel.len() + payload.len() + OVERHEAD;
        let (channel, payload) = (self.text(channel), self.text(payload));
        self.items.push(Item::Message { channel, payload });
    }

    pub(super) fn subscribed(&mut self, channel: &[u8]) {
        let length = self.text(channel);
        self.items.push(Item::Subscribed(length));
    }

    pub(super) fn resubscribed(&mut self) {
        self.items.push(Item::Resubscribed);
    }

    pub(super) fn disconnected(&mut self, reason: &str) {
        let length = self.text(reason.as_bytes());
        self.items.push(Item::Disconnected(length));
    }

    pub(super) fn unusable(&mut self, reason: &str) {
        let length = self.text(reason.as_bytes());
        self.items.push(Item::Unusable(length));
    }

    pub(super) fn warning(&mut self, text: &str) {
        let length = self.text(text.as_bytes());
        self.items.push(Item::Warning(length));
    }

    /// A reply, or an error as a reply. `frame` is what it was decoded from.
    pub(super) fn reply(&mut self, tag: u64, cost: u32, reply: &RangeFrame, frame: &[u8]) {
        if let Some(error) = resp::error(reply, frame) {
            let error = String::from_utf8_lossy(error);
            self.items.push(Item::Refusal { tag, cost });
            let length = self.text(error.as_bytes());
            self.items.push(Item::Bytes(length));
        } else {
            self.items.push(Item::Reply { tag, cost });
            self.value(reply, frame);
        }
    }

    fn value(&mut self, value: &RangeFrame, frame: &[u8]) {
        if let Some(text) = resp::text(value, frame) {
            let length = self.text(text);
            self.items.push(Item::Bytes(length));
            return;
        }
        match value {
            RangeFrame::Number { data, .. } => self.items.push(Item::Integer(*data)),
            RangeFrame::Boolean { data, .. } => self.items.push(Item::Integer((*data).into())),
            RangeFrame::Double { data, .. } => {
                let length = self.text(data.to_string().as_bytes());
                self.items.push(Item::Bytes(length));
            }
            RangeFrame::Array { data, .. } | RangeFrame::Push { data, .. } => self.list(data.len(), data, frame),
            RangeFrame::Set { data, .. } => self.list(data.len(), data, frame),
            RangeFrame::Map { data, .. } => {
                let flat = data.iter().flat_map(|(key, value)| [key, value]);
                self.list(2 * data.len(), flat, frame);
            }
            // Also an error in a list, as scripts may return it: there is no such value here.
            _ => self.items.push(Item::Nothing),
        }
    }

    fn list<'v>(&mut self, count: usize, values: impl IntoIterator<Item = &'v RangeFrame>, frame: &[u8]) {
        // A frame has less than a million elements.
        self.items.push(Item::List(count as u32));
        for value in values {
            self.value(value, frame);
        }
    }

    fn text(&mut self, text: &[u8]) -> u32 {
        self.texts.extend_from_slice(text);
        // Frames are shorter than 64 MiB, and what is not from frames is short.
        text.len() as u32
    }

    /// Tells everything. Returns the commands that are done with, and their bytes.
    pub(super) fn tell(&self, tell: &mut dyn FnMut(Heard<'_>)) -> (usize, usize) {
        let (mut commands, mut bytes) = (0, 0);
        let mut done = |cost: u32| (commands, bytes) = (commands + 1, bytes + cost as usize);
        let mut reader = Reader { items: self.items.iter(), texts: &self.texts };
        while let Some(item) = reader.items.next() {
            match *item {
                Item::Connected(length) => tell(Heard::Connected { run_id: reader.line(length) }),
                Item::Reply { tag, cost } => {
                    done(cost);
                    tell(Heard::Reply { tag, reply: Ok(reader.value()) });
                }
                Item::Refusal { tag, cost } => {
                    done(cost);
                    let length = if let Some(Item::Bytes(length)) = reader.items.next() { *length } else { 0 };
                    tell(Heard::Reply { tag, reply: Err(reader.line(length)) });
                }
                Item::Lost { tag, cost } => {
                    done(cost);
                    tell(Heard::Lost { tag });
                }
                Item::Message { channel, payload } => {
                    let (channel, payload) = (reader.text(channel), reader.text(payload));
                    tell(Heard::Message { channel, payload });
                }
                Item::Subscribed(length) => tell(Heard::Subscribed(reader.text(length))),
                Item::Resubscribed => tell(Heard::Resubscribed),
                Item::Disconnected(length) => tell(Heard::Disconnected(reader.line(length))),
                Item::Unusable(length) => tell(Heard::Unusable(reader.line(length))),
                Item::Warning(length) => tell(Heard::Warning(reader.line(length))),
                Item::Nothing | Item::Integer(_) | Item::Bytes(_) | Item::List(_) => {}
            }
        }
        (commands, bytes)
    }

    /// Makes it empty, for the next one.
    pub(super) fn clear(&mut self) {
        self.messages = 0;
        self.items.clear();
        self.texts.clear();
        if self.texts.capacity() > MAX_KEPT || self.items.capacity() * size_of::<Item>() > MAX_KEPT {
            *self = Self::default();
        }
    }
}

struct Reader<'r> {
    items: std::slice::Iter<'r, Item>,
    texts: &'r [u8],
}

impl<'r> Reader<'r> {
    fn text(&mut self, length: u32) -> &'r [u8] {
        let (text, rest) = self.texts.split_at(length as usize);
        self.texts = rest;
        text
    }

    /// A text that was written as UTF-8.
    fn line(&mut self, length: u32) -> &'r str {
        std::str::from_utf8(self.text(length)).unwrap_or_default()
    }

    /// The next value. It is not deeper than the frame that it was in.
    fn value(&mut self) -> Reply<'r> {
        match self.items.next() {
            Some(Item::Integer(number)) => Reply::Integer(*number),
            Some(Item::Bytes(length)) => Reply::Bytes(self.text(*length)),
            Some(Item::List(count)) => Reply::List((0..*count).map(|_| self.value()).collect()),
            _ => Reply::Nothing,
        }
    }
}

#[cfg(test)]
mod tests;
