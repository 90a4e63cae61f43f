//! What a broker tells.

use crate::language::history::History;
use crate::language::listing::{Member, Page};
use crate::registry::Fd;
use crate::topics::publication::{Position, Publication};

/// Tells who asked a question. Returned with the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The key of the peer that asked, and that peer's serial number.
    pub(crate) asker: usize,
    pub(crate) serial: u64,
    /// The peer's own number for the question.
    pub(crate) number: u64,
}

/// What a broker tells.
pub(crate) enum Told<'a> {
    /// A message has its place in the order of its topic, and is to be delivered to the topic's subscribers.
    Placed { topic: &'a str, position: Position, publication: Publication<'a>, exclude: &'a [Fd] },
    /// A message of a topic has no place in its order, because the broker is not there or takes none; it is to be
    /// delivered to the topic's subscribers nevertheless. If the broker is not there, those of this host alone get it.
    Unplaced { topic: &'a str, publication: Publication<'a>, exclude: &'a [Fd] },
    /// A topic has begun a new epoch, because messages had no place in its order. No message shows it yet.
    Renewed(&'a str),
    /// The answer to [`Broker::read`](super::Broker::read) and [`Broker::recover`](super::Broker::recover).
    Read(Ticket, History),
    /// The answer to [`Broker::forget`](super::Broker::forget).
    Forgotten(Ticket),
    /// The answer to [`Broker::members`](super::Broker::members).
    Members(Ticket, Page<Member>),
    /// The question cannot be answered: the broker is not there, or has refused it.
    Failed(Ticket),
    /// Something about other hosts.
    News(News<'a>),
}

/// The function that is told.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(Told<'_>);

/// What is heard from, and about, other hosts.
#[derive(Debug)]
pub(crate) enum News<'a> {
    /// A whole frame, from that host: for this host alone, for all, or for the subscribers of a topic.
    Frame { from: u8, frame: &'a [u8] },
    /// This host has this number. Counters above `above` are new in its name.
    Numbered { host: u8, above: u64 },
    /// Counters up to this one may be given out in the name of this host.
    Leased(u64),
    /// The number is this host's until then, in milliseconds of the boot clock.
    Held(u64),
    /// Others have declared this host dead: all its connections have to end, and it is going to have another number.
    Fenced,
    /// What this host has put there is lost: its members have to be put there again.
    Emptied,
    /// Messages for this host may be lost.
    Missed,
    /// Nobody has that number.
    Absent(u8),
    /// This member's host is gone. Only this host hears of it.
    Lost { topic: &'a str, fd: Fd, info: &'a str },
    /// The way to other hosts is open again, or is not.
    Open(bool),
    /// The broker cannot be reached for now, and why.
    Unreachable(String),
    /// This server cannot be a part of the others, and why: a wrong password, for example. It is tried again.
    Unusable(String),
    /// For the log.
    Warning(String),
}
