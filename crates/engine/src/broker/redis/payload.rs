//! What is published on the channels: a version, who sends it, one byte for the kind, and its fields.
//!
//! Anybody who may use Redis may publish anything there, so nothing is taken for granted.

use std::borrow::Cow;

use crate::language::command::{content, exclude, maybe, position, put_exclude, put_maybe};
use crate::language::history::History;
use crate::language::listing::{Entry as _, Member, Page};
use crate::registry::Fd;
use crate::system::codec::{Malformed, Reader};
use crate::topics::publication::{Position, Publication};

const VERSION: u8 = 1;

const FRAMES: u8 = 1;
const PLACED: u8 = 2;
const UNPLACED: u8 = 3;
const HISTORY: u8 = 4;
const FORGOTTEN: u8 = 5;
const MEMBERS: u8 = 6;
const PROBE: u8 = 7;
const RENEWED: u8 = 8;

/// The bytes before a frame's content, which are its length.
const FRAME_HEADER: usize = 4;

/// Who sends: a process, and the number of its host, 0 if it has none yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) instance: u64,
    pub(super) host: u8,
}

impl Sender {
    /// What all its payloads begin with. One byte for the kind follows.
    pub(super) fn head(self) -> [u8; 10] {
        let mut head = [0; 10];
        head[0] = VERSION;
        head[1..9].copy_from_slice(&self.instance.to_le_bytes());
        head[9] = self.host;
        head
    }
}

/// Begins a payload of frames, which are appended to it.
pub(super) fn begin_frames(out: &mut Vec<u8>, sender: Sender) {
    out.extend_from_slice(&sender.head());
    out.push(FRAMES);
}

/// A payload that shows that messages arrive.
pub(super) fn probe(sender: Sender) -> Vec<u8> {
    let mut probe = sender.head().to_vec();
    probe.push(PROBE);
    probe
}

/// A payload for all: all topics have begun a new epoch.
pub(super) fn renewed(sender: Sender) -> Vec<u8> {
    let mut renewed = sender.head().to_vec();
    renewed.push(RENEWED);
    renewed
}

/// Appends what precedes a message on a topic's channel.
pub(super) fn put_beside(out: &mut Vec<u8>, publication: &Publication<'_>, excluded: &[Fd]) {
    put_exclude(out, excluded);
    put_kept_beside(out, publication);
}

/// Appends what is kept beside a message.
pub(super) fn put_kept_beside(out: &mut Vec<u8>, publication: &Publication<'_>) {
    out.push(publication.content as u8);
    put_maybe(out, publication.key);
}

/// What a payload says.
#[derive(Debug, PartialEq)]
pub(super) enum Payload<'a> {
    Frames(Frames<'a>),
    /// A message of a topic. It has no position if Redis could not write.
    Message {
        position: Option<Position>,
        publication: Publication<'a>,
        exclude: Cow<'a, [Fd]>,
    },
    /// The answer to the question with that number.
    History(u64, History),
    Forgotten(u64),
    Members(u64, Page<Member>),
    /// Shows that messages arrive.
    Probe,
    /// The topic has begun a new epoch, or all topics have.
    Renewed,
}

impl<'a> Payload<'a> {
    /// # Errors
    /// If it is not from a server of this kind.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<(Sender, Self), Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let sender = Sender { instance: reader.u64()?, host: reader.u8()? };
        let payload = match reader.u8()? {
            FRAMES => Self::Frames(Frames::new(reader.rest())?),
            kind @ (PLACED | UNPLACED) => {
                let position = if kind == PLACED { Some(position(&mut reader)?) } else { None };
                let exclude = exclude(&mut reader)?;
                let (content, key) = (content(&mut reader)?, maybe(&mut reader)?);
                Self::Message { position, publication: Publication { content, payload: reader.rest(), key }, exclude }
            }
            HISTORY => Self::History(reader.u64()?, History::decode(&mut reader)?),
            FORGOTTEN => {
                let number = reader.u64()?;
                reader.end()?;
                Self::Forgotten(number)
            }
            MEMBERS => {
                let (number, goes_on) = (reader.u64()?, reader.flag()?);
                let mut entries = Vec::new();
                while !reader.is_empty() {
                    entries.push(Member::decode(&mut reader)?);
                }
                Self::Members(number, Page { entries, goes_on })
            }
            PROBE => {
                reader.end()?;
                Self::Probe
            }
            RENEWED => {
                reader.end()?;
                Self::Renewed
            }
            _ => return Err(Malformed),
        };
        Ok((sender, payload))
    }
}

/// Whole frames, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let length = reader.u32()? as usize;
            if length == 0 {
                return Err(Malformed);
            }
            reader.bytes(length)?;
        }
        Ok(Self(bytes))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(*self.0.first_chunk()?) as usize;
        let (frame, rest) = self.0.split_at_checked(FRAME_HEADER + length)?;
        self.0 = rest;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topics::publication::Content;

    const SENDER: Sender = Sender { instance: 0x0102_0304_0506_0708, host: 7 };

    fn payload(kind: u8, fields: &[u8]) -> Vec<u8> {
        let mut bytes = SENDER.head().to_vec();
        bytes.push(kind);
        bytes.extend_from_slice(fields);
        bytes
    }

    #[test]
    fn frames_come_back_one_by_one() {
        let mut bytes = Vec::new();
        begin_frames(&mut bytes, SENDER);
        bytes.extend(b"\x01\0\0\0a\x02\0\0\0bc");
        let (sender, Payload::Frames(frames)) = Payload::decode(&bytes).expect("well formed") else {
            panic!("frames");
        };
        assert_eq!(sender, SENDER);
        assert_eq!(frames.collect::<Vec<_>>(), [&b"\x01\0\0\0a"[..], b"\x02\0\0\0bc"]);
        for length in 0..bytes.len() {
            let whole = [11, 16].contains(&length);
            assert_eq!(Payload::decode(&bytes[..length]).is_ok(), whole, "{length}");
        }
        assert!(Payload::decode(&payload(FRAMES, &[0, 0, 0, 0])).is_err(), "an empty frame");
        assert!(Payload::decode(&payload(FRAMES, &[0xff; 4])).is_err(), "a frame that is longer than the payload");
    }

    #[test]
    fn a_message_comes_back() {
        let publication = Publication { content: Content::Json, payload: b"{}", key: Some("k") };
        let position = Position { epoch: u64::MAX, offset: (1 << 53) - 1 };
        let mut fields = [position.epoch.to_le_bytes(), position.offset.to_le_bytes()].concat();
        put_beside(&mut fields, &publication, &[3, 4]);
        fields.extend_from_slice(publication.payload);
        let message = Payload::Message { position: Some(position), publication, exclude: vec![3, 4].into() };
        assert_eq!(Payload::decode(&payload(PLACED, &fields)), Ok((SENDER, message)));
        let message = Payload::Message { position: None, publication, exclude: vec![3, 4].into() };
        assert_eq!(Payload::decode(&payload(UNPLACED, &fields[16..])), Ok((SENDER, message)));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_understood_but_never_fatal(kind in 0..9u8, bytes: Vec<u8>) {
            let bytes = payload(kind, &bytes);
            if let Ok((_, Payload::Frames(frames))) = Payload::decode(&bytes) {
                prop_assert_eq!(frames.map(<[u8]>::len).sum::<usize>(), bytes.len() - 11);
            }
            let _ = Payload::decode(&bytes[5..]);
        }
    }
}
