//! A non-blocking WebSocket connection after its handshake.

use std::io::{self, ErrorKind, Read, Write};

use crate::frame::{self, Frame};
use crate::poller::Poller;
use crate::stream::Stream;

/// Bytes of a read buffer that one event loop shares among its connections.
pub const READ_BUFFER: usize = 512 * 1024;

/// A socket, the start of an incomplete frame, and output that did not fit into the socket.
pub struct Connection {
    stream: Stream,
    token: usize,
    partial: Vec<u8>,
    unsent: Vec<u8>,
}

impl Connection {
    /// Makes `stream` non-blocking. The poller that watches it reports it as `token`.
    ///
    /// # Errors
    ///
    /// The operating system's own.
    pub fn new(stream: impl Into<Stream>, token: usize) -> io::Result<Self> {
        let stream = stream.into();
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, token, partial: Vec::new(), unsent: Vec::new() })
    }

    /// Returns the socket, for blocking use.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Reads once, through `buffer`, and passes on each whole frame.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` at the end of the stream, the operating system's own, or that of `each`.
    pub fn read(&mut self, buffer: &mut [u8], mut each: impl FnMut(&Frame<'_>) -> io::Result<()>) -> io::Result<()> {
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        let mut input = match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => &buffer[..kept + read],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        while let Some(frame) = frame::parse(input) {
            each(&frame)?;
            input = &input[frame.size..];
        }
        self.partial.clear();
        self.partial.extend_from_slice(input);
        Ok(())
    }

    /// Writes `bytes`, and keeps what does not fit until [`Connection::flush`].
    ///
    /// # Errors
    ///
    /// The operating system's own.
    pub fn send(&mut self, bytes: &[u8], poller: &Poller) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.unsent.is_empty() || self.stream.has_unsent() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let written = write_some(&mut self.stream, bytes)?;
        if written < bytes.len() || self.stream.has_unsent() {
            self.unsent.extend_from_slice(&bytes[written..]);
            poller.watch(&self.stream, self.token, true)?;
        }
        Ok(())
    }

    /// Writes what was kept, once the socket has room.
    ///
    /// # Errors
    ///
    /// The operating system's own.
    pub fn flush(&mut self, poller: &Poller) -> io::Result<()> {
        let written = write_some(&mut self.stream, &self.unsent)?;
        self.unsent.drain(..written);
        if self.unsent.is_empty() && !self.stream.has_unsent() {
            poller.watch(&self.stream, self.token, false)?;
        }
        Ok(())
    }
}

fn write_some(stream: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
