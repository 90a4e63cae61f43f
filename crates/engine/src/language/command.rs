//! The commands for a reactor, as values and as bytes.
//!
//! The same bytes wait in the queue of a worker's other threads, cross the links between processes and arrive over the
//! control socket. Numbers are little-endian. See [`crate::message`] for the framing of a command.

use std::borrow::Cow;

use wire::error::may_be_sent;
use wire::frame::{DataOpcode, Fin, MAX_CLOSE_REASON, MAX_CONTROL_PAYLOAD};

use crate::registry::Fd;
use crate::system::codec::{Malformed, Reader, put_u16, put_u32, put_u64};
use crate::topics::publication::{Content, Position, Publication};

/// The format of a message between workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Format {
    /// Bytes.
    Binary = 0,
    /// UTF-8.
    Text = 1,
}

/// Stands for the worker that a message comes from, if it comes from another program.
pub const OUTSIDE: u8 = u8::MAX;
/// Bytes of what presence says about a connection.
pub const MAX_INFO: usize = 1024;
/// Bytes of a message's key.
pub const MAX_KEY: usize = 255;
/// Bytes of a message between workers, or to a worker from another program.
pub const MAX_PIPED: usize = 32 * 1024 * 1024;

/// A command for the reactor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the Reactor's methods")]
pub enum Command<'a> {
    Push {
        fd: Fd,
        opcode: DataOpcode,
        fin: Fin,
        payload: &'a [u8],
    },
    /// A sender found the outbox too full for `length` more bytes: apply the policy.
    Overflow {
        fd: Fd,
        length: u64,
    },
    Ping {
        fd: Fd,
        payload: &'a [u8],
    },
    Disconnect {
        fd: Fd,
        code: u16,
        reason: &'a str,
    },
    /// With what the topic's presence is to say about the connection, as JSON.
    Subscribe {
        fd: Fd,
        topic: &'a str,
        info: Option<&'a str>,
    },
    Unsubscribe {
        fd: Fd,
        topic: &'a str,
    },
    Publish {
        topic: &'a str,
        publication: Publication<'a>,
        exclude: Cow<'a, [Fd]>,
    },
    /// From the hub, which has put the messages of this topic in order.
    Deliver {
        topic: &'a str,
        position: Position,
        publication: Publication<'a>,
        exclude: Cow<'a, [Fd]>,
    },
    Broadcast {
        opcode: DataOpcode,
        payload: &'a [u8],
        exclude: Cow<'a, [Fd]>,
    },
    /// `from` and `to` are worker ids; `from` is [`OUTSIDE`] if another program sends it.
    PipeMessage {
        from: u8,
        to: u8,
        format: Format,
        payload: &'a [u8],
    },
}

const PUSH: u8 = 1;
const OVERFLOW: u8 = 2;
const PING: u8 = 3;
const DISCONNECT: u8 = 4;
const SUBSCRIBE: u8 = 5;
const UNSUBSCRIBE: u8 = 6;
const PUBLISH: u8 = 7;
const BROADCAST: u8 = 8;
const PIPE_MESSAGE: u8 = 9;
const DELIVER: u8 = 10;

/// Stands for the length of a text that there is not.
const NOTHING: u16 = u16::MAX;

impl<'a> Command<'a> {
    /// The connection that it is for; `None` if it is for many, or for a worker.
    pub fn fd(&self) -> Option<Fd> {
        match self {
            Self::Push { fd, .. }
            | Self::Overflow { fd, .. }
            | Self::Ping { fd, .. }
            | Self::Disconnect { fd, .. }
            | Self::Subscribe { fd, .. }
            | Self::Unsubscribe { fd, .. } => Some(*fd),
            Self::Publish { .. } | Self::Deliver { .. } | Self::Broadcast { .. } | Self::PipeMessage { .. } => None,
        }
    }

    /// Appends the command: one byte for its kind, and its fields, the last of which extends to the end.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Push { fd, opcode, fin, payload } => {
                out.push(PUSH);
                put_u64(out, *fd);
                out.extend([opcode.to_byte(), *fin as u8]);
                out.extend_from_slice(payload);
            }
            Self::Overflow { fd, length } => {
                out.push(OVERFLOW);
                put_u64(out, *fd);
                put_u64(out, *length);
            }
            Self::Ping { fd, payload } => {
                out.push(PING);
                put_u64(out, *fd);
                out.extend_from_slice(payload);
            }
            Self::Disconnect { fd, code, reason } => {
                out.push(DISCONNECT);
                put_u64(out, *fd);
                put_u16(out, *code);
                out.extend_from_slice(reason.as_bytes());
            }
            Self::Subscribe { fd, topic, info } => {
                out.push(SUBSCRIBE);
                put_u64(out, *fd);
                put_text(out, topic);
                put_maybe(out, *info);
            }
            Self::Unsubscribe { fd, topic } => {
                out.push(UNSUBSCRIBE);
                put_u64(out, *fd);
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Publish { topic, publication, exclude } => {
                out.push(PUBLISH);
                put_publication(out, topic, publication, exclude);
            }
            Self::Deliver { topic, position, publication, exclude } => {
                out.push(DELIVER);
                put_position(out, *position);
                put_publication(out, topic, publication, exclude);
            }
            Self::Broadcast { opcode, payload, exclude } => {
                out.extend([BROADCAST, opcode.to_byte()]);
                put_exclude(out, exclude);
                out.extend_from_slice(payload);
            }
            Self::PipeMessage { from, to, format, payload } => {
                out.extend([PIPE_MESSAGE, *from, *to, *format as u8]);
                out.extend_from_slice(payload);
            }
        }
    }

    /// The command in these bytes.
    ///
    /// # Errors
    /// If there is none. Whether its values are allowed is another question: see [`Command::is_allowed`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(match reader.u8()? {
            PUSH => {
                let (fd, opcode) = (reader.u64()?, opcode(&mut reader)?);
                let fin = if reader.flag()? { Fin::Last } else { Fin::More };
                Self::Push { fd, opcode, fin, payload: reader.rest() }
            }
            OVERFLOW => {
                let command = Self::Overflow { fd: reader.u64()?, length: reader.u64()? };
                reader.end()?;
                command
            }
            PING => Self::Ping { fd: reader.u64()?, payload: reader.rest() },
            DISCONNECT => Self::Disconnect { fd: reader.u64()?, code: reader.u16()?, reason: reader.rest_text()? },
            SUBSCRIBE => {
                let command =
                    Self::Subscribe { fd: reader.u64()?, topic: text(&mut reader)?, info: maybe(&mut reader)? };
                reader.end()?;
                command
            }
            UNSUBSCRIBE => Self::Unsubscribe { fd: reader.u64()?, topic: reader.rest_text()? },
            PUBLISH => {
                let (topic, publication, exclude) = publication(&mut reader)?;
                Self::Publish { topic, publication, exclude }
            }
            DELIVER => {
                let position = position(&mut reader)?;
                let (topic, publication, exclude) = publication(&mut reader)?;
                Self::Deliver { topic, position, publication, exclude }
            }
            BROADCAST => {
                let (opcode, exclude) = (opcode(&mut reader)?, exclude(&mut reader)?);
                Self::Broadcast { opcode, exclude, payload: reader.rest() }
            }
            PIPE_MESSAGE => Self::PipeMessage {
                from: reader.u8()?,
                to: reader.u8()?,
                format: if reader.flag()? { Format::Text } else { Format::Binary },
                payload: reader.rest(),
            },
            _ => return Err(Malformed),
        })
    }

    /// Whether the API would have accepted its values. Checked for commands from other programs.
    pub fn is_allowed(&self, send_queue_size: usize) -> bool {
        let is_message = |opcode: DataOpcode, fin: Fin, payload: &[u8]| {
            let is_text = opcode == DataOpcode::Text && fin == Fin::Last;
            payload.len() <= send_queue_size && (!is_text || std::str::from_utf8(payload).is_ok())
        };
        match self {
            Self::Push { opcode, fin, payload, .. } => is_message(*opcode, *fin, payload),
            Self::Ping { payload, .. } => payload.len() <= MAX_CONTROL_PAYLOAD,
            Self::Disconnect { code, reason, .. } => may_be_sent(*code) && reason.len() <= MAX_CLOSE_REASON,
            Self::Subscribe { topic, info, .. } => is_topic(topic) && info.is_none_or(|info| info.len() <= MAX_INFO),
            Self::Unsubscribe { topic, .. } => is_topic(topic),
            Self::Publish { topic, publication, .. } => {
                let Publication { content, payload, key } = publication;
                is_topic(topic)
                    && is_message(content.opcode(), Fin::Last, payload)
                    && key.is_none_or(|key| key.len() <= MAX_KEY)
            }
            Self::Broadcast { opcode, payload, .. } => {
                *opcode != DataOpcode::Continuation && is_message(*opcode, Fin::Last, payload)
            }
            Self::PipeMessage { from, format, payload, .. } => {
                let is_valid = *format == Format::Binary || std::str::from_utf8(payload).is_ok();
                *from == OUTSIDE && payload.len() <= MAX_PIPED && is_valid
            }
            Self::Overflow { .. } | Self::Deliver { .. } => false,
        }
    }
}

/// Whether this is a valid topic name: 1 to 255 bytes.
pub fn is_topic(name: &str) -> bool {
    (1..=255).contains(&name.len())
}

/// Appends a short text.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u16(out, text.len() as u16);
    out.extend_from_slice(text.as_bytes());
}

/// Takes a short text.
pub(crate) fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    let length = reader.u16()?;
    reader.text(length.into())
}

/// Appends a short text that there may not be.
pub(crate) fn put_maybe(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => put_u16(out, NOTHING),
    }
}

/// Takes a short text that there may not be.
pub(crate) fn maybe<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a str>, Malformed> {
    match reader.u16()? {
        NOTHING => Ok(None),
        length => reader.text(length.into()).map(Some),
    }
}

/// Appends a position.
pub(crate) fn put_position(out: &mut Vec<u8>, position: Position) {
    put_u64(out, position.epoch);
    put_u64(out, position.offset);
}

/// Takes a position.
pub(crate) fn position(reader: &mut Reader<'_>) -> Result<Position, Malformed> {
    Ok(Position { epoch: reader.u64()?, offset: reader.u64()? })
}

/// Takes what a message is.
pub(crate) fn content(reader: &mut Reader<'_>) -> Result<Content, Malformed> {
    Content::from_byte(reader.u8()?).ok_or(Malformed)
}

fn put_publication(out: &mut Vec<u8>, topic: &str, publication: &Publication<'_>, exclude: &[Fd]) {
    let Publication { content, payload, key } = publication;
    put_text(out, topic);
    out.push(*content as u8);
    put_maybe(out, *key);
    put_exclude(out, exclude);
    out.extend_from_slice(payload);
}

type Published<'a> = (&'a str, Publication<'a>, Cow<'a, [Fd]>);

fn publication<'a>(reader: &mut Reader<'a>) -> Result<Published<'a>, Malformed> {
    let (topic, content, key, exclude) = (text(reader)?, content(reader)?, maybe(reader)?, exclude(reader)?);
    Ok((topic, Publication { content, key, payload: reader.rest() }, exclude))
}

/// Appends the connections that do not get a message.
pub(crate) fn put_exclude(out: &mut Vec<u8>, exclude: &[Fd]) {
    put_u32(out, exclude.len() as u32);
    for fd in exclude {
        put_u64(out, *fd);
    }
}

/// Takes the connections that do not get a message.
pub(crate) fn exclude<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, [Fd]>, Malformed> {
    let count = reader.u32()? as usize;
    if count == 0 {
        return Ok(Cow::Borrowed(&[]));
    }
    let ids = reader.bytes(count.checked_mul(size_of::<Fd>()).ok_or(Malformed)?)?;
    let mut ids = Reader::new(ids);
    let exclude = (0..count).map(|_| ids.u64()).collect::<Result<Vec<Fd>, Malformed>>()?;
    Ok(Cow::Owned(exclude))
}

fn opcode(reader: &mut Reader<'_>) -> Result<DataOpcode, Malformed> {
    DataOpcode::from_byte(reader.u8()?).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(content: Content, payload: &[u8]) -> Publication<'_> {
        Publication { content, payload, key: None }
    }

    fn samples() -> Vec<Command<'static>> {
        use DataOpcode::{Continuation, Text};
        let fd = (3 << 38) + 77;
        vec![
            Command::Push { fd, opcode: Text, fin: Fin::Last, payload: "é".as_bytes() },
            Command::Push { fd, opcode: Continuation, fin: Fin::More, payload: b"" },
            Command::Overflow { fd, length: 9 },
            Command::Ping { fd, payload: b"ping" },
            Command::Disconnect { fd, code: 4000, reason: "bye" },
            Command::Subscribe { fd, topic: "news", info: None },
            Command::Subscribe { fd, topic: "news", info: Some("{}") },
            Command::Unsubscribe { fd, topic: "news" },
            Command::Publish {
                topic: "news",
                publication: published(Content::Binary, b"\xff"),
                exclude: vec![1, fd].into(),
            },
            Command::Publish { topic: "t", publication: published(Content::Json, b""), exclude: Cow::Borrowed(&[]) },
            Command::Deliver {
                topic: "t",
                position: Position { epoch: 7, offset: 8 },
                publication: Publication { content: Content::Text, payload: b"8", key: Some("") },
                exclude: Cow::Borrowed(&[]),
            },
            Command::Broadcast { opcode: Text, payload: b"all", exclude: vec![fd].into() },
            Command::PipeMessage { from: 1, to: 2, format: Format::Text, payload: b"hello" },
        ]
    }

    #[test]
    fn every_command_comes_back_as_it_was() {
        for command in samples() {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            assert_eq!(Command::decode(&bytes), Ok(command));
        }
    }

    #[test]
    fn what_is_cut_off_within_the_fixed_fields_is_malformed() {
        let mut bytes = Vec::new();
        Command::Broadcast { opcode: DataOpcode::Text, payload: b"", exclude: vec![1, 2].into() }.encode(&mut bytes);
        for length in 0..bytes.len() {
            assert_eq!(Command::decode(&bytes[..length]), Err(Malformed), "{length}");
        }
    }

    #[test]
    fn what_the_api_would_refuse_is_not_allowed() {
        let (long, wide) = ("x".repeat(256), "1".repeat(MAX_INFO + 1));
        let refused = [
            Command::Push { fd: 1, opcode: DataOpcode::Text, fin: Fin::Last, payload: b"\xff" },
            Command::Push { fd: 1, opcode: DataOpcode::Binary, fin: Fin::Last, payload: &[0; 11] },
            Command::Ping { fd: 1, payload: &[0; 126] },
            Command::Disconnect { fd: 1, code: 1005, reason: "" },
            Command::Disconnect { fd: 1, code: 1000, reason: &long[..124] },
            Command::Subscribe { fd: 1, topic: "", info: None },
            Command::Subscribe { fd: 1, topic: &long, info: None },
            Command::Subscribe { fd: 1, topic: "t", info: Some(&wide) },
            Command::Publish { topic: "t", publication: published(Content::Json, b"\xff"), exclude: vec![].into() },
            Command::Publish {
                topic: "t",
                publication: Publication { content: Content::Text, payload: b"", key: Some(&long) },
                exclude: vec![].into(),
            },
            Command::Deliver {
                topic: "t",
                position: Position { epoch: 1, offset: 1 },
                publication: published(Content::Text, b""),
                exclude: vec![].into(),
            },
            Command::PipeMessage { from: 0, to: 0, format: Format::Binary, payload: b"" },
            Command::PipeMessage { from: OUTSIDE, to: 0, format: Format::Text, payload: b"\xff" },
            Command::PipeMessage { from: OUTSIDE, to: 0, format: Format::Binary, payload: &[0; MAX_PIPED + 1] },
        ];
        for command in refused {
            assert!(!command.is_allowed(10), "{command:?}");
        }
        assert!(Command::Disconnect { fd: 1, code: 4000, reason: "bye" }.is_allowed(10));
        let longer = Command::PipeMessage { from: OUTSIDE, to: 0, format: Format::Binary, payload: &[0; 11] };
        assert!(longer.is_allowed(10));
    }
}
