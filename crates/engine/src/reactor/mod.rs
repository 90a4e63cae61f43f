//! The reactor: all sockets of one worker, driven in *turns* by the worker's own event loop.
//!
//! In one turn, [`Reactor::begin`] asks the kernel what is ready, [`Reactor::next`] returns one event after another
//! (reading and parsing as it goes, so that nothing is parsed before it is handled), and [`Reactor::finish`] writes
//! once to each connection with queued output and checks the deadlines. Between two events the caller may call anything
//! on the reactor.
//!
//! mio is edge-triggered: work that a turn leaves unfinished (input over the budget, accepts, writes) is not reported
//! again. It stays on the lists here, and [`Reactor::has_work`] says that another turn is due.

mod accept;
mod answering;
mod backlog;
mod body;
mod budget;
mod close;
mod commands;
mod deadlines;
mod event;
mod fanout;
mod http;
mod joining;
mod listing;
mod mailbox;
mod notice;
mod old_messages;
mod phase;
mod policies;
mod presence;
mod progress;
mod proxied;
mod read;
mod refusals;
mod sending;
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

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};
use rustc_hash::FxHashSet;
use wire::deflate::{Deflater, Inflater};

use crate::broker::Broker;
use crate::broker::memory::Memory;
use crate::connection::flow::{Drain, Incoming, Outgoing};
use crate::connection::identity::{Identity, Life};
use crate::connection::outbox::{Pool, Progress, Raw};
use crate::connection::{Asked, Connection, Stage, Standing};
use crate::language::message::FrameBuffer;
use crate::reactor::backlog::Backlog;
use crate::reactor::budget::Budget;
use crate::reactor::joining::Joining;
use crate::reactor::phase::Phase;
use crate::reactor::presence::Memberships;
use crate::reactor::refusals::Refusals;
use crate::reactor::sending::AwaitedRoom;
use crate::reactor::shutdown::ClosingAll;
use crate::reactor::slice::Slice;
use crate::reactor::unsubscribing::Unsubscribing;
use crate::reactor::uplink::{LINK, Uplink};
use crate::reactor::visit::{Return, Visit};
use crate::reactor::watching::Watched;
use crate::registry::{Fd, Ids, Registry, add};
use crate::settings::Settings;
use crate::system::acceptor::Acceptor;
use crate::system::clock::{Clock, TimeSource};
use crate::system::table::{Key, Keys, Table};
use crate::system::timers::{Timer, Wheel};
use crate::tls::certificate::Certificate;
use crate::topics::Topics;
use crate::topics::gathered::Gathered;

pub use crate::reactor::answering::Part;
pub use crate::reactor::body::Taken;
pub use crate::reactor::commands::{PushError, Subscribed};

pub use crate::reactor::event::{Event, MemberEvent, Payload, Relief, Shortage, Token};
pub use crate::reactor::http::TlsFacts;
pub use crate::reactor::mailbox::{Owner, Shared};
pub use crate::reactor::refusals::Refused;
pub use crate::reactor::sending::Sending;
pub use crate::reactor::shutdown::Requests;
pub use crate::reactor::watching::Watching;

const WAKER: mio::Token = mio::Token(usize::MAX);
pub(crate) const LISTENER: mio::Token = mio::Token(usize::MAX - 1);
/// Not the reactor's own; see [`Reactor::wait_also_for`].
const GUEST: mio::Token = mio::Token(usize::MAX - 3);

/// Bytes read from one socket before moving on to the next.
const READ_BUDGET: usize = 128 * 1024;
/// Bytes written to one socket before moving on to the next.
pub(crate) const WRITE_BUDGET: usize = 1024 * 1024;
/// Events in one turn before asyncio gets its share.
const EVENTS_PER_TURN: usize = 1024;
/// Duration of one turn, whatever happens in it, before asyncio gets its share.
const TURN_TIME: Duration = Duration::from_millis(10);
/// Steps of a turn (a message, a control frame, a read, a command) between two checks of the time.
pub(crate) const STEPS_PER_LOOK: u32 = 8;
/// Sockets whose readiness is taken from the kernel at a time. Each of them is read now and written at the end of the
/// turn; with more of them, a socket would have dropped out of the CPU caches by then.
const READINESS: usize = 64;

/// Tools that are used for one connection at a time, so one set is enough.
struct Tools {
    pool: Pool,
    inflater: Inflater,
    deflater: Deflater,
    buffer: Box<[u8]>,
    /// Holds what TLS connections read; empty if this server does not speak TLS.
    ciphertext: Box<[u8]>,
}

/// See the module documentation.
pub struct Reactor {
    settings: Settings,
    shared: Arc<Shared>,
    connections: Table<Connection>,
    topics: Topics,
    tools: Tools,
    clock: Clock,
    ids: Ids,
    dirty: Vec<Key>,
    /// Messages for many connections that are not queued yet.
    gathered: Gathered,
    /// Fan-outs that are being delivered in slices.
    backlog: Backlog,
    /// Whether a fan-out is going through its recipients. Meanwhile no subscriber may change its place.
    is_fanning_out: bool,
    phase: Phase,
    /// The number of HTTP connections waiting for their next request.
    resting: usize,
    /// The number of connections kept only for their handlers, because their clients have left.
    outliving: usize,
    poll: Poll,
    events: Events,
    /// Whether `events` holds what a wait has found, which the next turn has yet to take.
    has_waited: bool,
    /// Whether the descriptor of [`Reactor::wait_also_for`] has been reported.
    guest_is_ready: bool,
    acceptor: Acceptor,
    accept_error: Option<io::Error>,
    /// Why handshakes are being refused, until it is reported.
    shortage: Option<Shortage>,
    refusals: Refusals,
    /// Keys of open connections by registry row.
    keys: Keys,
    ready: VecDeque<Key>,
    drained: Vec<Fd>,
    /// Closed connections. They are removed at the end of the turn, so that keys stay valid until then.
    gone: Vec<Key>,
    unsubscribing: Unsubscribing,
    /// The connection of the next `max_topics` notice. There is at most one such notice.
    topics_exceeded: Option<Fd>,
    /// Expired deadlines that have yet to be checked.
    due: Vec<Timer>,
    /// Set while all connections are being closed.
    closing_all: Option<ClosingAll>,
    visit: Option<Visit>,
    wheel: Wheel,
    budget: Budget,
    events_left: usize,
    /// See [`TURN_TIME`].
    turn_time: Duration,
    /// Whether this turn has written what was queued, as far as time allowed.
    has_written: bool,
    /// Steps since the turn's time was last checked.
    steps: u32,
    /// Commands from other threads that are being carried out.
    commands: FrameBuffer,
    /// Whether other threads have queued commands that have not been taken. They announce it once, and perhaps while
    /// those taken before are still being carried out.
    is_asked: bool,
    uplink: Uplink,
    /// The certificate for TLS connections, if this server speaks TLS.
    certificate: Option<Certificate>,
    /// The result of reloading the certificate, until it is reported.
    certificate_read: Option<Result<(), String>>,
    serial: u32,
    /// The number of the last request that was passed on.
    requests: u32,
    /// Requests whose connection has ended while the application still works on them.
    orphans: FxHashSet<Token>,
    watched: Watched,
    awaited_room: AwaitedRoom,
    joining: Joining,
    memberships: Memberships,
    /// What topics have kept; `None` if the hub has it.
    broker: Option<Box<dyn Broker>>,
}

impl Reactor {
    /// Creates a reactor without listening sockets. `slot` is this process's part of the ids, and its place in the
    /// registry.
    ///
    /// # Errors
    /// If the kernel provides no epoll descriptor, or the certificate cannot be used.
    pub fn new(settings: Settings, registry: Registry, slot: u8) -> io::Result<Self> {
        Self::with_time(TimeSource::System, settings, registry, slot)
    }

    /// The same, reading the time from `source`.
    fn with_time(source: TimeSource, settings: Settings, registry: Registry, slot: u8) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let ids = Ids::new(slot, &registry);
        let shared = Arc::new(Shared::new(registry, slot, &settings, waker));
        let mut topics = Topics::default();
        let announcer = Arc::clone(&shared);
        topics.announce(move |bit, interest| announcer.registry.set_interest(slot, bit, interest));
        let buffer = vec![0; READ_BUDGET.max(settings.max_header_size)].into();
        let certificate = settings.certificate.clone().map(Certificate::new).transpose().map_err(io::Error::other)?;
        let ciphertext = vec![0; if certificate.is_some() { READ_BUDGET } else { 0 }].into();
        let broker = Memory::for_settings(&settings);
        Ok(Self {
            keys: Keys::new(shared.registry.rows()),
            budget: Budget::new(settings.max_memory),
            settings,
            shared,
            connections: Table::new(),
            topics,
            tools: Tools {
                pool: Pool::default(),
                inflater: Inflater::new(),
                deflater: Deflater::new(),
                buffer,
                ciphertext,
            },
            clock: Clock::new(source),
            ids,
            dirty: Vec::new(),
            gathered: Gathered::default(),
            backlog: Backlog::default(),
            is_fanning_out: false,
            phase: Phase::Serving,
            resting: 0,
            outliving: 0,
            poll,
            events: Events::with_capacity(READINESS),
            has_waited: false,
            guest_is_ready: false,
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
            is_asked: false,
            uplink: Uplink::default(),
            certificate,
            certificate_read: None,
            serial: 0,
            requests: 0,
            orphans: FxHashSet::default(),
            watched: Watched::default(),
            awaited_room: AwaitedRoom::default(),
            joining: Joining::default(),
            memberships: Memberships::default(),
            broker: Some(broker),
        })
    }

    /// The descriptor that becomes readable when a turn is due.
    pub fn fileno(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// The part of the reactor that every thread may use.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Reports a descriptor that is not the reactor's own along with its sockets; see [`Reactor::await_readiness`].
    ///
    /// # Errors
    /// The kernel's error.
    pub fn wait_also_for(&mut self, descriptor: RawFd) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&descriptor), GUEST, Interest::READABLE)
    }

    /// Waits until something is ready, at most for `timeout`. Returns whether a turn has something to do.
    ///
    /// # Errors
    /// `Interrupted` if a signal has ended the wait; other errors would be a bug in the engine.
    pub fn await_readiness(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        if !self.has_waited {
            // A turn outside of a wait may have found the guest.
            let timeout = if self.guest_is_ready { Some(Duration::ZERO) } else { timeout };
            self.poll.poll(&mut self.events, timeout)?;
            self.has_waited = self.events.iter().any(|event| event.token() != GUEST);
            self.guest_is_ready |= self.events.iter().any(|event| event.token() == GUEST);
        }
        Ok(self.has_waited)
    }

    /// Whether the descriptor of [`Reactor::wait_also_for`] has become readable since the last call.
    pub fn take_guest(&mut self) -> bool {
        std::mem::take(&mut self.guest_is_ready)
    }

    /// Begins a turn: asks the kernel what is ready, and collects what other threads have asked for.
    ///
    /// # Errors
    /// The kernel's error, which would be a bug in the engine.
    pub fn begin(&mut self) -> io::Result<()> {
        self.clock.begin_turn();
        self.events_left = EVENTS_PER_TURN;
        self.has_written = false;
        if !std::mem::take(&mut self.has_waited) {
            self.ask_kernel()?;
        }
        self.take_readiness();
        Ok(())
    }

    /// Continues a turn that has run out of events: writes what is queued, and asks the kernel again. Returns true if
    /// that found something; handling it then costs no round trip through the event loop.
    ///
    /// # Errors
    /// The same as for [`Reactor::begin`].
    pub fn go_on(&mut self) -> io::Result<bool> {
        self.flush();
        if self.visit.is_some() || self.events_left == 0 || self.is_over_time() {
            return Ok(false);
        }
        // A client that has just been answered may ask for the counts within this turn.
        self.shared.count_held(self.held());
        self.ask_kernel()?;
        self.take_readiness();
        Ok(!self.events.is_empty())
    }

    fn ask_kernel(&mut self) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Notes what the kernel has reported, and does what needs no connection.
    fn take_readiness(&mut self) {
        let mut woken = false;
        let mut hung_up = false;
        for event in &self.events {
            match event.token() {
                WAKER => woken = true,
                GUEST => self.guest_is_ready = true,
                LISTENER => self.acceptor.ready = true,
                LINK => self.uplink.is_reported(event),
                mio::Token(place) => {
                    let key = Key::of_place(place);
                    let Some(connection) = self.connections.get_mut(key) else {
                        continue;
                    };
                    connection.incoming = connection.incoming.max(if event.is_read_closed() || event.is_error() {
                        Incoming::HungUp
                    } else if event.is_readable() {
                        Incoming::Readable
                    } else {
                        Incoming::Quiet
                    });
                    hung_up |= connection.is_abandoned();
                    if connection.outgoing == Outgoing::Blocked && event.is_writable() {
                        connection.outgoing = Outgoing::Idle;
                        if !connection.outbox.is_empty() {
                            connection.outgoing = Outgoing::Listed;
                            self.dirty.push(key);
                        }
                    }
                    if connection.incoming.is_readable() && !connection.queued {
                        connection.queued = true;
                        self.ready.push_back(key);
                    }
                }
            }
        }
        if hung_up {
            let keys: Vec<Key> = self.events.iter().map(|event| Key::of_place(event.token().0)).collect();
            keys.into_iter().for_each(|key| self.outlive_if_abandoned(key));
        }
        self.is_asked |= woken;
        if self.is_asked || !self.commands.is_empty() {
            self.carry_out_some();
        }
        self.hear_hub();
        self.retry_uplink();
        self.retry_joins();
        self.expire_histories();
        self.accept_waiting();
    }

    /// Ends a turn: writes what is queued, and checks the deadlines of connections that have nothing left to read.
    pub fn finish(&mut self) {
        if self.visit.is_some() {
            self.end_visit(Return::Soon);
        }
        self.flush();
        let slice = &mut Slice::new(self.clock.source(), self.time_left().max(self.turn_time / 4));
        self.judge_deadlines(slice);
        self.go_on_closing(slice);
        self.go_on_unsubscribing(slice);
        self.settle_budget();
        let mut gone = std::mem::take(&mut self.gone);
        for key in gone.drain(..) {
            // A key may be on the list twice. Once freed, it must not be taken away from a new connection.
            if self.connections.get(key).is_some_and(Connection::is_over) {
                let connection = self.connections.remove(key);
                self.budget.forget(connection.held);
                if connection.standing == Standing::Outlived {
                    self.count_outliving(self.outliving - 1);
                } else {
                    add(&self.shared.registry.slot(self.shared.slot).sockets_done, 1);
                }
            }
        }
        self.gone = gone;
        self.shared.measured().turn(self.clock.turn_time());
    }

    /// Writes what is queued, once for each connection, as long as there is time. The rest is left to the next turn.
    fn flush(&mut self) {
        self.uplink.tell_wanted(&mut self.topics);
        // Other workers first, so that they can start on their share while this one handles its own.
        self.uplink.flush();
        let slice = &mut self.slice_for_writing();
        if self.backlog.is_empty() {
            let dirty = std::mem::take(&mut self.dirty);
            if !self.gathered.is_empty() {
                self.fan_out(Some(slice));
            }
            self.write_dirty(dirty, slice);
        } else {
            // Messages that handlers have pushed do not wait for a fan-out that takes many turns.
            let dirty = std::mem::take(&mut self.dirty);
            self.write_dirty(dirty, slice);
            if !self.gathered.is_empty() {
                self.fan_out(Some(slice));
            }
            self.work_off_backlog(slice);
        }
    }

    /// Writes everything that is queued, however long that takes.
    pub(crate) fn flush_all(&mut self) {
        self.uplink.flush();
        self.settle();
        let slice = &mut Slice::endless();
        self.work_off_backlog(slice);
        let dirty = std::mem::take(&mut self.dirty);
        self.write_dirty(dirty, slice);
    }

    /// The first write phase of a turn always gets some time.
    fn slice_for_writing(&mut self) -> Slice {
        let least = if std::mem::replace(&mut self.has_written, true) { Duration::ZERO } else { self.turn_time / 2 };
        Slice::new(self.clock.source(), self.time_left().max(least))
    }

    fn time_left(&self) -> Duration {
        self.turn_time.saturating_sub(self.clock.turn_time())
    }

    fn write_dirty(&mut self, mut dirty: Vec<Key>, slice: &mut Slice) {
        let mut written = 0;
        for key in &dirty {
            written += 1;
            if self.connections.get(*key).is_some_and(|connection| connection.outgoing == Outgoing::Listed) {
                self.write_out(*key, WRITE_BUDGET);
                if slice.is_over() {
                    break;
                }
            }
        }
        dirty.drain(..written);
        // Connections that have become dirty in the meantime go after those that were already waiting.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Whether another turn is due that the kernel will not announce.
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
            || self.is_asked
            || self.uplink.has_work()
            || self.accept_error.is_some()
            || self.shortage.is_some()
            || !self.refusals.is_empty()
            || self.budget.has_relief()
            || self.certificate_read.is_some()
            || (self.acceptor.ready && self.acceptor.retry_at.is_none() && self.has_space())
    }

    /// Whether the application has yet to be told of something that has happened.
    pub fn has_notices(&self) -> bool {
        !self.uplink.notices.is_empty()
    }

    /// The time until the next deadline has to be checked.
    pub fn next_deadline(&mut self) -> Option<Duration> {
        let histories = self.broker.as_ref().and_then(|broker| broker.next_expiry());
        let others = [
            self.acceptor.retry_at,
            self.uplink.retry_at,
            self.budget.trim_at,
            self.joining.next_deadline(),
            histories,
        ];
        let next = self.wheel.tell_next().into_iter().chain(others.into_iter().flatten()).min()?;
        Some(Duration::from_millis(next.saturating_sub(self.clock.now)))
    }

    /// Whether a deadline has been set outside a turn that is earlier than the last answer of
    /// [`Reactor::next_deadline`]. If so, run a turn and ask again.
    pub fn has_earlier_deadline(&self) -> bool {
        self.wheel.has_earlier()
    }

    /// Marks a handler of the connection as running: further events of the connection wait.
    pub fn hold(&mut self, fd: Fd) {
        if let Some(key) = self.key(fd) {
            self.connections[key].lane.busy = true;
        }
    }

    /// Marks that handler as ended.
    pub fn release(&mut self, fd: Fd) {
        if let Some(key) = self.key(fd) {
            self.connections[key].lane.busy = false;
            self.make_ready(key);
        }
    }

    /// To be called once the connection's `close` event has been handled: the connection is forgotten.
    pub fn forget(&mut self, fd: Fd) {
        if let Some(key) = self.shared.ended_key(fd) {
            self.shared.forget(fd);
            self.connections[key].identity = Identity::Forgotten;
            self.free_if_over(key);
        }
    }

    /// Has the connection's key freed at the end of the turn, if nothing of the connection is left.
    pub(crate) fn free_if_over(&mut self, key: Key) {
        if self.connections[key].is_over() {
            self.gone.push(key);
        }
    }

    /// The ids of this process's open WebSockets.
    pub fn own_ids(&self) -> Vec<Fd> {
        self.connections.values().filter_map(|connection| connection.identity.open()).map(|(fd, _)| fd).collect()
    }

    /// The number of connections of any kind.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Whether this turn may take another step. Asked before each one.
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

    pub(crate) fn make_ready(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        if !connection.queued {
            connection.queued = true;
            self.ready.push_back(key);
        }
    }

    pub(crate) fn write_out(&mut self, key: Key, budget: usize) {
        let connection = &mut self.connections[key];
        if connection.outbox.may_have_expired(self.clock.now) {
            self.write_out_unexpired(key, budget);
            return;
        }
        if connection.outgoing == Outgoing::Blocked {
            return;
        }
        connection.outgoing = Outgoing::Idle;
        let Some(socket) = &mut connection.socket else { return };
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
            // Messages are shorter, so they do not pay for this.
            Ok(Progress::Empty) if unsent > answering::HIGH => self.note_pace(key, unsent, true),
            Ok(Progress::Empty) => {}
            Ok(Progress::Blocked) => {
                connection.outgoing = Outgoing::Blocked;
                connection.outbox.fit();
                self.note_pace(key, unsent, false);
            }
            Ok(Progress::OverBudget) => {
                connection.outgoing = Outgoing::Listed;
                self.dirty.push(key);
            }
            Err(_) => {
                self.abort(key);
                return;
            }
        }
        self.note_shorter(key);
    }

    /// To be called when an outbox may have become shorter, or empty.
    #[inline(always)]
    fn note_shorter(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        if connection.drain == Drain::High
            && connection.outbox.is_empty()
            && let Some((fd, _)) = connection.identity.open()
        {
            connection.drain = Drain::Listed;
            self.drained.push(fd);
        }
        self.shared.count_unsent(connection, connection.unsent());
        let (is_empty, is_awaited) = (connection.outbox.is_empty(), connection.awaited);
        if !is_empty || connection.deferred.is_some() || connection.held > 0 {
            self.count_memory(key);
        }
        if is_awaited {
            self.tell_room(key);
        }
        if is_empty {
            self.all_sent(key);
        }
    }

    /// The key of a WebSocket that is open, or whose `close` handler has not ended yet.
    pub(crate) fn key(&self, fd: Fd) -> Option<Key> {
        self.open_key(fd).or_else(|| self.shared.ended_key(fd))
    }

    /// The key of an open WebSocket.
    #[inline]
    pub(crate) fn open_key(&self, fd: Fd) -> Option<Key> {
        let key = self.keys.get(self.shared.registry.index(fd))?;
        (self.connections[key].identity.fd() == Some(fd)).then_some(key)
    }

    pub(crate) fn name(&mut self, key: Key, fd: Fd) {
        let row = self.shared.registry.index(fd);
        self.keys.set(row, key);
        self.connections[key].identity = Identity::Named { fd, life: Life::Open { row } };
        self.backlog.is_reached(key);
    }

    /// The connection that waits for the answer named by `token`, if it is still waiting.
    pub(crate) fn asked(&mut self, token: Token) -> Option<(Key, Asked)> {
        let key = token.key;
        let connection = self.connections.get_mut(key).filter(|it| it.request == token.number)?;
        match std::mem::replace(&mut connection.stage, Stage::Head { scanned: 0 }) {
            Stage::Asked(asked) => Some((key, asked)),
            other => {
                connection.stage = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
