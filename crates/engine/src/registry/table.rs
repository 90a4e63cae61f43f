//! The table's operations: take and fill rows, look up connections, and clear the rows of a dead process.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::registry::counts::{COMMANDS_DROPPED, Counts, OUTLIVING, QUEUED_BYTES, TRAFFIC, ended};
use crate::registry::fd::{COUNTER, COUNTER_BITS, Fd, SLOTS, TAKEN, TOPIC_BITS, unix_now};
use crate::registry::info::{
    Info, from_bits, latency_from_bits, latency_to_bits, path_from_bits, path_to_bits, to_bits,
};
use crate::registry::memory::{Registry, Row};
use crate::registry::stuck::StuckCell;

/// The result of reserving room for a message on its way to a connection's outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reservation {
    /// There is room, and it is reserved.
    Kept,
    /// The outbox is full.
    OutboxFull,
    /// Too much is already on its way to it.
    TooMuchUnderway,
    /// There is no such open connection.
    NotOpen,
}

/// Whether there is room in a connection's outbox, and to spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    TooLittle,
    /// There is no such open connection.
    NotOpen,
}

impl From<Reservation> for Room {
    fn from(reservation: Reservation) -> Self {
        match reservation {
            Reservation::Kept => Self::Enough,
            Reservation::OutboxFull | Reservation::TooMuchUnderway => Self::TooLittle,
            Reservation::NotOpen => Self::NotOpen,
        }
    }
}

/// Whether a process has subscribers for any topic with a certain bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Wanted,
    Unwanted,
}

impl Registry {
    /// The row that `fd` has or would have. Each process starts at a different place, so that they rarely compete for
    /// rows.
    #[inline]
    pub(crate) fn index(&self, fd: Fd) -> usize {
        let offset = (fd >> COUNTER_BITS) as usize & (SLOTS - 1);
        ((fd & COUNTER) as usize + offset * (self.rows / SLOTS)) & (self.rows - 1)
    }

    // ---- processes --------------------------------------------------------------------------------------------------

    /// Whether the slot has a living process.
    #[inline]
    pub(crate) fn lives(&self, slot: u8) -> bool {
        self.header().living[usize::from(slot) / 64].load(Ordering::Acquire) >> (slot % 64) & 1 == 1
    }

    /// The slots that have a living process.
    pub(crate) fn living(&self) -> impl Iterator<Item = u8> {
        let masks = self.header().living.iter().map(|mask| mask.load(Ordering::Acquire));
        masks.enumerate().flat_map(|(word, mut mask)| {
            std::iter::from_fn(move || {
                let bit = (mask != 0).then(|| mask.trailing_zeros())?;
                mask &= mask - 1;
                Some((word as u32 * 64 + bit) as u8)
            })
        })
    }

    /// Starts a process in a slot that has been cleared.
    pub(crate) fn revive(&self, slot: u8, worker_id: u8) {
        self.slot(slot).worker_id.store(worker_id.into(), Ordering::Relaxed);
        self.slot(slot).started_at.store(unix_now(), Ordering::Relaxed);
        self.header().living[usize::from(slot) / 64].fetch_or(1 << (slot % 64), Ordering::AcqRel);
    }

    /// Marks the slot's process as gone, or about to be: from here on its connections no longer exist for other
    /// processes.
    pub(crate) fn bury(&self, slot: u8) {
        self.header().living[usize::from(slot) / 64].fetch_and(!(1 << (slot % 64)), Ordering::AcqRel);
    }

    /// Clears what a process has left behind, and keeps its counts. The process must certainly be gone. Its successor
    /// gives out other ids.
    pub(crate) fn clear(&self, slot: u8) {
        self.bury(slot);
        let (header, gone) = (self.header(), self.slot(slot));
        header.generation.fetch_add(1, Ordering::AcqRel);
        header.past.add_counts(&ended(self.counts_of(slot)));
        gone.totals.clear();
        header.past_measured.add_all(&gone.measured);
        gone.measured.clear();
        for index in self.touched_rows() {
            let id = &self.row(index).id;
            let found = id.load(Ordering::Acquire);
            let owner = if found & TAKEN != 0 { found ^ TAKEN } else { found >> COUNTER_BITS & (SLOTS as u64 - 1) };
            if found != 0 && owner == u64::from(slot) {
                id.store(0, Ordering::Release);
            }
        }
        for bit in (0..TOPIC_BITS).step_by(64) {
            let word = self.topic_word(slot, bit);
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
        for cell in [
            &gone.started_at,
            &gone.sockets_taken,
            &gone.sockets_done,
            &gone.sockets_resting,
            &gone.capacity,
            &gone.descriptors,
            &gone.outliving,
            &gone.is_overrun,
            &gone.closing_bytes,
            &gone.subscribes_done,
            &gone.subscribes_passed,
            &gone.subscribes_routed,
            &gone.commands_dropped,
            &gone.is_behind,
        ] {
            cell.store(0, Ordering::Relaxed);
        }
        for cell in &gone.told {
            cell.store(0, Ordering::Relaxed);
        }
        gone.stuck.clear();
        header.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether so much is waiting for the slot's process that further commands are dropped.
    pub(crate) fn is_behind(&self, slot: u8) -> bool {
        self.slot(slot).is_behind.load(Ordering::Acquire) == 1
    }

    /// Whether the worker of a slot is stuck.
    pub fn stuck(&self, slot: u8) -> &StuckCell {
        &self.slot(slot).stuck
    }

    /// The slot that an id belongs to.
    #[inline]
    pub(crate) fn slot_of(fd: Fd) -> u8 {
        (fd >> COUNTER_BITS) as u8 & (SLOTS as u8 - 1)
    }

    /// The worker that has, or until just now had, the connection `fd`.
    pub fn worker_of(&self, fd: Fd) -> u8 {
        self.slot(Self::slot_of(fd)).worker_id.load(Ordering::Relaxed) as u8
    }

    /// Has all processes, those that start later too, refuse handshakes from here on.
    pub(crate) fn set_draining(&self) {
        self.header().is_draining.store(1, Ordering::Relaxed);
    }

    /// Whether the server is drained: handshakes get 503; requests are still answered, and WebSockets go on.
    pub fn is_draining(&self) -> bool {
        self.header().is_draining.load(Ordering::Relaxed) != 0
    }

    // ---- topics -----------------------------------------------------------------------------------------------------

    /// Records the slot's process's interest in topics with this bit. Others see this before anything
    /// that the process sends afterwards.
    pub(crate) fn set_interest(&self, slot: u8, bit: usize, interest: Interest) {
        let (word, mask) = (self.topic_word(slot, bit), 1 << (bit % 64));
        match interest {
            Interest::Wanted => word.fetch_or(mask, Ordering::SeqCst),
            Interest::Unwanted => word.fetch_and(!mask, Ordering::SeqCst),
        };
    }

    /// Whether the slot's process may have subscribers for topics with this bit, or will have once it has carried out
    /// what it was asked to do.
    pub(crate) fn has_interest(&self, slot: u8, bit: usize) -> bool {
        let row = self.slot(slot);
        // The order matters: a process that has carried out a subscription has set the bit before.
        let is_settled = row.subscribes_done.load(Ordering::SeqCst) == row.subscribes_passed.load(Ordering::SeqCst);
        !is_settled || self.topic_word(slot, bit).load(Ordering::SeqCst) >> (bit % 64) & 1 == 1
    }

    /// The same for any topic.
    pub(crate) fn has_any_interest(&self, slot: u8) -> bool {
        // The order matters, as above.
        self.has_interest(slot, 0)
            || (0..TOPIC_BITS).step_by(64).any(|bit| self.topic_word(slot, bit).load(Ordering::SeqCst) != 0)
    }

    // ---- rows -------------------------------------------------------------------------------------------------------

    /// Reserves one of the `max_connections` places. Of two callers competing for the last place, possibly neither gets
    /// it, but never both.
    pub(crate) fn take_place(&self, slot: u8, max_connections: usize) -> bool {
        let own = &self.slot(slot).totals.connections;
        own.fetch_add(1, Ordering::SeqCst);
        let has_place = self.connections() <= max_connections as u64;
        if !has_place {
            self.give_place_back(slot);
        }
        has_place
    }

    /// Gives back the place of a connection that is no longer open.
    pub(crate) fn give_place_back(&self, slot: u8) {
        self.slot(slot).totals.connections.fetch_sub(1, Ordering::SeqCst);
    }

    /// The number of open WebSockets in all processes.
    pub fn connections(&self) -> u64 {
        self.living().map(|slot| self.slot(slot).totals.connections.load(Ordering::SeqCst)).sum()
    }

    /// Fills the row of a new connection, which [`super::Ids::next`] has taken. From here on other processes see it.
    pub(crate) fn claim(&self, fd: Fd, client: SocketAddr, path: &str, now: u64) {
        let row = self.row(self.index(fd));
        // Any reader that sees one of the following values also sees that the row is taken.
        fence(Ordering::Release);
        let bits = to_bits(client.ip());
        row.address[0].store((bits >> 64) as u64, Ordering::Relaxed);
        row.address[1].store(bits as u64, Ordering::Relaxed);
        row.port.store(u64::from(client.port()), Ordering::Relaxed);
        row.opened_at.store(now, Ordering::Relaxed);
        row.last_received_at.store(now, Ordering::Relaxed);
        for (cell, word) in row.path.iter().zip(path_to_bits(path)) {
            cell.store(word, Ordering::Relaxed);
        }
        for cell in [
            &row.latency,
            &row.messages_in,
            &row.messages_out,
            &row.bytes_in,
            &row.bytes_out,
            &row.queued_bytes,
            &row.underway_bytes,
            &row.topics,
            &row.unsubscribes_underway,
        ] {
            cell.store(0, Ordering::Relaxed);
        }
        row.id.store(fd, Ordering::Release);
    }

    /// Frees the row: from here on the connection no longer exists for others. Returns true if another process wants to
    /// be notified.
    pub(crate) fn release(&self, fd: Fd) -> bool {
        let row = self.row(self.index(fd));
        row.id.store(0, Ordering::SeqCst);
        row.watched.load(Ordering::SeqCst) == fd
    }

    /// Asks the process of a connection to notify the hub when it frees the row. For the hub only. The first value is
    /// false if the connection is not open. The second is a connection that had this row before and was watched: its
    /// process may have missed that mark, but it is certainly not open.
    pub(crate) fn watch(&self, fd: Fd) -> (bool, Option<Fd>) {
        let Some(row) = self.find(fd) else { return (false, None) };
        let before = row.watched.swap(fd, Ordering::SeqCst);
        // Either the process sees the mark after it has freed the row, or this sees that the row is free.
        let is_open = row.id.load(Ordering::SeqCst) == fd;
        (is_open, (before != 0 && before != fd).then_some(before))
    }

    /// The row of `fd`, if it exists. Values read from it are valid only if `id` is still the same afterwards.
    #[inline]
    pub(crate) fn find(&self, fd: Fd) -> Option<&Row> {
        if fd == 0 || fd & TAKEN != 0 || !self.lives(Self::slot_of(fd)) {
            return None;
        }
        let row = self.row(self.index(fd));
        (row.id.load(Ordering::Acquire) == fd).then_some(row)
    }

    /// Whether `fd` is an open WebSocket.
    pub fn exists(&self, fd: Fd) -> bool {
        self.find(fd).is_some()
    }

    /// Whether the open WebSocket `fd` may have room for another topic among `max_topics`. Only its own process knows
    /// for certain.
    pub(crate) fn may_have_room_for_topic(&self, fd: Fd, max_topics: usize) -> Option<bool> {
        let row = self.find(fd)?;
        // The order matters: a subscription is ended before it stops counting as under way.
        let is_underway = row.unsubscribes_underway.load(Ordering::Acquire) > 0;
        let has_room = is_underway || row.topics.load(Ordering::Acquire) < max_topics as u64;
        self.exists(fd).then_some(has_room)
    }

    /// Notes a request to another thread or process to end a subscription.
    pub(crate) fn begin_unsubscribe(&self, fd: Fd) {
        if let Some(row) = self.find(fd) {
            row.unsubscribes_underway.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Notes that the request was carried out, or could not be sent.
    pub(crate) fn end_unsubscribe(&self, fd: Fd) {
        if let Some(row) = self.find(fd) {
            let less = |count: u64| count.checked_sub(1);
            let _ = row.unsubscribes_underway.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        }
    }

    /// Records how many topics a connection of this process currently has.
    pub(crate) fn count_topics(&self, row: usize, topics: usize) {
        self.row(row).topics.store(topics as u64, Ordering::Relaxed);
    }

    /// Records how long the last ping of a connection of this process and its pong took.
    pub(crate) fn note_latency(&self, row: usize, latency: Duration) {
        self.row(row).latency.store(latency_to_bits(Some(latency)), Ordering::Relaxed);
    }

    /// Information about `fd`; `None` unless it is open.
    pub fn info(&self, fd: Fd) -> Option<Info> {
        let row = self.find(fd)?;
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let info = Info {
            fd,
            client: from_bits([get(&row.address[0]), get(&row.address[1])], get(&row.port)),
            path: path_from_bits(std::array::from_fn(|word| get(&row.path[word]))),
            topics: get(&row.topics),
            opened_at: get(&row.opened_at),
            last_received_at: get(&row.last_received_at),
            latency: latency_from_bits(get(&row.latency)),
            messages_in: get(&row.messages_in),
            messages_out: get(&row.messages_out),
            bytes_in: get(&row.bytes_in),
            bytes_out: get(&row.bytes_out),
            queued_bytes: get(&row.queued_bytes),
        };
        fence(Ordering::Acquire);
        (row.id.load(Ordering::Relaxed) == fd).then_some(info)
    }

    /// Reserves room for `length` bytes on their way to an outbox of at most `limit` bytes. An empty outbox takes any
    /// message.
    pub(crate) fn reserve(&self, fd: Fd, length: usize, limit: usize) -> Reservation {
        let Some(row) = self.find(fd) else {
            return Reservation::NotOpen;
        };
        let (length, limit) = (length as u64, limit as u64);
        let queued = row.queued_bytes.load(Ordering::Relaxed);
        if queued > 0 && queued + length > limit {
            return Reservation::OutboxFull;
        }
        let before = row.underway_bytes.fetch_add(length, Ordering::Relaxed);
        if queued + before > 0 && queued + before + length > limit {
            self.arrived(fd, length as usize);
            return Reservation::TooMuchUnderway;
        }
        Reservation::Kept
    }

    /// Whether the outbox, together with what is on its way there, has room for `length` more bytes without becoming
    /// nearly full. At most half of it may be in use, unless it is empty: that takes any message.
    pub(crate) fn room(&self, fd: Fd, length: usize, limit: usize) -> Room {
        let Some(row) = self.find(fd) else { return Room::NotOpen };
        let (length, limit) = (length as u64, limit as u64);
        let used = row.queued_bytes.load(Ordering::Relaxed) + row.underway_bytes.load(Ordering::Relaxed);
        // The owner also counts headers of frames, and memory for each chunk.
        let has_room = used == 0 || (used <= limit / 2 && used + length <= limit - limit / 8);
        if has_room { Room::Enough } else { Room::TooLittle }
    }

    /// Reserves that room, if there is enough.
    pub(crate) fn reserve_calmly(&self, fd: Fd, length: usize, limit: usize) -> Room {
        match self.room(fd, length, limit) {
            // Another process may have been faster.
            Room::Enough => self.reserve(fd, length, limit - limit / 8).into(),
            other => other,
        }
    }

    /// Notes that `length` bytes are no longer under way.
    pub(crate) fn arrived(&self, fd: Fd, length: usize) {
        if let Some(row) = self.find(fd) {
            let less = |bytes: u64| Some(bytes.saturating_sub(length as u64));
            let _ = row.underway_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Forgets what other processes have sent to the connection in a row, as it may never arrive.
    pub(crate) fn forget_underway(&self, row: usize) {
        let row = self.row(row);
        row.underway_bytes.store(0, Ordering::Relaxed);
        row.unsubscribes_underway.store(0, Ordering::Relaxed);
    }

    fn ids(&self) -> impl Iterator<Item = Fd> {
        let ids = self.touched_rows().map(|index| self.row(index).id.load(Ordering::Acquire));
        ids.filter(|id| *id != 0 && id & TAKEN == 0)
    }

    /// The ids of all open WebSockets.
    pub fn open_ids(&self) -> Vec<Fd> {
        self.ids().filter(|id| self.exists(*id)).collect()
    }

    /// The counts of a slot, including the traffic of its open connections. Counts that only grow never appear to
    /// shrink.
    pub(crate) fn counts_of(&self, slot: u8) -> Counts {
        let process = self.slot(slot);
        let mut counts = process.totals.counts(self.ids().filter(|id| Self::slot_of(*id) == slot).filter_map(|id| {
            let row = self.row(self.index(id));
            let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
            let traffic =
                [&row.messages_in, &row.messages_out, &row.bytes_in, &row.bytes_out, &row.queued_bytes].map(get);
            fence(Ordering::Acquire);
            (row.id.load(Ordering::Relaxed) == id).then_some(traffic)
        }));
        counts[QUEUED_BYTES] += process.closing_bytes.load(Ordering::Relaxed);
        counts[OUTLIVING] = process.outliving.load(Ordering::Relaxed);
        counts[COMMANDS_DROPPED] += process.commands_dropped.load(Ordering::Relaxed);
        // The traffic of a connection that ends in the meantime may be found in neither place, but never in both.
        for (told, count) in process.told.iter().zip(&mut counts[TRAFFIC]) {
            *count = told.fetch_max(*count, Ordering::Relaxed).max(*count);
        }
        counts
    }

    /// The slots whose counts are not part of the past: those of living processes, and those not yet cleared.
    pub(crate) fn counting(&self) -> impl Iterator<Item = u8> {
        (0..SLOTS as u8).filter(|slot| self.slot(*slot).started_at.load(Ordering::Relaxed) != 0)
    }
}
