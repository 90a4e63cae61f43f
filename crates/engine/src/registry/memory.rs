//! The memory of the table: its layout, which process writes what, and how it is mapped.

use std::hash::BuildHasher;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use memmap2::{MmapOptions, MmapRaw};
use rustc_hash::FxBuildHasher;

use crate::registry::counts::{TRAFFIC, Totals};
use crate::registry::fd::{COUNTER, HOSTS, SLOTS, TOPIC_BITS, WORKERS, unix_now};
use crate::registry::info::PATH_BYTES;
use crate::registry::measured::Measured;
use crate::registry::stuck::StuckCell;

/// Bytes of a host's name.
pub(crate) const MAX_HOST_NAME: usize = 64;
/// Rows that are searched, or skipped, together.
const ROWS_PER_CHUNK: usize = 64;

/// Identifies a mapping with this layout, by the version of the package.
fn magic() -> u64 {
    FxBuildHasher.hash_one((env!("CARGO_PKG_VERSION"), size_of::<Header>(), size_of::<Slot>(), size_of::<Row>()))
}

/// Data that exists once; written by the hub, or by the only process.
#[repr(C)]
pub(crate) struct Header {
    magic: AtomicU64,
    rows: AtomicU64,
    /// The slots that have a living process, one bit each.
    pub(super) living: [AtomicU64; SLOTS / 64],
    /// Odd while the counts of a dead process's slot are being moved to `past`.
    pub(crate) generation: AtomicU64,
    /// Counters of ids begin above this.
    pub(super) first: AtomicU64,
    /// Counters of ids up to this one may be given out.
    pub(super) leased: AtomicU64,
    /// The number of this host, or 0.
    pub(super) host: AtomicU64,
    /// Until when ids may be given out in the name of this host, in milliseconds of the boot clock; [`u64::MAX`] without
    /// a broker of several hosts.
    pub(super) ids_until: AtomicU64,
    /// The state of the way to other hosts; see `Way` in `hosts.rs`.
    pub(super) way: AtomicU64,
    pub(super) is_degraded: AtomicU64,
    /// How often the way was lost.
    pub(super) ways_lost: AtomicU64,
    /// The other hosts that are alive, one bit each.
    pub(super) alive: [AtomicU64; HOSTS / 64],
    /// What is known about all hosts, this one included.
    pub(super) hosts: [HostRow; HOSTS],
    pub(crate) started_at: AtomicU64,
    /// Whether no client is let in any more, because the server is drained.
    pub(super) is_draining: AtomicU64,
    /// How often the worker with each id was replaced after it had died.
    pub(crate) restarts: [AtomicU64; WORKERS],
    /// The counts and measurements of processes that are gone.
    pub(crate) past: Totals,
    pub(crate) past_measured: Measured,
}

/// One host; times in milliseconds of Unix time.
#[repr(C)]
pub(crate) struct HostRow {
    /// Odd while it is being written.
    pub(super) version: AtomicU64,
    pub(super) started_at: AtomicU64,
    pub(super) connections: AtomicU64,
    /// When it was last heard from, in milliseconds of the boot clock.
    pub(super) heard_at: AtomicU64,
    /// Filled up with zero bytes.
    pub(super) name: [AtomicU64; MAX_HOST_NAME / 8],
}

/// One worker process.
#[repr(C, align(128))]
pub(crate) struct Slot {
    // Written by the process itself.
    /// The last counter that it has given out; the slot's next process continues from there.
    pub(super) last: AtomicU64,
    pub(crate) started_at: AtomicU64,
    /// Sockets passed to it that have been taken: by the process, or back by the hub after waiting too long. Each of
    /// the two takes the next one by incrementing this counter.
    pub(crate) sockets_taken: AtomicU64,
    /// Sockets that it has taken and that are now closed.
    pub(crate) sockets_done: AtomicU64,
    /// Idle HTTP connections among those that it has.
    pub(crate) sockets_resting: AtomicU64,
    /// The number of sockets it can hold.
    pub(crate) capacity: AtomicU64,
    /// The number of sockets that its limit of open files allows, if that is fewer than it could otherwise have; else
    /// 0.
    pub(crate) descriptors: AtomicU64,
    /// Connections that have ended, or whose clients have left, while their handlers still run.
    pub(crate) outliving: AtomicU64,
    /// 1 while there are so many of these that it refuses new clients.
    pub(crate) is_overrun: AtomicU64,
    /// Unsent bytes of closing connections. Those of open ones are in their rows.
    pub(crate) closing_bytes: AtomicU64,
    /// Subscriptions carried out at the request of other threads or processes.
    pub(crate) subscribes_done: AtomicU64,
    pub(crate) totals: Totals,
    pub(crate) measured: Measured,
    // Written by the hub.
    pub(crate) worker_id: AtomicU64,
    /// Subscriptions requested by this process that the hub has passed on.
    pub(crate) subscribes_routed: AtomicU64,
    /// Subscriptions passed to this process.
    pub(crate) subscribes_passed: AtomicU64,
    /// Commands for it that were dropped because too many were waiting.
    pub(crate) commands_dropped: AtomicU64,
    /// 1 while commands for it are being dropped.
    pub(crate) is_behind: AtomicU64,
    /// Whether its event loop is stuck; the process itself writes this too.
    pub(crate) stuck: StuckCell,
    // Written by any process that reads the counts.
    /// The highest traffic counts reported so far; see [`Registry::counts_of`].
    pub(super) told: [AtomicU64; TRAFFIC.end - TRAFFIC.start],
}

/// One connection; all times in milliseconds of Unix time. The fields used for every message are in the first cache
/// line.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Row {
    /// 0 while the row is free, [`TAKEN`] while it is being written.
    pub(super) id: AtomicU64,
    pub(crate) last_received_at: AtomicU64,
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Unsent bytes in the outbox.
    pub(crate) queued_bytes: AtomicU64,
    /// Bytes on their way to the outbox from other threads and processes.
    pub(crate) underway_bytes: AtomicU64,
    /// Topics that the connection is subscribed to.
    pub(super) topics: AtomicU64,
    /// Requests by other threads and processes to end a subscription that have not been carried out yet.
    pub(super) unsubscribes_underway: AtomicU64,
    pub(super) opened_at: AtomicU64,
    pub(super) address: [AtomicU64; 2],
    pub(super) port: AtomicU64,
    /// Microseconds between the last answered ping and its pong, plus one; 0 if there was none.
    pub(super) latency: AtomicU64,
    // Written by the hub.
    /// The connection whose end the hub wants to know about. If it is one that had the row before, it means nothing.
    pub(super) watched: AtomicU64,
    // Written by the process itself again.
    /// The beginning of the path, filled up with zero bytes.
    pub(super) path: [AtomicU64; PATH_BYTES / 8],
}

/// Where the parts of the mapping begin.
#[derive(Clone, Copy)]
pub(super) struct Layout {
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

/// The table; see the documentation of `registry`.
pub struct Registry {
    map: MmapRaw,
    memory: Option<OwnedFd>,
    pub(super) rows: usize,
    layout: Layout,
}

impl Registry {
    /// A table for one process, with room for this many connections.
    ///
    /// # Errors
    /// If the memory is not available, or the clock is so far ahead that there are no ids.
    pub fn private(connections: usize) -> io::Result<Self> {
        let rows = rows_for(connections);
        let layout = Layout::of(rows);
        let map = MmapOptions::new().len(layout.end).map_anon()?;
        let registry = Self { map: map.into(), memory: None, rows, layout };
        registry.prepare();
        registry.begin_above(None, SystemTime::now()).map_err(io::Error::other)?;
        registry.lease(COUNTER);
        registry.revive(0, 0);
        Ok(registry)
    }

    /// A table that other processes can open through an inherited descriptor. No id may be given out before
    /// [`Registry::begin_above`] and [`Registry::lease`].
    ///
    /// # Errors
    /// If the memory is not available.
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

    /// Opens the table behind an inherited descriptor.
    ///
    /// # Errors
    /// If it is not a table, or was made by another version of this library.
    pub fn open(memory: OwnedFd) -> io::Result<Self> {
        let other = || io::Error::other("the server runs another version of Hubbub: restart it");
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
        header.started_at.store(unix_now(), Ordering::Relaxed);
        header.ids_until.store(u64::MAX, Ordering::Relaxed);
        header.magic.store(magic(), Ordering::Release);
    }

    /// The descriptor through which other processes can open it.
    pub fn memory(&self) -> Option<BorrowedFd<'_>> {
        self.memory.as_ref().map(OwnedFd::as_fd)
    }

    // ---- the parts of the mapping -----------------------------------------------------------------------------------

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the mapping is page-aligned, zeroed at first, never unmapped before `self` is dropped, and at least
        // this long; a header is all atomics, for which every bit pattern is valid. The file behind it is never
        // shortened.
        unsafe { &*self.map.as_ptr().cast::<Header>() }
    }

    pub(crate) fn slot(&self, slot: u8) -> &Slot {
        assert!(usize::from(slot) < SLOTS);
        // SAFETY: as for `header`; `Layout` reserves room for `SLOTS` of them from this page boundary on.
        unsafe { &*self.map.as_ptr().add(self.layout.slots).cast::<Slot>().add(slot.into()) }
    }

    pub(super) fn topic_word(&self, slot: u8, bit: usize) -> &AtomicU64 {
        assert!(usize::from(slot) < SLOTS && bit < TOPIC_BITS);
        let word = (usize::from(slot) * TOPIC_BITS + bit) / 64;
        // SAFETY: as for `header`; `Layout` reserves room for `SLOTS * TOPIC_BITS` bits from this page boundary on.
        unsafe { &*self.map.as_ptr().add(self.layout.topics).cast::<AtomicU64>().add(word) }
    }

    fn chunk_word(&self, chunk: usize) -> &AtomicU64 {
        assert!(chunk < self.rows.div_ceil(ROWS_PER_CHUNK));
        // SAFETY: as for `header`; `Layout` reserves a bit for each chunk from this place on, which is a multiple of 8.
        unsafe { &*self.map.as_ptr().add(self.layout.chunks).cast::<AtomicU64>().add(chunk / 64) }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    #[inline]
    pub(crate) fn row(&self, index: usize) -> &Row {
        assert!(index < self.rows);
        // SAFETY: as for `header`; `Layout` reserves room for `rows` of them from this page boundary on.
        unsafe { &*self.map.as_ptr().add(self.layout.rows).cast::<Row>().add(index) }
    }

    /// Marks a row as one that has been used.
    pub(super) fn touch(&self, index: usize) {
        let chunk = index / ROWS_PER_CHUNK;
        let (word, mask) = (self.chunk_word(chunk), 1 << (chunk % 64));
        if word.load(Ordering::Relaxed) & mask == 0 {
            word.fetch_or(mask, Ordering::AcqRel);
        }
    }

    /// The rows that have ever been used. Untouched memory is not allocated, and reading it would allocate it.
    pub(super) fn touched_rows(&self) -> impl Iterator<Item = usize> {
        let chunks = self.rows.div_ceil(ROWS_PER_CHUNK);
        (0..chunks)
            .filter(|chunk| self.chunk_word(*chunk).load(Ordering::Relaxed) >> (chunk % 64) & 1 == 1)
            .flat_map(|chunk| chunk * ROWS_PER_CHUNK..((chunk + 1) * ROWS_PER_CHUNK).min(self.rows))
    }
}

/// A quarter more than can be in use at the same time, so that a free row is found after a few attempts.
fn rows_for(connections: usize) -> usize {
    (connections + connections / 4 + 1).next_power_of_two()
}

/// An unnamed file in memory.
#[cfg(target_os = "linux")]
pub(super) fn anonymous_file() -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create("hubbub", rustix::fs::MemfdFlags::CLOEXEC)?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn anonymous_file() -> io::Result<OwnedFd> {
    use rustix::fs::Mode;
    use rustix::shm::{self, OFlags};
    let name = format!("/hubbub-{}", std::process::id());
    let memory = shm::open(&name, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR, Mode::RUSR | Mode::WUSR)?;
    shm::unlink(&name)?;
    Ok(memory)
}
