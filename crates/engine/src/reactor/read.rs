//! One connection's share of a turn: its input is read once and parsed message by message, as long as its handlers keep
//! up and its budget lasts.

use std::io;
use std::sync::atomic::Ordering;

use wire::event::Event as Received;
use wire::http::{self, Head};

use crate::connection::flow::{Drain, Incoming};
use crate::connection::identity::Ending;
use crate::connection::{ReceivedMessage, Stage, Wait};
use crate::endpoints::EndpointId;
use crate::language::command::Format;
use crate::reactor::event::{Event, Payload};
use crate::reactor::notice::{Notice, PipeMessage};
use crate::reactor::phase::Phase;
use crate::reactor::proxied;
use crate::reactor::visit::{Return, Visit};
use crate::reactor::{Reactor, STEPS_PER_LOOK};
use crate::registry::{Fd, add};
use crate::system::table::Key;
use crate::tls::{failure, session};

/// Messages handled for one connection before moving on to the next.
const MESSAGES_PER_VISIT: usize = 64;

/// A read of this many bytes may hold enough frames to take a good part of a turn's time.
const LARGE_READ: usize = 4096;

impl Reactor {
    /// The next event of this turn, turned by `take` into a value of the caller's. `take` must not call back into
    /// anything: the reactor is borrowed while it runs. Returns `None` when the turn has no more events, or its budget
    /// is used up.
    pub fn next<T>(&mut self, take: impl FnOnce(Event<'_>) -> T) -> Option<T> {
        let mut take = Some(take);
        loop {
            // Before each visit, so that the messages of one do not pay for checking whether there are any.
            if self.visit.is_none()
                && let Some(value) = self.notice(&mut take)
            {
                return Some(value);
            }
            if !self.has_budget() {
                return self.refusal(&mut take);
            }
            let Some(visit) = &mut self.visit else {
                let Some(key) = self.ready.pop_front() else {
                    return self.refusal(&mut take);
                };
                self.begin_visit(key);
                continue;
            };
            let Some(connection) = self.connections.get_mut(visit.key).filter(|it| it.serial == visit.serial) else {
                self.visit = None;
                continue;
            };
            if visit.messages_left == 0 {
                self.end_visit(Return::Soon);
                continue;
            }
            if let Some(message) = connection.lane.pop() {
                visit.messages_left -= 1;
                self.events_left = self.events_left.saturating_sub(1);
                let payload = match &message {
                    ReceivedMessage::Text(text) => Payload::Text(text),
                    ReceivedMessage::Binary(bytes) => Payload::Binary(bytes),
                };
                let (fd, endpoint) = (connection.identity.fd()?, connection.endpoint);
                return take.take().map(|take| take(Event::Message { fd, endpoint, payload }));
            }
            if connection.lane.is_free()
                && let Some((fd, Ending { code, reason })) = connection.identity.take_ending()
            {
                let endpoint = connection.endpoint;
                self.events_left = self.events_left.saturating_sub(1);
                return take.take().map(|take| take(Event::Closed { fd, endpoint, code, reason }));
            }
            let value = match &connection.stage {
                Stage::WebSocket(_) => self.receive(&mut take),
                Stage::Head { .. } => self.read_head(&mut take),
                Stage::Header => {
                    self.read_header();
                    None
                }
                Stage::Body(_) => self.read_body(&mut take),
                Stage::Finishing(_) => {
                    visit.from = visit.to;
                    self.read_more();
                    None
                }
                Stage::Unread(_) => {
                    self.read_unread();
                    None
                }
                Stage::Asked(_) if connection.reads_on() => {
                    self.read_streamed();
                    None
                }
                Stage::Asked(_) | Stage::Gone => {
                    self.end_visit(Return::WhenReadable);
                    None
                }
            };
            if value.is_some() {
                return value;
            }
        }
    }

    /// What is to be reported of anything but a connection's input.
    fn notice<T, F: FnOnce(Event<'_>) -> T>(&mut self, take: &mut Option<F>) -> Option<T> {
        if let Some(error) = self.accept_error.take() {
            return take.take().map(|take| take(Event::AcceptPaused { error }));
        }
        if let Some(shortage) = self.shortage.take() {
            return take.take().map(|take| take(Event::Shortage(shortage)));
        }
        if !self.uplink.notices.is_empty()
            && self.has_budget()
            && let Some(notice) = self.uplink.notices.pop_front()
        {
            self.events_left = self.events_left.saturating_sub(1);
            let event = match notice {
                Notice::Gone(fd) => Event::Gone { fd },
                Notice::Room(fd) => Event::Room { fd },
                Notice::Progress(token) => Event::Progress { token },
                Notice::Leave(why) => Event::Leave(why),
                Notice::Drain(time) => Event::Drain(time),
                Notice::TopicsExceeded => Event::TopicsExceeded { fd: self.topics_exceeded.take().unwrap_or_default() },
                Notice::Answered { number, answer } => Event::Answered { number, answer },
                Notice::Member { event, topic, fd, number, info } => {
                    return take
                        .take()
                        .map(|take| take(Event::Member { event, topic: &topic, fd, number, info: &info }));
                }
            };
            return take.take().map(|take| take(event));
        }
        if let Some(message) = self.uplink.next_pipe_message() {
            return take.take().map(|take| self.pipe_message(&message, take));
        }
        if let Some(result) = self.certificate_read.take() {
            return take.take().map(|take| take(Event::CertificateRead(result)));
        }
        while let Some(fd) = self.drained.pop() {
            if let Some(endpoint) = self.drained_of(fd) {
                return take.take().map(|take| take(Event::Drained { fd, endpoint }));
            }
        }
        None
    }

    fn pipe_message<T>(&mut self, message: &PipeMessage, take: impl FnOnce(Event<'_>) -> T) -> T {
        let payload = match std::str::from_utf8(&message.payload) {
            Ok(text) if message.format == Format::Text => Payload::Text(text),
            _ => Payload::Binary(&message.payload),
        };
        take(Event::PipeMessage { from: message.from, payload })
    }

    /// Reports clients that were turned away, or closed for their memory. They come last, so that messages do not pay
    /// for checking whether there are any.
    fn refusal<T, F: FnOnce(Event<'_>) -> T>(&mut self, take: &mut Option<F>) -> Option<T> {
        if let Some(relief) = self.budget.take_relief() {
            return take.take().map(|take| take(Event::Relieved(relief)));
        }
        let refused = self.refusals.pop()?;
        take.take().map(|take| take(Event::Refused(refused)))
    }

    /// Parses more of what a WebSocket's peer has sent. Returns a message whose handler is free as the event;
    /// everything else is handled here.
    #[inline]
    fn receive<T, F: FnOnce(Event<'_>) -> T>(&mut self, take: &mut Option<F>) -> Option<T> {
        let visit = self.visit.as_mut()?;
        let key = visit.key;
        let connection = &mut self.connections[key];
        let Stage::WebSocket(receiver) = &mut connection.stage else { return None };
        let limit = connection.max_message_size;
        let is_full = connection.lane.is_full(self.settings.receive_queue, limit);
        if receiver.is_open() && (self.phase >= Phase::Quiet || is_full) {
            connection.paused_at.get_or_insert(self.clock.now);
            self.end_visit(Return::WhenReadable);
            return None;
        }
        if let Some(at) = connection.paused_at.take()
            && connection.wait == Wait::Pong
        {
            // The pong clock stopped while the socket was not read. A slow reader may have time beyond now.
            connection.since += self.clock.now.saturating_sub(at.max(connection.since));
        }
        let input = match &mut visit.own {
            Some(own) => &mut own[visit.from..visit.to],
            None => &mut self.tools.buffer[visit.from..visit.to],
        };
        if input.is_empty() {
            self.read_more();
            return None;
        }
        let (taken, outcome) = receiver.receive(input, limit, &mut self.tools.inflater);
        visit.from += taken;
        let payload = match outcome {
            Ok(Some(Received::Text(text))) => Payload::Text(text),
            Ok(Some(Received::Binary(bytes))) => Payload::Binary(bytes),
            Ok(Some(Received::Ping(payload))) => {
                visit.messages_left -= 1;
                let payload = payload.to_vec();
                self.pong(key, &payload);
                return None;
            }
            Ok(Some(Received::Pong(_))) => {
                visit.messages_left -= 1;
                if let Some(at) = connection.pinged_at.take() {
                    self.shared.note_latency(connection, self.clock.exact().saturating_sub(at.get()));
                }
                if connection.wait == Wait::Pong {
                    // `since` is still the time of the ping, and the interval counts from there.
                    connection.wait = Wait::Ping;
                    self.arm(key);
                }
                return None;
            }
            Ok(Some(Received::Close { code, reason })) => {
                let reason = reason.to_owned();
                self.closed_by_peer(key, code, reason);
                return None;
            }
            Ok(None) => {
                self.read_more();
                return None;
            }
            Err(error) => {
                self.fail(key, error.code, error.reason);
                return None;
            }
        };
        let (fd, row) = connection.identity.open()?;
        let row = self.shared.registry.row(row);
        add(&row.messages_in, 1);
        add(&row.bytes_in, payload.len() as u64);
        visit.messages_left -= 1;
        self.events_left = self.events_left.saturating_sub(1);
        if connection.lane.is_free() {
            let endpoint = connection.endpoint;
            return take.take().map(|take| take(Event::Message { fd, endpoint, payload }));
        }
        connection.lane.push(match payload {
            Payload::Text(text) => ReceivedMessage::Text(text.into()),
            Payload::Binary(bytes) => ReceivedMessage::Binary(bytes.into()),
        });
        None
    }

    /// Looks for a whole request head. Returns the request as the event if a handler is to answer it.
    fn read_head<T, F: FnOnce(Event<'_>) -> T>(&mut self, take: &mut Option<F>) -> Option<T> {
        let visit = self.visit.as_mut()?;
        let key = visit.key;
        let connection = &mut self.connections[key];
        let Stage::Head { scanned } = &mut connection.stage else { return None };
        if !connection.outbox.is_empty() {
            // The next request waits until the previous answer has been sent: answers may be far longer than requests.
            self.end_visit(Return::WhenReadable);
            return None;
        }
        let input = visit.unused(&self.tools.buffer);
        if session::is_tls(input) && connection.tls.is_none() {
            self.alert_that_there_is_no_tls(key);
            return None;
        }
        let limit = self.settings.max_header_size;
        match http::find_head_end(input, scanned) {
            Some(end) if end <= limit => {
                let head = Head::parse(&input[..end]);
                *scanned = 0;
                visit.from += end;
                let event = self.enter(key, head)?;
                self.events_left = self.events_left.saturating_sub(1);
                return take.take().map(|take| take(event));
            }
            None if input.len() <= limit => {
                if connection.wait == Wait::KeepAlive && !input.is_empty() {
                    self.wait(key, Wait::Head);
                }
                self.read_more();
            }
            _ => self.reject_too_large(key),
        }
        None
    }

    /// The endpoint of a connection on the list of drained ones, if it is still drained (more may have been queued
    /// since), or has ended while one of its handlers runs and may be waiting for it.
    fn drained_of(&mut self, fd: Fd) -> Option<EndpointId> {
        let key = self.key(fd)?;
        let connection = &mut self.connections[key];
        let is_empty = connection.unsent() == 0;
        connection.drain = if is_empty { Drain::Low } else { Drain::High };
        let is_reported = if connection.is_open() { is_empty } else { connection.lane.busy };
        is_reported.then_some(connection.endpoint)
    }

    #[inline]
    fn begin_visit(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.queued = false;
        let own = std::mem::take(&mut connection.input);
        let own = (!own.is_empty()).then_some(own);
        let to = own.as_ref().map_or(0, Vec::len);
        let from = std::mem::take(&mut connection.used);
        let (serial, messages_left) = (connection.serial, MESSAGES_PER_VISIT);
        self.visit = Some(Visit { key, serial, own, from, to, messages_left, has_read: false });
    }

    /// Keeps the rest of the input.
    pub(crate) fn end_visit(&mut self, back: Return) {
        let Some(visit) = self.visit.take() else {
            return;
        };
        let Some(connection) = self.connections.get_mut(visit.key).filter(|it| it.serial == visit.serial) else {
            return;
        };
        let ended = matches!(connection.stage, Stage::Gone | Stage::Finishing(_));
        if visit.from < visit.to && !ended {
            connection.input = match visit.own {
                Some(own) => {
                    connection.used = visit.from;
                    own
                }
                None => self.tools.buffer[visit.from..visit.to].to_vec(),
            };
        }
        let can_read = connection.incoming.is_readable() && connection.paused_at.is_none() && connection.reads_on();
        if back == Return::Soon || can_read {
            self.make_ready(visit.key);
        }
        self.note_what_is_left(visit.key);
    }

    /// Counts the input that the connection keeps, and notes whether a message is unfinished.
    #[inline]
    fn note_what_is_left(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        let is_mid_message = match &mut connection.stage {
            Stage::WebSocket(receiver) => {
                receiver.free_handed_out();
                receiver.is_mid_message()
            }
            Stage::Body(_) | Stage::Asked(_) | Stage::Unread(_) => true,
            _ => false,
        };
        let has_kept = is_mid_message || connection.is_mid_input() || !connection.lane.is_empty();
        if has_kept || connection.held > 0 || connection.partial_at != u64::MAX {
            self.count_memory(key);
            self.watch_partial(key);
            self.keep_to_budget();
        }
    }

    /// Called when the input is used up, except for an incomplete rest. Reads once, appending to that rest, or ends the
    /// visit.
    pub(super) fn read_more(&mut self) {
        let Some(visit) = &mut self.visit else { return };
        let key = visit.key;
        let connection = &mut self.connections[key];
        let Some(socket) = connection.socket.as_ref().filter(|_| connection.incoming.is_readable() && !visit.has_read)
        else {
            self.end_visit(Return::WhenReadable);
            return;
        };
        visit.has_read = true;
        visit.keep_rest(&self.tools.buffer);
        if let Some(session) = connection.tls.as_mut().filter(|session| session.input_has_ended()) {
            if let Some(failure) = session.take_failure() {
                self.fail_tls(key, &failure::in_words(&failure));
                return;
            }
            // After a failure, what the peer still sends is discarded like that of others who are being sent away:
            // closing a socket with unread input would reset it, and take the alert back.
            if !session.has_failed() {
                connection.incoming = Incoming::Quiet;
                self.end_of_input(key);
                return;
            }
        }
        // Input to a connection that is finishing is discarded, so it need not be decrypted.
        let session = connection.tls.as_ref().filter(|_| !matches!(connection.stage, Stage::Finishing(_)));
        let room = match session {
            // Input after a head is kept until the handler has answered: no more of it than the length of a head.
            None if matches!(connection.stage, Stage::Head { .. }) => {
                &mut self.tools.buffer[..self.settings.max_header_size]
            }
            None if matches!(connection.stage, Stage::Header) => &mut self.tools.buffer[..proxied::READ],
            None => &mut self.tools.buffer[..],
            Some(session) => session.room_behind_kept(&mut self.tools.ciphertext),
        };
        let is_sealed = session.is_some();
        match rustix::io::read(socket, &mut *room).map_err(io::Error::from) {
            Ok(0) => {
                connection.incoming = Incoming::Quiet;
                self.end_of_input(key);
            }
            Ok(count) => {
                // A short read has emptied the socket; later input, or an end of input that was reported, is another
                // edge.
                if count < room.len() && connection.incoming != Incoming::HungUp {
                    connection.incoming = Incoming::Quiet;
                }
                connection.received_at = self.clock.now;
                if count >= LARGE_READ {
                    self.steps = STEPS_PER_LOOK;
                }
                if let Some((_, row)) = connection.identity.open() {
                    let row = self.shared.registry.row(row);
                    row.last_received_at.store(self.clock.unix, Ordering::Relaxed);
                }
                match is_sealed {
                    false => visit.append(&room[..count]),
                    true => self.decrypt(key, count),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.incoming = Incoming::Quiet;
                if is_sealed && connection.tls.as_ref().is_some_and(|session| session.has_unseen()) {
                    self.decrypt(key, 0);
                    return;
                }
                self.end_visit(Return::WhenReadable);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => visit.has_read = false,
            Err(_) => self.abort(key),
        }
    }

    /// Continues with the decrypted form of `count` new bytes, which were read after those that were kept.
    fn decrypt(&mut self, key: Key, count: usize) {
        let Some(visit) = &mut self.visit else { return };
        let connection = &mut self.connections[key];
        let Some(session) = &mut connection.tls else { return };
        let tools = &mut self.tools;
        let input = session.kept() + count;
        if session.is_fresh() && tools.ciphertext[..input].first().is_some_and(u8::is_ascii_alphabetic) {
            connection.tls = None;
            self.reject_plain(key);
            return;
        }
        if session.is_handshaking() {
            // The handshake's signature takes about as long as hundreds of messages.
            self.steps = STEPS_PER_LOOK;
        }
        let count = session.receive(&mut tools.ciphertext[..input], &mut tools.buffer, connection.outbox.sealed());
        // An end or failure that the session has seen is still to be handled, after the input before it.
        if session.input_has_ended() {
            connection.incoming = connection.incoming.max(Incoming::Readable);
        }
        visit.append(&tools.buffer[..count]);
        if connection.outbox.has_sealed() {
            self.queued(key);
        }
    }
}
