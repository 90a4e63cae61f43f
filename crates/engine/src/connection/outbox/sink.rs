//! What outboxes are written to.

use std::fs::File;
use std::io::{self, IoSlice, Write};

use mio::net::TcpStream;
use rustix::net::SendAncillaryBuffer;

use crate::system::sockets::SEND;

/// What an outbox is written to.
pub(crate) trait Sink: Write {
    /// Whether [`Sink::send_file`] can be tried.
    const SENDS_FILES: bool = false;

    /// Has the kernel send up to `count` bytes of a file from `offset`, without a copy. Returns how many; 0 at the end
    /// of the file. The error `Unsupported` means that the file has to be read.
    fn send_file(&mut self, _file: &File, _offset: u64, _count: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A socket that is written without libc's `send`, which would make every call a cancellation point.
pub(crate) struct Raw<'a>(pub(crate) &'a TcpStream);

impl Write for Raw<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SEND)?)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::net::sendmsg(self.0, slices, &mut SendAncillaryBuffer::default(), SEND)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
impl Sink for Raw<'_> {
    const SENDS_FILES: bool = true;

    fn send_file(&mut self, file: &File, mut offset: u64, count: usize) -> io::Result<usize> {
        use rustix::io::Errno;
        match rustix::fs::sendfile(self.0, file, Some(&mut offset), count) {
            // The file's system cannot do it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
            result => Ok(result?),
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Sink for Raw<'_> {}
