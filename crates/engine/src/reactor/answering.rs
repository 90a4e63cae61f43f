//! Answers that are sent in parts, as the application makes them.
//!
//! The head goes with [`Reactor::begin_answer`], each part with [`Reactor::send_part`] while the peer keeps up, the end
//! with [`Reactor::end_answer`]. A peer that does not take the parts is cut off like any other that does not read.

use wire::http::{self, Framing, Persistence};

use crate::connection::exchange::{Answer, Exchange, MAX_DISCARDED, RequestBody, Rest};
use crate::connection::flow::{Finish, Incoming};
use crate::connection::outbox::{Kept, Outbox, Pool};
use crate::connection::{Asked, Stage, Unread, Wait};
use crate::endpoints::Bodies;
use crate::reactor::Reactor;
use crate::reactor::event::Token;
use crate::reactor::notice::Notice;
use crate::reactor::phase::Phase;
use crate::system::table::Key;

/// Queued bytes above which the application has to wait before it sends another part. Few long writes cost less than many
/// short ones.
pub(crate) const HIGH: usize = 256 * 1024;
/// How often that limit may be doubled for a client that takes everything at once.
const MOST_DOUBLED: u8 = 3;
/// Queued bytes at which it may go on.
const LOW: usize = 64 * 1024;

/// What became of a part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is queued.
    Queued,
    /// Nothing was queued, because too much waits for the peer. [`crate::Event::Progress`] will follow.
    Waits,
    /// Nothing was queued: the client has left, or the answer has ended.
    Gone,
    /// Nothing was queued, and the connection is closed: the body does not have the announced length.
    WrongLength,
}

impl Reactor {
    /// Begins the answer to a request. Its body is sent with [`Reactor::send_part`]. If its `length` is not known, the
    /// client learns from chunks where it ends, or, with HTTP/1.0, from the end of the connection. Names and values of
    /// `headers` must have been checked. Returns false if the client has left, or the request has been answered.
    pub fn begin_answer<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        token: Token,
        status: u16,
        headers: &[(N, V)],
        length: Option<u64>,
    ) -> bool {
        self.clock.read();
        let Some(key) = self.key_of_exchange(token) else { return false };
        let is_serving = self.phase == Phase::Serving;
        let connection = &mut self.connections[key];
        let is_gone = connection.is_abandoned();
        let Some(exchange) = connection.exchange() else { return false };
        if is_gone || exchange.has_begun_answer() {
            return false;
        }
        let framing = match length {
            Some(length) => Framing::Length(length),
            None if exchange.takes_chunks => Framing::Chunked,
            None => Framing::UntilClose,
        };
        let has_body = !exchange.head_only && !http::is_bodiless(status);
        let keeps = is_serving && exchange.may_be_kept() && (framing != Framing::UntilClose || !has_body);
        let persistence =
            if keeps && !http::asks_to_close(headers) { Persistence::KeepAlive } else { Persistence::Close };
        let rest = match framing {
            _ if !has_body => Rest::Nothing,
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunks,
            Framing::UntilClose => Rest::UntilClose,
        };
        exchange.answer = Answer::Begun { rest, persistence };
        let date = self.clock.date();
        connection.outbox.append(&mut self.tools.pool, |out| {
            http::write_response_head(out, status, headers, framing, persistence, date);
        });
        self.queued(key);
        self.wait_in_exchange(key);
        true
    }

    /// Sends a 103 (RFC 8297) with these headers before the answer. Does nothing for a client that speaks HTTP/1.0, and
    /// once the answer has begun.
    pub fn send_early_hints<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, token: Token, headers: &[(N, V)]) {
        let Some(key) = self.key_of_exchange(token) else { return };
        let connection = &mut self.connections[key];
        let is_full = connection.outbox.len() > HIGH;
        let takes_hints = |exchange: &mut Exchange| exchange.takes_chunks && !exchange.has_begun_answer() && !is_full;
        if connection.exchange().is_some_and(takes_hints) {
            connection.outbox.append(&mut self.tools.pool, |out| http::write_early_hints(out, headers));
            self.queued(key);
            self.wait_in_exchange(key);
        }
    }

    /// Sends a part of the body of an answer that was begun with [`Reactor::begin_answer`].
    pub fn send_part(&mut self, token: Token, part: &[u8]) -> Part {
        self.put_part(token, part.len(), |outbox, pool, before, after| {
            outbox.append(pool, |out| {
                out.reserve(before.len() + part.len() + after.len());
                out.extend_from_slice(before.as_bytes());
                out.extend_from_slice(part);
                out.extend_from_slice(after);
            });
        })
    }

    /// The same for a long part, which is not copied.
    pub fn send_kept_part(&mut self, token: Token, part: Kept) -> Part {
        self.put_part(token, (*part).as_ref().len(), |outbox, _, before, after| {
            outbox.append_between(before.as_bytes());
            outbox.keep(part);
            outbox.append_between(after);
        })
    }

    /// Has a part of `length` bytes put into the outbox, between what the framing requires, if it can be sent now.
    fn put_part(&mut self, token: Token, length: usize, put: impl FnOnce(&mut Outbox, &mut Pool, &str, &[u8])) -> Part {
        let Some(key) = self.key_of_exchange(token) else { return Part::Gone };
        let connection = &mut self.connections[key];
        if connection.is_abandoned() {
            return Part::Gone;
        }
        let (waiting, doubled) = (connection.outbox.len(), connection.doubled);
        let Some(Exchange { answer: Answer::Begun { rest, .. }, .. }) = connection.exchange() else {
            return Part::Gone;
        };
        if waiting > HIGH << doubled {
            connection.awaited = true;
            return Part::Waits;
        }
        let (before, after) = match rest {
            _ if length == 0 => return Part::Queued,
            Rest::Nothing => return Part::Queued,
            Rest::Length(left) => {
                let Some(less) = left.checked_sub(length as u64) else {
                    self.cut_answer(token);
                    return Part::WrongLength;
                };
                *left = less;
                (String::new(), &b""[..])
            }
            Rest::Chunks => http::chunk_around(length),
            Rest::UntilClose => (String::new(), &b""[..]),
        };
        put(&mut connection.outbox, &mut self.tools.pool, &before, after);
        self.queued(key);
        self.wait_in_exchange(key);
        Part::Queued
    }

    /// Adapts how much may be queued of answers to how much of it the client has taken at once: all `unsent` bytes, or
    /// not. The limit is halved then, and not reset: the kernel lets a socket's buffer grow only if long writes fill it.
    pub(crate) fn note_pace(&mut self, key: Key, unsent: usize, takes_all: bool) {
        let connection = &mut self.connections[key];
        if !takes_all {
            connection.doubled = connection.doubled.saturating_sub(1);
        } else if connection.exchange().is_some() && unsent > HIGH << connection.doubled {
            connection.doubled = MOST_DOUBLED.min(connection.doubled + 1);
        }
    }

    /// Ends an answer, with headers after the body if the client takes them; they must have been checked. Returns [`Part::WrongLength`] if its body is shorter than announced; then the connection is
    /// closed, so that the client notices.
    pub fn end_answer<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, token: Token, trailers: &[(N, V)]) -> Part {
        self.clock.read();
        let Some(key) = self.key_of_exchange(token) else { return Part::Gone };
        let connection = &mut self.connections[key];
        let is_there = connection.incoming != Incoming::HungUp;
        let Some(Exchange { answer: Answer::Begun { rest, persistence }, .. }) = connection.exchange() else {
            return Part::Gone;
        };
        let (rest, persistence) = (*rest, *persistence);
        match rest {
            Rest::Length(left) if left > 0 => {
                self.cut_answer(token);
                return Part::WrongLength;
            }
            Rest::Chunks => {
                let end = |out: &mut Vec<u8>| http::write_last_chunk(out, trailers);
                connection.outbox.append(&mut self.tools.pool, end);
            }
            Rest::Length(_) | Rest::UntilClose | Rest::Nothing => {}
        }
        if let Some((key, Asked::Request(exchange))) = self.asked(token) {
            self.answered(key, exchange, persistence);
        }
        if is_there { Part::Queued } else { Part::Gone }
    }

    /// Gives up an answer that was begun. What has been queued is still sent, and the client notices that something is
    /// missing.
    pub fn cut_answer(&mut self, token: Token) {
        let Some(key) = self.key_of_exchange(token) else { return };
        let Some(exchange) = self.connections[key].exchange() else { return };
        let Answer::Begun { rest, .. } = exchange.answer else { return };
        if matches!(rest, Rest::UntilClose) {
            // Only a reset tells this end from a regular one.
            self.reset(key);
        } else {
            self.finish_sending(key, Finish::Linger);
        }
    }

    /// Goes on with a connection whose request has been answered: what is left of the request is read first. The clock has
    /// just been read.
    pub(crate) fn answered(&mut self, key: Key, exchange: Exchange, persistence: Persistence) {
        let is_over = persistence == Persistence::Close || self.phase != Phase::Serving;
        self.connections[key].awaited = false;
        match exchange.body {
            _ if is_over => self.finish_sending(key, Finish::Linger),
            RequestBody::Streamed(body) if !body.decoder.is_complete() => {
                let unread = Unread { body: body.decoder, left: MAX_DISCARDED };
                self.connections[key].stage = Stage::Unread(Box::new(unread));
                self.wait_from_now(key, Wait::Body);
                self.queued(key);
                self.make_ready(key);
            }
            RequestBody::Streamed(_) | RequestBody::Taken => {
                self.wait_from_now(key, Wait::KeepAlive);
                self.queued(key);
                self.make_ready(key);
            }
        }
    }

    /// Waits for whatever the request needs next: the peer taking a part, or sending more of the body.
    pub(crate) fn wait_in_exchange(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        let is_sending = !connection.outbox.is_empty();
        let (before, since) = (connection.wait, connection.since);
        let Some(exchange) = connection.exchange() else { return };
        let wait = if is_sending {
            Wait::Part
        } else if exchange.awaits_body() {
            Wait::Body
        } else {
            Wait::Nothing
        };
        if wait == before {
            return;
        }
        let has_begun_answer = exchange.has_begun_answer();
        let mut waited = 0;
        if let RequestBody::Streamed(body) = &mut exchange.body {
            if before == Wait::Body {
                body.waited = self.clock.now.saturating_sub(since);
            }
            waited = if has_begun_answer { 0 } else { body.waited };
        }
        self.wait(key, wait);
        if wait == Wait::Body {
            let connection = &mut self.connections[key];
            connection.since = connection.since.saturating_sub(waited);
            self.arm(key);
        }
    }

    /// Tells the application, if it waits, that there is room for the next part.
    pub(crate) fn tell_room_for_part(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        if connection.outbox.len() <= LOW && connection.exchange().is_some() {
            connection.awaited = false;
            self.tell_progress(key);
        }
    }

    /// Has the application look at its request again.
    pub(crate) fn tell_progress(&mut self, key: Key) {
        let token = Token { key, number: self.connections[key].request };
        self.uplink.notices.push_back(Notice::Progress(token));
    }

    /// The same, if the application looks at it.
    pub(crate) fn tell_if_followed(&mut self, key: Key) {
        if self.is_followed(key) {
            self.tell_progress(key);
        }
    }

    /// Called when the connection of a request ends, or is given up, while the application works on it.
    pub(crate) fn orphan(&mut self, key: Key) {
        if self.is_followed(key) {
            let token = Token { key, number: self.connections[key].request };
            self.connections[key].awaited = false;
            self.orphans.insert(token);
            self.tell_progress(key);
            self.count_outliving(self.outliving);
        }
    }

    /// Whether the application of a request looks at its progress, and calls [`Reactor::done`] at its end.
    fn is_followed(&self, key: Key) -> bool {
        let connection = &self.connections[key];
        let bodies = self.settings.endpoints.bodies(connection.endpoint);
        match &connection.stage {
            Stage::Asked(Asked::Handshake(..)) => bodies == Bodies::Streamed,
            Stage::Asked(Asked::Request(exchange)) => bodies == Bodies::Streamed || exchange.has_begun_answer(),
            _ => false,
        }
    }

    /// To be called when the application no longer works on a request of which it was told with
    /// [`crate::Event::Progress`]. If it has not been answered, its connection is closed.
    pub fn done(&mut self, token: Token) {
        if !self.has_ended(token) {
            self.abort(token.key);
        }
        if self.orphans.remove(&token) {
            self.count_outliving(self.outliving);
        }
    }

    /// Whether the client of a request or handshake has left, or has its answer.
    pub fn has_left(&self, token: Token) -> bool {
        self.has_ended(token) || self.connections[token.key].is_abandoned()
    }

    /// Whether a request or handshake is no longer in the hands of the application.
    fn has_ended(&self, token: Token) -> bool {
        let connection = self.connections.get(token.key).filter(|it| it.request == token.number);
        connection.is_none_or(|it| !matches!(it.stage, Stage::Asked(_)))
    }

    /// The connection of a request that is in the hands of the application.
    pub(crate) fn key_of_exchange(&self, token: Token) -> Option<Key> {
        let connection = self.connections.get(token.key)?;
        let is_asked = matches!(connection.stage, Stage::Asked(Asked::Request(_)));
        (is_asked && connection.request == token.number).then_some(token.key)
    }
}
