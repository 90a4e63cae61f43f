//! The lease of connection ids: a file that says up to which counter ids may ever have been given out.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use crate::registry::{COUNTER, Registry};

/// Digits of the counter in the file, followed by a line end.
const DIGITS: usize = 20;

const DAMAGED: &str = "the lease file of connection ids is damaged; remove it if nothing stores earlier ids";

/// See the module documentation. Without a file, only the clock determines new ids.
pub(super) struct Lease {
    file: Option<File>,
}

impl Lease {
    pub(super) fn new(file: Option<OwnedFd>) -> Self {
        Self { file: file.map(File::from) }
    }

    /// The counter in the file; `None` if the file is new, or there is none.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged, so that its counter is lost.
    pub(super) fn read(&self) -> io::Result<Option<u64>> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut content = [0; DIGITS + 2];
        let length = file.read_at(&mut content, 0)?;
        if length == 0 {
            return Ok(None);
        }
        let text = content[..length].strip_suffix(b"\n").filter(|text| text.len() == DIGITS);
        let counter = text.and_then(|text| str::from_utf8(text).ok()?.parse().ok());
        counter.map(Some).ok_or_else(|| io::Error::other(DAMAGED))
    }

    /// Makes sure that enough counters are leased, first in the file and then in memory.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn extend(&self, registry: &Registry) -> io::Result<()> {
        if let Some(up_to) = self.extend_file(registry)? {
            registry.lease(up_to);
        }
        Ok(())
    }

    /// Leases more counters in the file if few are left. Returns up to which one; the caller leases them in memory.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn extend_file(&self, registry: &Registry) -> io::Result<Option<u64>> {
        if !registry.are_few_after(registry.last_of_living()) {
            return Ok(None);
        }
        let up_to = registry.last() + registry.lease_length();
        self.write(up_to)?;
        Ok(Some(up_to))
    }

    /// Leases the first counters. Waits until they are on disk, including the file's length, so that a power failure
    /// leaves neither an empty nor a half-written file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn begin(&self, registry: &Registry) -> io::Result<()> {
        self.extend(registry)?;
        self.file.as_ref().map_or(Ok(()), File::sync_all)
    }

    /// Ends the lease when the server stops.
    pub(super) fn conclude(&self, registry: &Registry) {
        // The exact counter is known, so no margin is needed: the next start continues right there.
        let _ = self.write(registry.last());
        if let Some(file) = &self.file {
            // A forked child may hold the file too, and with it the lock.
            let _ = rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock);
        }
    }

    fn write(&self, counter: u64) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let line = format!("{:0DIGITS$}\n", counter.min(COUNTER));
        let fails = |error| io::Error::other(format!("cannot write the lease of connection ids: {error}"));
        file.write_all_at(line.as_bytes(), 0).map_err(fails)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::AtomicU64;
    use std::time::{Duration, Instant, UNIX_EPOCH};

    use super::*;
    use crate::hub::Hub;
    use crate::language::message::Message;
    use crate::registry::Ids;
    use crate::settings::Settings;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A lease file with this content, and a second open file for it.
    fn file(content: &[u8]) -> (Lease, File) {
        let memory = rustix::fs::memfd_create("lease", rustix::fs::MemfdFlags::CLOEXEC).expect("a file");
        let mut other = File::from(memory.try_clone().expect("a descriptor"));
        other.write_all(content).expect("written");
        (Lease::new(Some(memory)), other)
    }

    fn content(file: &File) -> String {
        let mut content = [0; 64];
        let length = file.read_at(&mut content, 0).expect("read");
        String::from_utf8(content[..length].to_vec()).expect("text")
    }

    #[test]
    fn a_new_file_tells_nothing_and_what_was_written_is_read() {
        let (lease, other) = file(b"");
        assert_eq!(lease.read().expect("read"), None);
        lease.write(123).expect("written");
        assert_eq!(content(&other), "00000000000000000123\n");
        assert_eq!(lease.read().expect("read"), Some(123));
        assert_eq!(Lease::new(None).read().expect("read"), None);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_number() {
        for damaged in [
            &b"garbage"[..],
            b"0000000000",
            b"0000000000\n",
            b"00000000000000000123",
            b"-0000000000000000123\n",
            b"000000000000000001234\n",
            b"00000000000000000123\n\n",
            b"99999999999999999999\n",
            &[0; 21],
            b"\n",
        ] {
            assert!(file(damaged).0.read().is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn the_last_lease_ends_with_the_last_counter() {
        let registry = Registry::shared(100).expect("memory");
        let now = UNIX_EPOCH + Duration::from_secs(1_780_000_000);
        registry.begin_above(Some(COUNTER - 3), now).expect("there are ids left");
        let (lease, other) = file(b"");
        lease.begin(&registry).expect("written");
        assert_eq!((registry.leased(), content(&other)), (COUNTER, format!("{COUNTER:020}\n")));
        other.set_len(0).expect("cut");
        lease.extend(&registry).expect("nothing to do");
        assert_eq!(content(&other), "");
    }

    #[test]
    fn the_hub_leases_more_when_a_worker_says_that_few_are_left() {
        let hub = Hub::new(&Settings::small(), None, None, None).expect("a hub");
        let (slot, link) = hub.add_worker(0).expect("a slot");
        let registry = &hub.desk.registry;
        let begin = Instant::now();
        while !registry.lives(slot) {
            assert!(begin.elapsed() < PATIENCE, "the worker is not taken on");
            std::thread::yield_now();
        }
        let leased = registry.leased();
        let ids = Ids::counting(slot, registry, Box::leak(Box::new(AtomicU64::new(leased - 10))));
        assert_eq!(ids.last_of_few(registry), Some(leased - 10));
        let mut frame = Vec::new();
        Message::FewIds.encode(&mut frame);
        UnixStream::from(link).write_all(&frame).expect("written");
        while ids.last_of_few(registry).is_some() {
            assert!(begin.elapsed() < PATIENCE, "no more are leased");
            std::thread::yield_now();
        }
        assert!(registry.leased() > leased);
        assert!((0..20).all(|_| ids.next(registry).is_ok()));
    }
}
