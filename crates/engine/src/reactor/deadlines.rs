//! Deadlines: setting them, and acting when one has passed.

use std::num::NonZeroU64;
use std::sync::atomic::Ordering;

use wire::error::close_code;
use wire::sender::Control;

use crate::connection::flow::Finish;
use crate::connection::{Stage, Wait};
use crate::reactor::slice::Slice;
use crate::reactor::{Reactor, WRITE_BUDGET};
use crate::registry::add;
use crate::system::table::Key;
use crate::system::timers::Timer;

/// How often a connection is looked at during `idle_timeout`. So messages need not note the time, and a connection is
/// closed at most one such part late.
const LOOKS_WHILE_IDLE: u64 = 8;

impl Reactor {
    /// Begins to wait for something. Its deadline counts from now.
    pub(crate) fn wait(&mut self, key: Key, wait: Wait) {
        // A handler may have blocked since the turn began, or no turn may be running.
        self.clock.read();
        self.wait_from_now(key, wait);
    }

    /// The same, if the clock has just been read.
    pub(crate) fn wait_from_now(&mut self, key: Key, wait: Wait) {
        self.change_wait(key, wait);
        let connection = &mut self.connections[key];
        (connection.since, connection.untaken) = (self.clock.now, 0);
        if matches!(wait, Wait::Part | Wait::Taking | Wait::Close) {
            self.begin_period(key);
        }
        self.arm(key);
    }

    /// Changes what a connection waits for, and updates the count of resting connections.
    pub(crate) fn change_wait(&mut self, key: Key, wait: Wait) {
        let before = std::mem::replace(&mut self.connections[key].wait, wait);
        match (before == Wait::KeepAlive, wait == Wait::KeepAlive) {
            (false, true) => self.resting += 1,
            (true, false) => self.resting -= 1,
            _ => return,
        }
        let slot = self.shared.registry.slot(self.shared.slot);
        slot.sockets_resting.store(self.resting as u64, Ordering::Relaxed);
    }

    /// Makes sure that the timer wheel returns to the connection in time.
    pub(crate) fn arm(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        let waits_until = connection.wait.limit(&self.settings).map(|limit| connection.since + limit);
        let Some(at) = waits_until.into_iter().chain(self.partial_until(key)).chain(self.idle_until(key)).min() else {
            return;
        };
        let connection = &mut self.connections[key];
        if at < connection.timer_at {
            connection.timer_at = at;
            self.wheel.set(Timer { key, serial: connection.serial, at });
        }
    }

    /// Notes whether a message is unfinished, and when the last of it arrived.
    pub(crate) fn watch_partial(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        let Some(partial) = connection.partial() else {
            connection.partial_at = u64::MAX;
            return;
        };
        let is_first = connection.partial_at == u64::MAX;
        if is_first || partial != connection.partial {
            connection.partial = partial;
            connection.partial_at = self.clock.now;
        }
        if is_first {
            self.arm(key);
        }
    }

    /// Until when to wait for the rest of an unfinished message.
    fn partial_until(&self, key: Key) -> Option<u64> {
        let connection = &self.connections[key];
        let limit = self.settings.message_timeout.filter(|_| connection.partial_at != u64::MAX)?;
        Some(connection.partial_at + limit.as_millis() as u64)
    }

    /// Closes a connection whose message takes too long. Returns false if the message is in time.
    fn judge_partial(&mut self, key: Key) -> bool {
        let now = self.clock.now;
        if self.partial_until(key).is_none_or(|until| until > now) {
            return false;
        }
        let connection = &mut self.connections[key];
        if !connection.is_open() {
            connection.partial_at = u64::MAX;
            return false;
        }
        if connection.incoming.is_readable() || connection.queued {
            // The rest may have arrived but not been read yet.
            connection.partial_at = now;
            return false;
        }
        self.fail(key, close_code::POLICY_VIOLATION, "the message was not finished in time");
        self.write_out_if_there(key);
        true
    }

    /// When to look again whether a connection is idle.
    fn idle_until(&self, key: Key) -> Option<u64> {
        let connection = &self.connections[key];
        let limit = self.settings.idle_timeout.filter(|_| connection.is_open())?.as_millis() as u64;
        let part = (limit / LOOKS_WHILE_IDLE).max(1);
        let parts = self.clock.now.saturating_sub(connection.idle_since) / part + 1;
        Some(connection.idle_since + limit.min(part * parts))
    }

    /// Closes a connection without messages for too long. Returns false if it stays.
    fn judge_idle(&mut self, key: Key) -> bool {
        let Some(limit) = self.settings.idle_timeout else { return false };
        let now = self.clock.now;
        let connection = &mut self.connections[key];
        let Some((fd, row)) = connection.identity.open() else { return false };
        let row = self.shared.registry.row(row);
        let count = row.messages_in.load(Ordering::Relaxed) + row.messages_out.load(Ordering::Relaxed);
        // A message may also be in a handler, or not have been read yet.
        let is_busy = connection.lane.busy
            || !connection.lane.is_empty()
            || connection.paused_at.is_some()
            || connection.incoming.is_readable()
            || connection.queued;
        if count != connection.idle_count || is_busy {
            (connection.idle_since, connection.idle_count) = (now, count);
        }
        // Or it may be on its way in either direction.
        if connection.partial_at != u64::MAX {
            connection.idle_since = connection.idle_since.max(connection.partial_at);
        }
        if !connection.outbox.is_empty() {
            connection.idle_since = connection.idle_since.max(connection.progress_at);
        }
        if now < connection.idle_since + limit.as_millis() as u64 {
            return false;
        }
        // If the Close frame has to wait for the end of a message, this is not repeated at once.
        connection.idle_since = now;
        if !self.disconnect(fd, close_code::NORMAL, "idle") {
            // It is waiting for that already, and that has a deadline of its own.
            return false;
        }
        self.write_out_if_there(key);
        true
    }

    /// Checks the expired deadlines, as long as the slice lasts: thousands of pings may be due together.
    pub(crate) fn judge_deadlines(&mut self, slice: &mut Slice) {
        self.wheel.take_due(self.clock.now, &mut self.due);
        let mut due = std::mem::take(&mut self.due);
        let mut judged = 0;
        for Timer { key, serial, at } in due.iter().copied() {
            judged += 1;
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            if connection.serial == serial && connection.timer_at == at {
                connection.timer_at = u64::MAX;
                self.judge(key);
                if slice.is_over() {
                    break;
                }
            }
        }
        due.drain(..judged);
        self.due = due;
    }

    fn judge(&mut self, key: Key) {
        if self.judge_partial(key) || self.judge_idle(key) {
            return;
        }
        let now = self.clock.now;
        let connection = &mut self.connections[key];
        let Some(limit) = connection.wait.limit(&self.settings) else {
            self.arm(key);
            return;
        };
        if let (Wait::Pong, Stage::WebSocket(receiver)) = (connection.wait, &connection.stage) {
            // A peer in the middle of a frame cannot send a pong. While more of the frame arrives, the peer is alive.
            if receiver.is_mid_frame() || connection.is_mid_input() {
                connection.since = connection.since.max(connection.received_at);
            }
            // Nor can it answer a ping that is still queued after what it is reading.
            if !connection.outbox.is_empty() {
                connection.since = connection.since.max(connection.progress_at);
            }
            // Nor is it late while we are not reading, or while its input is unread; except while someone waits for room
            // in its outbox. That may be the handler for which the input waits, and neither side would ever move.
            let is_unread = connection.paused_at.is_some() || connection.incoming.is_readable() || connection.queued;
            if is_unread && !connection.awaited {
                connection.since = connection.since.max((now + 1000).saturating_sub(limit));
            }
        }
        if now < connection.since + limit {
            self.arm(key);
            return;
        }
        match connection.wait {
            Wait::Nothing => {}
            Wait::Head if connection.is_in_tls_handshake() => {
                self.refuse_tls(key, "it took too long");
                self.finish_sending(key, Finish::Linger);
            }
            // No input can be lost: the peer has sent none.
            Wait::Head if connection.input.is_empty() => self.finish_sending(key, Finish::Close),
            Wait::Head if matches!(connection.stage, Stage::Header) => self.reject_late_header(key),
            Wait::Body if matches!(connection.stage, Stage::Unread(_)) => self.finish_sending(key, Finish::Linger),
            Wait::Body if matches!(connection.stage, Stage::Asked(_)) => self.give_up_body(key),
            Wait::Head | Wait::Body => self.reject_too_slow(key),
            // The time between two requests starts when the answer has been sent.
            Wait::KeepAlive if !connection.outbox.is_empty() => self.go_on_or_cut_off(key),
            Wait::KeepAlive => self.finish_sending(key, Finish::Linger),
            Wait::Ping => {
                let wait = if self.settings.ping_timeout.is_some() { Wait::Pong } else { Wait::Ping };
                self.wait(key, wait);
                // There is at most one such ping, so even a full outbox takes it.
                self.put_control(key, Control::Ping, b"");
                self.connections[key].pinged_at = NonZeroU64::new(self.clock.exact());
                self.begin_period(key);
                self.write_out_if_there(key);
            }
            Wait::Pong => {
                // The ping may be in the kernel's buffer, after what the peer is reading.
                if self.takes_enough(key) {
                    self.arm(key);
                } else {
                    self.send_close(key, close_code::INTERNAL, "keepalive ping timeout");
                    self.write_out_if_there(key);
                }
            }
            Wait::Continuation => self.close_unfinished(key),
            Wait::Part | Wait::Taking | Wait::Close => self.go_on_or_cut_off(key),
        }
    }

    /// Gives a peer another period if it has taken enough in the last one.
    fn go_on_or_cut_off(&mut self, key: Key) {
        if self.takes_enough(key) {
            self.arm(key);
        } else {
            self.cut_off(key);
        }
    }

    /// Closes a connection although its fragmented message has not been finished: it seems to have been given up.
    fn close_unfinished(&mut self, key: Key) {
        // Messages that were published until now are dropped like the rest.
        self.settle_for(key);
        let Some(deferred) = self.connections[key].deferred.take() else { return };
        add(&self.shared.totals().messages_dropped, deferred.messages.len() as u64);
        if let Some((code, reason)) = deferred.closing {
            self.send_close(key, code, &reason);
            self.write_out_if_there(key);
        }
    }

    fn write_out_if_there(&mut self, key: Key) {
        if self.connections.contains(key) {
            self.write_out(key, WRITE_BUDGET);
        }
    }
}
