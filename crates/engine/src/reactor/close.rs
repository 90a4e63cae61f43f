//! How connections end.
//!
//! A WebSocket stops counting as open as soon as either side begins to close. Its `close` event is due when the closing
//! handshake is done or can no longer be completed. Its socket is closed when its queued output has been sent. Its key
//! is free when all of this is over.
//!
//! Its handlers may run for longer. They hold nothing that a living connection needs: the row in the registry and the
//! place among `max_connections` are free once the WebSocket is no longer open, and the place among this worker's
//! sockets once its own socket is closed. Handlers that keep running are counted, and have a limit of their own.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wire::error::close_code;
use wire::sender::Sender;

use crate::connection::flow::{Drain, Finish};
use crate::connection::identity::{Ending, Identity, Life};
use crate::connection::{Asked, Stage, Standing, Wait};
use crate::reactor::refusals::Refused;
use crate::reactor::{Reactor, WRITE_BUDGET};
use crate::registry::add;
use crate::system::table::Key;

impl Reactor {
    pub(crate) fn end_of_input(&mut self, key: Key) {
        self.settle_for(key);
        let connection = &mut self.connections[key];
        if connection.is_in_tls_handshake() && !matches!(connection.stage, Stage::Finishing(_)) {
            self.refuse_tls(key, "the client hung up");
        }
        let connection = &mut self.connections[key];
        match connection.stage {
            // A body that ends too early; its client has given up.
            Stage::Asked(Asked::Request(ref exchange)) if !exchange.has_body() => self.abort(key),
            // The peer may have closed only its sending side, and may still read the answer.
            Stage::Asked(_) => {}
            // There is no input left to discard once the output has been sent.
            Stage::Finishing(Finish::Close | Finish::Linger) => connection.stage = Stage::Finishing(Finish::Close),
            Stage::Head { .. } | Stage::Unread(_) if connection.has_last_words() => {
                self.finish_sending(key, Finish::Close)
            }
            Stage::WebSocket(_) if connection.has_last_words() => {
                self.end_abnormally(key);
                self.finish_sending(key, Finish::Close);
            }
            _ => self.abort(key),
        }
    }

    pub(crate) fn closed_by_peer(&mut self, key: Key, code: Option<u16>, reason: String) {
        self.settle_for(key);
        let connection = &mut self.connections[key];
        if let Stage::WebSocket(receiver) = &mut connection.stage
            && !connection.sender.is_closed()
        {
            // RFC 6455 §5.5.1: typically the status code it received is echoed.
            let sender = &mut connection.sender;
            let _ = connection.outbox.append(&mut self.tools.pool, |out| sender.close(receiver, code, "", out));
        }
        self.end(key, code.unwrap_or(close_code::NO_STATUS), reason);
        self.finish_sending(key, Finish::Close);
    }

    /// Fails the connection (RFC 6455 §7.1.7): no further input from the peer is interpreted.
    pub(crate) fn fail(&mut self, key: Key, code: u16, reason: &str) {
        if self.put_close(key, code, reason) {
            self.leave_open(key, Some(code));
            self.end_abnormally(key);
            self.finish_sending(key, Finish::Linger);
        }
    }

    /// Queues our Close frame after what is already queued. Returns false if this is not a WebSocket, or it has ended.
    pub(crate) fn put_close(&mut self, key: Key, code: u16, reason: &str) -> bool {
        self.settle_for(key);
        let connection = &mut self.connections[key];
        let Stage::WebSocket(receiver) = &mut connection.stage else {
            return false;
        };
        // A buffer for a second Close frame, which would not be sent, would only take memory.
        if !connection.sender.is_closed() {
            let sender = &mut connection.sender;
            let close = |out: &mut Vec<u8>| sender.close(receiver, Some(code), reason, out);
            let _ = connection.outbox.append(&mut self.tools.pool, close);
        }
        true
    }

    /// Ends the WebSocket, if it has not ended yet; its `close` event is now due.
    fn end(&mut self, key: Key, code: u16, reason: String) {
        self.leave_open(key, None);
        if let Identity::Named { life: life @ Life::Closing { .. }, .. } = &mut self.connections[key].identity {
            *life = Life::Ended(Box::new(Ending { code, reason }));
            self.shared.measured().closed(code);
            self.make_ready(key);
        }
    }

    fn end_abnormally(&mut self, key: Key) {
        let reason = match self.connections[key].identity {
            Identity::Named { life: Life::Closing { our_code: Some(code) }, .. } => code.to_string(),
            _ => String::new(),
        };
        self.end(key, close_code::ABNORMAL, reason);
    }

    /// Removes the connection from the open WebSockets; it sends nothing more. `our_code` is the code of our Close
    /// frame, if we sent ours first.
    pub(crate) fn leave_open(&mut self, key: Key, our_code: Option<u16>) {
        let connection = &mut self.connections[key];
        if let Identity::Named { fd, life: life @ Life::Open { .. } } = &mut connection.identity
            && let Life::Open { row } = std::mem::replace(life, Life::Closing { our_code })
        {
            let fd = *fd;
            (connection.sender, connection.deferred) = (Sender::closed(), None);
            self.keys.clear(row);
            let is_watched = self.shared.end(fd, key);
            add(&self.shared.totals().closed, 1);
            self.shared.registry.give_place_back(self.shared.slot);
            if connection.drain != Drain::Listed {
                // One of its handlers may be waiting for this event.
                connection.drain = Drain::Listed;
                self.drained.push(fd);
            }
            self.end_subscriptions(key);
            self.note_all_left(fd);
            self.forget_all_waiting(fd, key);
            self.note_gone(fd);
            if is_watched {
                self.uplink.tell_gone(fd);
            }
        }
    }

    /// Sends what is queued, and then ends the connection in this way.
    pub(crate) fn finish_sending(&mut self, key: Key, finish: Finish) {
        let connection = &mut self.connections[key];
        connection.stage = Stage::Finishing(finish);
        connection.paused_at = None;
        self.wait(key, Wait::Taking);
        self.queued(key);
        self.make_ready(key);
    }

    /// Ends the connection at once. What has been written still reaches a peer that keeps reading; a peer that does not
    /// read gets a reset, which shows that something is missing.
    pub(crate) fn abort(&mut self, key: Key) {
        let is_cut = !self.connections[key].outbox.is_empty() && !self.is_taking(key);
        self.orphan(key);
        self.end_abnormally(key);
        self.change_wait(key, Wait::Nothing);
        let connection = &mut self.connections[key];
        if let Some(mut socket) = connection.socket.take() {
            // A forked child may hold the socket too: closing it would neither end the connection nor remove it from
            // epoll.
            let _ = self.poll.registry().deregister(&mut socket);
            if is_cut {
                let _ = rustix::net::sockopt::set_socket_linger(socket.as_fd(), Some(Duration::ZERO));
            }
            let _ = socket.shutdown(Shutdown::Both);
        }
        connection.stage = Stage::Gone;
        connection.tls = None;
        connection.input = Vec::new();
        connection.outbox.clear(&mut self.tools.pool);
        self.shared.count_unsent(connection, 0);
        self.count_memory(key);
        match self.connections[key].identity {
            Identity::Named { .. } => self.outlive(key),
            Identity::Unnamed | Identity::Forgotten => self.free_if_over(key),
        }
    }

    /// Keeps a connection whose client has left only for its handlers. It no longer counts as a connection.
    fn outlive(&mut self, key: Key) {
        if std::mem::replace(&mut self.connections[key].standing, Standing::Outlived) != Standing::Outlived {
            self.count_outliving(self.outliving + 1);
            add(&self.shared.registry.slot(self.shared.slot).sockets_done, 1);
        }
    }

    /// Does the same for an HTTP connection whose peer has hung up while its handler runs. Their number is limited,
    /// because each still has a descriptor.
    pub(crate) fn outlive_if_abandoned(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        if !connection.is_abandoned() {
            return;
        }
        self.tell_if_followed(key);
        if !self.is_overrun() {
            self.outlive(key);
        }
    }

    pub(crate) fn count_outliving(&mut self, count: usize) {
        self.outliving = count;
        let slot = self.shared.registry.slot(self.shared.slot);
        slot.outliving.store(self.outliving() as u64, Ordering::Relaxed);
        slot.is_overrun.store(self.is_overrun().into(), Ordering::Relaxed);
    }

    /// The number of connections kept only for their handlers, because their clients have left.
    pub fn outliving(&self) -> usize {
        self.outliving + self.orphans.len()
    }

    /// Whether so many handlers have outlived their connections that no new clients are let in. The limit is the same
    /// as for connections.
    pub fn is_overrun(&self) -> bool {
        self.outliving() >= self.most_connections()
    }

    /// Ends a connection whose TLS has failed. The alert from rustls is already in its outbox.
    pub(crate) fn fail_tls(&mut self, key: Key, reason: &str) {
        if self.connections[key].is_in_tls_handshake() {
            self.refuse_tls(key, reason);
        }
        self.end_abnormally(key);
        self.finish_sending(key, Finish::Linger);
    }

    /// Reports a failed TLS handshake. All of them are reported here.
    pub(crate) fn refuse_tls(&mut self, key: Key, reason: &str) {
        let source = self.connections[key].source;
        let (peer, hides_client) = (source.address(), source.hides_client());
        let reason = format!("the TLS handshake failed: {reason}").into();
        self.turned_away(Refused { peer, hides_client, status: None, reason, sent: 0, head: None, others: 0 });
    }

    /// Called when nothing is left to send. Closes a connection that only waited for this.
    pub(crate) fn all_sent(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        let Stage::Finishing(finish) = connection.stage else {
            if matches!(connection.stage, Stage::Head { .. }) {
                if connection.wait == Wait::KeepAlive {
                    // However long the answer took, the time between two requests starts here.
                    connection.since = self.clock.now;
                    self.arm(key);
                }
                self.make_ready(key);
            } else if connection.wait == Wait::Taking {
                self.wait(key, Wait::Close);
            } else if connection.wait == Wait::Part {
                self.wait_in_exchange(key);
            }
            return;
        };
        if let Some(session) = &mut connection.tls
            && session.end_output(connection.outbox.sealed())
        {
            // Without it the peer could not tell our end of the stream from a truncation attack (RFC 8446 §6.1).
            self.write_out(key, WRITE_BUDGET);
            return;
        }
        match finish {
            Finish::Close => self.abort(key),
            Finish::Linger => {
                connection.stage = Stage::Finishing(Finish::Lingering);
                if let Some(socket) = &connection.socket {
                    let _ = socket.shutdown(Shutdown::Write);
                }
                self.wait(key, Wait::Close);
            }
            Finish::Lingering => {}
        }
    }
}
