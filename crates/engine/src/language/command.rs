//! The commands for a reactor, as values and as bytes.
//!
//! The same bytes wait in the queue of a worker's other threads, cross the links between processes and arrive over the
//! control socket. Numbers are little-endian. See [`crate::message`] for the framing of a command.

use std::borrow::Cow;

use wire::error::may_be_sent;
use wire::frame::{DataOpcode, Fin, MAX_CLOSE_REASON, MAX_CONTROL_PAYLOAD};

use crate::registry::Fd;
use crate::system::codec::{Malformed, Reader, put_u16, put_u32, put_u64};

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
    Subscribe {
        fd: Fd,
        topic: &'a str,
    },
    Unsubscribe {
        fd: Fd,
        topic: &'a str,
    },
    Publish {
        topic: &'a str,
        opcode: DataOpcode,
        payload: &'a [u8],
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
            Self::Publish { .. } | Self::Broadcast { .. } | Self::PipeMessage { .. } => None,
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
            Self::Subscribe { fd, topic } => put_topic(out, SUBSCRIBE, *fd, topic),
            Self::Unsubscribe { fd, topic } => put_topic(out, UNSUBSCRIBE, *fd, topic),
            Self::Publish { topic, opcode, payload, exclude } => {
                out.push(PUBLISH);
                put_u16(out, topic.len() as u16);
                out.extend_from_slice(topic.as_bytes());
                put_fan_out(out, *opcode, payload, exclude);
            }
            Self::Broadcast { opcode, payload, exclude } => {
                out.push(BROADCAST);
                put_fan_out(out, *opcode, payload, exclude);
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
            SUBSCRIBE => Self::Subscribe { fd: reader.u64()?, topic: reader.rest_text()? },
            UNSUBSCRIBE => Self::Unsubscribe { fd: reader.u64()?, topic: reader.rest_text()? },
            PUBLISH => {
                let length = reader.u16()?;
                let topic = reader.text(length.into())?;
                let (opcode, exclude) = fan_out(&mut reader)?;
                Self::Publish { topic, opcode, exclude, payload: reader.rest() }
            }
            BROADCAST => {
                let (opcode, exclude) = fan_out(&mut reader)?;
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
            Self::Subscribe { topic, .. } | Self::Unsubscribe { topic, .. } => is_topic(topic),
            Self::Publish { topic, opcode, payload, .. } => {
                is_topic(topic) && *opcode != DataOpcode::Continuation && is_message(*opcode, Fin::Last, payload)
            }
            Self::Broadcast { opcode, payload, .. } => {
                *opcode != DataOpcode::Continuation && is_message(*opcode, Fin::Last, payload)
            }
            Self::PipeMessage { from, format, payload, .. } => {
                let is_valid = *format == Format::Binary || std::str::from_utf8(payload).is_ok();
                *from == OUTSIDE && payload.len() <= MAX_PIPED && is_valid
            }
            Self::Overflow { .. } => false,
        }
    }
}

/// Whether this is a valid topic name: 1 to 255 bytes.
pub fn is_topic(name: &str) -> bool {
    (1..=255).contains(&name.len())
}

fn put_topic(out: &mut Vec<u8>, kind: u8, fd: Fd, topic: &str) {
    out.push(kind);
    put_u64(out, fd);
    out.extend_from_slice(topic.as_bytes());
}

fn put_fan_out(out: &mut Vec<u8>, opcode: DataOpcode, payload: &[u8], exclude: &[Fd]) {
    out.push(opcode.to_byte());
    put_u32(out, exclude.len() as u32);
    for fd in exclude {
        put_u64(out, *fd);
    }
    out.extend_from_slice(payload);
}

fn fan_out<'a>(reader: &mut Reader<'a>) -> Result<(DataOpcode, Cow<'a, [Fd]>), Malformed> {
    let opcode = opcode(reader)?;
    let count = reader.u32()? as usize;
    if count == 0 {
        return Ok((opcode, Cow::Borrowed(&[])));
    }
    let ids = reader.bytes(count.checked_mul(size_of::<Fd>()).ok_or(Malformed)?)?;
    let mut ids = Reader::new(ids);
    let exclude = (0..count).map(|_| ids.u64()).collect::<Result<Vec<Fd>, Malformed>>()?;
    Ok((opcode, Cow::Owned(exclude)))
}

fn opcode(reader: &mut Reader<'_>) -> Result<DataOpcode, Malformed> {
    DataOpcode::from_byte(reader.u8()?).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Command<'static>> {
        use DataOpcode::{Binary, Continuation, Text};
        let fd = (3 << 38) + 77;
        vec![
            Command::Push { fd, opcode: Text, fin: Fin::Last, payload: "é".as_bytes() },
            Command::Push { fd, opcode: Continuation, fin: Fin::More, payload: b"" },
            Command::Overflow { fd, length: 9 },
            Command::Ping { fd, payload: b"ping" },
            Command::Disconnect { fd, code: 4000, reason: "bye" },
            Command::Subscribe { fd, topic: "news" },
            Command::Unsubscribe { fd, topic: "news" },
            Command::Publish { topic: "news", opcode: Binary, payload: b"\xff", exclude: vec![1, fd].into() },
            Command::Publish { topic: "t", opcode: Text, payload: b"", exclude: Cow::Borrowed(&[]) },
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
        let long = "x".repeat(256);
        let refused = [
            Command::Push { fd: 1, opcode: DataOpcode::Text, fin: Fin::Last, payload: b"\xff" },
            Command::Push { fd: 1, opcode: DataOpcode::Binary, fin: Fin::Last, payload: &[0; 11] },
            Command::Ping { fd: 1, payload: &[0; 126] },
            Command::Disconnect { fd: 1, code: 1005, reason: "" },
            Command::Disconnect { fd: 1, code: 1000, reason: &long[..124] },
            Command::Subscribe { fd: 1, topic: "" },
            Command::Subscribe { fd: 1, topic: &long },
            Command::Publish { topic: "t", opcode: DataOpcode::Continuation, payload: b"", exclude: vec![].into() },
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
