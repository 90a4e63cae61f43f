//! The table of all connections of the server: what `exists`, `info`, `connections`, `stats` and other processes read.
//!
//! It lies in memory that the processes of a server share, and has no locks. Every field is an atomic that one process
//! writes; a process that dies in the middle of anything leaves nothing locked.
//!
//! - A *slot* belongs to one worker process: its counts, and which topics it has subscribers for.
//! - A *row* is one connection. An id tells its row, so looking one up never searches; ids whose row is taken are skipped
//!   when a new one is given out. Who takes a row stores a mark in `id`, fills the row, and stores the id; a reader reads
//!   `id`, the row, and `id` again.
//! - What a dead process leaves is cleared by the hub, once the process is gone for certain.

use std::hash::BuildHasher;
use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memmap2::{MmapOptions, MmapRaw};
use rustc_hash::FxBuildHasher;

use crate::codec::{Malformed, Reader, put_u64};
use crate::metrics::Measured;
use crate::stats::{COMMANDS_DROPPED, Counts, TRAFFIC, Totals, ended};

/// A connection's id: host 8 bits, slot 7 bits, counter 38 bits; so JavaScript's numbers hold it. Never 0, never reused.
pub type Fd = u64;

/// Processes that may be there at a time: the workers, and their successors while they are being replaced.
pub const SLOTS: usize = 128;
/// Ids of workers.
pub const WORKERS: usize = 64;

const COUNTER_BITS: u32 = 38;
const COUNTER: u64 = (1 << COUNTER_BITS) - 1;
/// How far counters can be ahead of their clock: the 500 connections a second that it allows for, ten times over for a year.
const MOST_AHEAD: u64 = 1 << 37;
/// Unix time at which the counter's clock begins: 2026-01-01.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// In a row's `id`: the row is being written by the process of the slot in the lowest bits.
const TAKEN: u64 = 1 << 63;

/// Rows that are looked through, or not, together.
const ROWS_PER_CHUNK: usize = 64;
/// Bits of a slot's topics: a topic is one of them.
pub(crate) const TOPIC_BITS: usize = 65_536;

/// Tells a mapping of this layout, by the version of the package.
fn magic() -> u64 {
    FxBuildHasher.hash_one((env!("CARGO_PKG_VERSION"), size_of::<Slot>(), size_of::<Row>()))
}

/// What there is once; written by the hub, or by the one process that there is.
#[repr(C)]
pub(crate) struct Header {
    magic: AtomicU64,
    rows: AtomicU64,
    /// The slots that have a living process: a bit each.
    living: [AtomicU64; SLOTS / 64],
    /// Odd while the counts of a slot that is gone are moved to `past`.
    pub(crate) generation: AtomicU64,
    /// Counters of ids begin above this.
    first: AtomicU64,
    /// Counters of ids up to this one may be given out.
    leased: AtomicU64,
    pub(crate) started_at: AtomicU64,
    /// How often the worker of an id was replaced after it had died.
    pub(crate) restarts: [AtomicU64; WORKERS],
    /// What processes that are gone have counted and measured.
    pub(crate) past: Totals,
    pub(crate) past_measured: Measured,
}

/// One worker process.
#[repr(C, align(128))]
pub(crate) struct Slot {
    // Written by the process itself.
    /// The last counter that it has given out; the next process of this slot goes on from there.
    last: AtomicU64,
    pub(crate) started_at: AtomicU64,
    /// Sockets that were passed to it and taken: by it, or back by the hub, which took too long to be taken. Each of the two
    /// takes the next one by counting on from the last.
    pub(crate) sockets_taken: AtomicU64,
    /// Those that it has taken and that are gone.
    pub(crate) sockets_done: AtomicU64,
    /// How many sockets it can hold.
    pub(crate) capacity: AtomicU64,
    /// Subscriptions for which others asked, carried out.
    pub(crate) subscribes_done: AtomicU64,
    pub(crate) totals: Totals,
    pub(crate) measured: Measured,
    // Written by the hub.
    pub(crate) worker_id: AtomicU64,
    /// Subscriptions asked for by this process that the hub has passed on.
    pub(crate) subscribes_routed: AtomicU64,
    /// Subscriptions passed to it.
    pub(crate) subscribes_passed: AtomicU64,
    /// Commands for it that were dropped because too many waited.
    pub(crate) commands_dropped: AtomicU64,
    /// 1 while that is so.
    pub(crate) is_behind: AtomicU64,
    // Written by whoever looks.
    /// The highest counts of traffic that anyone was told; see [`Registry::counts_of`].
    told: [AtomicU64; TRAFFIC.end - TRAFFIC.start],
}

/// One connection; all times in milliseconds of Unix time. What a message touches lies in one cache line, the first.
#[derive(Default)]
#[repr(C, align(64))]
pub struct Row {
    /// 0 while the row is free, [`TAKEN`] while it is being written.
    id: AtomicU64,
    /// 1 from acceptance until either side has said that it closes.
    open: AtomicU64,
    pub(crate) last_received_at: AtomicU64,
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Unsent bytes in the outbox.
    pub(crate) queued_bytes: AtomicU64,
    /// Bytes that others (threads, processes) have sent on their way to the outbox.
    pub(crate) underway_bytes: AtomicU64,
    opened_at: AtomicU64,
    address: [AtomicU64; 2],
    port: AtomicU64,
}

/// Adds to a cell that only the calling thread writes: no locked instruction is needed.
#[inline]
pub(crate) fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// What is known of one connection. Times in milliseconds of Unix time, payload bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The connection's id.
    pub fd: Fd,
    /// The peer's address (as a trusted proxy gave it, where there is one).
    pub client: SocketAddr,
    /// When the handshake was accepted.
    pub opened_at: u64,
    /// When bytes last came.
    pub last_received_at: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages queued.
    pub messages_out: u64,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes queued.
    pub bytes_out: u64,
    /// Unsent bytes, frame headers included.
    pub queued_bytes: u64,
}

impl Info {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (ip, port) = (to_bits(self.client.ip()), u64::from(self.client.port()));
        for value in [
            self.fd,
            (ip >> 64) as u64,
            ip as u64,
            port,
            self.opened_at,
            self.last_received_at,
            self.messages_in,
            self.messages_out,
            self.bytes_in,
            self.bytes_out,
            self.queued_bytes,
        ] {
            put_u64(out, value);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            fd: reader.u64()?,
            client: from_bits([reader.u64()?, reader.u64()?], reader.u64()?),
            opened_at: reader.u64()?,
            last_received_at: reader.u64()?,
            messages_in: reader.u64()?,
            messages_out: reader.u64()?,
            bytes_in: reader.u64()?,
            bytes_out: reader.u64()?,
            queued_bytes: reader.u64()?,
        })
    }
}

fn to_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
    .to_bits()
}

fn from_bits(ip: [u64; 2], port: u64) -> SocketAddr {
    let bits = u128::from(ip[0]) << 64 | u128::from(ip[1]);
    SocketAddr::new(Ipv6Addr::from_bits(bits).to_canonical(), port as u16)
}

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

/// Where the parts of the mapping begin.
#[derive(Clone, Copy)]
struct Layout {
    slots: usize,
    topics: usize,
    chunks: usize,
    rows: usize,
    end: usize,
}

impl Layout {
    fn of(rows: usize) -> Self {
        let slots = size_of::<Header>().next_multiple_of(4096);
        let topics = (slots + SLOTS * size_of::<Slot>()).next_multiple_of(4096);
        let chunks = topics + SLOTS * TOPIC_BITS / 8;
        let chunk_words = rows.div_ceil(ROWS_PER_CHUNK).div_ceil(64);
        let rows_begin = (chunks + chunk_words * 8).next_multiple_of(4096);
        Self { slots, topics, chunks, rows: rows_begin, end: rows_begin + rows * size_of::<Row>() }
    }
}

/// The table.
pub struct Registry {
    map: MmapRaw,
    memory: Option<OwnedFd>,
    rows: usize,
    layout: Layout,
}

impl Registry {
    /// A table of one process, with room for `connections` at a time.
    ///
    /// # Errors
    /// The memory cannot be had.
    pub fn private(connections: usize) -> io::Result<Self> {
        let rows = rows_for(connections);
        let layout = Layout::of(rows);
        let map = MmapOptions::new().len(layout.end).map_anon()?;
        let registry = Self { map: map.into(), memory: None, rows, layout };
        registry.prepare();
        registry.header().leased.store(COUNTER, Ordering::Relaxed);
        registry.revive(0, 0);
        Ok(registry)
    }

    /// A table that other processes can open, by a descriptor that they inherit. No id may be given out before
    /// [`Registry::lease`].
    ///
    /// # Errors
    /// The memory cannot be had.
    pub fn shared(connections: usize) -> io::Result<Self> {
        let rows = rows_for(connections);
        let layout = Layout::of(rows);
        let memory = anonymous_file()?;
        rustix::fs::ftruncate(&memory, layout.end as u64)?;
        let map = MmapOptions::new().len(layout.end).map_raw(&memory)?;
        let registry = Self { map, memory: Some(memory), rows, layout };
        registry.prepare();
        Ok(registry)
    }

    /// The table behind a descriptor that was inherited.
    ///
    /// # Errors
    /// It is none, or one of another version of this library.
    pub fn open(memory: OwnedFd) -> io::Result<Self> {
        let other = || io::Error::other("the server runs another version of hubbub: start it anew");
        let length = rustix::fs::fstat(&memory)?.st_size as usize;
        if length < size_of::<Header>() {
            return Err(other());
        }
        let map = MmapOptions::new().len(length).map_raw(&memory)?;
        let mut registry = Self { map, memory: Some(memory), rows: 0, layout: Layout::of(0) };
        let header = registry.header();
        let (found, rows) = (header.magic.load(Ordering::Acquire), header.rows.load(Ordering::Relaxed) as usize);
        if found != magic() || Layout::of(rows).end != length {
            return Err(other());
        }
        (registry.rows, registry.layout) = (rows, Layout::of(rows));
        Ok(registry)
    }

    fn prepare(&self) {
        let header = self.header();
        header.rows.store(self.rows as u64, Ordering::Relaxed);
        header.first.store(ticks(SystemTime::now()), Ordering::Relaxed);
        header.started_at.store(unix_now(), Ordering::Relaxed);
        header.magic.store(magic(), Ordering::Release);
    }

    /// The descriptor by which others can open it.
    pub fn memory(&self) -> Option<BorrowedFd<'_>> {
        self.memory.as_ref().map(OwnedFd::as_fd)
    }

    // ---- the parts of the mapping ------------------------------------------------------------------------------------------

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the mapping is page-aligned, zeroed at first, never unmapped before `self` is dropped, and at least this
        // long; a header is all atomics, for which every bit pattern is valid. The file behind it is never shortened.
        unsafe { &*self.map.as_ptr().cast::<Header>() }
    }

    pub(crate) fn slot(&self, slot: u8) -> &Slot {
        assert!(usize::from(slot) < SLOTS);
        // SAFETY: as for `header`; `Layout` keeps room for `SLOTS` of them from this page boundary on.
        unsafe { &*self.map.as_ptr().add(self.layout.slots).cast::<Slot>().add(slot.into()) }
    }

    fn topic_word(&self, slot: u8, bit: usize) -> &AtomicU64 {
        assert!(usize::from(slot) < SLOTS && bit < TOPIC_BITS);
        let word = (usize::from(slot) * TOPIC_BITS + bit) / 64;
        // SAFETY: as for `header`; `Layout` keeps room for `SLOTS * TOPIC_BITS` bits from this page boundary on.
        unsafe { &*self.map.as_ptr().add(self.layout.topics).cast::<AtomicU64>().add(word) }
    }

    fn chunk_word(&self, chunk: usize) -> &AtomicU64 {
        assert!(chunk < self.rows.div_ceil(ROWS_PER_CHUNK));
        // SAFETY: as for `header`; `Layout` keeps a bit for each chunk from this place on, which is a multiple of 8.
        unsafe { &*self.map.as_ptr().add(self.layout.chunks).cast::<AtomicU64>().add(chunk / 64) }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The row that `fd` has or would have. Each process begins in another place, so that they are seldom in each other's
    /// way.
    #[inline]
    pub(crate) fn index(&self, fd: Fd) -> usize {
        let offset = (fd >> COUNTER_BITS) as usize & (SLOTS - 1);
        ((fd & COUNTER) as usize + offset * (self.rows / SLOTS)) & (self.rows - 1)
    }

    #[inline]
    pub(crate) fn row(&self, index: usize) -> &Row {
        assert!(index < self.rows);
        // SAFETY: as for `header`; `Layout` keeps room for `rows` of them from this page boundary on.
        unsafe { &*self.map.as_ptr().add(self.layout.rows).cast::<Row>().add(index) }
    }

    // ---- processes ---------------------------------------------------------------------------------------------------------

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

    /// Clears what a process has left that is gone for certain, and keeps its counts. The ids that its successor gives out
    /// are others.
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
            &gone.capacity,
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
        header.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether so much waits for the slot's process that more is dropped.
    pub(crate) fn is_behind(&self, slot: u8) -> bool {
        self.slot(slot).is_behind.load(Ordering::Acquire) == 1
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

    // ---- topics ------------------------------------------------------------------------------------------------------------

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

    /// Whether the slot's process may have subscribers for topics of this bit, or will have once it has carried out what it
    /// was asked for.
    pub(crate) fn has_interest(&self, slot: u8, bit: usize) -> bool {
        let row = self.slot(slot);
        // In this order: who has carried out a subscription has set the bit before.
        let is_settled = row.subscribes_done.load(Ordering::SeqCst) == row.subscribes_passed.load(Ordering::SeqCst);
        !is_settled || self.topic_word(slot, bit).load(Ordering::SeqCst) >> (bit % 64) & 1 == 1
    }

    // ---- rows --------------------------------------------------------------------------------------------------------------

    /// Keeps room among `max_connections` for one more. It may be that of two who ask for the last place neither gets it;
    /// but never do both.
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

    /// Fills the row of a new connection, which [`Ids::next`] has taken; from here on others see it.
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
        for cell in
            [&row.messages_in, &row.messages_out, &row.bytes_in, &row.bytes_out, &row.queued_bytes, &row.underway_bytes]
        {
            cell.store(0, Ordering::Relaxed);
        }
        row.open.store(1, Ordering::Relaxed);
        row.id.store(fd, Ordering::Release);
    }

    /// From here on the connection does not exist for others, though `info` still answers.
    pub(crate) fn close(&self, fd: Fd) {
        self.row(self.index(fd)).open.store(0, Ordering::Release);
    }

    /// Frees the row.
    pub(crate) fn release(&self, fd: Fd) {
        self.row(self.index(fd)).id.store(0, Ordering::Release);
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
        self.find(fd).is_some_and(|row| row.open.load(Ordering::Acquire) == 1 && row.id.load(Ordering::Acquire) == fd)
    }

    /// What is known of `fd`; `None` once it is gone.
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

    /// Keeps room for `length` bytes on their way to an outbox of at most `limit` bytes. An empty one takes any message.
    pub(crate) fn reserve(&self, fd: Fd, length: usize, limit: usize) -> Reservation {
        let Some(row) = self.find(fd).filter(|_| self.exists(fd)) else {
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

    /// The rows that have ever been used. Memory that nobody has touched is none yet, and looking at it would make it some.
    fn touched_rows(&self) -> impl Iterator<Item = usize> {
        let chunks = self.rows.div_ceil(ROWS_PER_CHUNK);
        (0..chunks)
            .filter(|chunk| self.chunk_word(*chunk).load(Ordering::Relaxed) >> (chunk % 64) & 1 == 1)
            .flat_map(|chunk| chunk * ROWS_PER_CHUNK..((chunk + 1) * ROWS_PER_CHUNK).min(self.rows))
    }

    /// The ids of all connections that are there, open or closing.
    pub(crate) fn ids(&self) -> impl Iterator<Item = Fd> {
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

    // ---- leasing counters --------------------------------------------------------------------------------------------------

    /// Begins to give out counters above `first` if that is later than the clock says; to be called before any are. False: it
    /// is so much later that no server can have come there.
    pub(crate) fn begin_above(&self, first: u64) -> bool {
        let is_plausible = first < ticks(SystemTime::now()) + MOST_AHEAD;
        if is_plausible {
            self.header().first.fetch_max(first, Ordering::Relaxed);
        }
        is_plausible
    }

    /// The highest counter that has been given out.
    pub(crate) fn last(&self) -> u64 {
        self.last_of(0..SLOTS as u8)
    }

    /// The highest counter of those processes that may give out more.
    pub(crate) fn last_of_living(&self) -> u64 {
        self.last_of(self.living())
    }

    fn last_of(&self, slots: impl Iterator<Item = u8>) -> u64 {
        let first = self.header().first.load(Ordering::Relaxed);
        slots.map(|slot| self.slot(slot).last.load(Ordering::Acquire)).fold(first, u64::max)
    }

    /// Counters up to this one may be given out.
    pub(crate) fn lease(&self, up_to: u64) {
        self.header().leased.store(up_to.min(COUNTER), Ordering::Release);
    }

    pub(crate) fn leased(&self) -> u64 {
        self.header().leased.load(Ordering::Acquire)
    }
}

/// A quarter more than can be taken, so that a free row is found after a few steps.
fn rows_for(connections: usize) -> usize {
    (connections + connections / 4 + 1).next_power_of_two()
}

/// A file in memory, without a name.
#[cfg(target_os = "linux")]
fn anonymous_file() -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create("hubbub", rustix::fs::MemfdFlags::CLOEXEC)?)
}

#[cfg(not(target_os = "linux"))]
fn anonymous_file() -> io::Result<OwnedFd> {
    use rustix::fs::Mode;
    use rustix::shm::{self, OFlags};
    let name = format!("/hubbub-{}", std::process::id());
    let memory = shm::open(&name, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR, Mode::RUSR | Mode::WUSR)?;
    shm::unlink(&name)?;
    Ok(memory)
}

/// Milliseconds of Unix time.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// 2-ms ticks since 2026: where counters begin, so that a server started later gives out higher ones.
pub(crate) fn ticks(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH + EPOCH).unwrap_or_default().as_millis() as u64 / 2
}

/// The bit of a topic; the same in every process.
pub(crate) fn topic_bit(name: &str) -> usize {
    FxBuildHasher.hash_one(name) as usize % TOPIC_BITS
}

/// The last counter given out by this process, which may make one reactor after the other.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Gives out ids, each once.
pub(crate) struct Ids {
    slot: u8,
}

impl Ids {
    /// Goes on where this process, or the slot's last one, has ended.
    pub(crate) fn new(slot: u8, registry: &Registry) -> Self {
        let (first, last) = (&registry.header().first, &registry.slot(slot).last);
        let begin = first.load(Ordering::Relaxed).max(last.load(Ordering::Acquire));
        let before = LAST.fetch_max(begin, Ordering::Relaxed);
        last.store(before.max(begin), Ordering::Release);
        Self { slot }
    }

    /// The next id with a free row, which is taken; `None` when there is none, or no counter is leased.
    pub(crate) fn next(&self, registry: &Registry) -> Option<Fd> {
        let leased = registry.leased();
        for _ in 0..registry.rows {
            let counter =
                if LAST.load(Ordering::Relaxed) < leased { LAST.fetch_add(1, Ordering::Relaxed) + 1 } else { leased };
            if counter >= leased {
                return None;
            }
            registry.slot(self.slot).last.store(counter, Ordering::Release);
            let fd = u64::from(self.slot) << COUNTER_BITS | counter;
            let index = registry.index(fd);
            // First the chunk: a row that is taken there is found, if this process dies now.
            let (chunk, bit) = (index / ROWS_PER_CHUNK, index / ROWS_PER_CHUNK % 64);
            let word = registry.chunk_word(chunk);
            if word.load(Ordering::Relaxed) >> bit & 1 == 0 {
                word.fetch_or(1 << bit, Ordering::AcqRel);
            }
            let mark = TAKEN | u64::from(self.slot);
            if registry.row(index).id.compare_exchange(0, mark, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(fd);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> SocketAddr {
        "192.0.2.7:443".parse().expect("an address")
    }

    #[test]
    fn a_row_is_seen_from_claim_to_release() {
        let registry = Registry::private(10).expect("memory");
        let fd = Ids::new(0, &registry).next(&registry).expect("an id");
        assert!(!registry.exists(fd));
        assert_eq!(registry.open_ids(), []);
        registry.claim(fd, client(), 5);
        assert!(registry.exists(fd));
        assert_eq!(registry.open_ids(), [fd]);
        assert_eq!(registry.info(fd).expect("info").client, client());
        registry.close(fd);
        assert!(!registry.exists(fd));
        assert_eq!(registry.info(fd).expect("info").opened_at, 5);
        registry.release(fd);
        assert_eq!(registry.info(fd), None);
    }

    #[test]
    fn ids_skip_taken_rows_and_never_come_again() {
        let registry = Registry::private(4).expect("memory");
        let ids = Ids::new(0, &registry);
        let held = ids.next(&registry).expect("an id");
        registry.claim(held, client(), 0);
        let mut last = held;
        for _ in 0..100 {
            let fd = ids.next(&registry).expect("an id");
            assert!(fd > last && fd < 1 << 53);
            assert_ne!(registry.index(fd), registry.index(held));
            registry.release(fd);
            last = fd;
        }
    }

    #[test]
    fn a_full_table_gives_no_id() {
        let registry = Registry::private(2).expect("memory");
        let ids = Ids::new(0, &registry);
        for _ in 0..registry.rows() {
            registry.claim(ids.next(&registry).expect("an id"), client(), 0);
        }
        assert_eq!(ids.next(&registry), None);
    }

    #[test]
    fn without_a_lease_there_is_no_id() {
        let registry = Registry::shared(10).expect("memory");
        registry.revive(1, 0);
        let ids = Ids::new(1, &registry);
        assert_eq!(ids.next(&registry), None);
        registry.lease(registry.last() + 3);
        assert!(ids.next(&registry).is_some());
    }

    #[test]
    fn two_openings_of_the_same_memory_see_the_same() {
        let registry = Registry::shared(10).expect("memory");
        registry.lease(COUNTER);
        registry.revive(5, 2);
        let memory = registry.memory().expect("it is shared").try_clone_to_owned().expect("a descriptor");
        let other = Registry::open(memory).expect("the same version");
        let fd = Ids::new(5, &other).next(&other).expect("an id");
        other.claim(fd, client(), 7);
        assert!(registry.exists(fd));
        assert_eq!(registry.worker_of(fd), 2);
        assert!(Registry::open(anonymous_file().expect("a file")).is_err());
    }

    #[test]
    fn what_a_dead_process_leaves_is_cleared_and_its_counts_are_kept() {
        let registry = Registry::shared(10).expect("memory");
        registry.lease(COUNTER);
        registry.revive(5, 2);
        let ids = Ids::new(5, &registry);
        assert!(registry.take_place(5, 10));
        let fd = ids.next(&registry).expect("an id");
        registry.claim(fd, client(), 7);
        registry.row(registry.index(fd)).messages_in.store(3, Ordering::Relaxed);
        add(&registry.slot(5).totals.accepted, 1);
        let half_written = ids.next(&registry).expect("an id");
        registry.set_interest(5, 77, true);
        registry.bury(5);
        assert!(!registry.exists(fd));
        registry.clear(5);
        assert_eq!(registry.row(registry.index(half_written)).id.load(Ordering::Relaxed), 0);
        assert!(!registry.has_interest(5, 77));
        let [connections, accepted, _, closed, messages_in, ..] = registry.stats().totals;
        assert_eq!([connections, accepted, closed, messages_in], [0, 1, 1, 3]);
        registry.revive(5, 2);
        assert!(!registry.exists(fd));
        assert!(Ids::new(5, &registry).next(&registry).expect("an id") > half_written);
    }

    #[test]
    fn what_a_process_has_counted_is_told_all_along_from_its_death_to_its_clearing() {
        let registry = Registry::shared(10).expect("memory");
        registry.revive(5, 2);
        assert!(registry.take_place(5, 10));
        add(&registry.slot(5).totals.accepted, 1);
        add(&registry.slot(5).commands_dropped, 7);
        registry.bury(5);
        let dead = registry.stats();
        let [connections, accepted, _, closed, ..] = dead.totals;
        assert_eq!([connections, accepted, closed, dead.totals[COMMANDS_DROPPED]], [0, 1, 1, 7]);
        registry.clear(5);
        assert_eq!(registry.stats().totals, dead.totals);
    }

    #[test]
    fn traffic_that_was_told_is_never_told_to_be_less() {
        let registry = Registry::shared(10).expect("memory");
        registry.lease(COUNTER);
        registry.revive(5, 2);
        let fd = Ids::new(5, &registry).next(&registry).expect("an id");
        registry.claim(fd, client(), 7);
        registry.row(registry.index(fd)).bytes_in.store(100, Ordering::Relaxed);
        let before = registry.stats().totals;
        // It has ended, and is not yet counted among those that have.
        registry.release(fd);
        assert_eq!(registry.stats().totals, before);
        add(&registry.slot(5).totals.bytes_in, 100);
        assert_eq!(registry.stats().totals, before);
    }

    #[test]
    fn the_last_place_is_taken_once() {
        let registry = Registry::shared(10).expect("memory");
        registry.revive(1, 0);
        registry.revive(2, 1);
        assert!(registry.take_place(1, 2) && registry.take_place(2, 2));
        assert!(!registry.take_place(1, 2));
        registry.give_place_back(2);
        assert!(registry.take_place(1, 2));
        assert_eq!(registry.connections(), 2);
    }

    #[test]
    fn interest_holds_while_a_subscription_is_on_its_way() {
        let registry = Registry::shared(10).expect("memory");
        registry.revive(1, 0);
        assert!(!registry.has_interest(1, 9));
        add(&registry.slot(1).subscribes_passed, 1);
        assert!(registry.has_interest(1, 9));
        registry.set_interest(1, 10, true);
        add(&registry.slot(1).subscribes_done, 1);
        assert!(!registry.has_interest(1, 9) && registry.has_interest(1, 10));
    }
}
