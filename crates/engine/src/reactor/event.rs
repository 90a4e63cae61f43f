//! What the reactor reports: events, including messages, and the tokens that name requests until they are answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wire::http::Head;

use crate::endpoints::EndpointId;
use crate::language::message::{Answer, Leave};
use crate::reactor::refusals::Refused;
use crate::registry::Fd;
use crate::system::table::Key;

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    pub(crate) key: Key,
    /// Tells the requests apart, also those of one connection.
    pub(crate) number: u32,
}

impl Token {
    /// The token as one number.
    pub fn to_bits(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.key.to_bits())
    }

    /// The token with this number. Any number is safe: answers to a token that names nothing are ignored.
    pub fn from_bits(bits: u64) -> Self {
        Self { key: Key::from_bits(bits as u32), number: (bits >> 32) as u32 }
    }
}

/// The resource whose exhaustion causes handshakes to be refused, apart from free places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Handlers whose clients have left; this many are still running, which is the limit.
    Handlers(usize),
    /// All ids are in use.
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

/// Connections closed because all of them together held more than `max_memory`, grouped by what they mostly held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relief {
    /// Messages that the peer did not read; closed with 1013.
    pub output: u64,
    /// An unfinished message, or messages waiting for the handler; closed with 1009.
    pub input: u64,
    /// An unfinished request body; answered with 413.
    pub bodies: u64,
    /// The number of bytes freed.
    pub freed: usize,
}

/// What has happened to a member of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberEvent {
    /// It is one from now on.
    Joined,
    /// It is one no longer.
    Left,
}

/// An event that the reactor reports.
pub enum Event<'a> {
    /// A client requests a WebSocket, and neither `origins` nor `max_connections` forbids it. Answer with
    /// [`crate::Reactor::accept`], [`crate::Reactor::refuse`] or [`crate::Reactor::respond`].
    Handshake {
        /// Names the request in the answer.
        token: Token,
        /// The request.
        head: Arc<Head>,
        /// The address it came from.
        peer: SocketAddr,
        /// What serves its path.
        endpoint: EndpointId,
    },
    /// A plain HTTP request. Answer with [`crate::Reactor::respond`] or [`crate::Reactor::respond_file`], or in parts
    /// with [`crate::Reactor::begin_answer`].
    Request {
        /// Names the request in the answer.
        token: Token,
        /// The request.
        head: Head,
        /// The address it came from.
        peer: SocketAddr,
        /// What serves its path.
        endpoint: EndpointId,
        /// The whole body, at most `max_body_size` bytes; `None` if it is to be taken with
        /// [`crate::Reactor::take_body`] as it arrives.
        body: Option<Vec<u8>>,
    },
    /// There is something new about a request that the application waits for: more of its body, room for more of the
    /// answer, or its client has left. Try again what could not be done.
    Progress {
        /// The request.
        token: Token,
    },
    /// A whole message, in the connection's order.
    Message {
        /// The connection.
        fd: Fd,
        /// What serves it.
        endpoint: EndpointId,
        /// Its content, which must be copied.
        payload: Payload<'a>,
    },
    /// The connection has ended. This is its last event in order. Call [`crate::Reactor::forget`] afterwards.
    Closed {
        /// The connection.
        fd: Fd,
        /// What served it.
        endpoint: EndpointId,
        /// RFC 6455 §7.1.5: the code sent by the peer, 1005 or 1006.
        code: u16,
        /// The peer's reason; with 1006, our own code if we had sent one.
        reason: String,
    },
    /// The outbox had passed half its limit and is empty again, or the connection has ended while one of its handlers
    /// runs. Not ordered with the connection's other events.
    Drained {
        /// The connection.
        fd: Fd,
        /// What serves it.
        endpoint: EndpointId,
    },
    /// A message from a worker or another program. Call [`crate::Reactor::pipe_message_done`] when its handler has
    /// ended.
    PipeMessage {
        /// The id of the worker, or [`crate::OUTSIDE`].
        from: u8,
        /// Its content, which must be copied.
        payload: Payload<'a>,
    },
    /// A connection watched with [`crate::Reactor::watch`], or whose outbox [`crate::Reactor::send`] has found too
    /// full, is no longer open.
    Gone {
        /// The connection.
        fd: Fd,
    },
    /// There may be room for the message that [`crate::Reactor::send`] has not queued.
    Room {
        /// The connection.
        fd: Fd,
    },
    /// The answer to [`crate::Reactor::ask`].
    Answered {
        /// The number given with the question.
        number: u64,
        /// The answer of all processes together, or why it is not known.
        answer: Box<Answer>,
    },
    /// A connection has become a member of a topic whose members are known, or is one no longer. In one process of the
    /// server: the connection's own or, if that is gone, any other. Call [`crate::Reactor::tells_of_member`] just before
    /// the application is told.
    Member {
        /// What has happened.
        event: MemberEvent,
        /// The topic.
        topic: &'a str,
        /// The connection.
        fd: Fd,
        /// Names this stay of the connection in the topic.
        number: u64,
        /// What is known about it, as JSON.
        info: &'a str,
    },
    /// Another thread or process asked to subscribe a connection that already has `max_topics`. One event may stand for
    /// many such requests.
    TopicsExceeded {
        /// The connection.
        fd: Fd,
    },
    /// A client was turned away.
    Refused(Box<Refused>),
    /// Connections were closed because all of them together held too much memory.
    Relieved(Relief),
    /// This worker has to leave.
    Leave(Leave),
    /// All connections of this worker have to be closed within this time. No client is let in any more; see
    /// `Registry::is_draining`.
    Drain(Duration),
    /// The certificate files have changed. On an error, described in one line for people, the old certificate stays in
    /// use.
    CertificateRead(Result<(), String>),
    /// Handshakes are being refused because something has run out.
    Shortage(Shortage),
    /// Accepting has paused because of this error, and will be retried.
    AcceptPaused {
        /// As the kernel gave it.
        error: io::Error,
    },
}
