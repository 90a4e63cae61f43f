//! How long a peer may take over what it was sent: as long as it goes on taking it.
//!
//! The kernel's buffer may hold megabytes that are written but that the peer has no room for yet, and takes more from us
//! in large steps. So progress is measured at its far end: by what the peer's system has acknowledged. (Behind a proxy
//! that is the proxy's.)
//!
//! That comes in steps too. A peer's system whose buffer is full has room for more once a whole segment has been read
//! from it, and such a segment may have 64 KiB. So what was taken beyond the least counts for the next periods.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::connection::Connection;
use crate::reactor::Reactor;
use crate::system::sockets;

/// Bytes that a peer has to take in each period.
const LEAST: usize = 16 * 1024;
/// A step in which a slow reader's progress shows; a little less, as it is not to the byte.
const STEP: usize = 60 * 1024;
/// For how many periods a step is enough.
const PERIODS_OF_STEP: usize = 4;

impl Connection {
    /// Bytes that the peer has still to take: queued here, or in the kernel and not acknowledged.
    fn untaken(&self) -> usize {
        let written = self.socket.as_ref().map_or(0, |socket| sockets::unacknowledged(socket.as_fd()));
        self.outbox.len() + written
    }
}

impl Reactor {
    /// Begins a period: from now on the peer has to take [`LEAST`] bytes until the deadline.
    pub(crate) fn begin_period(&mut self, key: usize) {
        self.clock.read();
        let connection = &mut self.connections[key];
        connection.since = self.clock.now;
        connection.untaken = connection.untaken();
    }

    /// At a deadline: whether the peer has taken enough since the period began, and may have more time, which then has
    /// begun: a period for each [`LEAST`] bytes, but not for more than a step.
    pub(crate) fn takes_enough(&mut self, key: usize) -> bool {
        let before = self.connections[key].untaken;
        self.begin_period(key);
        let connection = &mut self.connections[key];
        // That of an answer to an HTTP request is looked at for the first time when it takes long.
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

    /// Cuts off a peer that does not take what it is sent. The kernel's buffer goes too, unless it is about to be
    /// empty: it would hold it for minutes otherwise, however many such peers there are.
    pub(crate) fn cut_off(&mut self, key: usize) {
        let connection = &self.connections[key];
        if connection.untaken() >= LEAST
            && let Some(socket) = &connection.socket
        {
            let _ = rustix::net::sockopt::set_socket_linger(socket.as_fd(), Some(Duration::ZERO));
        }
        self.abort(key);
    }

    /// Whether the peer has taken some of what is queued since the period began.
    pub(crate) fn is_taking(&self, key: usize) -> bool {
        let connection = &self.connections[key];
        connection.untaken() < connection.untaken
    }
}
