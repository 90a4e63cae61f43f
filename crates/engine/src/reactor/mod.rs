//! The reactor: all sockets of one worker, driven in *turns* by the worker's own event loop.
//!
//! One turn: [`Reactor::begin`] asks the kernel what is ready, [`Reactor::next`] gives one event after the other
//! (reading and parsing as it goes, so that nothing is parsed that is not handled), [`Reactor::finish`] writes once for
//! each connection that has something to send and judges the deadlines. Between two events the caller may call anything
//! on the reactor.
//!
//! mio reports edges: what a turn leaves behind (input over the budget, accepts, writes) is not reported again, so it
//! stays on the lists here, and [`Reactor::has_work`] tells that another turn is due.

mod accept;
mod backlog;
mod budget;
mod close;
mod commands;
mod deadlines;
mod event;
mod fanout;
mod http;
mod mailbox;
mod notice;
mod phase;
mod progress;
mod read;
mod refusals;
mod shutdown;
mod slice;
mod unsubscribing;
mod uplink;
mod visit;
mod watching;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Waker};
use slab::Slab;
use wire::deflate::{Deflater, Inflater};

use crate::connection::outbox::{Pool, Progress, Raw};
use crate::connection::{Asked, Connection, Stage};
use crate::language::message::FrameBuffer;
use crate::reactor::backlog::Backlog;
use crate::reactor::budget::Budget;
use crate::reactor::phase::Phase;
use crate::reactor::refusals::Refusals;
use crate::reactor::shutdown::ClosingAll;
use crate::reactor::slice::Slice;
use crate::reactor::unsubscribing::Unsubscribing;
use crate::reactor::uplink::{LINK, Uplink};
use crate::reactor::visit::Visit;
use crate::reactor::watching::Watched;
use crate::registry::{Fd, Ids, Registry, add};
use crate::settings::Settings;
use crate::system::acceptor::Acceptor;
use crate::system::clock::Clock;
use crate::system::timers::{Timer, Wheel};
use crate::tls::certificate::Certificate;
use crate::topics::Topics;
use crate::topics::gathered::Gathered;

pub use crate::reactor::commands::{PushError, Subscribed};
pub use crate::reactor::event::{Event, Payload, Relief, Shortage, Token};
pub use crate::reactor::mailbox::Shared;
pub use crate::reactor::notice::{MAX_PIPED, Unanswered};
pub use crate::reactor::refusals::Refused;
pub use crate::reactor::watching::Watching;

const WAKER: mio::Token = mio::Token(usize::MAX);
pub(crate) const LISTENER: mio::Token = mio::Token(usize::MAX - 1);

/// Bytes read from one socket before it is another's turn.
const READ_BUDGET: usize = 128 * 1024;
/// Bytes written to one socket before it is another's turn.
pub(crate) const WRITE_BUDGET: usize = 1024 * 1024;
/// Events of one turn before asyncio gets its share.
const EVENTS_PER_TURN: usize = 1024;
/// Time of one turn, whatever happens in it, before asyncio gets its share.
const TURN_TIME: Duration = Duration::from_millis(10);
/// Steps of a turn (a message, a control frame, a read, a command) between two looks at the time.
pub(crate) const STEPS_PER_LOOK: u32 = 8;
/// Sockets whose readiness is taken from the kernel at a time. Each of them is read, and at the end written: with more
/// of them the caches have forgotten a socket by then.
const READINESS: usize = 64;

/// What is used for one connection at a time, and so is needed only once.
struct Tools {
    pool: Pool,
    inflater: Inflater,
    deflater: Deflater,
    deflated: Vec<u8>,
    buffer: Box<[u8]>,
    /// For what TLS connections read; where there are none, it is empty.
    ciphertext: Box<[u8]>,
}

/// See the file's head.
pub struct Reactor {
    settings: Settings,
    shared: Arc<Shared>,
    connections: Slab<Connection>,
    topics: Topics,
    tools: Tools,
    clock: Clock,
    ids: Ids,
    dirty: Vec<u32>,
    /// Messages for many connections that are not queued yet.
    gathered: Gathered,
    /// Those that are being delivered in slices.
    backlog: Backlog,
    phase: Phase,
    /// How many HTTP connections wait for their next request.
    resting: usize,
    /// How many connections are kept only for their handlers: their clients have left.
    outliving: usize,
    poll: Poll,
    events: Events,
    acceptor: Acceptor,
    accept_error: Option<io::Error>,
    /// Why handshakes are refused, to be told.
    shortage: Option<Shortage>,
    refusals: Refusals,
    /// Keys of open connections by row of the registry, plus 1; 0: none. Zeroed memory costs nothing until it is used.
    keys: Vec<u32>,
    ready: VecDeque<u32>,
    drained: Vec<Fd>,
    /// Connections that are over; removed at the end of the turn, so that keys stay good until then.
    gone: Vec<u32>,
    unsubscribing: Unsubscribing,
    /// The connection of the next notice that `max_topics` is exceeded, of which there is one at most.
    topics_exceeded: Option<Fd>,
    /// Deadlines that have come, and are to be judged.
    due: Vec<Timer>,
    /// All connections are being closed.
    closing_all: Option<ClosingAll>,
    visit: Option<Visit>,
    wheel: Wheel,
    budget: Budget,
    events_left: usize,
    /// See [`TURN_TIME`].
    turn_time: Duration,
    /// This turn has written what was queued, as far as there was time.
    has_written: bool,
    /// Steps since the turn's time was last looked at.
    steps: u32,
    /// Commands of other threads that are being carried out.
    commands: FrameBuffer,
    uplink: Uplink,
    /// For TLS connections, if this server speaks TLS.
    certificate: Option<Certificate>,
    /// What came of reading it again, to be told.
    certificate_read: Option<Result<(), String>>,
    serial: u32,
    watched: Watched,
}

impl Reactor {
    /// A reactor without listening sockets. `slot` is this process's part of the ids, and its place in the registry.
    ///
    /// # Errors
    /// The kernel gives no epoll descriptor; the certificate cannot be used.
    pub fn new(settings: Settings, registry: Registry, slot: u8) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let ids = Ids::new(slot, &registry);
        let shared = Arc::new(Shared::new(registry, slot, &settings, waker));
        let mut topics = Topics::default();
        let announcer = Arc::clone(&shared);
        topics.announce(move |bit, is_wanted| announcer.registry.set_interest(slot, bit, is_wanted));
        let buffer = vec![0; READ_BUDGET.max(settings.max_header_size)].into();
        let certificate = settings.certificate.clone().map(Certificate::new).transpose().map_err(io::Error::other)?;
        let ciphertext = vec![0; if certificate.is_some() { READ_BUDGET } else { 0 }].into();
        Ok(Self {
            keys: vec![0; shared.registry.rows()],
            budget: Budget::new(settings.max_memory),
            settings,
            shared,
            connections: Slab::new(),
            topics,
            tools: Tools {
                pool: Pool::default(),
                inflater: Inflater::new(),
                deflater: Deflater::new(),
                deflated: Vec::new(),
                buffer,
                ciphertext,
            },
            clock: Clock::new(),
            ids,
            dirty: Vec::new(),
            gathered: Gathered::default(),
            backlog: Backlog::default(),
            phase: Phase::Serving,
            resting: 0,
            outliving: 0,
            poll,
            events: Events::with_capacity(READINESS),
            acceptor: Acceptor::default(),
            accept_error: None,
            shortage: None,
            refusals: Refusals::default(),
            ready: VecDeque::new(),
            drained: Vec::new(),
            gone: Vec::new(),
            unsubscribing: Unsubscribing::new(),
            topics_exceeded: None,
            due: Vec::new(),
            closing_all: None,
            visit: None,
            wheel: Wheel::new(),
            events_left: 0,
            turn_time: TURN_TIME,
            has_written: false,
            steps: 0,
            commands: FrameBuffer::default(),
            uplink: Uplink::default(),
            certificate,
            certificate_read: None,
            serial: 0,
            watched: Watched::default(),
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

    /// Begins a turn: takes from the kernel what is ready, and from other threads what they ask for.
    ///
    /// # Errors
    /// The kernel's, which would be a fault of ours.
    pub fn begin(&mut self) -> io::Result<()> {
        self.clock.begin_turn();
        self.events_left = EVENTS_PER_TURN;
        self.has_written = false;
        self.ask_kernel()
    }

    /// Goes on with a turn whose events are at an end: writes what is queued, and asks the kernel again. True if that
    /// gave something, which then costs no round through the event loop.
    ///
    /// # Errors
    /// As those of [`Reactor::begin`].
    pub fn go_on(&mut self) -> io::Result<bool> {
        self.flush();
        if self.visit.is_some() || self.events_left == 0 || self.is_over_time() {
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
        let mut hung_up = false;
        for event in &self.events {
            match event.token() {
                WAKER => woken = true,
                LISTENER => self.acceptor.ready = true,
                LINK => self.uplink.is_reported(event.is_readable() || event.is_read_closed(), event.is_writable()),
                mio::Token(key) => {
                    let Some(connection) = self.connections.get_mut(key) else {
                        continue;
                    };
                    connection.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                    connection.hung_up |= event.is_read_closed() || event.is_error();
                    hung_up |= connection.hung_up && matches!(connection.stage, Stage::Asked(_));
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
        if hung_up {
            let keys: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
            keys.into_iter().for_each(|key| self.outlive_if_abandoned(key));
        }
        if woken || !self.commands.is_empty() {
            self.carry_out_some();
        }
        self.hear_hub();
        self.retry_uplink();
        self.accept_waiting();
        Ok(())
    }

    /// Ends a turn: writes what is queued, and judges the deadlines of those that have nothing left to be read.
    pub fn finish(&mut self) {
        if self.visit.is_some() {
            self.end_visit(true);
        }
        self.flush();
        let slice = &mut Slice::new(self.time_left().max(self.turn_time / 4));
        self.judge_deadlines(slice);
        self.go_on_closing(slice);
        self.go_on_unsubscribing(slice);
        self.settle_budget();
        let mut gone = std::mem::take(&mut self.gone);
        for key in gone.drain(..) {
            // Twice on the list is once too many: a key that is free already must not be taken from a newcomer.
            if self.connections.get(key as usize).is_some_and(Connection::is_over) {
                let connection = self.connections.remove(key as usize);
                self.budget.forget(connection.held);
                if connection.outlived {
                    self.count_outliving(self.outliving - 1);
                } else {
                    add(&self.shared.registry.slot(self.shared.slot).sockets_done, 1);
                }
            }
        }
        self.gone = gone;
        self.shared.measured().turn(self.clock.turn_time());
    }

    /// Writes what is queued, once for each connection, as long as there is time: what is left is the next turn's.
    fn flush(&mut self) {
        // The other workers first: they begin with their share while this one sees to its own.
        self.uplink.flush();
        let slice = &mut self.slice_for_writing();
        if self.backlog.is_empty() {
            let dirty = std::mem::take(&mut self.dirty);
            if !self.gathered.is_empty() {
                self.fan_out(Some(slice));
            }
            self.write_dirty(dirty, slice);
        } else {
            // What handlers have pushed does not wait for a fan-out that takes many turns.
            let dirty = std::mem::take(&mut self.dirty);
            self.write_dirty(dirty, slice);
            if !self.gathered.is_empty() {
                self.fan_out(Some(slice));
            }
            self.work_off_backlog(slice);
        }
    }

    /// Writes what is queued for whomever, however long that takes.
    pub(crate) fn flush_all(&mut self) {
        self.uplink.flush();
        self.settle();
        let slice = &mut Slice::endless();
        self.work_off_backlog(slice);
        let dirty = std::mem::take(&mut self.dirty);
        self.write_dirty(dirty, slice);
    }

    /// The first writing of a turn always gets some time.
    fn slice_for_writing(&mut self) -> Slice {
        let least = if std::mem::replace(&mut self.has_written, true) { Duration::ZERO } else { self.turn_time / 2 };
        Slice::new(self.time_left().max(least))
    }

    fn time_left(&self) -> Duration {
        self.turn_time.saturating_sub(self.clock.turn_time())
    }

    fn write_dirty(&mut self, mut dirty: Vec<u32>, slice: &mut Slice) {
        let mut written = 0;
        for key in &dirty {
            written += 1;
            if self.connections.get(*key as usize).is_some_and(|connection| connection.dirty) {
                self.write_out(*key as usize, WRITE_BUDGET);
                if slice.is_over() {
                    break;
                }
            }
        }
        dirty.drain(..written);
        // What has become dirty meanwhile comes after what has waited.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Whether another turn is due, though the kernel will not say so.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || !self.dirty.is_empty()
            || !self.gathered.is_empty()
            || !self.backlog.is_empty()
            || !self.drained.is_empty()
            || !self.gone.is_empty()
            || !self.unsubscribing.is_empty()
            || !self.due.is_empty()
            || self.closing_all.is_some()
            || !self.commands.is_empty()
            || self.uplink.has_work()
            || self.accept_error.is_some()
            || self.shortage.is_some()
            || !self.refusals.is_empty()
            || self.budget.has_relief()
            || self.certificate_read.is_some()
            || (self.acceptor.ready && self.acceptor.retry_at.is_none() && self.has_space())
    }

    /// How long until a deadline has to be judged.
    pub fn next_deadline(&mut self) -> Option<Duration> {
        let others = [self.acceptor.retry_at, self.uplink.retry_at, self.budget.trim_at];
        let next = self.wheel.tell_next().into_iter().chain(others.into_iter().flatten()).min()?;
        Some(Duration::from_millis(next.saturating_sub(self.clock.now)))
    }

    /// Whether a deadline has been set, outside of a turn, that comes before what [`Reactor::next_deadline`] has told:
    /// a turn is due, after which it is asked again.
    pub fn has_earlier_deadline(&self) -> bool {
        self.wheel.has_earlier()
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
        if let Some(key) = self.shared.ended_key(fd) {
            self.shared.forget(fd);
            let connection = &mut self.connections[key];
            connection.forgotten = true;
            connection.fd = 0;
            self.free_if_over(key);
        }
    }

    /// Has the key of a connection freed at the end of the turn, if nothing of it is left.
    pub(crate) fn free_if_over(&mut self, key: usize) {
        if self.connections[key].is_over() {
            self.gone.push(key as u32);
        }
    }

    /// The ids of this process's open WebSockets.
    pub fn own_ids(&self) -> Vec<Fd> {
        self.connections.iter().filter(|(_, connection)| connection.open).map(|(_, connection)| connection.fd).collect()
    }

    /// Connections of whatever kind that are still there.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Whether this turn may take another step; asked before each.
    #[inline]
    pub(crate) fn has_budget(&mut self) -> bool {
        self.steps += 1;
        if self.steps >= STEPS_PER_LOOK {
            self.steps = 0;
            if self.is_over_time() {
                self.events_left = 0;
            }
        }
        self.events_left > 0
    }

    pub(crate) fn is_over_time(&self) -> bool {
        self.clock.turn_time() >= self.turn_time
    }

    pub(crate) fn make_ready(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        if !connection.queued {
            connection.queued = true;
            self.ready.push_back(key as u32);
        }
    }

    pub(crate) fn write_out(&mut self, key: usize, budget: usize) {
        let connection = &mut self.connections[key];
        connection.dirty = false;
        let Some(socket) = connection.socket.as_mut().filter(|_| !connection.blocked) else {
            return;
        };
        let unsent = connection.outbox.len();
        let (outbox, pool) = (&mut connection.outbox, &mut self.tools.pool);
        let progress = match &mut connection.tls {
            None => outbox.write_to(&mut Raw(socket), pool, budget),
            Some(session) => outbox.write_sealed_to(&mut Raw(socket), session, pool, budget),
        };
        if connection.outbox.len() < unsent {
            connection.progress_at = self.clock.now;
        }
        match progress {
            Ok(Progress::Empty) => {
                if connection.passed_half && connection.open && !connection.drained {
                    connection.drained = true;
                    self.drained.push(connection.fd);
                }
            }
            Ok(Progress::Blocked) => {
                connection.blocked = true;
                connection.outbox.fit();
            }
            Ok(Progress::OverBudget) => {
                connection.dirty = true;
                self.dirty.push(key as u32);
            }
            Err(_) => {
                self.abort(key);
                return;
            }
        }
        self.shared.count_unsent(connection, connection.unsent());
        let is_empty = connection.outbox.is_empty();
        if !is_empty || connection.fragmented.is_some() || connection.held > 0 {
            self.count_memory(key);
        }
        if is_empty {
            self.all_sent(key);
        }
    }

    /// The key of a WebSocket that is open, or whose `close` handler has not ended.
    pub(crate) fn key(&self, fd: Fd) -> Option<usize> {
        self.open_key(fd).or_else(|| self.shared.ended_key(fd))
    }

    /// The key of an open WebSocket.
    #[inline]
    pub(crate) fn open_key(&self, fd: Fd) -> Option<usize> {
        let key = (self.keys[self.shared.registry.index(fd)] as usize).checked_sub(1)?;
        (self.connections[key].fd == fd).then_some(key)
    }

    pub(crate) fn name(&mut self, key: usize, fd: Fd) {
        let row = self.shared.registry.index(fd);
        self.keys[row] = key as u32 + 1;
        let connection = &mut self.connections[key];
        (connection.fd, connection.row) = (fd, row);
        (connection.open, connection.forgotten) = (true, false);
        self.backlog.is_reached(key as u32);
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
