//! How long a peer may take to receive what it was sent: for as long as it keeps receiving.
//!
//! The kernel's buffer may hold megabytes that have been written but that the peer has no room for yet, and it takes
//! more from us in large steps. So progress is measured at the far end, by what the peer's system has acknowledged.
//! (Behind a proxy, that is the proxy.)
//!
//! Acknowledgements come in steps too. A peer's system whose buffer is full has room for more only once a whole segment
//! has been read from it, and such a segment may be 64 KiB. So anything received beyond the minimum counts for the next
//! periods.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::connection::Connection;
use crate::reactor::Reactor;
use crate::system::sockets;
use crate::system::table::Key;

/// Bytes that a peer has to receive in each period.
const LEAST: usize = 16 * 1024;
/// The step in which a slow reader's progress shows; slightly less, as the steps are not exact.
const STEP: usize = 60 * 1024;
/// The number of periods that one step pays for.
const PERIODS_OF_STEP: usize = 4;

impl Connection {
    /// Bytes that the peer has yet to receive: queued here, or in the kernel and not acknowledged.
    fn untaken(&self) -> usize {
        let written = self.socket.as_ref().map_or(0, |socket| sockets::unacknowledged(socket.as_fd()));
        self.outbox.len() + written
    }
}

impl Reactor {
    /// Begins a period: the peer has to receive [`LEAST`] bytes before the deadline.
    pub(crate) fn begin_period(&mut self, key: Key) {
        self.clock.read();
        let connection = &mut self.connections[key];
        connection.since = self.clock.now;
        connection.untaken = connection.untaken();
    }

    /// Called at a deadline. Returns whether the peer has received enough since the period began. If so, it is given
    /// more time, starting now: one period for each [`LEAST`] bytes, but no more than for one step.
    pub(crate) fn takes_enough(&mut self, key: Key) -> bool {
        let before = self.connections[key].untaken;
        self.begin_period(key);
        let connection = &mut self.connections[key];
        // An answer to an HTTP request is first measured when it takes long.
        let is_first_look = before == 0 && connection.untaken > 0;
        let periods = match before.saturating_sub(connection.untaken) {
            _ if is_first_look => 1,
            taken if taken >= STEP => PERIODS_OF_STEP,
            taken => taken / LEAST,
        };
        let limit = connection.wait.limit(&self.settings).unwrap_or_default();
        connection.since += periods.saturating_sub(1) as u64 * limit;
        periods > 0
    }

    /// Cuts off a peer that does not receive what it is sent. The kernel's buffer is dropped too, unless it is nearly
    /// empty: otherwise it would be kept for minutes, however many such peers there are.
    pub(crate) fn cut_off(&mut self, key: Key) {
        if self.connections[key].untaken() >= LEAST {
            self.reset(key);
        } else {
            self.abort(key);
        }
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(&mut self, key: Key) {
        if let Some(socket) = &self.connections[key].socket {
            let _ = rustix::net::sockopt::set_socket_linger(socket.as_fd(), Some(Duration::ZERO));
            // Where it is possible, at once: `abort` would first end our stream in the regular way.
            let _ = rustix::net::connect_unspec(socket);
        }
        self.abort(key);
    }

    /// Whether the peer has received any of what is queued since the period began.
    pub(crate) fn is_taking(&self, key: Key) -> bool {
        let connection = &self.connections[key];
        connection.untaken() < connection.untaken
    }
}
