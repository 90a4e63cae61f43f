//! The socket of a connection: of TCP or Unix, with or without TLS. Nothing here waits.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// See the module documentation.
pub(super) struct Stream {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    /// Begins to connect.
    ///
    /// # Errors
    /// Those of connect(2), if it fails at once.
    pub(super) fn tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        // If it is refused, messages are late, but they arrive.
        let _ = socket.set_nodelay(true);
        Ok(Self { socket: Socket::Tcp(socket), tls: None })
    }

    /// The same, to a Unix socket.
    ///
    /// # Errors
    /// Those of connect(2), if it fails at once.
    pub(super) fn unix(path: &Path) -> io::Result<Self> {
        Ok(Self { socket: Socket::Unix(UnixStream::connect(path)?), tls: None })
    }

    /// Whether it is connected, once it is said to be writable.
    ///
    /// # Errors
    /// Why it is not going to be.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        let (error, is_connected) = match &self.socket {
            Socket::Tcp(socket) => (socket.take_error()?, socket.peer_addr().map(|_| ())),
            Socket::Unix(socket) => (socket.take_error()?, socket.peer_addr().map(|_| ())),
        };
        match (error, is_connected) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(true),
            (None, Err(error)) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            (None, Err(error)) => Err(error),
        }
    }

    /// Speaks TLS from here on.
    ///
    /// # Errors
    /// rustls's error.
    pub(super) fn begin_tls(&mut self, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<()> {
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    /// Reads what has arrived. 0 is the end.
    ///
    /// # Errors
    /// Those of recv(2), or rustls's.
    pub(super) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read(room) };
        loop {
            match tls.reader().read(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Redis, too, often ends without the announcement that TLS has for it. A frame shows whether it is whole.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                done => return done,
            }
            if tls.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            if let Err(error) = tls.process_new_packets() {
                // The alert that tells the server why.
                let _ = tls.write_tls(&mut self.socket);
                return Err(io::Error::other(error));
            }
            while tls.wants_write() {
                match tls.write_tls(&mut self.socket) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    done => done?,
                };
            }
        }
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// Those of send(2).
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.write(bytes) };
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        let count = tls.writer().write(bytes)?;
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    }

    /// Writes what was taken by [`Stream::write`] and has not gone out.
    ///
    /// # Errors
    /// Those of send(2).
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Has events reported, all that there will be.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(self.source(), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Ends the connection. A forked child may hold the socket too, so closing it would not.
    pub(super) fn end(mut self, registry: &Registry) {
        // None of this can fail in a way that matters: the socket is closed afterwards.
        let _ = registry.deregister(self.source());
        let _ = match &self.socket {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Both),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Both),
        };
    }

    fn source(&mut self) -> &mut dyn Source {
        match &mut self.socket {
            Socket::Tcp(socket) => socket,
            Socket::Unix(socket) => socket,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(room),
            Self::Unix(socket) => socket.read(room),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
