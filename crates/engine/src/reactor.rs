//! The reactor: all sockets of one worker, driven in *turns* by the worker's own event loop.
//!
//! One turn: [`Reactor::begin`] asks the kernel what is ready, [`Reactor::next`] gives one event after the other (reading
//! and parsing as it goes, so that nothing is parsed that is not handled), [`Reactor::finish`] writes once for each
//! connection that has something to send and judges the deadlines. Between two events the caller may call anything on the
//! reactor.
//!
//! mio reports edges: what a turn leaves behind (input over the budget, accepts, writes) is not reported again, so it stays
//! on the lists here, and [`Reactor::has_work`] tells that another turn is due.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Waker};
use slab::Slab;
use wire::deflate::{Deflater, Inflater};
use wire::error::close_code;
use wire::frame::Opcode;
use wire::http::Head;
use wire::protocol;

use crate::acceptor::Acceptor;
use crate::command::Shared;
use crate::connection::{Asked, Connection, Ending, Message, Stage, Wait};
use crate::outbox::{Pool, Progress, Raw};
use crate::registry::{Fd, Ids, add};
use crate::settings::Settings;
use crate::timers::{Entry, Wheel};
use crate::topics::Topics;

const WAKER: mio::Token = mio::Token(usize::MAX);
const LISTENER: mio::Token = mio::Token(usize::MAX - 1);

/// Bytes read from one socket before it is another's turn.
const READ_BUDGET: usize = 128 * 1024;
/// Bytes written to one socket before it is another's turn.
const WRITE_BUDGET: usize = 1024 * 1024;
/// Messages of one connection before it is another's turn.
const MESSAGES_PER_VISIT: usize = 64;
/// Events of one turn before asyncio gets its share.
const EVENTS_PER_TURN: usize = 1024;
/// Time of one turn, whatever its events, before asyncio gets its share; looked at after every 16 events.
const TURN_TIME: Duration = Duration::from_millis(10);
/// Readiness taken from the kernel at a time.
const READINESS: usize = 1024;

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

/// A message's content.
#[derive(Debug)]
pub enum Payload<'a> {
    /// Valid UTF-8.
    Text(&'a str),
    /// Any bytes.
    Binary(&'a [u8]),
}

/// What the reactor tells.
pub enum Event<'a> {
    /// Someone wants a WebSocket, and neither `origins` nor `max_connections` is against it. To be answered with
    /// [`Reactor::accept`], [`Reactor::refuse`] or [`Reactor::respond`].
    Handshake {
        /// For the answer.
        token: Token,
        /// The request.
        head: Head,
        /// Where it came from.
        peer: SocketAddr,
    },
    /// A plain HTTP request. To be answered with [`Reactor::respond`].
    Request {
        /// For the answer.
        token: Token,
        /// The request.
        head: Head,
        /// Where it came from.
        peer: SocketAddr,
    },
    /// A whole message, in order.
    Message {
        /// The connection.
        fd: Fd,
        /// Its content, to be copied.
        payload: Payload<'a>,
    },
    /// The connection is over; the last event of its order. To be followed by [`Reactor::forget`].
    Closed {
        /// The connection.
        fd: Fd,
        /// RFC 6455 §7.1.5: the code that the peer sent, 1005 or 1006.
        code: u16,
        /// The peer's reason; with 1006 our own code, if we had sent one.
        reason: String,
    },
    /// The outbox had passed half its limit and is empty again. Stands outside the connection's order.
    Drained {
        /// The connection.
        fd: Fd,
    },
    /// Accepting has paused because of this error, and will be tried again.
    AcceptPaused {
        /// As the kernel gave it.
        error: io::Error,
    },
}

/// One connection's share of a turn: the input that is being parsed.
struct Visit {
    key: usize,
    serial: u32,
    /// Input that was kept from before (with what was read behind it); `None`: the reactor's buffer holds it.
    own: Option<Vec<u8>>,
    from: usize,
    to: usize,
    messages_left: usize,
    has_read: bool,
}

/// What is used for one connection at a time, and so is needed only once.
pub(crate) struct Tools {
    pub(crate) pool: Pool,
    pub(crate) inflater: Inflater,
    pub(crate) deflater: Deflater,
    pub(crate) deflated: Vec<u8>,
    pub(crate) keys: Vec<u32>,
    buffer: Box<[u8]>,
}

/// Milliseconds since the reactor was made, and what that is in Unix time and in HTTP's.
pub(crate) struct Clock {
    started: Instant,
    turn: Instant,
    pub(crate) now: u64,
    pub(crate) unix: u64,
    date: (u64, String),
}

impl Clock {
    fn new() -> Self {
        let started = Instant::now();
        Self { started, turn: started, now: 0, unix: 0, date: (0, String::new()) }
    }

    fn read(&mut self) {
        self.turn = Instant::now();
        self.now = (self.turn - self.started).as_millis() as u64;
        self.unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    }

    /// The value of a Date header (RFC 9110 §6.6.1).
    pub(crate) fn date(&mut self) -> &str {
        let second = self.unix / 1000;
        if self.date.0 != second {
            self.date = (second, httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second)));
        }
        &self.date.1
    }
}

/// See the file's head.
pub struct Reactor {
    pub(crate) settings: Settings,
    pub(crate) shared: Arc<Shared>,
    pub(crate) connections: Slab<Connection>,
    pub(crate) topics: Topics,
    pub(crate) tools: Tools,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) dirty: Vec<u32>,
    /// No new connections, and no further request on an old one.
    pub(crate) stopping: bool,
    /// Nothing more is handed to handlers but what ends.
    quiet: bool,
    poll: Poll,
    events: Events,
    acceptor: Acceptor,
    accept_error: Option<io::Error>,
    /// Connection keys by row of the registry, plus 1; 0: none. Zeroed memory costs nothing until it is used.
    keys: Vec<u32>,
    ready: VecDeque<u32>,
    drained: Vec<Fd>,
    /// Connections that are over; removed at the end of the turn, so that keys stay good until then.
    gone: Vec<u32>,
    visit: Option<Visit>,
    wheel: Wheel,
    events_left: usize,
    serial: u32,
}

impl Reactor {
    /// A reactor without listening sockets. `slot` is this process's part of the ids.
    ///
    /// # Errors
    /// The kernel gives no epoll descriptor, or no memory for the registry.
    pub fn new(settings: Settings, slot: u8) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let shared = Shared::new(&settings, waker)?;
        let buffer = vec![0; READ_BUDGET.max(settings.max_header_size)].into();
        Ok(Self {
            keys: vec![0; shared.registry.rows()],
            settings,
            shared: Arc::new(shared),
            connections: Slab::new(),
            topics: Topics::default(),
            tools: Tools {
                pool: Pool::default(),
                inflater: Inflater::new(),
                deflater: Deflater::new(),
                deflated: Vec::new(),
                keys: Vec::new(),
                buffer,
            },
            clock: Clock::new(),
            ids: Ids::new(slot, SystemTime::now()),
            dirty: Vec::new(),
            stopping: false,
            quiet: false,
            poll,
            events: Events::with_capacity(READINESS),
            acceptor: Acceptor::default(),
            accept_error: None,
            ready: VecDeque::new(),
            drained: Vec::new(),
            gone: Vec::new(),
            visit: None,
            wheel: Wheel::new(),
            events_left: 0,
            serial: 0,
        })
    }

    /// The descriptor that is readable when a turn is due.
    pub fn fileno(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// What every thread may touch.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Accepts connections from a socket that listens already.
    ///
    /// # Errors
    /// The kernel refuses to watch it.
    pub fn listen(&mut self, listener: std::net::TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = self.acceptor.add(TcpListener::from_std(listener));
        self.poll.registry().register(listener, LISTENER, Interest::READABLE)
    }

    /// Begins a turn: takes from the kernel what is ready, and from other threads what they ask for.
    ///
    /// # Errors
    /// The kernel's, which would be a fault of ours.
    pub fn begin(&mut self) -> io::Result<()> {
        self.clock.read();
        self.events_left = EVENTS_PER_TURN;
        self.ask_kernel()
    }

    /// Goes on with a turn whose events are at an end: writes what is queued, and asks the kernel again. True if that
    /// gave something, which then costs no round through the event loop.
    ///
    /// # Errors
    /// As those of [`Reactor::begin`].
    pub fn go_on(&mut self) -> io::Result<bool> {
        self.flush();
        if self.visit.is_some() || self.events_left == 0 || self.clock.turn.elapsed() >= TURN_TIME {
            return Ok(false);
        }
        self.ask_kernel()?;
        Ok(!self.events.is_empty())
    }

    fn ask_kernel(&mut self) -> io::Result<()> {
        if let Err(error) = self.poll.poll(&mut self.events, Some(Duration::ZERO))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let mut woken = false;
        for event in &self.events {
            match event.token() {
                WAKER => woken = true,
                LISTENER => self.acceptor.ready = true,
                mio::Token(key) => {
                    let Some(connection) = self.connections.get_mut(key) else {
                        continue;
                    };
                    connection.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                    connection.hung_up |= event.is_read_closed() || event.is_error();
                    if connection.blocked && event.is_writable() {
                        connection.blocked = false;
                        if !connection.dirty && !connection.outbox.is_empty() {
                            connection.dirty = true;
                            self.dirty.push(key as u32);
                        }
                    }
                    if connection.readable && !connection.queued {
                        connection.queued = true;
                        self.ready.push_back(key as u32);
                    }
                }
            }
        }
        if woken {
            self.carry_out_waiting();
        }
        self.accept_waiting();
        Ok(())
    }

    /// The next event of this turn, made into a value of the caller's by `take` (which must not call back into anything:
    /// the reactor is borrowed while it runs). `None`: the turn's events are at an end, or its budget is.
    pub fn next<T>(&mut self, take: impl FnOnce(Event<'_>) -> T) -> Option<T> {
        if let Some(error) = self.accept_error.take() {
            return Some(take(Event::AcceptPaused { error }));
        }
        if let Some(fd) = self.drained.pop() {
            return Some(take(Event::Drained { fd }));
        }
        loop {
            if self.visit.is_none() {
                if !self.has_budget() {
                    return None;
                }
                let key = self.ready.pop_front()?;
                self.begin_visit(key as usize);
                continue;
            }
            let Some(visit) = &mut self.visit else {
                continue;
            };
            let Some(connection) = self.connections.get_mut(visit.key).filter(|it| it.serial == visit.serial) else {
                self.visit = None;
                continue;
            };
            if visit.messages_left == 0 {
                self.end_visit(true);
                continue;
            }
            if let Some(message) = connection.lane.pop() {
                visit.messages_left -= 1;
                self.events_left = self.events_left.saturating_sub(1);
                let payload = match &message {
                    Message::Text(text) => Payload::Text(text),
                    Message::Binary(bytes) => Payload::Binary(bytes),
                };
                return Some(take(Event::Message { fd: connection.fd, payload }));
            }
            if connection.lane.is_free()
                && let Some(ending) = connection.ending.take()
            {
                self.events_left = self.events_left.saturating_sub(1);
                let Ending { code, reason } = *ending;
                return Some(take(Event::Closed { fd: connection.fd, code, reason }));
            }
            let input = match &mut visit.own {
                Some(own) => &mut own[visit.from..visit.to],
                None => &mut self.tools.buffer[visit.from..visit.to],
            };
            match &mut connection.stage {
                Stage::WebSocket(protocol) => {
                    if protocol.is_open() && (self.quiet || connection.lane.is_full(&self.settings)) {
                        connection.paused_at.get_or_insert(self.clock.now);
                        self.end_visit(false);
                        continue;
                    }
                    if let Some(at) = connection.paused_at.take()
                        && connection.wait == Wait::Pong
                    {
                        // The pong clock stood still while the socket was not read.
                        connection.since = self.clock.now.min(connection.since + self.clock.now - at);
                    }
                    let limit = self.settings.max_message_size;
                    let (taken, outcome) = protocol.receive(input, limit, &mut self.tools.inflater);
                    visit.from += taken;
                    let payload = match outcome {
                        Ok(Some(protocol::Event::Text(text))) => Payload::Text(text),
                        Ok(Some(protocol::Event::Binary(bytes))) => Payload::Binary(bytes),
                        Ok(Some(protocol::Event::Ping(payload))) => {
                            let payload = payload.to_vec();
                            let key = visit.key;
                            visit.messages_left -= 1;
                            self.control(key, Opcode::Pong, &payload);
                            continue;
                        }
                        Ok(Some(protocol::Event::Pong(_))) => {
                            visit.messages_left -= 1;
                            if connection.wait == Wait::Pong {
                                // `since` is still the time of the ping: from there the interval counts.
                                connection.wait = Wait::Ping;
                                let key = visit.key;
                                self.arm(key);
                            }
                            continue;
                        }
                        Ok(Some(protocol::Event::Close { code, reason })) => {
                            let (key, reason) = (visit.key, reason.to_owned());
                            self.closed_by_peer(key, code, reason);
                            continue;
                        }
                        Ok(None) => {
                            self.read_more();
                            continue;
                        }
                        Err(error) => {
                            let key = visit.key;
                            self.fail(key, error.code, error.reason);
                            continue;
                        }
                    };
                    let length = match payload {
                        Payload::Text(text) => text.len(),
                        Payload::Binary(bytes) => bytes.len(),
                    } as u64;
                    let row = self.shared.registry.row(connection.row);
                    add(&row.messages_in, 1);
                    add(&row.bytes_in, length);
                    visit.messages_left -= 1;
                    self.events_left = self.events_left.saturating_sub(1);
                    if connection.lane.is_free() {
                        return Some(take(Event::Message { fd: connection.fd, payload }));
                    }
                    connection.lane.push(match payload {
                        Payload::Text(text) => Message::Text(text.into()),
                        Payload::Binary(bytes) => Message::Binary(bytes.into()),
                    });
                }
                // The next request waits until the answer to the last one is out (answers may be far longer).
                Stage::Head { .. } if !connection.outbox.is_empty() => self.end_visit(false),
                Stage::Head { scanned } => match wire::http::find_head_end(input, scanned) {
                    Some(end) if end <= self.settings.max_header_size => {
                        let head = Head::parse(&input[..end]);
                        *scanned = 0;
                        visit.from += end;
                        let key = visit.key;
                        if let Some((head, is_upgrade)) = self.enter(key, head) {
                            self.events_left = self.events_left.saturating_sub(1);
                            let token = Token { key: key as u32, serial: self.connections[key].serial };
                            let peer = self.connections[key].peer;
                            return Some(take(if is_upgrade {
                                Event::Handshake { token, head, peer }
                            } else {
                                Event::Request { token, head, peer }
                            }));
                        }
                    }
                    end if end.is_some() || input.len() > self.settings.max_header_size => {
                        let key = visit.key;
                        self.reject_too_large(key);
                    }
                    _ => {
                        let has_begun = !input.is_empty();
                        if connection.wait == Wait::KeepAlive && has_begun {
                            let key = visit.key;
                            self.wait(key, Wait::Head);
                        }
                        self.read_more();
                    }
                },
                Stage::Finishing { .. } => {
                    visit.from = visit.to;
                    self.read_more();
                }
                Stage::Asked(_) | Stage::Gone => self.end_visit(false),
            }
        }
    }

    /// Ends a turn: writes what is queued, and judges the deadlines of those that have nothing left to be read.
    pub fn finish(&mut self) {
        if self.visit.is_some() {
            self.end_visit(true);
        }
        self.flush();
        self.judge_deadlines();
        for key in self.gone.drain(..) {
            // Twice on the list is once too many: a key that is free already must not be taken from a newcomer.
            if self.connections.get(key as usize).is_some_and(|it| it.forgotten && matches!(it.stage, Stage::Gone)) {
                self.connections.remove(key as usize);
            }
        }
    }

    /// Writes what is queued, once for each connection.
    pub fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if self.connections.get(key as usize).is_some_and(|connection| connection.dirty) {
                self.write_out(key as usize, WRITE_BUDGET);
            }
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Whether another turn is due, though the kernel will not say so.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || !self.dirty.is_empty()
            || !self.drained.is_empty()
            || !self.gone.is_empty()
            || self.accept_error.is_some()
            || (self.acceptor.ready && self.acceptor.retry_at.is_none())
    }

    /// How long until a deadline has to be judged.
    pub fn next_deadline(&self) -> Option<Duration> {
        let next = self.wheel.next().into_iter().chain(self.acceptor.retry_at).min()?;
        Some(Duration::from_millis(next.saturating_sub(self.clock.now)))
    }

    /// A handler of the connection is running: what comes for it has to wait.
    pub fn hold(&mut self, fd: Fd) {
        if let Some(key) = self.key(fd) {
            self.connections[key].lane.busy = true;
        }
    }

    /// That handler has ended.
    pub fn release(&mut self, fd: Fd) {
        if let Some(key) = self.key(fd) {
            self.connections[key].lane.busy = false;
            self.make_ready(key);
        }
    }

    /// The connection's `close` event has been dealt with: nothing more is known of it.
    pub fn forget(&mut self, fd: Fd) {
        if let Some(key) = self.key(fd) {
            self.shared.forget(fd);
            let connection = &mut self.connections[key];
            self.keys[connection.row] = 0;
            connection.forgotten = true;
            connection.fd = 0;
            if matches!(connection.stage, Stage::Gone) {
                self.gone.push(key as u32);
            }
        }
    }

    /// Gives up the listening sockets, and reads no further message; what has been read still goes to its handler.
    pub fn stop_accepting(&mut self) {
        for mut listener in self.acceptor.close() {
            let _ = self.poll.registry().deregister(&mut listener);
            // A forked child may hold it too, and the kernel would go on taking connections that nobody serves.
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
        self.stopping = true;
        self.quiet = true;
    }

    /// Begins the closing handshake on every open WebSocket, and closes HTTP connections between two requests.
    pub fn close_all(&mut self, code: u16, reason: &str) {
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            match self.connections[key].stage {
                Stage::WebSocket(_) if self.connections[key].open => self.send_close(key, code, reason),
                Stage::Head { .. } => self.finish_sending(key, false),
                _ => {}
            }
        }
    }

    /// Closes what is still there, without a word more.
    pub fn abort_all(&mut self) {
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.abort(key);
        }
    }

    /// Connections of whatever kind that are still there.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    // ---- turns -------------------------------------------------------------------------------------------------------

    fn has_budget(&self) -> bool {
        self.events_left > 0 && (!self.events_left.is_multiple_of(16) || self.clock.turn.elapsed() < TURN_TIME)
    }

    pub(crate) fn make_ready(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        if !connection.queued {
            connection.queued = true;
            self.ready.push_back(key as u32);
        }
    }

    fn begin_visit(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.queued = false;
        let own = std::mem::take(&mut connection.input);
        let own = (!own.is_empty()).then_some(own);
        let to = own.as_ref().map_or(0, Vec::len);
        let (serial, messages_left) = (connection.serial, MESSAGES_PER_VISIT);
        self.visit = Some(Visit { key, serial, own, from: 0, to, messages_left, has_read: false });
    }

    /// Keeps what is left of the input, and comes back to the connection if there is more to do.
    fn end_visit(&mut self, again: bool) {
        let Some(visit) = self.visit.take() else {
            return;
        };
        let Some(connection) = self.connections.get_mut(visit.key).filter(|it| it.serial == visit.serial) else {
            return;
        };
        let ended = matches!(connection.stage, Stage::Gone | Stage::Finishing { .. });
        if visit.from < visit.to && !ended {
            connection.input = match visit.own {
                Some(mut own) => {
                    own.drain(..visit.from);
                    own.truncate(visit.to - visit.from);
                    own
                }
                None => self.tools.buffer[visit.from..visit.to].to_vec(),
            };
        }
        let can_read = connection.readable
            && connection.paused_at.is_none()
            && !connection.is_answering()
            && !matches!(connection.stage, Stage::Asked(_) | Stage::Gone);
        if again || can_read {
            self.make_ready(visit.key);
        }
    }

    /// The input is used up as far as it goes: reads once, behind what is left of it, or ends the visit.
    fn read_more(&mut self) {
        let Some(visit) = &mut self.visit else { return };
        let connection = &mut self.connections[visit.key];
        let Some(socket) = connection.socket.as_ref().filter(|_| connection.readable && !visit.has_read) else {
            self.end_visit(false);
            return;
        };
        visit.has_read = true;
        let room = if visit.from < visit.to && visit.own.is_none() {
            // Only a connection's own leftover is read behind; it is short (a partial header, a partial head).
            visit.own = Some(self.tools.buffer[visit.from..visit.to].to_vec());
            visit.to -= visit.from;
            visit.from = 0;
            &mut self.tools.buffer[..]
        } else {
            &mut self.tools.buffer[..]
        };
        match rustix::io::read(socket, &mut *room).map_err(io::Error::from) {
            Ok(0) => {
                connection.readable = false;
                let key = visit.key;
                self.end_of_input(key);
            }
            Ok(count) => {
                // A short read has emptied the socket; what comes later, or an end that was reported, is another edge.
                connection.readable = count == room.len() || connection.hung_up;
                connection.received_at = self.clock.now;
                if connection.fd != 0 {
                    let row = self.shared.registry.row(connection.row);
                    row.last_received_at.store(self.clock.unix, Ordering::Relaxed);
                }
                match &mut visit.own {
                    Some(own) if visit.from < visit.to => {
                        own.drain(..visit.from);
                        own.extend_from_slice(&room[..count]);
                        visit.to = own.len();
                    }
                    _ => {
                        visit.own = None;
                        visit.to = count;
                    }
                }
                visit.from = 0;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.readable = false;
                self.end_visit(false);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => visit.has_read = false,
            Err(_) => {
                let key = visit.key;
                self.abort(key);
            }
        }
    }

    fn accept_waiting(&mut self) {
        let mut taken = Vec::new();
        if let Err(error) = self.acceptor.accept(self.clock.now, &mut taken) {
            self.accept_error = Some(error);
        }
        for (socket, peer) in taken {
            // Without it a small answer would wait for the acknowledgement of the one before (RFC 896).
            let _ = socket.set_nodelay(true);
            self.adopt(socket, peer);
        }
    }

    fn adopt(&mut self, socket: TcpStream, peer: SocketAddr) {
        self.serial = self.serial.wrapping_add(1);
        let key = self.connections.insert(Connection::new(self.serial, socket, peer, self.clock.now));
        let connection = &mut self.connections[key];
        let registered = connection.socket.as_mut().map(|socket| {
            self.poll.registry().register(socket, mio::Token(key), Interest::READABLE | Interest::WRITABLE)
        });
        if let Some(Ok(())) = registered {
            self.wait(key, Wait::Head);
        } else {
            self.connections.remove(key);
        }
    }

    // ---- the ways in which a connection ends -----------------------------------------------------------------------------

    fn end_of_input(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        connection.ended = true;
        match connection.stage {
            // It may have closed its end only, and still read the answer.
            Stage::Asked(_) | Stage::Finishing { shut: false, .. } => {}
            Stage::Head { .. } if !connection.outbox.is_empty() => self.finish_sending(key, false),
            _ => self.abort(key),
        }
    }

    fn closed_by_peer(&mut self, key: usize, code: Option<u16>, reason: String) {
        let connection = &mut self.connections[key];
        if let Stage::WebSocket(protocol) = &mut connection.stage
            && !protocol.close_sent()
        {
            // RFC 6455 §5.5.1: typically the status code it received is echoed.
            connection.outbox.append(&mut self.tools.pool, |out| {
                protocol.send_close(code, "", out);
            });
        }
        self.end(key, code.unwrap_or(close_code::NO_STATUS), reason);
        self.finish_sending(key, false);
    }

    /// Fails the connection (RFC 6455 §7.1.7): what the peer sends is not understood from here on.
    fn fail(&mut self, key: usize, code: u16, reason: &str) {
        let connection = &mut self.connections[key];
        let Stage::WebSocket(protocol) = &mut connection.stage else {
            return;
        };
        connection.outbox.append(&mut self.tools.pool, |out| {
            protocol.send_close(Some(code), reason, out);
        });
        if connection.our_code == 0 {
            connection.our_code = code;
        }
        self.end_abnormally(key);
        self.finish_sending(key, true);
    }

    /// The WebSocket is over, and its `close` event due.
    fn end(&mut self, key: usize, code: u16, reason: String) {
        self.leave_open(key);
        let connection = &mut self.connections[key];
        if connection.fd != 0 && !connection.forgotten && matches!(connection.stage, Stage::WebSocket(_)) {
            connection.ending = Some(Box::new(Ending { code, reason }));
            self.make_ready(key);
        }
    }

    fn end_abnormally(&mut self, key: usize) {
        let ours = self.connections[key].our_code;
        let reason = if ours == 0 { String::new() } else { ours.to_string() };
        self.end(key, close_code::ABNORMAL, reason);
    }

    /// It no longer counts among the open WebSockets.
    pub(crate) fn leave_open(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        if connection.open {
            connection.open = false;
            self.shared.registry.close(connection.fd);
            self.topics.unsubscribe_all(key as u32, &mut connection.subscriptions);
            add(&self.shared.totals.closed, 1);
            add(&self.shared.totals.connections, u64::MAX);
        }
    }

    /// Sends what is queued and then closes.
    pub(crate) fn finish_sending(&mut self, key: usize, linger: bool) {
        let connection = &mut self.connections[key];
        connection.stage = Stage::Finishing { linger, shut: false };
        connection.fragmented = None;
        connection.paused_at = None;
        self.wait(key, Wait::Close);
        self.queued(key);
        self.make_ready(key);
    }

    /// Ends the connection at once.
    pub(crate) fn abort(&mut self, key: usize) {
        self.end_abnormally(key);
        let connection = &mut self.connections[key];
        if let Some(mut socket) = connection.socket.take() {
            // A forked child may hold the socket too: closing alone would neither end it nor take it out of epoll.
            let _ = self.poll.registry().deregister(&mut socket);
            if !connection.outbox.is_empty() {
                let _ = rustix::net::sockopt::set_socket_linger(socket.as_fd(), Some(Duration::ZERO));
            }
            let _ = socket.shutdown(Shutdown::Both);
        }
        connection.stage = Stage::Gone;
        connection.wait = Wait::Nothing;
        connection.input = Vec::new();
        connection.outbox.clear(&mut self.tools.pool);
        if connection.fd != 0 {
            self.shared.count_queued(connection.row, 0);
        }
        if connection.forgotten {
            self.gone.push(key as u32);
        }
    }

    // ---- writing ---------------------------------------------------------------------------------------------------------

    pub(crate) fn write_out(&mut self, key: usize, budget: usize) {
        let connection = &mut self.connections[key];
        connection.dirty = false;
        let Some(socket) = connection.socket.as_mut().filter(|_| !connection.blocked) else {
            return;
        };
        let unsent = connection.outbox.len();
        let progress = connection.outbox.write_to(&mut Raw(socket), &mut self.tools.pool, budget);
        if connection.fd == 0 && connection.outbox.len() < unsent {
            // Who still reads an HTTP answer is not cut off, however long it takes.
            connection.since = self.clock.now;
        }
        match progress {
            Ok(Progress::Empty) => {
                if connection.passed_half {
                    connection.passed_half = false;
                    if connection.open {
                        self.drained.push(connection.fd);
                    }
                }
            }
            Ok(Progress::Blocked) => connection.blocked = true,
            Ok(Progress::OverBudget) => {
                connection.dirty = true;
                self.dirty.push(key as u32);
            }
            Err(_) => {
                self.abort(key);
                return;
            }
        }
        if connection.fd != 0 {
            self.shared.count_queued(connection.row, connection.outbox.len());
        }
        if connection.outbox.is_empty() {
            self.all_sent(key);
        }
    }

    /// Nothing is left to be sent: a connection that only waited for this is closed.
    fn all_sent(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        let Stage::Finishing { linger, shut } = &mut connection.stage else {
            if matches!(connection.stage, Stage::Head { .. }) {
                self.make_ready(key);
            }
            return;
        };
        if !*linger || connection.ended {
            self.abort(key);
        } else if !*shut {
            *shut = true;
            if let Some(socket) = &connection.socket {
                let _ = socket.shutdown(Shutdown::Write);
            }
        }
    }

    // ---- deadlines -------------------------------------------------------------------------------------------------------

    /// Begins to wait for something; its deadline counts from now.
    pub(crate) fn wait(&mut self, key: usize, wait: Wait) {
        let connection = &mut self.connections[key];
        connection.wait = wait;
        connection.since = self.clock.now;
        self.arm(key);
    }

    /// Makes sure that the wheel comes back to the connection in time.
    pub(crate) fn arm(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        let Some(limit) = connection.wait.limit(&self.settings) else {
            return;
        };
        let at = connection.since + limit;
        if at < connection.timer_at {
            connection.timer_at = at;
            self.wheel.set(Entry { key: key as u32, serial: connection.serial, at });
        }
    }

    fn judge_deadlines(&mut self) {
        let mut due = Vec::new();
        self.wheel.take_due(self.clock.now, &mut due);
        for Entry { key, serial, at } in due {
            let key = key as usize;
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            if connection.serial == serial && connection.timer_at == at {
                connection.timer_at = u64::MAX;
                self.judge(key);
            }
        }
    }

    fn judge(&mut self, key: usize) {
        let now = self.clock.now;
        let connection = &mut self.connections[key];
        let Some(limit) = connection.wait.limit(&self.settings) else {
            return;
        };
        if let (Wait::Pong, Stage::WebSocket(protocol)) = (connection.wait, &connection.stage) {
            // A peer in the middle of a frame cannot send a pong; while more of the frame comes, it is alive.
            if protocol.is_mid_frame() {
                connection.since = connection.since.max(connection.received_at);
            }
            // Nor is it late while we do not read, or while what it sent lies unread.
            if connection.paused_at.is_some() || connection.readable || !connection.input.is_empty() {
                connection.since = connection.since.max((now + 1000).saturating_sub(limit));
            }
        }
        if now < connection.since + limit {
            self.arm(key);
            return;
        }
        match connection.wait {
            Wait::Nothing => {}
            Wait::Head if connection.input.is_empty() => self.finish_sending(key, true),
            Wait::Head => self.reject_too_slow(key),
            Wait::KeepAlive => self.finish_sending(key, true),
            Wait::Ping => {
                let wait = if self.settings.ping_timeout.is_some() { Wait::Pong } else { Wait::Ping };
                self.wait(key, wait);
                self.control(key, Opcode::Ping, b"");
                self.write_out_if_there(key);
            }
            Wait::Pong => {
                self.send_close(key, close_code::INTERNAL, "keepalive ping timeout");
                self.write_out_if_there(key);
            }
            Wait::Close => match connection.fragmented.take().and_then(|fragmented| fragmented.closing) {
                Some((code, reason)) => {
                    self.send_close(key, code, &reason);
                    self.write_out_if_there(key);
                }
                None => self.abort(key),
            },
        }
    }

    fn write_out_if_there(&mut self, key: usize) {
        if self.connections.contains(key) {
            self.write_out(key, WRITE_BUDGET);
        }
    }

    // ---- finding -----------------------------------------------------------------------------------------------------------

    /// The key of a connection that is there, open or not.
    #[inline]
    pub(crate) fn key(&self, fd: Fd) -> Option<usize> {
        let key = (self.keys[self.shared.registry.index(fd)] as usize).checked_sub(1)?;
        (self.connections[key].fd == fd).then_some(key)
    }

    /// The key of an open WebSocket.
    #[inline]
    pub(crate) fn open_key(&self, fd: Fd) -> Option<usize> {
        self.key(fd).filter(|key| self.connections[*key].open)
    }

    pub(crate) fn name(&mut self, key: usize, fd: Fd) {
        let row = self.shared.registry.index(fd);
        self.keys[row] = key as u32 + 1;
        let connection = &mut self.connections[key];
        (connection.fd, connection.row) = (fd, row);
        (connection.open, connection.forgotten) = (true, false);
    }

    /// The connection that waits for the answer named by `token`, if it still does.
    pub(crate) fn asked(&mut self, token: Token) -> Option<(usize, Asked)> {
        let key = token.key as usize;
        let connection = self.connections.get_mut(key).filter(|it| it.serial == token.serial)?;
        match std::mem::replace(&mut connection.stage, Stage::Head { scanned: 0 }) {
            Stage::Asked(asked) => Some((key, asked)),
            other => {
                connection.stage = other;
                None
            }
        }
    }
}
