//! The state of one connection: its socket, its stage, and what is still to be sent and to be passed to its handler.
//!
//! Plain data. What happens to it is decided in `reactor`.

pub(crate) mod exchange;
pub(crate) mod flow;
pub(crate) mod identity;
pub(crate) mod outbox;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use mio::net::TcpStream;
use wire::body::BodyDecoder;
use wire::frame::{self, DataOpcode, Fin};
use wire::handshake::Upgrade;
use wire::http::Head;
use wire::receiver::Receiver;
use wire::sender::Sender;

use crate::connection::exchange::Exchange;
use crate::connection::flow::{Drain, Finish, Incoming, Outgoing};
use crate::connection::identity::Identity;
use crate::connection::outbox::Outbox;
use crate::endpoints::EndpointId;
use crate::settings::Settings;
use crate::tls::session::Session;
use crate::topics::Subscriptions;
use crate::topics::policy::Policy;

/// The stage that a connection is in.
pub(crate) enum Stage {
    /// The PROXY header is being read.
    Header,
    /// The head of a request is being read. Its first `scanned` bytes have been searched for its end.
    Head { scanned: usize },
    /// A request's body is being read.
    Body(Box<Unfinished>),
    /// A request was passed to its handler, and the answer is awaited. Nothing is read in the meantime, except the body
    /// of a request that was passed on without it.
    Asked(Asked),
    /// The answer is queued, and the rest of the request's body is read and discarded: the next request follows it.
    Unread(Box<Unread>),
    /// The handshake is done.
    WebSocket(Receiver),
    /// Queued output is still being sent; then the connection ends in this way.
    Finishing(Finish),
    /// The socket is closed. Only the `close` event, or the end of its handler, is still to come.
    Gone,
}

/// A request whose body is incomplete.
pub(crate) struct Unfinished {
    pub(crate) head: Head,
    pub(crate) body: BodyDecoder,
}

/// The rest of the body of a request that has been answered.
pub(crate) struct Unread {
    pub(crate) body: BodyDecoder,
    /// Bytes of it that may still be discarded.
    pub(crate) left: usize,
}

/// An incomplete message, as it was when the last of it arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partial {
    /// See [`Receiver::progress`].
    progress: u32,
    /// Bytes that could not be used yet: the start of a frame's header, or of a TLS record.
    unused: u32,
}

/// The data needed to answer a request.
pub(crate) enum Asked {
    /// The head is for the log, in case there is no longer room.
    Handshake(Box<Upgrade>, Arc<Head>),
    Request(Exchange),
}

/// What a connection waits for, since `Connection::since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Nothing with a time limit.
    Nothing,
    /// The whole head of a request.
    Head,
    /// The body after that head. `since` is still that of the head, advanced as the body arrives. Or more of a body that
    /// the application takes as it arrives: `since` is when it would have begun to wait if it had waited without a break.
    Body,
    /// The peer receiving the queued part of an answer, while the application makes the next one.
    Part,
    /// The next request on an idle HTTP connection.
    KeepAlive,
    /// The time to send a ping. `since` is the time of the last one.
    Ping,
    /// The pong. `since` is the time when its ping was sent.
    Pong,
    /// The end of a fragmented message, after which our Close frame is to be sent.
    Continuation,
    /// The peer receiving the queued output, which ends with our Close frame or our end of the TCP connection.
    Taking,
    /// The peer's Close frame, or its end of the TCP connection. All of our output has been written.
    Close,
}

impl Wait {
    /// Its time limit in milliseconds; `None` if it has none.
    pub(crate) fn limit(self, settings: &Settings) -> Option<u64> {
        let limit = match self {
            Self::Nothing => None,
            Self::Head | Self::Body => Some(settings.handshake_timeout),
            Self::KeepAlive | Self::Part => Some(settings.keep_alive_timeout),
            Self::Ping => settings.ping_interval,
            Self::Pong => settings.ping_timeout,
            Self::Continuation | Self::Taking | Self::Close => Some(settings.close_timeout),
        };
        limit.map(|limit| limit.as_millis() as u64)
    }
}

/// As what a connection counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// One of the connections.
    Counted,
    /// One of those whose client has left while a handler still runs, and no longer one of the connections.
    Outlived,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// From this address: the socket's peer, or the client that its PROXY header named.
    Client(SocketAddr),
    /// From a proxy at this address, whose PROXY header named no client.
    Proxy(SocketAddr),
}

impl Source {
    pub(crate) fn address(self) -> SocketAddr {
        match self {
            Self::Client(address) | Self::Proxy(address) => address,
        }
    }

    /// Whether the client's address is not known.
    pub(crate) fn hides_client(self) -> bool {
        matches!(self, Self::Proxy(_))
    }

    /// The client's address, if it is known.
    pub(crate) fn client(self) -> Option<SocketAddr> {
        match self {
            Self::Client(address) => Some(address),
            Self::Proxy(_) => None,
        }
    }
}

/// A message waiting for its handler.
#[derive(Debug)]
pub(crate) enum ReceivedMessage {
    Text(String),
    Binary(Vec<u8>),
}

impl ReceivedMessage {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

/// The order of one connection's handlers: while one runs, later events wait here.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) busy: bool,
    waiting: VecDeque<ReceivedMessage>,
    bytes: usize,
}

impl Lane {
    /// Whether a message may go straight to its handler.
    pub(crate) fn is_free(&self) -> bool {
        !self.busy && self.waiting.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn is_full(&self, receive_queue: usize, max_message_size: usize) -> bool {
        let Some(first) = self.waiting.front() else { return false };
        self.waiting.len() >= receive_queue || self.bytes - first.len() > max_message_size
    }

    pub(crate) fn push(&mut self, message: ReceivedMessage) {
        self.bytes += message.len();
        self.waiting.push_back(message);
    }

    /// The next message, once the previous handler has ended.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<ReceivedMessage> {
        if self.busy || self.waiting.is_empty() {
            return None;
        }
        let message = self.waiting.pop_front()?;
        self.bytes -= message.len();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(message)
    }

    pub(crate) fn clear(&mut self) {
        self.waiting = VecDeque::new();
        self.bytes = 0;
    }

    /// Memory taken by the waiting messages, in bytes.
    fn memory(&self) -> usize {
        self.bytes + self.waiting.capacity() * size_of::<ReceivedMessage>()
    }
}

/// A message, or a fragment of one, that waits for the end of another.
pub(crate) struct DeferredMessage {
    pub(crate) opcode: DataOpcode,
    pub(crate) fin: Fin,
    pub(crate) payload: Vec<u8>,
    /// Present if the message may be replaced or left out once it is queued.
    pub(crate) policy: Option<Box<Policy>>,
}

/// The output that waits for the end of a message that is being sent in fragments.
#[derive(Default)]
pub(crate) struct Deferred {
    pub(crate) messages: VecDeque<DeferredMessage>,
    pub(crate) bytes: usize,
    /// The closing handshake that follows these messages.
    pub(crate) closing: Option<(u16, String)>,
}

/// Fields used for every message come first, side by side: in a fan-out to thousands, each cache line counts.
#[repr(C, align(64))]
pub(crate) struct Connection {
    pub(crate) identity: Identity,
    pub(crate) outbox: Outbox,
    /// Closed unless this is an open WebSocket.
    pub(crate) sender: Sender,
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
    pub(crate) drain: Drain,
    /// Whether it is on the reactor's ready list.
    pub(crate) queued: bool,
    pub(crate) socket: Option<TcpStream>,
    /// `None` if the connection does not use TLS.
    pub(crate) tls: Option<Box<Session>>,
    pub(crate) deferred: Option<Box<Deferred>>,
    /// When the peer last took some of the queued output.
    pub(crate) progress_at: u64,
    /// Distinguishes this connection from others that had its key.
    pub(crate) serial: u32,
    /// The number of its last request that was passed on; see `Token`.
    pub(crate) request: u32,
    pub(crate) standing: Standing,
    pub(crate) wait: Wait,
    /// Whether someone waits for room in its outbox; see `reactor::sending`.
    pub(crate) awaited: bool,
    /// How often the limit of what may be queued of an answer has been doubled; see `reactor::answering`.
    pub(crate) doubled: u8,
    /// What serves the request that was read last, or the WebSocket.
    pub(crate) endpoint: EndpointId,
    /// The limit of that endpoint.
    pub(crate) max_message_size: usize,
    pub(crate) received_at: u64,
    /// Since when the socket has not been read because the handler is behind.
    pub(crate) paused_at: Option<u64>,
    pub(crate) lane: Lane,
    /// Input that could not be used yet.
    pub(crate) input: Vec<u8>,
    /// The start of the unused part of `input`.
    pub(crate) used: usize,
    pub(crate) stage: Stage,
    pub(crate) since: u64,
    /// Bytes that the peer had yet to receive at `since`; updated only while that matters. See `progress`.
    pub(crate) untaken: usize,
    /// The time of the wheel entry that counts; `u64::MAX` if there is none.
    pub(crate) timer_at: u64,
    /// The bytes of memory that `Budget` counts for it.
    pub(crate) held: usize,
    /// When the incomplete message last made progress; `u64::MAX` if there is none.
    pub(crate) partial_at: u64,
    pub(crate) partial: Partial,
    /// When it was last seen that there had been messages, and how many there had been. Kept only for `idle_timeout`.
    pub(crate) idle_since: u64,
    /// When the last ping was queued, in microseconds, if its pong has not arrived yet.
    pub(crate) pinged_at: Option<NonZeroU64>,
    pub(crate) idle_count: u64,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) source: Source,
    /// Whether it was closed because all connections together held too much.
    pub(crate) relieved: bool,
}

/// All that sending touches lies in the first two cache lines. (Without optimisation, mio's sockets are larger.)
#[cfg(not(debug_assertions))]
const _: () = assert!(std::mem::offset_of!(Connection, serial) <= 128);
/// One more cache line makes every idle connection larger by 64 bytes.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Connection>() <= 448);

impl Connection {
    pub(crate) fn new(serial: u32, socket: TcpStream, peer: SocketAddr, now: u64) -> Self {
        Self {
            serial,
            request: 0,
            identity: Identity::Unnamed,
            socket: Some(socket),
            source: Source::Client(peer),
            stage: Stage::Head { scanned: 0 },
            input: Vec::new(),
            outbox: Outbox::default(),
            lane: Lane::default(),
            subscriptions: Subscriptions::default(),
            sender: Sender::closed(),
            deferred: None,
            tls: None,
            wait: Wait::Head,
            pinged_at: None,
            since: now,
            untaken: 0,
            timer_at: u64::MAX,
            held: 0,
            relieved: false,
            partial_at: u64::MAX,
            partial: Partial { progress: 0, unused: 0 },
            endpoint: EndpointId::SERVER,
            max_message_size: 0,
            idle_since: now,
            idle_count: 0,
            received_at: now,
            progress_at: now,
            used: 0,
            paused_at: None,
            incoming: Incoming::Quiet,
            outgoing: Outgoing::Idle,
            drain: Drain::Low,
            queued: false,
            standing: Standing::Counted,
            awaited: false,
            doubled: 0,
        }
    }

    /// Whether it is an open WebSocket.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.identity.open().is_some()
    }

    /// Whether nothing of it is left, so that its key may be reused.
    pub(crate) fn is_over(&self) -> bool {
        self.identity.fd().is_none() && matches!(self.stage, Stage::Gone) && self.subscriptions.is_empty()
    }

    /// Whether the peer has hung up while a handler works on its request, which it has sent to the end.
    pub(crate) fn is_abandoned(&self) -> bool {
        let is_asked = match &self.stage {
            Stage::Asked(Asked::Handshake(..)) => true,
            Stage::Asked(Asked::Request(exchange)) => exchange.has_body(),
            _ => false,
        };
        is_asked && self.incoming == Incoming::HungUp
    }

    /// The request that is in the hands of the application.
    pub(crate) fn exchange(&mut self) -> Option<&mut Exchange> {
        match &mut self.stage {
            Stage::Asked(Asked::Request(exchange)) => Some(exchange),
            _ => None,
        }
    }

    /// Whether its stage lets its socket be read.
    pub(crate) fn reads_on(&self) -> bool {
        match &self.stage {
            Stage::Asked(Asked::Request(exchange)) => exchange.reads_on(),
            Stage::Asked(Asked::Handshake(..)) | Stage::Gone => false,
            _ => !self.is_answering(),
        }
    }

    /// Whether an HTTP answer is still being sent.
    pub(crate) fn is_answering(&self) -> bool {
        matches!(self.stage, Stage::Head { .. }) && !self.outbox.is_empty()
    }

    /// Whether something must be sent before it may be closed; with TLS, at least the announcement of the end.
    pub(crate) fn has_last_words(&self) -> bool {
        !self.outbox.is_empty() || self.tls.as_ref().is_some_and(|session| session.may_end_output())
    }

    /// Whether its TLS handshake has begun but is not done.
    pub(crate) fn is_in_tls_handshake(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.is_handshaking() && !session.is_fresh())
    }

    /// Whether the peer has sent part of something.
    pub(crate) fn is_mid_input(&self) -> bool {
        !self.input.is_empty() || self.tls.as_ref().is_some_and(|session| session.kept() > 0)
    }

    /// Bytes waiting to be sent.
    #[inline]
    pub(crate) fn unsent(&self) -> usize {
        self.outbox.len() + self.deferred_bytes()
    }

    /// The amount that counts against `send_queue_size`: these bytes, and the memory needed to queue small frames.
    #[inline]
    pub(crate) fn cost(&self) -> usize {
        self.outbox.cost() + self.deferred_bytes()
    }

    /// The incomplete message, if there is one. Input that waits only because its handler is behind does not count.
    pub(crate) fn partial(&self) -> Option<Partial> {
        let Stage::WebSocket(receiver) = &self.stage else { return None };
        let (mut unused, sealed) = (self.input.len() - self.used, self.tls.as_ref().map_or(0, |tls| tls.kept()));
        let is_partial =
            self.is_open() && self.paused_at.is_none() && (receiver.is_mid_message() || unused + sealed > 0);
        if receiver.is_mid_message() && self.input.get(self.used).is_some_and(|first| frame::is_control(*first)) {
            unused = 0;
        }
        let unused = u32::try_from(unused + sealed).unwrap_or(u32::MAX);
        is_partial.then(|| Partial { progress: receiver.progress(), unused })
    }

    /// Bytes of memory held for output still to be sent, not counting frames shared with others.
    pub(crate) fn output_memory(&self) -> usize {
        self.outbox.memory() + self.deferred_bytes()
    }

    /// Bytes of memory held for input from its peer.
    pub(crate) fn input_memory(&self) -> usize {
        let stage = match &self.stage {
            Stage::WebSocket(receiver) => receiver.buffered(),
            Stage::Body(request) => request.head.size() + request.body.buffered(),
            Stage::Asked(Asked::Request(exchange)) => exchange.memory(),
            Stage::Unread(unread) => unread.body.buffered(),
            Stage::Header
            | Stage::Head { .. }
            | Stage::Asked(Asked::Handshake(..))
            | Stage::Finishing(_)
            | Stage::Gone => 0,
        };
        stage + self.input.capacity() + self.lane.memory() + self.tls.as_ref().map_or(0, |session| session.memory())
    }

    #[inline]
    fn deferred_bytes(&self) -> usize {
        self.deferred.as_ref().map_or(0, |deferred| deferred.bytes)
    }
}
