//! What processes do with the table: take rows, fill them, look connections up, and clear what a dead process leaves.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::registry::counts::{COMMANDS_DROPPED, Counts, OUTLIVING, QUEUED_BYTES, TRAFFIC, ended};
use crate::registry::fd::{COUNTER, COUNTER_BITS, Fd, SLOTS, TAKEN, TOPIC_BITS, unix_now};
use crate::registry::info::{Info, from_bits, to_bits};
use crate::registry::memory::{Registry, Row};
use crate::registry::stuck::StuckCell;

/// Whether there was room for a message on its way to a connection's outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reservation {
    /// There was, and it is kept.
    Kept,
    /// The outbox is full.
    OutboxFull,
    /// Too much is under way to it already.
    TooMuchUnderway,
    /// There is no such open connection.
    NotOpen,
}

impl Registry {
    /// The row that `fd` has or would have. Each process begins in another place, so that they are seldom in each
    /// other's way.
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

    /// A process begins in a slot that is clear.
    pub(crate) fn revive(&self, slot: u8, worker_id: u8) {
        self.slot(slot).worker_id.store(worker_id.into(), Ordering::Relaxed);
        self.slot(slot).started_at.store(unix_now(), Ordering::Relaxed);
        self.header().living[usize::from(slot) / 64].fetch_or(1 << (slot % 64), Ordering::AcqRel);
    }

    /// The slot's process is gone, or as good as: from here on its connections do not exist for anyone.
    pub(crate) fn bury(&self, slot: u8) {
        self.header().living[usize::from(slot) / 64].fetch_and(!(1 << (slot % 64)), Ordering::AcqRel);
    }

    /// Clears what a process has left that is gone for certain, and keeps its counts. The ids that its successor gives
    /// out are others.
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

    /// Whether so much waits for the slot's process that more is dropped.
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

    /// The worker whose connection `fd` is, or was until just now.
    pub fn worker_of(&self, fd: Fd) -> u8 {
        self.slot(Self::slot_of(fd)).worker_id.load(Ordering::Relaxed) as u8
    }

    // ---- topics -----------------------------------------------------------------------------------------------------

    /// Notes whether the slot's process has subscribers for topics of this bit. Others see it before anything that
    /// the process sends after it.
    pub(crate) fn set_interest(&self, slot: u8, bit: usize, interested: bool) {
        let (word, mask) = (self.topic_word(slot, bit), 1 << (bit % 64));
        if interested {
            word.fetch_or(mask, Ordering::SeqCst);
        } else {
            word.fetch_and(!mask, Ordering::SeqCst);
        }
    }

    /// Whether the slot's process may have subscribers for topics of this bit, or will have once it has carried out
    /// what it was asked for.
    pub(crate) fn has_interest(&self, slot: u8, bit: usize) -> bool {
        let row = self.slot(slot);
        // In this order: who has carried out a subscription has set the bit before.
        let is_settled = row.subscribes_done.load(Ordering::SeqCst) == row.subscribes_passed.load(Ordering::SeqCst);
        !is_settled || self.topic_word(slot, bit).load(Ordering::SeqCst) >> (bit % 64) & 1 == 1
    }

    // ---- rows -------------------------------------------------------------------------------------------------------

    /// Keeps room among `max_connections` for one more. It may be that of two who ask for the last place neither gets
    /// it; but never do both.
    pub(crate) fn take_place(&self, slot: u8, max_connections: usize) -> bool {
        let own = &self.slot(slot).totals.connections;
        own.fetch_add(1, Ordering::SeqCst);
        let has_place = self.connections() <= max_connections as u64;
        if !has_place {
            self.give_place_back(slot);
        }
        has_place
    }

    /// A connection is open no more.
    pub(crate) fn give_place_back(&self, slot: u8) {
        self.slot(slot).totals.connections.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many WebSockets are open, in all processes.
    pub fn connections(&self) -> u64 {
        self.living().map(|slot| self.slot(slot).totals.connections.load(Ordering::SeqCst)).sum()
    }

    /// Fills the row of a new connection, which [`super::Ids::next`] has taken; from here on others see it.
    pub(crate) fn claim(&self, fd: Fd, client: SocketAddr, now: u64) {
        let row = self.row(self.index(fd));
        // Whoever sees any of what follows sees that the row is taken too.
        fence(Ordering::Release);
        let bits = to_bits(client.ip());
        row.address[0].store((bits >> 64) as u64, Ordering::Relaxed);
        row.address[1].store(bits as u64, Ordering::Relaxed);
        row.port.store(u64::from(client.port()), Ordering::Relaxed);
        row.opened_at.store(now, Ordering::Relaxed);
        row.last_received_at.store(now, Ordering::Relaxed);
        for cell in [
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

    /// Frees the row: from here on the connection does not exist for others. True: another process wants to be told.
    pub(crate) fn release(&self, fd: Fd) -> bool {
        let row = self.row(self.index(fd));
        row.id.store(0, Ordering::SeqCst);
        row.watched.load(Ordering::SeqCst) == fd
    }

    /// Has the process of a connection tell when it frees the row: for the hub only, which is the one to be told. False:
    /// the connection is not open. Beside it, a connection whose row this was and that has been watched: its process may
    /// not have seen that any more, but it is not open.
    pub(crate) fn watch(&self, fd: Fd) -> (bool, Option<Fd>) {
        let Some(row) = self.find(fd) else { return (false, None) };
        let before = row.watched.swap(fd, Ordering::SeqCst);
        // Either the process sees the mark after it has freed the row, or this sees that the row is free.
        let is_open = row.id.load(Ordering::SeqCst) == fd;
        (is_open, (before != 0 && before != fd).then_some(before))
    }

    /// The row of `fd`, if it is there. What is read from it is only true if `id` is still the same afterwards.
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

    /// Whether the open WebSocket `fd` may have room for another topic among `max_topics`; its own process knows.
    pub(crate) fn may_have_room_for_topic(&self, fd: Fd, max_topics: usize) -> Option<bool> {
        let row = self.find(fd)?;
        // In this order: a subscription is ended before it is no longer under way.
        let is_underway = row.unsubscribes_underway.load(Ordering::Acquire) > 0;
        let has_room = is_underway || row.topics.load(Ordering::Acquire) < max_topics as u64;
        self.exists(fd).then_some(has_room)
    }

    /// Somebody asks another thread or process to end a subscription.
    pub(crate) fn begin_unsubscribe(&self, fd: Fd) {
        if let Some(row) = self.find(fd) {
            row.unsubscribes_underway.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// It has been ended, or could not be asked for.
    pub(crate) fn end_unsubscribe(&self, fd: Fd) {
        if let Some(row) = self.find(fd) {
            let less = |count: u64| count.checked_sub(1);
            let _ = row.unsubscribes_underway.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        }
    }

    /// Notes how many topics a connection of this process has now.
    pub(crate) fn count_topics(&self, row: usize, topics: usize) {
        self.row(row).topics.store(topics as u64, Ordering::Relaxed);
    }

    /// What is known of `fd`; `None` unless it is open.
    pub fn info(&self, fd: Fd) -> Option<Info> {
        let row = self.find(fd)?;
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let info = Info {
            fd,
            client: from_bits([get(&row.address[0]), get(&row.address[1])], get(&row.port)),
            opened_at: get(&row.opened_at),
            last_received_at: get(&row.last_received_at),
            messages_in: get(&row.messages_in),
            messages_out: get(&row.messages_out),
            bytes_in: get(&row.bytes_in),
            bytes_out: get(&row.bytes_out),
            queued_bytes: get(&row.queued_bytes),
        };
        fence(Ordering::Acquire);
        (row.id.load(Ordering::Relaxed) == fd).then_some(info)
    }

    /// Keeps room for `length` bytes on their way to an outbox of at most `limit` bytes. An empty one takes any
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

    /// So many bytes are under way no more.
    pub(crate) fn arrived(&self, fd: Fd, length: usize) {
        if let Some(row) = self.find(fd) {
            let less = |bytes: u64| Some(bytes.saturating_sub(length as u64));
            let _ = row.underway_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// What others have sent on its way to the connection of a row may never arrive.
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

    /// What a slot has counted, its open connections' traffic included. What only grows is never less than it was.
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
        // The traffic of a connection that ends meanwhile may be found in neither place, but never in both.
        for (told, count) in process.told.iter().zip(&mut counts[TRAFFIC]) {
            *count = told.fetch_max(*count, Ordering::Relaxed).max(*count);
        }
        counts
    }

    /// The slots whose counts are not among those of the past: of living processes, and of those not yet cleared.
    pub(crate) fn counting(&self) -> impl Iterator<Item = u8> {
        (0..SLOTS as u8).filter(|slot| self.slot(*slot).started_at.load(Ordering::Relaxed) != 0)
    }
}
