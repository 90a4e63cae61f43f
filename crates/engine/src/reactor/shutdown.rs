//! How a worker leaves: nobody new is let in, those who are there are told to go, and who does not is cut off.

use crate::connection::{Connection, Stage, Wait};
use crate::reactor::Reactor;
use crate::reactor::phase::Phase;
use crate::reactor::slice::Slice;

/// How far all connections have been closed.
pub(crate) struct ClosingAll {
    code: u16,
    reason: String,
    /// Keys from here on have had their turn.
    next: usize,
}

impl Reactor {
    /// Gives up the listening sockets, and reads no further message; what has been read still goes to its handler.
    /// Without `refuse`, who has asked for something is still answered, and handshakes are accepted: until
    /// [`Reactor::close_all`].
    pub fn stop_accepting(&mut self, refuse: bool) {
        for mut listener in self.acceptor.close() {
            let _ = self.poll.registry().deregister(&mut listener);
            // A forked child may hold it too, and the kernel would go on taking connections that nobody serves.
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
        self.enter_phase(if refuse { Phase::Refusing } else { Phase::Quiet });
    }

    pub(crate) fn enter_phase(&mut self, phase: Phase) {
        self.phase = self.phase.max(phase);
    }

    /// Begins the closing handshake on every open WebSocket, and closes HTTP connections between two requests, once an
    /// answer that is on its way is out. Some are closed now, the others in the next turns.
    pub fn close_all(&mut self, code: u16, reason: &str) {
        self.settle();
        // Who was let in from here on would not be told to go.
        self.enter_phase(Phase::Refusing);
        let next = self.connections.capacity();
        self.closing_all = Some(ClosingAll { code, reason: reason.to_owned(), next });
        self.go_on_closing(&mut Slice::new(self.turn_time / 2));
    }

    /// Goes on with what [`Reactor::close_all`] has begun, as long as the slice lasts.
    pub(crate) fn go_on_closing(&mut self, slice: &mut Slice) {
        let Some(mut closing) = self.closing_all.take() else { return };
        while closing.next > 0 {
            closing.next -= 1;
            let key = closing.next;
            let Some(connection) = self.connections.get(key) else { continue };
            match connection.stage {
                Stage::WebSocket(_) if connection.open => self.send_close(key, closing.code, &closing.reason),
                Stage::Head { .. } => {
                    let is_answering = connection.is_answering();
                    self.finish_sending(key, is_answering);
                }
                Stage::Body(_) => self.reject_stopping(key),
                _ => {}
            }
            if slice.is_over() {
                self.closing_all = Some(closing);
                return;
            }
        }
    }

    /// Connections in the middle of a TLS handshake, or of their first request behind it. Unlike others on which
    /// nothing has been asked, they cannot be given to another worker.
    pub fn newcomers(&self) -> usize {
        let has_begun = |it: &Connection| it.tls.as_ref().is_some_and(|session| !session.is_fresh());
        self.connections.iter().filter(|(_, it)| it.wait == Wait::Head && has_begun(it)).count()
    }

    /// Connections on which somebody has begun to ask for something, or waits for the answer of a handler.
    pub fn unanswered(&self) -> usize {
        let is_unanswered = |it: &Connection| match it.stage {
            Stage::Head { .. } => !it.is_answering() && (it.readable || it.queued || it.is_mid_input()),
            Stage::Body(_) | Stage::Asked(_) => true,
            Stage::WebSocket(_) | Stage::Finishing { .. } | Stage::Gone => false,
        };
        self.connections.iter().filter(|(_, it)| is_unanswered(it)).count()
    }

    /// Closes what is still there, once the sockets have taken what they can of what is queued; returns how many HTTP
    /// answers were cut by that.
    pub fn abort_all(&mut self) -> usize {
        self.flush_all();
        let is_answer = |it: &Connection| {
            let is_http = matches!(it.stage, Stage::Head { .. } | Stage::Finishing { .. }) && it.fd == 0;
            is_http && !it.outbox.is_empty()
        };
        let cut = self.connections.iter().filter(|(_, it)| is_answer(it)).count();
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.abort(key);
        }
        cut
    }

    /// Waits for no handler that still runs: whatever comes next for their connections comes now.
    pub fn release_all(&mut self) {
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.connections[key].lane.busy = false;
            self.make_ready(key);
        }
    }
}
