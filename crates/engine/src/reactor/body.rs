//! The bodies of requests: collected before the request is passed on, or passed on as they arrive.

use wire::body::BodyDecoder;
use wire::http::{self, Head, Rejection};

use crate::connection::exchange::{RequestBody, StreamedBody};
use crate::connection::flow::Finish;
use crate::connection::{Stage, Unfinished, Wait};
use crate::reactor::Reactor;
use crate::reactor::event::{Event, Token};
use crate::reactor::visit::Return;
use crate::system::table::Key;

/// Bytes of a body that extend its deadline by one second as they arrive, so that a long body on a slow line is not
/// mistaken for a trickle.
const BODY_PER_SECOND: usize = 16 * 1024;

/// What [`Reactor::take_body`] returns.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// More of the body; the last of it if `is_last`.
    Content {
        /// Empty only at the end.
        content: Vec<u8>,
        /// Whether nothing follows.
        is_last: bool,
    },
    /// More has yet to arrive. [`Event::Progress`] will follow.
    Awaited,
    /// The client has left, the request has been answered, or its body has been taken.
    Nothing,
}

impl Reactor {
    // ---- bodies that are collected ----------------------------------------------------------------------------------

    /// Waits for the body of a request before it is passed on.
    pub(crate) fn await_body(&mut self, key: Key, request: Unfinished) {
        let connection = &mut self.connections[key];
        connection.stage = Stage::Body(Box::new(request));
        if connection.wait == Wait::Head {
            connection.wait = Wait::Body;
            self.arm(key);
        } else {
            // Head and body count as starting together; the time since the previous request does not count.
            self.wait(key, Wait::Body);
        }
    }

    /// Asks for the body that a client holds back until then.
    pub(crate) fn ask_for_body(&mut self, key: Key) {
        self.connections[key].outbox.append(&mut self.tools.pool, |out| out.extend_from_slice(http::CONTINUE));
        self.queued(key);
    }

    /// Decodes what has arrived of a request's body. Returns the request as the event once the body is whole.
    pub(super) fn read_body<T, F: FnOnce(Event<'_>) -> T>(&mut self, take: &mut Option<F>) -> Option<T> {
        let visit = self.visit.as_mut()?;
        let key = visit.key;
        let connection = &mut self.connections[key];
        let Stage::Body(request) = &mut connection.stage else { return None };
        let before = request.body.content().len();
        match request.body.decode(visit.unused(&self.tools.buffer)) {
            Ok(taken) => visit.from += taken,
            Err(rejection) => {
                self.reject(key, &rejection, None);
                return None;
            }
        }
        let seconds = request.body.content().len() / BODY_PER_SECOND - before / BODY_PER_SECOND;
        // Never into the future: a peer that has sent a lot may not then pause for long.
        connection.since = (connection.since + 1000 * seconds as u64).min(self.clock.now);
        if !request.body.is_complete() {
            self.read_more();
            return None;
        }
        let event = self.enter_with_body(key)?;
        self.events_left = self.events_left.saturating_sub(1);
        take.take().map(|take| take(event))
    }

    /// The event for a request whose body has been read.
    fn enter_with_body(&mut self, key: Key) -> Option<Event<'static>> {
        let stage = std::mem::replace(&mut self.connections[key].stage, Stage::Head { scanned: 0 });
        let Stage::Body(request) = stage else { return None };
        Some(self.request(key, request.head, Some(request.body.into_content()), RequestBody::Taken))
    }

    // ---- bodies that the application takes as they arrive -----------------------------------------------------------

    /// The event for a request that is passed on without waiting for its body. What has already arrived of it is
    /// decoded, so that a short body goes along with its head.
    pub(crate) fn enter_with_head(
        &mut self,
        key: Key,
        head: Head,
        mut decoder: BodyDecoder,
        is_held_back: bool,
    ) -> Result<Event<'static>, Box<(Head, Rejection)>> {
        if let Some(visit) = self.visit.as_mut().filter(|visit| visit.key == key) {
            match decoder.decode(visit.unused(&self.tools.buffer)) {
                Ok(taken) => visit.from += taken,
                Err(rejection) => return Err(Box::new((head, rejection))),
            }
        }
        if decoder.is_complete() {
            return Ok(self.request(key, head, Some(decoder.into_content()), RequestBody::Taken));
        }
        let is_held_back = is_held_back && decoder.content().is_empty();
        let received = decoder.content().len();
        let body = StreamedBody { decoder, is_awaited: false, is_held_back, received, waited: 0 };
        Ok(self.request(key, head, None, RequestBody::Streamed(Box::new(body))))
    }

    /// Takes what has arrived of the body of a request that was passed on without it.
    pub fn take_body(&mut self, token: Token) -> Taken {
        let Some(key) = self.key_of_exchange(token) else { return Taken::Nothing };
        let Some(exchange) = self.connections[key].exchange() else { return Taken::Nothing };
        let RequestBody::Streamed(body) = &mut exchange.body else { return Taken::Nothing };
        let (content, is_last) = (body.decoder.take_content(), body.decoder.is_complete());
        if is_last {
            exchange.body = RequestBody::Taken;
        } else if content.is_empty() {
            body.is_awaited = true;
            if std::mem::take(&mut body.is_held_back) {
                self.ask_for_body(key);
            }
            self.wait_in_exchange(key);
            return Taken::Awaited;
        }
        self.count_memory(key);
        // It may not have been read for a while.
        self.make_ready(key);
        Taken::Content { content, is_last }
    }

    /// Reads more of a body that the application takes as it arrives.
    pub(super) fn read_streamed(&mut self) {
        let Some(visit) = &mut self.visit else { return };
        let key = visit.key;
        let connection = &mut self.connections[key];
        let now = self.clock.now;
        let Some(exchange) = connection.exchange() else { return };
        let has_begun_answer = exchange.has_begun_answer();
        let RequestBody::Streamed(body) = &mut exchange.body else { return };
        let before = body.decoder.content().len();
        let taken = match body.decoder.decode(visit.unused(&self.tools.buffer)) {
            Ok(taken) => taken,
            Err(rejection) => {
                self.fail_body(key, &rejection);
                return;
            }
        };
        visit.from += taken;
        let seconds = body.received / BODY_PER_SECOND;
        body.received += body.decoder.content().len() - before;
        let earned = 1000 * (body.received / BODY_PER_SECOND - seconds) as u64;
        body.waited = body.waited.saturating_sub(earned);
        let has_news = !body.decoder.content().is_empty() || body.decoder.is_complete();
        let is_told = has_news && std::mem::take(&mut body.is_awaited);
        if connection.wait == Wait::Body {
            // A client that already gets its answer may send whenever it has something to say.
            let is_in_time = has_begun_answer && taken > 0;
            connection.since = if is_in_time { now } else { (connection.since + earned).min(now) };
        }
        if is_told {
            self.tell_progress(key);
            self.wait_in_exchange(key);
        }
        if self.connections[key].reads_on() {
            self.read_more();
        } else {
            self.end_visit(Return::WhenReadable);
        }
    }

    /// Ends a request whose body is malformed or does not arrive, while the application works on it.
    pub(crate) fn fail_body(&mut self, key: Key, rejection: &Rejection) {
        self.orphan(key);
        if self.connections[key].exchange().is_some_and(|exchange| exchange.has_begun_answer()) {
            self.finish_sending(key, Finish::Linger);
        } else {
            self.reject(key, rejection, None);
        }
    }

    /// Reads and discards the rest of the body of a request that has been answered.
    pub(super) fn read_unread(&mut self) {
        let Some(visit) = &mut self.visit else { return };
        let key = visit.key;
        let Stage::Unread(unread) = &mut self.connections[key].stage else { return };
        let decoded = unread.body.decode(visit.unused(&self.tools.buffer));
        let discarded = unread.body.take_content().len();
        match (decoded, unread.left.checked_sub(discarded)) {
            (Ok(taken), Some(left)) => {
                visit.from += taken;
                unread.left = left;
            }
            _ => {
                self.finish_sending(key, Finish::Linger);
                return;
            }
        }
        if unread.body.is_complete() {
            self.connections[key].stage = Stage::Head { scanned: 0 };
            self.wait(key, Wait::KeepAlive);
        } else {
            self.read_more();
        }
    }
}
