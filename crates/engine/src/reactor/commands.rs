//! Commands: what handlers, tasks and other threads ask the reactor to do.

use std::sync::atomic::Ordering;

use wire::error::close_code;
use wire::frame::{DataOpcode, Fin, MAX_SERVER_HEADER};
use wire::sender::{Compressor, Control, SendError};

use crate::connection::flow::{Drain, Outgoing};
use crate::connection::{Connection, Deferred, DeferredMessage, Wait};
use crate::language::command::Command;
use crate::language::message::{FrameBuffer, Message, content};
use crate::reactor::budget::COUNTED_AT_ONCE;
use crate::reactor::notice::Notice;
use crate::reactor::{Reactor, WRITE_BUDGET};
use crate::registry::{Fd, Registry, add};
use crate::settings::SlowConsumer;
use crate::system::table::Key;
use crate::topics::policy::Policy;
use crate::topics::publication::{Content, Publication};

/// An outbox that has grown to this size is written at once, in the middle of a turn. So a handler that pushes a lot
/// fills the outbox only if the peer does not read. Answers to a client that takes everything at once may grow longer; see
/// `reactor::answering`.
const WRITE_AT: usize = 256 * 1024;

/// Memory of a deferred message in addition to its payload, including the header of its frame.
const DEFERRED_COST: usize = size_of::<DeferredMessage>() + MAX_SERVER_HEADER;

/// The data that counts against the limit when room is requested.
#[derive(Clone, Copy)]
pub(crate) enum Counted {
    /// Queued output, and messages deferred until an unfinished one ends.
    Everything,
    /// Queued output only: for frames that need not wait, or that could end the wait.
    Outbox,
}

/// Where a command comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Another thread of this process.
    Thread,
    /// The hub, on behalf of any other process.
    Hub,
}

/// How many connections a command is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// One, or none.
    One,
    /// Any number.
    Many,
}

impl Reach {
    fn of(command: &Command<'_>) -> Self {
        match command {
            Command::Publish { .. } | Command::Deliver { .. } | Command::Broadcast { .. } => Self::Many,
            _ => Self::One,
        }
    }
}

/// The result of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// The connection is subscribed. If it belongs to another thread or process, the subscription is on its way.
    Done,
    /// There is no such open connection, or too much waits for its process.
    NotOpen,
    /// The connection already has `max_topics` subscriptions. The refusal has been counted.
    TooMany,
    /// The connection belongs to another thread or process, and seems to have `max_topics` subscriptions already. The
    /// request was sent to that thread anyway: it knows for certain, and counts what it refuses.
    NoRoom,
}

/// A mistake by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// A text message that is not UTF-8.
    NotUtf8,
}

impl Reactor {
    /// Queues a message, or a fragment of one. Returns false if there is no such open connection,
    /// or its outbox is full and the slow-consumer policy was applied.
    ///
    /// The payload of a whole text message is assumed to be UTF-8, and not checked.
    ///
    /// # Errors
    /// [`PushError::NotUtf8`] if a fragment makes its text message invalid; nothing was queued.
    #[inline]
    pub fn push(&mut self, fd: Fd, opcode: DataOpcode, fin: Fin, payload: &[u8]) -> Result<bool, PushError> {
        let Some(key) = self.settled_key(fd) else {
            return Ok(self.push_away(fd, opcode, fin, payload));
        };
        if fin == Fin::Last && opcode != DataOpcode::Continuation && self.connections[key].sender.is_ready() {
            return Ok(self.enqueue(key, opcode, payload));
        }
        self.push_fragment(key, opcode, fin, payload)
    }

    /// Queues a whole message for an open connection that may begin one.
    #[inline]
    fn enqueue(&mut self, key: Key, opcode: DataOpcode, payload: &[u8]) -> bool {
        let has_room = self.make_room(key, payload.len(), Counted::Everything);
        if has_room {
            self.put(key, opcode, payload);
        }
        has_room
    }

    #[inline(always)]
    fn put(&mut self, key: Key, opcode: DataOpcode, payload: &[u8]) {
        let connection = &mut self.connections[key];
        let tools = &mut self.tools;
        let compressor = Compressor { deflater: &mut tools.deflater, threshold: self.settings.compression_threshold };
        let sender = &mut connection.sender;
        let sent = connection.outbox.append(&mut tools.pool, |out| sender.message(opcode, payload, compressor, out));
        if sent.is_ok() {
            self.shared.count_out(connection, 1, payload.len());
            self.queued(key);
        }
    }

    fn push_fragment(&mut self, key: Key, opcode: DataOpcode, fin: Fin, payload: &[u8]) -> Result<bool, PushError> {
        match self.connections[key].sender.check_fragment(opcode, fin, payload) {
            Ok(()) => {}
            Err(SendError::Unfinished) => return Ok(self.defer(key, opcode, fin, payload, None)),
            Err(SendError::NotUtf8) => return Err(PushError::NotUtf8),
            Err(_) => return Ok(false),
        }
        if !self.make_room(key, payload.len(), Counted::Outbox) {
            return Ok(false);
        }
        let connection = &mut self.connections[key];
        let sender = &mut connection.sender;
        let sent = connection.outbox.append(&mut self.tools.pool, |out| sender.fragment(opcode, fin, payload, out));
        if sent.is_err() {
            return Ok(false);
        }
        self.shared.count_out(connection, usize::from(fin == Fin::Last), payload.len());
        // The message counts only at its end, but the connection is not idle until then.
        connection.idle_since = self.clock.now;
        self.queued(key);
        if fin == Fin::Last {
            self.send_deferred(key);
        }
        Ok(true)
    }

    /// Keeps a message until the one that is being sent in fragments has ended. Returns false if the closing handshake
    /// is to follow that, or there is no room. Until then the message is neither replaced nor left out.
    pub(crate) fn defer(
        &mut self,
        key: Key,
        opcode: DataOpcode,
        fin: Fin,
        payload: &[u8],
        policy: Option<&Policy>,
    ) -> bool {
        let is_closing = |deferred: &Deferred| deferred.closing.is_some();
        if self.connections[key].deferred.as_deref().is_some_and(is_closing)
            || !self.make_room_or(key, payload.len(), Counted::Everything, self.slow_consumer(policy))
        {
            return false;
        }
        let deferred = self.connections[key].deferred.get_or_insert_default();
        deferred.bytes += payload.len() + DEFERRED_COST;
        let policy = policy.filter(|policy| policy.is_provisional()).cloned().map(Box::new);
        deferred.messages.push_back(DeferredMessage { opcode, fin, payload: payload.to_vec(), policy });
        self.queued(key);
        true
    }

    /// Sends what waited for the end of a message in fragments.
    fn send_deferred(&mut self, key: Key) {
        let Some(deferred) = self.connections[key].deferred.take() else {
            return;
        };
        let Some(fd) = self.connections[key].identity.fd() else { return };
        for DeferredMessage { opcode, fin, payload, policy } in deferred.messages {
            let connection = &self.connections[key];
            if !connection.is_open() {
                return;
            }
            if fin == Fin::Last && opcode != DataOpcode::Continuation && connection.sender.is_ready() {
                // Room for it was reserved when it was deferred.
                match policy {
                    Some(policy) => self.put_deferred(key, policy, opcode, &payload),
                    None => self.put(key, opcode, &payload),
                }
            } else if self.push(fd, opcode, fin, &payload).is_err() {
                // A fragment could not be checked when it was deferred, because the text it continues was not known
                // yet.
                add(&self.shared.totals().messages_dropped, 1);
            }
        }
        if let Some((code, reason)) = deferred.closing {
            self.disconnect(fd, code, &reason);
        }
    }

    /// Queues a ping with at most 125 bytes.
    pub fn ping(&mut self, fd: Fd, payload: &[u8]) -> bool {
        let Some(key) = self.settled_key(fd) else {
            return self.is_away(fd) && self.send_away(Command::Ping { fd, payload });
        };
        self.control(key, Control::Ping, payload)
    }

    /// Queues a control frame. Control frames may be sent between the fragments of a message.
    pub(crate) fn control(&mut self, key: Key, control: Control, payload: &[u8]) -> bool {
        let has_room = self.make_room(key, payload.len(), Counted::Outbox);
        if has_room {
            self.put_control(key, control, payload);
        }
        has_room
    }

    /// Answers a ping. If messages are dropped when the outbox is full, so are pongs: the peer will ask again, and only
    /// the last ping needs an answer (RFC 6455 §5.5.3).
    pub(crate) fn pong(&mut self, key: Key, payload: &[u8]) {
        let is_full = self.connections[key].cost() > self.settings.send_queue_size;
        if !is_full || self.settings.slow_consumer == SlowConsumer::Close {
            self.control(key, Control::Pong, payload);
        }
    }

    pub(crate) fn put_control(&mut self, key: Key, control: Control, payload: &[u8]) {
        let Connection { outbox, sender, .. } = &mut self.connections[key];
        if outbox.append(&mut self.tools.pool, |out| sender.control(control, payload, out)).is_ok() {
            self.queued(key);
        }
    }

    /// Begins the closing handshake after the queued output. Returns false if there is no such open connection.
    pub fn disconnect(&mut self, fd: Fd, code: u16, reason: &str) -> bool {
        let Some(key) = self.settled_key(fd) else {
            return self.is_away(fd) && self.send_away(Command::Disconnect { fd, code, reason });
        };
        let connection = &mut self.connections[key];
        if connection.sender.is_mid_message() {
            let deferred = connection.deferred.get_or_insert_default();
            if deferred.closing.is_some() {
                return false;
            }
            deferred.closing = Some((code, reason.into()));
            self.wait(key, Wait::Continuation);
            return true;
        }
        self.send_close(key, code, reason);
        true
    }

    /// Sends our Close frame, the first of the two, and waits for the peer's.
    pub(crate) fn send_close(&mut self, key: Key, code: u16, reason: &str) {
        if !self.put_close(key, code, reason) {
            return;
        }
        let connection = &mut self.connections[key];
        connection.lane.clear();
        self.leave_open(key, Some(code));
        self.wait(key, Wait::Taking);
        self.queued(key);
        // Reading may be paused; input from now on needs no handler.
        self.make_ready(key);
    }

    /// Subscribes an open connection. `info`: what presence says about it, as JSON.
    pub fn subscribe(&mut self, fd: Fd, topic: &str, info: Option<&str>) -> Subscribed {
        let Some(key) = self.settled_key(fd) else {
            return match self.is_away(fd) {
                true => {
                    let command = Command::Subscribe { fd, topic, info };
                    self.shared.clone().subscribe_with(fd, || self.send_away(command))
                }
                false => Subscribed::NotOpen,
            };
        };
        let connection = &mut self.connections[key];
        if connection.subscriptions.len() >= self.settings.max_topics
            && !self.topics.is_subscribed(&connection.subscriptions, topic)
        {
            self.shared.totals().subscriptions_refused.fetch_add(1, Ordering::Relaxed);
            return Subscribed::TooMany;
        }
        self.topics.subscribe(key, &mut connection.subscriptions, topic);
        self.uplink.tell_wanted(&mut self.topics);
        self.shared.count_topics(connection);
        if !self.settings.topics.is_empty() {
            self.note_member(fd, topic, info);
        }
        Subscribed::Done
    }

    /// Unsubscribes an open connection. Returns false if there is no such open connection.
    pub fn unsubscribe(&mut self, fd: Fd, topic: &str) -> bool {
        let Some(key) = self.settled_key(fd) else {
            return self.is_away(fd) && self.unsubscribe_away(fd, topic);
        };
        let connection = &mut self.connections[key];
        self.topics.unsubscribe(key, &mut connection.subscriptions, topic);
        self.shared.count_topics(connection);
        if !self.settings.topics.is_empty() {
            self.withdraw_joins(fd, topic);
            self.note_left(fd, topic);
        }
        true
    }

    /// Queues a message for every subscriber of the topic, in every process, whose id is not in `exclude`.
    pub fn publish(&mut self, topic: &str, publication: Publication<'_>, exclude: &[Fd]) {
        if !self.settings.topics.is_empty() && self.settings.topics.ordered(topic).is_some() {
            self.publish_in_order(topic, publication, exclude);
            return;
        }
        self.gather(Some(topic), publication, None, exclude);
        self.publish_away(topic, publication, exclude);
    }

    /// Queues a message for every open connection, in every process, whose id is not in `exclude`.
    pub fn broadcast(&mut self, opcode: DataOpcode, payload: &[u8], exclude: &[Fd]) {
        self.broadcast_here(opcode, payload, exclude);
        self.broadcast_away(opcode, payload, exclude);
    }

    fn broadcast_here(&mut self, opcode: DataOpcode, payload: &[u8], exclude: &[Fd]) {
        self.gather(None, Publication { content: Content::of(opcode), payload, key: None }, None, exclude);
    }

    /// Carries out everything that other threads have asked for so far.
    pub(crate) fn carry_out_waiting(&mut self) {
        while self.carry_out_queue(|_, _| true) {}
    }

    /// The same, but only as long as the turn's time lasts.
    pub(crate) fn carry_out_some(&mut self) {
        self.carry_out_queue(Self::has_time_after);
    }

    /// Runs queued commands until `keep_going` returns false; its argument says how many connections the last command
    /// was for. Returns false if nothing was queued.
    fn carry_out_queue(&mut self, keep_going: impl Fn(&mut Self, Reach) -> bool) -> bool {
        if self.commands.is_empty() {
            self.is_asked = false;
            self.commands = FrameBuffer::of(self.shared.take());
        }
        let mut commands = std::mem::take(&mut self.commands);
        let mut was_queued = false;
        // Frames queued here are whole and well-formed.
        while let Ok(Some(frame)) = commands.next_frame(usize::MAX) {
            was_queued = true;
            let Ok(Message::Command(command)) = Message::decode(content(commands.frame(frame))) else { continue };
            let reach = Reach::of(&command);
            self.carry_out(command, Source::Thread);
            if !keep_going(self, reach) {
                break;
            }
        }
        if !commands.is_empty() {
            self.commands = commands;
        }
        was_queued
    }

    /// Carries out a command. Returns false if the turn's time is over.
    pub(crate) fn carry_out_in_time(&mut self, command: Command<'_>, source: Source) -> bool {
        let reach = Reach::of(&command);
        self.carry_out(command, source);
        self.has_time_after(reach)
    }

    fn has_time_after(&mut self, reach: Reach) -> bool {
        !(reach == Reach::Many && (self.is_over_time() || self.backlog.is_long())) && self.has_budget()
    }

    fn carry_out(&mut self, command: Command<'_>, source: Source) {
        if let Some(fd) = command.fd()
            && Registry::slot_of(fd) != self.shared.slot
        {
            // A command from the hub for another process was meant for one that was here before.
            if source == Source::Thread {
                self.pass_on(command);
            }
            return;
        }
        match command {
            Command::Push { fd, opcode, fin, payload } => {
                // The caller was told that the message is on its way; losses from here on are counted.
                if self.push(fd, opcode, fin, payload).is_err() {
                    add(&self.shared.totals().messages_dropped, 1);
                }
                // Not earlier: meanwhile, others would see room that it is about to take.
                self.shared.registry.arrived(fd, payload.len());
            }
            Command::Overflow { fd, length } => {
                if let Some(key) = self.open_key(fd) {
                    self.make_room(key, length as usize, Counted::Everything);
                }
            }
            Command::Ping { fd, payload } => {
                self.ping(fd, payload);
            }
            Command::Disconnect { fd, code, reason } => {
                self.disconnect(fd, code, reason);
            }
            Command::Subscribe { fd, topic, info } => {
                if self.subscribe(fd, topic, info) == Subscribed::TooMany {
                    self.tell_topics_exceeded(fd);
                }
                if source == Source::Hub {
                    add(&self.shared.registry.slot(self.shared.slot).subscribes_done, 1);
                }
            }
            Command::Unsubscribe { fd, topic } => {
                self.unsubscribe(fd, topic);
                self.shared.registry.end_unsubscribe(fd);
            }
            Command::Publish { topic, publication, exclude } => match source {
                Source::Thread => self.publish(topic, publication, &exclude),
                Source::Hub => self.gather(Some(topic), publication, None, &exclude),
            },
            Command::Deliver { topic, position, publication, exclude } => {
                if self.is_next(topic, position) {
                    self.gather(Some(topic), publication, Some(position), &exclude);
                }
            }
            Command::Broadcast { opcode, payload, exclude } => {
                self.broadcast_here(opcode, payload, &exclude);
                if source == Source::Thread {
                    self.broadcast_away(opcode, payload, &exclude);
                }
            }
            Command::PipeMessage { from, to, format, payload } => match source {
                Source::Hub => {
                    self.keep_pipe_message(from, format, payload);
                }
                Source::Thread => {
                    self.send_message(to, format, payload);
                }
            },
        }
    }

    /// Has the application told that a connection already has `max_topics`.
    pub(crate) fn tell_topics_exceeded(&mut self, fd: Fd) {
        if self.topics_exceeded.replace(fd).is_none() {
            self.uplink.notices.push_back(Notice::TopicsExceeded);
        }
    }

    /// Passes on a command from a thread of this process for a connection of another process.
    fn pass_on(&mut self, command: Command<'_>) {
        let push = match &command {
            Command::Push { fd, payload, .. } => Some((*fd, payload.len())),
            _ => None,
        };
        let sent = self.send_away(command);
        if let Some((fd, length)) = push.filter(|_| !sent) {
            self.shared.registry.arrived(fd, length);
        }
    }

    /// Whether `length` more bytes may be queued. If not, and the socket accepts no more either, the slow-consumer
    /// policy has been applied. An empty outbox takes any message.
    #[inline]
    pub(crate) fn make_room(&mut self, key: Key, length: usize, counted: Counted) -> bool {
        self.make_room_or(key, length, counted, self.settings.slow_consumer)
    }

    /// The same with another slow-consumer policy than the server's.
    #[inline]
    pub(crate) fn make_room_or(&mut self, key: Key, length: usize, counted: Counted, policy: SlowConsumer) -> bool {
        let has_room = |connection: &Connection, limit: usize| {
            let cost = match counted {
                Counted::Everything => connection.cost(),
                Counted::Outbox => connection.outbox.cost(),
            };
            cost + length <= limit || connection.unsent() == 0
        };
        let limit = self.settings.send_queue_size;
        if has_room(&self.connections[key], limit) {
            return true;
        }
        self.write_all_out(key);
        let connection = &self.connections[key];
        if !connection.is_open() {
            return false;
        }
        if has_room(connection, limit) {
            return true;
        }
        self.overflow(key, policy);
        false
    }

    /// Writes as much as the socket accepts, because there is too little room in the outbox.
    #[cold]
    pub(crate) fn write_all_out(&mut self, key: Key) {
        if self.connections[key].outbox.may_have_expired(u64::MAX) {
            // Messages may expire, and this may be outside a turn, long after the last one.
            self.clock.read();
        }
        self.write_out(key, usize::MAX);
    }

    /// Applies the slow-consumer policy: a message does not fit into the outbox.
    #[cold]
    pub(crate) fn overflow(&mut self, key: Key, policy: SlowConsumer) {
        match policy {
            SlowConsumer::Drop => add(&self.shared.totals().messages_dropped, 1),
            SlowConsumer::Close => {
                let connection = &mut self.connections[key];
                connection.outbox.discard_unbegun(&mut self.tools.pool);
                self.backlog.is_reached(key);
                add(&self.shared.totals().slow_consumers_closed, 1);
                self.send_close(key, close_code::TRY_AGAIN, "slow consumer");
            }
        }
    }

    /// To be called when something was added to an outbox: it will be written at the end of the turn.
    #[inline(always)]
    pub(crate) fn queued(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        let unsent = connection.unsent();
        self.shared.count_unsent(connection, unsent);
        if unsent > self.settings.send_queue_size / 2 && connection.drain == Drain::Low {
            connection.drain = Drain::High;
        }
        if connection.outgoing == Outgoing::Idle {
            connection.outgoing = Outgoing::Listed;
            self.dirty.push(key);
        }
        if unsent >= COUNTED_AT_ONCE || connection.outgoing == Outgoing::Blocked {
            self.queued_much(key, unsent);
        }
    }

    /// Counts the memory of an outbox whose contents may stay there for long.
    fn queued_much(&mut self, key: Key, unsent: usize) {
        let connection = &self.connections[key];
        if unsent >= WRITE_AT << connection.doubled && connection.outgoing != Outgoing::Blocked {
            self.write_out(key, WRITE_BUDGET);
        }
        self.count_memory(key);
        self.keep_to_budget();
    }
}
