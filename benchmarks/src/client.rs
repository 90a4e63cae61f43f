//! Opening and closing connections: blocking, many at a time, because neither is timed with messages.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

use crate::frame;
use crate::inflater::{self, Inflater};
use crate::stream::{Stream, Tls};

/// How many connections are opened or closed at the same time: fewer than any server's backlog.
pub const PARALLEL: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// One source address has about 28,000 ports, and a closed connection holds its port for a minute.
const SOURCES: usize = 16;

/// The key from the example in RFC 6455 §1.3, whose answer is known, so that nothing has to be computed.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The value of `Sec-WebSocket-Accept` for [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Where a server listens, and how long it may be silent.
#[derive(Clone)]
pub struct Target {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// How long the server may be silent before the run fails.
    pub timeout: Duration,
    /// How to speak TLS, if the server does.
    pub tls: Option<Tls>,
}

impl Target {
    /// Opens `count` connections to `path`, a few at a time.
    ///
    /// # Errors
    ///
    /// The error says which connection was refused, or not upgraded in time.
    pub fn open(&self, path: &str, count: usize) -> io::Result<Vec<Stream>> {
        let opened = self.open_all(path, "", count, |_| Ok(()))?;
        Ok(opened.into_iter().map(|(stream, ())| stream).collect())
    }

    /// Opens `count` connections to `path`, a few at a time, and offers compression as browsers do.
    ///
    /// # Errors
    ///
    /// The same as for [`Target::open`]; also if the server does not agree to compression.
    pub fn open_compressed(&self, path: &str, count: usize) -> io::Result<Vec<(Stream, Inflater)>> {
        self.open_all(path, inflater::OFFER, count, Inflater::agreed)
    }

    /// Opens `count` connections to `path`, all at the same time. The first one is number `first`.
    ///
    /// # Errors
    ///
    /// The same as for [`Target::open`].
    pub fn open_at_once(&self, path: &str, first: usize, count: usize) -> io::Result<Vec<Stream>> {
        let opened = self.handshakes(path, "", first, count, |_| Ok(()))?;
        Ok(opened.into_iter().map(|(stream, ())| stream).collect())
    }

    /// Opens `count` connections on which nothing is sent yet.
    ///
    /// # Errors
    ///
    /// The error says which connection was refused.
    pub fn open_plain(&self, count: usize) -> io::Result<Vec<Stream>> {
        (0..count).map(|number| self.connect(number).map_err(|error| named("connecting", number, &error))).collect()
    }

    fn open_all<T>(
        &self,
        path: &str,
        offer: &str,
        count: usize,
        agreed: impl Fn(&str) -> io::Result<T>,
    ) -> io::Result<Vec<(Stream, T)>> {
        let mut opened = Vec::with_capacity(count);
        while opened.len() < count {
            let parallel = PARALLEL.get().min(count - opened.len());
            opened.extend(self.handshakes(path, offer, opened.len(), parallel, &agreed)?);
        }
        Ok(opened)
    }

    /// Opens connections at the same time; `agreed` reads from each response how the server answered the `offer`.
    fn handshakes<T>(
        &self,
        path: &str,
        offer: &str,
        first: usize,
        count: usize,
        agreed: impl Fn(&str) -> io::Result<T>,
    ) -> io::Result<Vec<(Stream, T)>> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n",
            self.port
        );
        let mut streams = Vec::with_capacity(count);
        for number in first..first + count {
            let stream = self
                .connect(number)
                .and_then(|mut stream| stream.write_all(request.as_bytes()).map(|()| stream))
                .map_err(|error| named("connecting", number, &error))?;
            streams.push(stream);
        }
        (first..)
            .zip(streams)
            .map(|(number, mut stream)| {
                read_upgrade(&mut stream)
                    .and_then(|response| agreed(&response))
                    .map(|agreed| (stream, agreed))
                    .map_err(|error| named("the handshake of", number, &error))
            })
            .collect()
    }

    fn connect(&self, number: usize) -> io::Result<Stream> {
        let source = Ipv4Addr::new(127, 0, 0, 1 + (number % SOURCES) as u8);
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(source, 0))?;
        connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port))?;
        let stream = Stream::new(socket.into(), self.tls.as_ref())?;
        stream.set_timeout(self.timeout)?;
        Ok(stream)
    }
}

/// Closes all connections with code 1000 and waits until the server has done so too.
///
/// # Errors
///
/// The error says which connection did not end in time.
pub fn close(streams: impl IntoIterator<Item = Stream>) -> io::Result<()> {
    let mut streams: Vec<Stream> = streams.into_iter().collect();
    let mut closing = Vec::new();
    frame::append(&mut closing, frame::CLOSE, Some([1, 2, 3, 4]), &1000_u16.to_be_bytes());
    for (index, batch) in streams.chunks_mut(PARALLEL.get()).enumerate() {
        let numbered = || index * PARALLEL.get()..;
        for (number, stream) in numbered().zip(batch.iter_mut()) {
            stream
                .set_nonblocking(false)
                .and_then(|()| stream.write_all(&closing))
                .map_err(|error| named("closing", number, &error))?;
        }
        for (number, stream) in numbered().zip(batch) {
            read_end(stream).map_err(|error| named("closing", number, &error))?;
        }
    }
    Ok(())
}

/// An error of one connection, with its number.
pub fn named(doing: &str, number: usize, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{doing} connection {number}: {error}"))
}

/// The server's response, if it is the right one.
fn read_upgrade(stream: &mut Stream) -> io::Result<String> {
    let mut response = [0; 4096];
    let mut length = 0;
    while !response[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut response[length..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => length += read,
        }
    }
    let response = String::from_utf8_lossy(&response[..length]);
    if response.starts_with("HTTP/1.1 101 ") && response.contains(ACCEPT) {
        Ok(response.into_owned())
    } else {
        Err(io::Error::new(ErrorKind::InvalidData, format!("not upgraded: {:?}", response.lines().next())))
    }
}

fn read_end(stream: &mut Stream) -> io::Result<()> {
    let mut ignored = [0; 4096];
    while stream.read(&mut ignored)? > 0 {}
    Ok(())
}
