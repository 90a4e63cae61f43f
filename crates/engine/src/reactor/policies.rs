//! Messages of topics with options: the form in which subscribers get them, and what happens to them while they wait in
//! an outbox.

use wire::frame::DataOpcode;

use crate::connection::flow::Outgoing;
use crate::reactor::Reactor;
use crate::registry::{Fd, add};
use crate::settings::SlowConsumer;
use crate::system::table::Key;
use crate::topics::envelope::envelope;
use crate::topics::gathered::{Fanout, Gathered};
use crate::topics::options::Lagging;
use crate::topics::policy::{Label, Policy};
use crate::topics::publication::{Position, Publication};

/// Messages that replace others may exceed the limit of an outbox by this part of it.
const LONGER: usize = 16;

impl Reactor {
    /// Holds back a message for a topic, if any topic has options.
    pub(crate) fn gather_by_options(
        &mut self,
        topic: &str,
        publication: Publication<'_>,
        position: Option<Position>,
        exclude: &[Fd],
    ) {
        let (opcode, payload) = (publication.content.opcode(), publication.payload);
        let Some(options) = self.settings.topics.of(topic) else {
            self.gather_as(Some(topic), None, opcode, payload, exclude);
            return;
        };
        if options.ttl.is_some() {
            // This may be outside a turn, or late in one.
            self.clock.read();
        }
        let policy = Policy::of(options, topic, publication.key, self.clock.now).map(Box::new);
        if !options.envelope {
            self.gather_as(Some(topic), policy, opcode, payload, exclude);
            return;
        }
        // It has no position while the broker that gives them is away.
        match envelope(topic, position.unwrap_or_default(), publication) {
            Some(text) => self.gather_as(Some(topic), policy, DataOpcode::Text, &text, exclude),
            // Callers refuse bytes for such a topic.
            None => add(&self.shared.totals().messages_dropped, 1),
        }
    }

    /// What happens to a connection whose outbox has no room for a message with this policy.
    pub(crate) fn slow_consumer(&self, policy: Option<&Policy>) -> SlowConsumer {
        match policy.and_then(|policy| policy.lagging) {
            None => self.settings.slow_consumer,
            Some(Lagging::Close) => SlowConsumer::Close,
            Some(Lagging::Drop | Lagging::Latest) => SlowConsumer::Drop,
        }
    }

    /// Delivers a message that may be replaced or left out to a connection whose next message may begin. Returns whether
    /// it was queued.
    #[inline(never)]
    pub(crate) fn deliver_provisional(&mut self, key: Key, message: &mut Fanout) -> bool {
        let label = message.policy().and_then(|policy| policy.label.as_deref());
        if !self.has_room_or_replaces(key, message.bytes(), label) {
            self.write_all_out(key);
            if !self.connections[key].is_open() {
                return false;
            }
            if !self.has_room_or_replaces(key, message.bytes(), label) {
                self.overflow(key, self.slow_consumer(message.policy()));
                // The outbox may have got tables.
                self.count_memory(key);
                return false;
            }
        }
        self.put_provisional(key, message);
        true
    }

    /// Whether the outbox takes a message, perhaps in the place of an earlier one with the same label.
    fn has_room_or_replaces(&mut self, key: Key, length: usize, label: Option<&Label>) -> bool {
        let connection = &mut self.connections[key];
        let limit = self.settings.send_queue_size;
        // An old message must not stay because the new one is a little longer.
        let room = match label.map_or(0, |label| connection.outbox.replaceable(label)) {
            0 => limit,
            replaceable => limit + replaceable + limit / LONGER,
        };
        connection.cost() + length <= room || connection.unsent() == 0
    }

    /// Queues a message that may be replaced or left out; there is room for it.
    fn put_provisional(&mut self, key: Key, message: &mut Fanout) {
        let (connection, tools) = (&mut self.connections[key], &mut self.tools);
        let length = message.bytes();
        let window = connection.sender.window_bits().filter(|_| length >= self.settings.compression_threshold);
        let provisional = message.provisional(window, &mut tools.deflater);
        if connection.outbox.put(&mut tools.pool, provisional) {
            add(&self.shared.totals().messages_replaced, 1);
        }
        self.shared.count_out(connection, 1, length);
        self.queued(key);
    }

    /// Queues a message that had to wait for the end of another one; room for it was reserved then.
    pub(crate) fn put_deferred(&mut self, key: Key, policy: Box<Policy>, opcode: DataOpcode, payload: &[u8]) {
        if policy.has_expired(self.clock.now) {
            add(&self.shared.totals().messages_expired, 1);
            return;
        }
        let mut gathered = Gathered::default();
        gathered.begin(None, Some(policy), &[]);
        gathered.push(opcode, payload);
        let mut message = gathered.into_messages();
        self.put_provisional(key, &mut message);
        message.finish(|frame| self.tools.pool.count_shared(frame));
    }

    /// Like [`Reactor::write_out`], for an outbox in which messages might have expired.
    #[cold]
    pub(crate) fn write_out_unexpired(&mut self, key: Key, budget: usize) {
        self.leave_out_expired(key);
        if self.connections[key].outgoing != Outgoing::Blocked {
            self.write_out(key, budget);
        }
    }

    /// Leaves out the messages of an outbox that have waited too long.
    fn leave_out_expired(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        let before = connection.outbox.len();
        let count = connection.outbox.leave_out_expired(self.clock.now, &mut self.tools.pool);
        if count == 0 {
            return;
        }
        add(&self.shared.totals().messages_expired, count as u64);
        // The peer has not received these bytes.
        connection.untaken = connection.untaken.saturating_sub(before - connection.outbox.len());
        self.note_shorter(key);
    }

    /// Leaves out the messages of all outboxes that have waited too long.
    pub(crate) fn leave_out_all_expired(&mut self) {
        self.clock.read();
        let now = self.clock.now;
        let having = self.connections.iter().filter(|(_, connection)| connection.outbox.may_have_expired(now));
        let keys: Vec<Key> = having.map(|(key, _)| key).collect();
        for key in keys {
            self.leave_out_expired(key);
        }
    }
}
