//! Graceful shutdown of a worker: no new clients are let in, connected ones are asked to close, and those that do not
//! are cut off.

use wire::error::close_code;

use crate::connection::flow::Finish;
use crate::connection::identity::Identity;
use crate::connection::{Asked, Connection, Stage, Wait};
use crate::reactor::Reactor;
use crate::reactor::phase::Phase;
use crate::reactor::slice::Slice;
use crate::registry::Registry;
use crate::system::acceptor::Ownership;
use crate::system::table::Key;

/// How requests are treated that arrive while a worker shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    /// They are answered, and handshakes accepted, until [`Reactor::close_all`].
    Answered,
    /// They are refused.
    Refused,
}

/// Which connections are closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    All,
    /// WebSockets whose counters go up to this one.
    WebSockets(u64),
}

/// The progress of closing all connections.
pub(crate) struct ClosingAll {
    whom: Whom,
    code: u16,
    reason: String,
    /// Keys of the places from here on have been handled.
    next: usize,
}

impl Reactor {
    /// Closes the listening sockets, and reads no further messages; those already read still go to their handlers.
    pub fn stop_accepting(&mut self, requests: Requests) {
        for (mut listener, ownership) in self.acceptor.close() {
            let _ = self.poll.registry().deregister(&mut listener);
            if ownership == Ownership::Ours {
                // A forked child may hold it too, and the kernel would keep accepting connections that nobody serves.
                let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
            }
        }
        self.enter_phase(match requests {
            Requests::Refused => Phase::Refusing,
            Requests::Answered => Phase::Quiet,
        });
    }

    pub(crate) fn enter_phase(&mut self, phase: Phase) {
        self.phase = self.phase.max(phase);
    }

    /// Begins the closing handshake on every open WebSocket, and closes HTTP connections that are between two requests,
    /// once any answer in progress has been sent. Some are closed now, the others in later turns.
    pub fn close_all(&mut self, code: u16, reason: &str) {
        self.settle();
        // Clients let in from here on would not be asked to close.
        self.enter_phase(Phase::Refusing);
        let next = self.connections.places();
        self.closing_all = Some(ClosingAll { whom: Whom::All, code, reason: reason.to_owned(), next });
        self.go_on_closing(&mut Slice::new(self.clock.source(), self.turn_time / 2));
    }

    /// Closes all WebSockets with counters up to this one, because other hosts count this one as dead: nobody there sends
    /// them anything, and the application has been told that they have left. They are to connect again. Those that have
    /// done so already are in this host's next name.
    pub(crate) fn close_fenced(&mut self, counter: u64) {
        self.forget_members(counter);
        if self.closing_all.is_none() {
            let (whom, next) = (Whom::WebSockets(counter), self.connections.places());
            let reason = "this host was cut off from the others".to_owned();
            self.closing_all = Some(ClosingAll { whom, code: close_code::SERVICE_RESTART, reason, next });
        }
    }

    /// Continues what [`Reactor::close_all`] has begun, as long as the slice lasts.
    pub(crate) fn go_on_closing(&mut self, slice: &mut Slice) {
        let Some(mut closing) = self.closing_all.take() else { return };
        while closing.next > 0 {
            closing.next -= 1;
            let key = Key::of_place(closing.next);
            let Some(connection) = self.connections.get(key) else { continue };
            if let Whom::WebSockets(counter) = closing.whom
                && connection.identity.fd().is_none_or(|fd| Registry::counter_of(fd) > counter)
            {
                continue;
            }
            match connection.stage {
                Stage::WebSocket(_) if connection.is_open() => self.send_close(key, closing.code, &closing.reason),
                _ if closing.whom != Whom::All => {}
                Stage::Header => self.finish_sending(key, Finish::Close),
                Stage::Head { .. } => {
                    let finish = if connection.is_answering() { Finish::Linger } else { Finish::Close };
                    self.finish_sending(key, finish);
                }
                Stage::Body(_) => self.reject_stopping(key),
                Stage::Unread(_) => self.finish_sending(key, Finish::Linger),
                _ => {}
            }
            if slice.is_over() {
                self.closing_all = Some(closing);
                return;
            }
        }
    }

    /// The number of connections in the middle of a TLS handshake, or of their first request after it. Unlike other
    /// connections without a request, they cannot be passed to another worker.
    pub fn newcomers(&self) -> usize {
        let has_begun = |it: &Connection| it.tls.as_ref().is_some_and(|session| !session.is_fresh());
        self.connections.values().filter(|it| it.wait == Wait::Head && has_begun(it)).count()
    }

    /// The number of connections whose client has begun a request, or waits for a handler's answer.
    pub fn unanswered(&self) -> usize {
        let is_unanswered = |it: &Connection| match it.stage {
            Stage::Header | Stage::Head { .. } => {
                !it.is_answering() && (it.incoming.is_readable() || it.queued || it.is_mid_input())
            }
            Stage::Body(_) | Stage::Asked(_) => true,
            Stage::Unread(_) | Stage::WebSocket(_) | Stage::Finishing(_) | Stage::Gone => false,
        };
        self.connections.values().filter(|it| is_unanswered(it)).count()
    }

    /// Closes the remaining connections, once the sockets have taken what they can of the queued output. Returns how
    /// many HTTP answers were cut short.
    pub fn abort_all(&mut self) -> usize {
        self.flush_all();
        let is_answer = |it: &Connection| {
            let is_begun = match &it.stage {
                Stage::Asked(Asked::Request(exchange)) => exchange.has_begun_answer(),
                Stage::Head { .. } | Stage::Unread(_) | Stage::Finishing(_) => !it.outbox.is_empty(),
                _ => false,
            };
            is_begun && matches!(it.identity, Identity::Unnamed)
        };
        let cut = self.connections.values().filter(|it| is_answer(it)).count();
        let keys: Vec<Key> = self.connections.keys().collect();
        for key in keys {
            self.abort(key);
        }
        cut
    }

    /// Stops waiting for handlers that still run: further events of their connections are delivered now.
    pub fn release_all(&mut self) {
        let keys: Vec<Key> = self.connections.keys().collect();
        for key in keys {
            self.connections[key].lane.busy = false;
            self.make_ready(key);
        }
    }
}
