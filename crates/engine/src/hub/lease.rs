//! The lease of connection ids: a file that tells up to which counter ids may have been given out, ever.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use crate::registry::Registry;

/// Counters that are leased at a time; when half of them are left, more are.
const LEASE: u64 = 1 << 22;

/// See the file's head. Without a file only the clock tells.
pub(super) struct Lease {
    file: Option<File>,
}

impl Lease {
    pub(super) fn new(file: Option<OwnedFd>) -> Self {
        Self { file: file.map(File::from) }
    }

    /// The counter that the file tells; one that is empty or damaged tells nothing.
    pub(super) fn read(&self) -> io::Result<u64> {
        let Some(mut file) = self.file.as_ref() else { return Ok(0) };
        let mut text = String::new();
        match file.by_ref().take(64).read_to_string(&mut text) {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(error),
            _ => Ok(text.trim().parse().unwrap_or(0)),
        }
    }

    /// Sees to it that enough counters are leased, on disk before in memory.
    pub(super) fn extend(&self, registry: &Registry) -> io::Result<()> {
        if registry.last_of_living() + LEASE / 2 < registry.leased() {
            return Ok(());
        }
        let last = registry.last();
        self.write(last + LEASE)?;
        registry.lease(last + LEASE);
        Ok(())
    }

    /// Lets go of it at the end.
    pub(super) fn conclude(&self, registry: &Registry) {
        // What is known for certain needs no margin: the next start goes on right there.
        let _ = self.write(registry.last());
        if let Some(file) = &self.file {
            // A forked child may hold it too, and with it the lock.
            let _ = rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock);
        }
    }

    fn write(&self, counter: u64) -> io::Result<()> {
        match &self.file {
            Some(file) => file.write_all_at(format!("{counter:020}\n").as_bytes(), 0),
            None => Ok(()),
        }
    }
}
