//! The messages on a link between the hub and a worker, or on the control socket between the hub and another program.
//!
//! A frame is a length (four bytes, little-endian, of what follows), one byte for the kind, and the fields. A program
//! that connects to the control socket sends [`Message::Hello`] first, and is answered with [`Message::Welcome`].

use std::ops::Range;
use std::time::Duration;

use crate::language::command::{Command, maybe, position, put_maybe, put_position, put_text, text};
use crate::language::history::History;
use crate::language::listing::{Member, Page, TopicSize};
use crate::registry::{COUNTS, Counts, Stats, WorkerStats};
use crate::registry::{Fd, HostInfo, Info};
use crate::system::codec::{Malformed, Reader, put_u16, put_u32, put_u64};
use crate::topics::publication::Position;

/// The version of this language. Every change to the language gets a new number.
pub const VERSION: u32 = 6;

/// How long a question to other processes may take unless another time is given.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long the hub waits for other workers to answer a worker's question. It is a little less, so that the hub's own
/// answer, which names the silent workers, arrives in time.
pub(crate) const HUB_PATIENCE: Duration = Duration::from_millis(4500);
/// The longest time to wait for an answer, whatever is requested.
pub const MAX_PATIENCE: Duration = Duration::from_secs(3600);
/// The longest time that a server may take to send its clients away.
pub const MAX_DRAIN: Duration = Duration::from_secs(24 * 3600);

/// Bytes before a frame's content.
pub(crate) const HEADER: usize = 4;

/// Why a worker has to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The whole server is stopping.
    Stop,
    /// Another worker takes its place, with new code.
    Replace,
    /// It was asked to terminate.
    Terminate,
}

/// A question to the hub, or from the hub to workers. Each is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants explain their fields")]
pub enum Question<'a> {
    /// Carry out this command; only Push, Disconnect, and PipeMessage, which the hub accepts and passes on. Answered
    /// with [`Answer::Done`], or [`Answer::NoWorker`].
    Do(Command<'a>),
    /// How many connections are subscribed. Answered with [`Answer::Count`].
    Subscribers(&'a str),
    /// Which topics have subscribers: the first `limit` whose names begin with `prefix` and come after `after` in the
    /// order of their bytes. Answered with [`Answer::Topics`], in shorter pages if `limit` is above
    /// [`crate::MAX_TOPICS_PAGE`].
    Topics { prefix: &'a str, after: &'a str, limit: u32 },
    /// Which connections are subscribed: the first `limit` with ids above `after`. Answered with [`Answer::Members`],
    /// in shorter pages if `limit` is above [`crate::MAX_MEMBERS_PAGE`].
    Members { topic: &'a str, after: Fd, limit: u32 },
    /// Which messages a topic has kept: the first `limit` after the position `after`, or the newest `limit` below the
    /// offset `before` (0: of all). Answered with [`Answer::History`], which may have fewer of them.
    History { topic: &'a str, after: Option<Position>, before: u64, limit: u32, newest_first: bool },
    /// What connections that join a topic have missed since these positions, and at least the `last` messages, but at
    /// most `max_bytes` of the newest. Answered with [`Answer::History`].
    Missed { topic: &'a str, since: Vec<Position>, last: u32, max_bytes: u64 },
    /// Remove a topic's history. Answered with [`Answer::Done`].
    Forget(&'a str),
    /// Who is there: the first `limit` members of a topic with ids above `after`. Answered with [`Answer::Presence`].
    Presence { topic: &'a str, after: Fd, limit: u32 },
    /// Subscribe a connection, and send it what it has missed; see [`crate::Reactor::join_topic`]. Answered with
    /// [`Answer::Joined`].
    /// `floor`, which the hub adds: it is sent everything after that in any case.
    Join { fd: Fd, topic: &'a str, since: Option<Position>, last: u32, floor: Option<Position>, info: Option<&'a str> },
    /// Answered with [`Answer::Stats`].
    Stats,
    /// Answered with [`Answer::Connections`].
    Connections,
    /// Answered with [`Answer::Info`].
    Info(Fd),
    /// Whether everything sent before has been accepted. Answered with [`Answer::Done`].
    Flush,
    /// Ask all hosts this; only [`Question::Stats`], [`Question::Connections`], [`Question::Info`],
    /// [`Question::Subscribers`], [`Question::Topics`] and [`Question::Members`]. `Info` asks the connection's host only.
    /// Answered with [`Answer::Everywhere`].
    Everywhere(Box<Question<'a>>),
    /// Which hosts there are. Answered with [`Answer::Hosts`].
    Hosts,
    /// Let no more clients in, close all connections one after the other within this time (whole milliseconds, at most
    /// [`MAX_DRAIN`]), and end. Answered with [`Answer::Done`] as soon as it begins.
    Drain(Duration),
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "see `Question`")]
pub enum Answer {
    Done(bool),
    Count(u64),
    Topics(Page<TopicSize>),
    Members(Page<Fd>),
    History(Box<History>),
    Presence(Page<Member>),
    Joined(Joined),
    Stats(Box<Stats>),
    Connections(Vec<Fd>),
    /// With the id of the worker that the connection belongs to.
    Info(Option<(u8, Info)>),
    /// Too many questions are already waiting.
    Refused,
    /// These workers did not answer in time.
    Silent(Vec<u8>),
    /// This host did not answer in time; 0 is the broker.
    SilentHost(u8),
    /// The answers of the hosts with these numbers, and those that did not answer in time.
    Everywhere {
        answers: Vec<(u8, Answer)>,
        silent: Vec<u8>,
    },
    Hosts(Vec<HostInfo>),
    /// There is no such worker; with the number of workers.
    NoWorker(u8),
}

/// The outcome of joining a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Whether the connection has everything since the position that it came with.
    pub recovered: bool,
    /// How many old messages it was sent.
    pub count: u64,
    /// Where the live messages begin. The default if the connection is not open, or the topic has no order.
    pub position: Position,
}

/// A message on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// To be carried out, or passed on to its destination.
    Command(Command<'a>),
    /// A question; its number is returned with the answer. The hub answers [`Answer::Silent`] if a worker has not
    /// answered within the given time (whole milliseconds, at most [`MAX_PATIENCE`]). The time means nothing to a
    /// worker.
    Ask(u64, Duration, Question<'a>),
    /// The answer to the question with that number.
    Answer(u64, Answer),
    /// Accepted sockets, whose descriptors are sent alongside, with the input already read from each.
    Sockets(Vec<&'a [u8]>),
    /// To a worker.
    Leave(Leave),
    /// To a worker: let no more clients in, and close all connections one after the other within this time (whole
    /// milliseconds).
    Drain(Duration),
    /// To a worker: another worker is gone, and what it had sent may never arrive.
    SenderGone,
    /// To a worker: commands for it were dropped, because it took none. From here on, it gets them again.
    Dropped,
    /// To a worker: a topic has begun a new epoch, which no message shows yet.
    Renewed(&'a str),
    /// To a worker: run a turn, which shows that it can. Nothing else is asked of it.
    Wake,
    /// From a worker: it accepts connections from now on.
    Ready,
    /// From a worker: it has been asked to leave, and waits for [`Message::Leave`].
    Leaving,
    /// From a worker: few leased ids are left.
    FewIds,
    /// From a worker: replace the workers.
    Reload,
    /// From a worker: stop the server.
    Shutdown,
    /// From a worker: it wants to know when another worker's connection is no longer open.
    Watch(Fd),
    /// From a worker: it no longer wants to know.
    Unwatch(Fd),
    /// From the worker that had the connection, and to those that watch it: it is no longer open.
    Gone(Fd),
    /// From the worker in that slot, to the worker that has the connection: it wants to know when the outbox has room
    /// for a message of that length.
    AwaitRoom {
        /// The connection.
        fd: Fd,
        /// The sender's host, if that is another one; else 0.
        host: u8,
        /// The sender's slot.
        slot: u8,
        /// The message's length in bytes.
        length: u64,
    },
    /// The answer, to the worker in that slot.
    Room {
        /// The connection.
        fd: Fd,
        /// The receiver's host, if that is another one; else 0.
        host: u8,
        /// The receiver's slot.
        slot: u8,
    },
    /// From a worker: a connection of its own is subscribed to a topic whose members are known; or `info`, JSON, has
    /// changed.
    Joined {
        /// The connection.
        fd: Fd,
        /// Names this stay of the connection in the topic.
        number: u64,
        /// The topic.
        topic: &'a str,
        /// What is to be known about it.
        info: &'a str,
    },
    /// From a worker: a connection of its own is no longer subscribed to a topic whose members are known.
    Left {
        /// The connection.
        fd: Fd,
        /// Names this stay of the connection in the topic.
        number: u64,
        /// The topic.
        topic: &'a str,
    },
    /// To a worker: the same about a connection of a worker that is gone. To be answered with [`Message::LeaveTold`].
    Lost {
        /// The connection.
        fd: Fd,
        /// Names this stay of the connection in the topic.
        number: u64,
        /// The topic.
        topic: &'a str,
        /// What was known about it.
        info: &'a str,
    },
    /// From a worker: its application is about to be told that this stay has begun.
    JoinTold {
        /// The connection.
        fd: Fd,
        /// See [`Message::Joined`].
        number: u64,
    },
    /// From a worker: its application is about to be told that this stay is over.
    LeaveTold {
        /// The connection.
        fd: Fd,
        /// See [`Message::Joined`].
        number: u64,
    },
    /// From a worker: it has the first connection that is subscribed to this topic. Sent only if there may be other
    /// hosts.
    Want(&'a str),
    /// From a worker: it no longer has one.
    Unwant(&'a str),
    /// To a worker: other hosts count this one as dead. All connections with counters up to this one have to end; others
    /// have told the application that the members of topics have left.
    Fenced(u64),
    /// From another host, every second.
    Host(HostInfo),
    /// From another host: its server ends.
    HostLeaves,
    /// From another program, as its first message.
    Hello {
        /// The sender's [`VERSION`].
        version: u32,
    },
    /// The answer to Hello.
    Welcome {
        /// The sender's [`VERSION`].
        version: u32,
        /// The longest message that may be sent.
        send_queue_size: u64,
        /// The patterns of topics that have options, in their order, and whether their messages have an envelope.
        topics: Vec<(&'a str, bool)>,
    },
}

const COMMAND: u8 = 1;
const ASK: u8 = 2;
const ANSWER: u8 = 3;
const SOCKETS: u8 = 4;
const LEAVE: u8 = 5;
const SENDER_GONE: u8 = 6;
const READY: u8 = 7;
const LEAVING: u8 = 8;
const RELOAD: u8 = 9;
const SHUTDOWN: u8 = 10;
const HELLO: u8 = 11;
const WELCOME: u8 = 12;
const WAKE: u8 = 13;
const FEW_IDS: u8 = 14;
const WATCH: u8 = 15;
const UNWATCH: u8 = 16;
const GONE: u8 = 17;
const AWAIT_ROOM: u8 = 18;
const ROOM_FOR: u8 = 19;
const JOINED: u8 = 20;
const LEFT: u8 = 21;
const LOST: u8 = 22;
const JOIN_TOLD: u8 = 23;
const DROPPED: u8 = 24;
const LEAVE_TOLD: u8 = 25;
const WANT: u8 = 26;
const UNWANT: u8 = 27;
const FENCED: u8 = 28;
const HOST: u8 = 29;
const HOST_LEAVES: u8 = 30;
const DRAIN: u8 = 31;
const RENEWED: u8 = 32;

const DO: u8 = 1;
const SUBSCRIBERS: u8 = 2;
const STATS: u8 = 3;
const CONNECTIONS: u8 = 4;
const INFO: u8 = 5;
const FLUSH: u8 = 6;
const REFUSED: u8 = 7;
const SILENT: u8 = 8;
const TOPICS: u8 = 9;
const MEMBERS: u8 = 10;
const NO_WORKER: u8 = 11;
const HISTORY: u8 = 12;
const MISSED: u8 = 13;
const FORGET: u8 = 14;
const PRESENCE: u8 = 15;
const JOIN: u8 = 16;
const SILENT_HOST: u8 = 17;
const EVERYWHERE: u8 = 18;
const HOSTS: u8 = 19;
const DRAIN_ALL: u8 = 20;

impl<'a> Message<'a> {
    /// Appends the whole frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        put_u32(out, 0);
        self.encode_content(out);
        let length = (out.len() - begin - HEADER) as u32;
        out[begin..begin + HEADER].copy_from_slice(&length.to_le_bytes());
    }

    fn encode_content(&self, out: &mut Vec<u8>) {
        match self {
            Self::Command(command) => {
                out.push(COMMAND);
                command.encode(out);
            }
            Self::Ask(number, patience, question) => {
                out.push(ASK);
                put_u64(out, *number);
                put_u32(out, (*patience).min(MAX_PATIENCE).as_millis() as u32);
                question.encode(out);
            }
            Self::Answer(number, answer) => {
                out.push(ANSWER);
                put_u64(out, *number);
                answer.encode(out);
            }
            Self::Sockets(inputs) => {
                out.push(SOCKETS);
                put_u16(out, inputs.len() as u16);
                for input in inputs {
                    put_u32(out, input.len() as u32);
                    out.extend_from_slice(input);
                }
            }
            Self::Leave(why) => out.extend([LEAVE, *why as u8]),
            Self::Drain(time) => {
                out.push(DRAIN);
                put_drain(out, *time);
            }
            Self::SenderGone => out.push(SENDER_GONE),
            Self::Dropped => out.push(DROPPED),
            Self::Renewed(topic) => {
                out.push(RENEWED);
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Wake => out.push(WAKE),
            Self::Ready => out.push(READY),
            Self::Leaving => out.push(LEAVING),
            Self::FewIds => out.push(FEW_IDS),
            Self::Reload => out.push(RELOAD),
            Self::Shutdown => out.push(SHUTDOWN),
            Self::Watch(fd) => put_fd(out, WATCH, *fd),
            Self::Unwatch(fd) => put_fd(out, UNWATCH, *fd),
            Self::Gone(fd) => put_fd(out, GONE, *fd),
            Self::AwaitRoom { fd, host, slot, length } => {
                put_fd(out, AWAIT_ROOM, *fd);
                out.extend([*host, *slot]);
                put_u64(out, *length);
            }
            Self::Room { fd, host, slot } => {
                put_fd(out, ROOM_FOR, *fd);
                out.extend([*host, *slot]);
            }
            Self::Want(topic) => {
                out.push(WANT);
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Unwant(topic) => {
                out.push(UNWANT);
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Fenced(counter) => {
                out.push(FENCED);
                put_u64(out, *counter);
            }
            Self::Host(host) => {
                out.push(HOST);
                host.encode(out);
            }
            Self::HostLeaves => out.push(HOST_LEAVES),
            Self::Hello { version } => {
                out.push(HELLO);
                put_u32(out, *version);
            }
            Self::Joined { fd, number, topic, info } => {
                put_fd(out, JOINED, *fd);
                put_u64(out, *number);
                put_text(out, topic);
                out.extend_from_slice(info.as_bytes());
            }
            Self::Left { fd, number, topic } => {
                put_fd(out, LEFT, *fd);
                put_u64(out, *number);
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Lost { number, fd, topic, info } => {
                put_fd(out, LOST, *fd);
                put_u64(out, *number);
                put_text(out, topic);
                out.extend_from_slice(info.as_bytes());
            }
            Self::JoinTold { fd, number } => {
                put_fd(out, JOIN_TOLD, *fd);
                put_u64(out, *number);
            }
            Self::LeaveTold { fd, number } => {
                put_fd(out, LEAVE_TOLD, *fd);
                put_u64(out, *number);
            }
            Self::Welcome { version, send_queue_size, topics } => {
                out.push(WELCOME);
                put_u32(out, *version);
                put_u64(out, *send_queue_size);
                for (pattern, has_envelope) in topics {
                    out.push(u8::from(*has_envelope));
                    put_text(out, pattern);
                }
            }
        }
    }

    /// The message in a frame's content.
    ///
    /// # Errors
    /// If there is none.
    pub fn decode(content: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(content);
        let message = match reader.u8()? {
            COMMAND => Self::Command(Command::decode(reader.rest())?),
            ASK => {
                let (number, patience) = (reader.u64()?, Duration::from_millis(reader.u32()?.into()));
                Self::Ask(number, patience.min(MAX_PATIENCE), Question::decode(&mut reader)?)
            }
            ANSWER => Self::Answer(reader.u64()?, Answer::decode(&mut reader)?),
            SOCKETS => {
                let count = reader.u16()?;
                let inputs = (0..count).map(|_| {
                    let length = reader.u32()?;
                    reader.bytes(length as usize)
                });
                Self::Sockets(inputs.collect::<Result<_, Malformed>>()?)
            }
            LEAVE => Self::Leave(match reader.u8()? {
                0 => Leave::Stop,
                1 => Leave::Replace,
                2 => Leave::Terminate,
                _ => return Err(Malformed),
            }),
            DRAIN => Self::Drain(drain(&mut reader)?),
            SENDER_GONE => Self::SenderGone,
            DROPPED => Self::Dropped,
            RENEWED => Self::Renewed(reader.rest_text()?),
            WAKE => Self::Wake,
            READY => Self::Ready,
            LEAVING => Self::Leaving,
            FEW_IDS => Self::FewIds,
            RELOAD => Self::Reload,
            SHUTDOWN => Self::Shutdown,
            WATCH => Self::Watch(reader.u64()?),
            UNWATCH => Self::Unwatch(reader.u64()?),
            GONE => Self::Gone(reader.u64()?),
            AWAIT_ROOM => {
                let (fd, host, slot) = (reader.u64()?, reader.u8()?, reader.u8()?);
                Self::AwaitRoom { fd, host, slot, length: reader.u64()? }
            }
            ROOM_FOR => Self::Room { fd: reader.u64()?, host: reader.u8()?, slot: reader.u8()? },
            WANT => Self::Want(reader.rest_text()?),
            UNWANT => Self::Unwant(reader.rest_text()?),
            FENCED => Self::Fenced(reader.u64()?),
            HOST => Self::Host(HostInfo::decode(&mut reader)?),
            HOST_LEAVES => Self::HostLeaves,
            HELLO => Self::Hello { version: reader.u32()? },
            JOINED => {
                let (fd, number) = (reader.u64()?, reader.u64()?);
                Self::Joined { fd, number, topic: text(&mut reader)?, info: reader.rest_text()? }
            }
            LEFT => Self::Left { fd: reader.u64()?, number: reader.u64()?, topic: reader.rest_text()? },
            LOST => {
                let (fd, number) = (reader.u64()?, reader.u64()?);
                Self::Lost { number, fd, topic: text(&mut reader)?, info: reader.rest_text()? }
            }
            JOIN_TOLD => Self::JoinTold { fd: reader.u64()?, number: reader.u64()? },
            LEAVE_TOLD => Self::LeaveTold { fd: reader.u64()?, number: reader.u64()? },
            WELCOME => {
                let (version, send_queue_size) = (reader.u32()?, reader.u64()?);
                let mut topics = Vec::new();
                // What follows the version may be anything in another version.
                while version == VERSION && !reader.is_empty() {
                    let has_envelope = reader.flag()?;
                    topics.push((text(&mut reader)?, has_envelope));
                }
                if version != VERSION {
                    reader.rest();
                }
                Self::Welcome { version, send_queue_size, topics }
            }
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(message)
    }
}

fn put_fd(out: &mut Vec<u8>, kind: u8, fd: Fd) {
    out.push(kind);
    put_u64(out, fd);
}

impl<'a> Question<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Do(command) => {
                out.push(DO);
                command.encode(out);
            }
            Self::Subscribers(topic) => {
                out.push(SUBSCRIBERS);
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Topics { prefix, after, limit } => {
                out.push(TOPICS);
                put_u32(out, *limit);
                put_u16(out, prefix.len() as u16);
                out.extend_from_slice(prefix.as_bytes());
                out.extend_from_slice(after.as_bytes());
            }
            Self::Members { topic, after, limit } => {
                out.push(MEMBERS);
                put_u32(out, *limit);
                put_u64(out, *after);
                out.extend_from_slice(topic.as_bytes());
            }
            Self::History { topic, after, before, limit, newest_first } => {
                out.push(HISTORY);
                put_maybe_position(out, *after);
                put_u64(out, *before);
                put_u32(out, *limit);
                out.push(u8::from(*newest_first));
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Missed { topic, since, last, max_bytes } => {
                out.push(MISSED);
                put_u32(out, *last);
                put_u64(out, *max_bytes);
                put_u16(out, since.len() as u16);
                for position in since {
                    put_position(out, *position);
                }
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Forget(topic) => {
                out.push(FORGET);
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Presence { topic, after, limit } => {
                out.push(PRESENCE);
                put_u64(out, *after);
                put_u32(out, *limit);
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Join { fd, topic, since, last, floor, info } => {
                put_fd(out, JOIN, *fd);
                put_maybe_position(out, *since);
                put_maybe_position(out, *floor);
                put_u32(out, *last);
                put_maybe(out, *info);
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Stats => out.push(STATS),
            Self::Connections => out.push(CONNECTIONS),
            Self::Info(fd) => {
                out.push(INFO);
                put_u64(out, *fd);
            }
            Self::Flush => out.push(FLUSH),
            Self::Everywhere(question) => {
                out.push(EVERYWHERE);
                question.encode(out);
            }
            Self::Hosts => out.push(HOSTS),
            Self::Drain(time) => {
                out.push(DRAIN_ALL);
                put_drain(out, *time);
            }
        }
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        match reader.u8()? {
            EVERYWHERE => match Self::decode_as(reader.u8()?, reader)? {
                question if question.is_for_all_hosts() => Ok(Self::Everywhere(Box::new(question))),
                _ => Err(Malformed),
            },
            kind => Self::decode_as(kind, reader),
        }
    }

    /// The question of this kind, which is not one for all hosts.
    fn decode_as(kind: u8, reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match kind {
            DO => match Command::decode(reader.rest())? {
                command @ (Command::Push { .. } | Command::Disconnect { .. } | Command::PipeMessage { .. }) => {
                    Self::Do(command)
                }
                _ => return Err(Malformed),
            },
            SUBSCRIBERS => Self::Subscribers(reader.rest_text()?),
            TOPICS => {
                let (limit, length) = (reader.u32()?, reader.u16()?);
                Self::Topics { limit, prefix: reader.text(length.into())?, after: reader.rest_text()? }
            }
            MEMBERS => Self::Members { limit: reader.u32()?, after: reader.u64()?, topic: reader.rest_text()? },
            HISTORY => {
                let (after, before, limit) = (maybe_position(reader)?, reader.u64()?, reader.u32()?);
                Self::History { after, before, limit, newest_first: reader.flag()?, topic: reader.rest_text()? }
            }
            MISSED => {
                let (last, max_bytes, count) = (reader.u32()?, reader.u64()?, reader.u16()?);
                let since = (0..count).map(|_| position(reader)).collect::<Result<_, Malformed>>()?;
                Self::Missed { last, max_bytes, since, topic: reader.rest_text()? }
            }
            FORGET => Self::Forget(reader.rest_text()?),
            PRESENCE => Self::Presence { after: reader.u64()?, limit: reader.u32()?, topic: reader.rest_text()? },
            JOIN => {
                let (fd, since, floor) = (reader.u64()?, maybe_position(reader)?, maybe_position(reader)?);
                let (last, info) = (reader.u32()?, maybe(reader)?);
                Self::Join { fd, since, last, floor, info, topic: reader.rest_text()? }
            }
            STATS => Self::Stats,
            CONNECTIONS => Self::Connections,
            INFO => Self::Info(reader.u64()?),
            FLUSH => Self::Flush,
            HOSTS => Self::Hosts,
            DRAIN_ALL => Self::Drain(drain(reader)?),
            _ => return Err(Malformed),
        })
    }

    /// Whether it can be put to all hosts.
    pub(crate) fn is_for_all_hosts(&self) -> bool {
        matches!(
            self,
            Self::Stats
                | Self::Connections
                | Self::Info(_)
                | Self::Subscribers(_)
                | Self::Topics { .. }
                | Self::Members { .. }
        )
    }
}

impl Answer {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Done(done) => out.extend([DO, u8::from(*done)]),
            Self::Count(count) => {
                out.push(SUBSCRIBERS);
                put_u64(out, *count);
            }
            Self::Topics(page) => {
                out.push(TOPICS);
                page.encode(out);
            }
            Self::Members(page) => {
                out.push(MEMBERS);
                page.encode(out);
            }
            Self::History(history) => {
                out.push(HISTORY);
                history.encode(out);
            }
            Self::Presence(page) => {
                out.push(PRESENCE);
                page.encode(out);
            }
            Self::Joined(Joined { recovered, count, position }) => {
                out.extend([JOIN, u8::from(*recovered)]);
                put_u64(out, *count);
                put_position(out, *position);
            }
            Self::Stats(stats) => {
                out.push(STATS);
                put_u64(out, stats.started_at);
                put_counts(out, &stats.totals);
                for worker in &stats.workers {
                    out.push(worker.worker_id);
                    put_u64(out, worker.started_at);
                    put_counts(out, &worker.counts);
                }
            }
            Self::Connections(ids) => {
                out.push(CONNECTIONS);
                for id in ids {
                    put_u64(out, *id);
                }
            }
            Self::Refused => out.push(REFUSED),
            Self::NoWorker(workers) => out.extend([NO_WORKER, *workers]),
            Self::Silent(workers) => {
                out.push(SILENT);
                out.extend_from_slice(workers);
            }
            Self::SilentHost(host) => out.extend([SILENT_HOST, *host]),
            Self::Everywhere { answers, silent } => {
                out.extend([EVERYWHERE, silent.len() as u8]);
                out.extend_from_slice(silent);
                let mut one = Vec::new();
                for (host, answer) in answers {
                    one.clear();
                    answer.encode(&mut one);
                    out.push(*host);
                    put_u32(out, one.len() as u32);
                    out.extend_from_slice(&one);
                }
            }
            Self::Hosts(hosts) => {
                out.push(HOSTS);
                hosts.iter().for_each(|host| host.encode(out));
            }
            Self::Info(info) => {
                out.push(INFO);
                if let Some((worker_id, info)) = info {
                    out.push(*worker_id);
                    info.encode(out);
                }
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.u8()? {
            EVERYWHERE => {
                let count = reader.u8()?;
                let silent = reader.bytes(count.into())?.to_vec();
                let mut answers = Vec::new();
                while !reader.is_empty() {
                    let (host, length) = (reader.u8()?, reader.u32()?);
                    let mut one = Reader::new(reader.bytes(length as usize)?);
                    answers.push((host, Self::decode_as(one.u8()?, &mut one)?));
                    one.end()?;
                }
                Ok(Self::Everywhere { answers, silent })
            }
            kind => Self::decode_as(kind, reader),
        }
    }

    /// The answer of this kind, which is not that of several hosts.
    fn decode_as(kind: u8, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match kind {
            DO => Self::Done(reader.flag()?),
            SUBSCRIBERS => Self::Count(reader.u64()?),
            TOPICS => Self::Topics(Page::decode(reader)?),
            MEMBERS => Self::Members(Page::decode(reader)?),
            HISTORY => Self::History(Box::new(History::decode(reader)?)),
            PRESENCE => Self::Presence(Page::decode(reader)?),
            JOIN => {
                let (recovered, count) = (reader.flag()?, reader.u64()?);
                Self::Joined(Joined { recovered, count, position: position(reader)? })
            }
            STATS => {
                let (started_at, totals) = (reader.u64()?, counts(reader)?);
                let mut workers = Vec::new();
                while !reader.is_empty() {
                    let (worker_id, started_at) = (reader.u8()?, reader.u64()?);
                    workers.push(WorkerStats { worker_id, started_at, counts: counts(reader)? });
                }
                Self::Stats(Box::new(Stats { started_at, totals, workers }))
            }
            CONNECTIONS => {
                let mut ids = Vec::new();
                while !reader.is_empty() {
                    ids.push(reader.u64()?);
                }
                Self::Connections(ids)
            }
            REFUSED => Self::Refused,
            NO_WORKER => Self::NoWorker(reader.u8()?),
            SILENT => Self::Silent(reader.rest().to_vec()),
            SILENT_HOST => Self::SilentHost(reader.u8()?),
            HOSTS => {
                let mut hosts = Vec::new();
                while !reader.is_empty() {
                    hosts.push(HostInfo::decode(reader)?);
                }
                Self::Hosts(hosts)
            }
            INFO if reader.is_empty() => Self::Info(None),
            INFO => Self::Info(Some((reader.u8()?, Info::decode(reader)?))),
            _ => return Err(Malformed),
        })
    }
}

fn put_drain(out: &mut Vec<u8>, time: Duration) {
    put_u32(out, time.min(MAX_DRAIN).as_millis() as u32);
}

fn drain(reader: &mut Reader<'_>) -> Result<Duration, Malformed> {
    Ok(Duration::from_millis(reader.u32()?.into()).min(MAX_DRAIN))
}

fn put_maybe_position(out: &mut Vec<u8>, position: Option<Position>) {
    out.push(u8::from(position.is_some()));
    if let Some(position) = position {
        put_position(out, position);
    }
}

fn maybe_position(reader: &mut Reader<'_>) -> Result<Option<Position>, Malformed> {
    reader.flag()?.then(|| position(reader)).transpose()
}

fn put_counts(out: &mut Vec<u8>, counts: &Counts) {
    for count in counts {
        put_u64(out, *count);
    }
}

fn counts(reader: &mut Reader<'_>) -> Result<Counts, Malformed> {
    let mut counts = [0; COUNTS.len()];
    for count in &mut counts {
        *count = reader.u64()?;
    }
    Ok(counts)
}

/// Received bytes, from the front of which frames are taken. Its memory grows with what has arrived, never with what a
/// header claims.
#[derive(Debug, Default)]
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
}

/// Room for one read.
const ROOM: usize = 64 * 1024;
/// Memory that is kept for reuse.
const RETAIN_BYTES: usize = 512 * 1024;

impl FrameBuffer {
    /// A buffer of bytes that have all arrived.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self { begin: 0, end: bytes.len(), bytes }
    }

    /// The space that the next bytes are to be read into.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
            if self.bytes.len() > RETAIN_BYTES {
                self.bytes = Vec::new();
            }
        }
        if self.bytes.len() - self.end < ROOM / 2 {
            self.bytes.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            if self.bytes.len() - self.end < ROOM / 2 {
                self.bytes.resize((self.bytes.len() * 2).max(ROOM), 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// Notes that `count` bytes have been read into that space.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
    }

    /// Takes the next whole frame, and returns where it is. `None` means that it has not arrived yet.
    ///
    /// # Errors
    /// If it claims to be longer than `longest`.
    pub(crate) fn next_frame(&mut self, longest: usize) -> Result<Option<Range<usize>>, Malformed> {
        let come = &self.bytes[self.begin..self.end];
        let Some(header) = come.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > longest {
            return Err(Malformed);
        }
        if come.len() < HEADER + length {
            return Ok(None);
        }
        let begin = self.begin;
        self.begin += HEADER + length;
        Ok(Some(begin..self.begin))
    }

    /// A frame, with its header.
    pub(crate) fn frame(&self, frame: Range<usize>) -> &[u8] {
        &self.bytes[frame]
    }

    /// Whether there is not even part of a frame.
    pub(crate) fn is_empty(&self) -> bool {
        self.begin == self.end
    }
}

/// The content of a frame.
pub(crate) fn content(frame: &[u8]) -> &[u8] {
    &frame[HEADER..]
}
