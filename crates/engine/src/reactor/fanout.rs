//! Messages for many connections: held back while more for the same connections may follow, then delivered to each.

use std::io::Write;

use wire::frame::{DataOpcode, Fin};

use crate::connection::flow::Outgoing;
use crate::connection::outbox::Raw;
use crate::reactor::Reactor;
use crate::reactor::backlog::{Audience, Waiting};
use crate::reactor::commands::Counted;
use crate::reactor::slice::Slice;
use crate::registry::{Fd, add};
use crate::system::table::Key;
use crate::topics::gathered::{Fanout, Gathered};
use crate::topics::policy::Policy;
use crate::topics::publication::{Position, Publication};

impl Reactor {
    /// Holds back a message for many connections until something else is requested, or the turn starts writing. The
    /// next message may be for the same connections, and then each of them is visited only once for both.
    pub(crate) fn gather(
        &mut self,
        topic: Option<&str>,
        publication: Publication<'_>,
        position: Option<Position>,
        exclude: &[Fd],
    ) {
        match topic {
            Some(topic) if !self.settings.topics.is_empty() => {
                self.gather_by_options(topic, publication, position, exclude);
            }
            _ => self.gather_as(topic, None, publication.content.opcode(), publication.payload, exclude),
        }
    }

    /// The same for a message that already has its form.
    #[inline]
    pub(crate) fn gather_as(
        &mut self,
        topic: Option<&str>,
        policy: Option<Box<Policy>>,
        opcode: DataOpcode,
        payload: &[u8],
        exclude: &[Fd],
    ) {
        let is_alone = policy.as_ref().is_some_and(|policy| policy.is_provisional());
        if is_alone || !self.gathered.takes(topic, payload, exclude) {
            self.settle();
            self.gathered.begin(topic, policy, exclude);
        }
        self.gathered.push(opcode, payload);
    }

    /// Queues the gathered messages, or has them delivered in slices if they are for a crowd. Anything that would make
    /// the order visible comes after this: another message, a subscription, a new connection.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if !self.gathered.is_empty() {
            self.fan_out(None);
        }
    }

    /// Like [`Reactor::settle`], before something is done with the connection `key`: everything published or broadcast
    /// so far is queued for it.
    #[inline]
    pub(crate) fn settle_for(&mut self, key: Key) {
        self.settle();
        if !self.backlog.is_empty() {
            self.catch_up(key);
        }
    }

    /// Like [`Reactor::settle_for`], for the open connection `fd`. Returns its key if it is still open afterwards.
    #[inline]
    pub(crate) fn settled_key(&mut self, fd: Fd) -> Option<Key> {
        self.settle();
        let key = self.open_key(fd)?;
        if self.backlog.is_empty() {
            return Some(key);
        }
        self.catch_up(key);
        self.open_key(fd)
    }

    /// Delivers the gathered messages; without a `slice` they are only queued. If the slice is too short, the rest goes
    /// to the backlog. Without a slice, messages for a crowd go to the backlog too.
    pub(crate) fn fan_out(&mut self, slice: Option<&mut Slice>) {
        let gathered = std::mem::take(&mut self.gathered);
        let audience = match gathered.topic().map(|topic| self.topics.find(topic)) {
            None => Some(Audience::Everyone),
            Some(Some(id)) => Some(Audience::Topic(id)),
            Some(None) => None,
        };
        let Some(audience) = audience else {
            self.take_back(gathered);
            return;
        };
        let most = match audience {
            Audience::Everyone => self.connections.places(),
            Audience::Topic(id) => self.topics.size(id),
        };
        let mut waiting = Waiting::new(audience, most, gathered.into_messages());
        let is_crowd = most > self.backlog.max_at_once;
        if is_crowd && (slice.is_none() || !self.backlog.is_empty()) {
            self.add_to_backlog(waiting);
            return;
        }
        self.is_fanning_out = true;
        let is_done = self.reach(&mut waiting, slice);
        self.is_fanning_out = false;
        if is_done {
            let gathered = waiting.messages.finish(|frame| self.tools.pool.count_shared(frame));
            self.take_back(gathered);
        } else {
            self.backlog.suspend(waiting, &self.topics);
        }
    }

    /// Delivers messages to their recipients, as long as the slice lasts. Returns whether all have been reached.
    fn reach(&mut self, waiting: &mut Waiting, mut slice: Option<&mut Slice>) -> bool {
        while let Some(key) = waiting.next(&self.topics) {
            let open = self.connections.get(key).and_then(|connection| connection.identity.open());
            let Some((fd, _)) = open else { continue };
            let is_excluded = waiting.excludes(fd);
            if !self.backlog.is_empty() {
                // Even if it is excluded: all visited connections must be up to date.
                self.catch_up(key);
            }
            if is_excluded {
                continue;
            }
            let messages = &mut waiting.messages;
            if !(slice.is_some() && self.write_through(key, messages)) {
                self.deliver(key, messages);
            }
            if slice.as_mut().is_some_and(|slice| slice.is_over()) {
                return false;
            }
        }
        true
    }

    /// Clears gathered messages, keeping their memory for the next ones.
    fn take_back(&mut self, mut gathered: Gathered) {
        gathered.clear();
        self.gathered = gathered;
    }

    /// Writes messages straight to the socket of a connection with nothing queued, no compression and no TLS. Most
    /// connections are like this, and their outboxes need not be touched. Returns false if the messages have yet to be
    /// delivered.
    pub(crate) fn write_through(&mut self, key: Key, messages: &mut Fanout) -> bool {
        let connection = &mut self.connections[key];
        let may_wait = messages.bytes() <= self.settings.send_queue_size;
        let is_plain = connection.sender.window_bits().is_none() && connection.tls.is_none();
        let has_nothing =
            connection.outbox.is_empty() && connection.sender.is_ready() && connection.outgoing != Outgoing::Blocked;
        let Some(socket) = connection.socket.as_ref().filter(|_| may_wait && is_plain && has_nothing) else {
            return false;
        };
        let (count, bytes) = (messages.len(), messages.bytes());
        let frames = messages.together();
        // An error will occur again where errors are handled.
        let Ok(written) = Raw(socket).write(frames) else { return false };
        self.shared.count_out(connection, count, bytes);
        if written < frames.len() {
            connection.progress_at = self.clock.now;
            connection.outbox.share_rest(frames, written);
            self.queued(key);
        }
        true
    }

    pub(crate) fn deliver(&mut self, key: Key, messages: &mut Fanout) {
        let connection = &mut self.connections[key];
        let window = connection.sender.window_bits();
        let has_room = connection.cost() + messages.bytes() <= self.settings.send_queue_size;
        if !(connection.sender.is_ready() && window.is_none() && has_room && !messages.is_provisional()) {
            for index in 0..messages.len() {
                self.deliver_one(key, index, messages);
            }
            return;
        }
        connection.outbox.share(&mut self.tools.pool, messages.together());
        self.shared.count_out(connection, messages.len(), messages.bytes());
        self.queued(key);
    }

    /// Delivers only message number `index`: its connection is compressed, or can take only some of the messages, or the
    /// message may be replaced or left out. Returns whether it was queued.
    pub(crate) fn deliver_one(&mut self, key: Key, index: usize, messages: &mut Fanout) -> bool {
        if messages.is_missing(index) {
            add(&self.shared.totals().messages_dropped, 1);
            return false;
        }
        let (opcode, payload) = messages.get(index);
        let sender = &self.connections[key].sender;
        if !sender.is_ready() {
            return sender.is_mid_message() && self.defer(key, opcode, Fin::Last, payload, messages.policy());
        }
        if messages.is_provisional() {
            return self.deliver_provisional(key, messages);
        }
        let length = payload.len();
        if !self.make_room_or(key, length, Counted::Everything, self.slow_consumer(messages.policy())) {
            return false;
        }
        let connection = &mut self.connections[key];
        let tools = &mut self.tools;
        let frame = match connection.sender.window_bits() {
            Some(bits) if length >= self.settings.compression_threshold => {
                messages.compressed(index, bits, &mut tools.deflater)
            }
            _ => messages.plain(index),
        };
        connection.outbox.share(&mut tools.pool, frame);
        self.shared.count_out(connection, 1, length);
        self.queued(key);
        true
    }
}
