//! What the reactor tells: events, messages among them, and how requests are named until they are answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use wire::http::Head;

use crate::language::message::Leave;
use crate::reactor::notice::Unanswered;
use crate::reactor::refusals::Refused;
use crate::registry::Fd;

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub(crate) key: u32,
    pub(crate) serial: u32,
}

impl Token {
    /// The token as one number.
    pub fn to_bits(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.key)
    }

    /// The token of a number; any number will do, and one that names nothing is answered with nothing.
    pub fn from_bits(bits: u64) -> Self {
        Self { key: bits as u32, serial: (bits >> 32) as u32 }
    }
}

/// What is used up, beside places, so that handshakes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// So many handlers still run whose clients have left; there may not be more.
    Handlers(usize),
    /// All ids have been given out.
    Ids,
    /// The hub has not leased more ids.
    LeasedIds,
}

/// A message's content.
#[derive(Debug)]
pub enum Payload<'a> {
    /// Valid UTF-8.
    Text(&'a str),
    /// Any bytes.
    Binary(&'a [u8]),
}

impl Payload<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

/// The connections that were closed because all of them together held more than `max_memory`, by what they mostly held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relief {
    /// Messages that the peer did not read; with 1013.
    pub output: u64,
    /// A message that was not whole, or messages that waited for the handler; with 1009.
    pub input: u64,
    /// A request's body that was not whole; with 413.
    pub bodies: u64,
    /// Bytes that this has freed.
    pub freed: usize,
}

/// What the reactor tells.
pub enum Event<'a> {
    /// Someone wants a WebSocket, and neither `origins` nor `max_connections` is against it. To be answered with
    /// [`crate::Reactor::accept`], [`crate::Reactor::refuse`] or [`crate::Reactor::respond`].
    Handshake {
        /// For the answer.
        token: Token,
        /// The request.
        head: Arc<Head>,
        /// Where it came from.
        peer: SocketAddr,
    },
    /// A plain HTTP request. To be answered with [`crate::Reactor::respond`] or [`crate::Reactor::respond_file`].
    Request {
        /// For the answer.
        token: Token,
        /// The request.
        head: Head,
        /// Where it came from.
        peer: SocketAddr,
        /// The whole body, at most `max_body_size` bytes.
        body: Vec<u8>,
    },
    /// A whole message, in order.
    Message {
        /// The connection.
        fd: Fd,
        /// Its content, to be copied.
        payload: Payload<'a>,
    },
    /// The connection is over; the last event of its order. To be followed by [`crate::Reactor::forget`].
    Closed {
        /// The connection.
        fd: Fd,
        /// RFC 6455 §7.1.5: the code that the peer sent, 1005 or 1006.
        code: u16,
        /// The peer's reason; with 1006 our own code, if we had sent one.
        reason: String,
    },
    /// The outbox had passed half its limit and is empty again, or the connection has ended while a handler of it runs.
    /// Stands outside the connection's order.
    Drained {
        /// The connection.
        fd: Fd,
    },
    /// Another worker has sent this; [`crate::Reactor::pipe_message_done`] is to follow when its handler has ended.
    PipeMessage {
        /// The id of that worker.
        from: u8,
        /// Its content, to be copied.
        payload: Payload<'a>,
    },
    /// A connection of [`crate::Reactor::watch`] is open no more.
    Gone {
        /// The connection.
        fd: Fd,
    },
    /// A question of [`crate::Reactor::count_subscribers`] is answered.
    Subscribers {
        /// The question's.
        number: u64,
        /// In all processes, or why that is not known.
        count: Result<u64, Unanswered>,
    },
    /// Another thread or process asked for a subscription of a connection that has `max_topics`. One event may stand
    /// for many such requests.
    TopicsExceeded {
        /// The connection.
        fd: Fd,
    },
    /// A client was turned away.
    Refused(Box<Refused>),
    /// Connections were closed because all of them together held too much memory.
    Relieved(Relief),
    /// This worker is to leave.
    Leave(Leave),
    /// The files of the certificate have changed. An error, one line for people: the certificate of before stays.
    CertificateRead(Result<(), String>),
    /// Handshakes are refused for want of something.
    Shortage(Shortage),
    /// Accepting has paused because of this error, and will be tried again.
    AcceptPaused {
        /// As the kernel gave it.
        error: io::Error,
    },
}
