//! The table of all open connections: what `exists`, `info`, `connections` and other threads read.
//!
//! There are no locks. Every field is an atomic, and one thread writes: it zeroes `id`, fills the row, stores `id`; a
//! reader reads `id`, the row, and `id` again. An id tells its row (its counter modulo the table's length), because ids
//! whose row is taken are skipped when a new one is given out. So looking one up never searches.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memmap2::{MmapMut, MmapOptions, MmapRaw};

/// A connection's id: host 8 bits, slot 7 bits, counter 38 bits; so JavaScript's numbers hold it. Never 0, never reused.
pub type Fd = u64;

const COUNTER_BITS: u32 = 38;
const COUNTER: u64 = (1 << COUNTER_BITS) - 1;
/// Unix time at which the counter's clock begins: 2026-01-01.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// One connection; all times in milliseconds of Unix time.
#[derive(Default)]
#[repr(C)]
pub struct Row {
    /// 0 while the row is free or being written.
    id: AtomicU64,
    /// 1 from acceptance until either side has said that it closes.
    open: AtomicU64,
    opened_at: AtomicU64,
    pub(crate) last_received_at: AtomicU64,
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Unsent bytes in the outbox.
    pub(crate) queued_bytes: AtomicU64,
    /// Bytes that other threads have sent on their way to the outbox.
    pub(crate) underway_bytes: AtomicU64,
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

/// The table.
pub struct Registry {
    map: MmapRaw,
    rows: usize,
}

impl Registry {
    /// A table with room for `connections` at a time.
    ///
    /// # Errors
    /// The memory cannot be had.
    pub fn new(connections: usize) -> io::Result<Self> {
        // A quarter more than can be taken, so that a free row is found after a few steps.
        let rows = (connections + connections / 4 + 1).next_power_of_two();
        let map: MmapMut = MmapOptions::new().len(rows * size_of::<Row>()).map_anon()?;
        Ok(Self { map: map.into(), rows })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The row that `fd` has or would have.
    #[inline]
    pub(crate) fn index(&self, fd: Fd) -> usize {
        (fd & COUNTER) as usize & (self.rows - 1)
    }

    #[inline]
    pub(crate) fn row(&self, index: usize) -> &Row {
        assert!(index < self.rows);
        // SAFETY: the mapping is page-aligned, zeroed at first, `rows` rows long, never unmapped before `self` is dropped,
        // and only ever used as rows; a row is all atomics, for which every bit pattern is valid.
        unsafe { &*self.map.as_ptr().cast::<Row>().add(index) }
    }

    /// Fills the row of a new connection; from here on others see it.
    pub(crate) fn claim(&self, fd: Fd, client: SocketAddr, now: u64) {
        let row = self.row(self.index(fd));
        row.id.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        let address = match client.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let bits = address.to_bits();
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

    /// The row of a connection that is there, open or closing.
    #[inline]
    pub(crate) fn find(&self, fd: Fd) -> Option<&Row> {
        let row = self.row(self.index(fd));
        (fd != 0 && row.id.load(Ordering::Acquire) == fd).then_some(row)
    }

    /// Whether `fd` is an open WebSocket.
    pub fn exists(&self, fd: Fd) -> bool {
        self.find(fd).is_some_and(|row| row.open.load(Ordering::Acquire) == 1 && row.id.load(Ordering::Acquire) == fd)
    }

    /// What is known of `fd`; `None` once it is gone.
    pub fn info(&self, fd: Fd) -> Option<Info> {
        let row = self.find(fd)?;
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let bits = u128::from(get(&row.address[0])) << 64 | u128::from(get(&row.address[1]));
        let info = Info {
            fd,
            client: SocketAddr::new(Ipv6Addr::from_bits(bits).to_canonical(), get(&row.port) as u16),
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

    /// The ids of all connections that are there, open or closing.
    pub(crate) fn ids(&self) -> impl Iterator<Item = Fd> {
        (0..self.rows).map(|index| self.row(index).id.load(Ordering::Acquire)).filter(|id| *id != 0)
    }

    /// The ids of all open WebSockets.
    pub fn open_ids(&self) -> Vec<Fd> {
        self.ids().filter(|id| self.exists(*id)).collect()
    }
}

/// The last counter given out by this process, which may make one reactor after the other.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Gives out ids, each once.
pub(crate) struct Ids {
    slot: u64,
}

impl Ids {
    /// Begins at the 2-ms ticks since 2026, so that a server started later gives out higher ones.
    pub(crate) fn new(slot: u8, now: SystemTime) -> Self {
        let since = now.duration_since(UNIX_EPOCH + EPOCH).unwrap_or_default();
        LAST.fetch_max(since.as_millis() as u64 / 2, Ordering::Relaxed);
        Self { slot: u64::from(slot & 0x7f) << COUNTER_BITS }
    }

    /// The next id with a free row; `None` when the table is full.
    pub(crate) fn next(&self, registry: &Registry) -> Option<Fd> {
        for _ in 0..registry.rows {
            let counter = (LAST.fetch_add(1, Ordering::Relaxed) + 1) & COUNTER;
            let fd = self.slot | counter;
            if counter != 0 && registry.row(registry.index(fd)).id.load(Ordering::Relaxed) == 0 {
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
        let registry = Registry::new(10).expect("memory");
        let fd = Ids::new(3, SystemTime::now()).next(&registry).expect("an id");
        assert!(!registry.exists(fd));
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
        let registry = Registry::new(4).expect("memory");
        let ids = Ids::new(1, SystemTime::now());
        let held = ids.next(&registry).expect("an id");
        registry.claim(held, client(), 0);
        let mut last = held;
        for _ in 0..100 {
            let fd = ids.next(&registry).expect("an id");
            assert!(fd > last && fd < 1 << 53);
            assert_ne!(registry.index(fd), registry.index(held));
            last = fd;
        }
    }

    #[test]
    fn a_full_table_gives_no_id() {
        let registry = Registry::new(2).expect("memory");
        let ids = Ids::new(0, SystemTime::now());
        for _ in 0..registry.rows() {
            registry.claim(ids.next(&registry).expect("an id"), client(), 0);
        }
        assert_eq!(ids.next(&registry), None);
    }
}
