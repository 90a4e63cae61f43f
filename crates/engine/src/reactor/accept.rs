//! How connections arrive: from a listening socket or over the link, as long as there is space.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use mio::Interest;
use mio::net::{TcpListener, TcpStream};

use crate::connection::flow::Incoming;
use crate::connection::{Connection, Wait};
use crate::reactor::{LISTENER, Reactor};
use crate::registry::add;
use crate::system::acceptor::Ownership;
use crate::tls::session::Session;

/// Connections allowed beyond `max_connections` and a tenth of it, for handshakes, requests and answers of 503.
const SPARE_CONNECTIONS: usize = 1000;

impl Reactor {
    /// Accepts connections from a socket that is already listening.
    ///
    /// # Errors
    /// If the kernel refuses to watch the socket.
    pub fn listen(&mut self, listener: OwnedFd, ownership: Ownership) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        // Unix sockets are used in the same way as those of TCP.
        let listener = TcpListener::from_std(std::net::TcpListener::from(listener));
        let listener = self.acceptor.add(listener, ownership);
        self.poll.registry().register(listener, LISTENER, Interest::READABLE)
    }

    /// Accepts waiting connections, as long as there is space.
    pub(crate) fn accept_waiting(&mut self) {
        if !self.has_space() {
            return;
        }
        let mut taken = Vec::new();
        if let Err(error) = self.acceptor.accept(self.clock.now, &mut taken) {
            self.accept_error = Some(error);
        }
        for (socket, peer) in taken {
            self.adopt(socket, peer, Vec::new());
        }
    }

    /// Whether there may be more connections, counting those that are not (yet) WebSockets. If not, new ones wait in
    /// the kernel's queue.
    pub(crate) fn has_space(&self) -> bool {
        self.connections.len() - self.outliving < self.most_connections()
    }

    pub(crate) fn most_connections(&self) -> usize {
        let open = self.settings.max_connections;
        open + open / 10 + SPARE_CONNECTIONS
    }

    /// Takes on a connection, along with the input already read from it.
    pub(crate) fn adopt(&mut self, socket: TcpStream, peer: SocketAddr, input: Vec<u8>) {
        // Otherwise a small answer would wait for the acknowledgement of the previous one (RFC 896).
        let _ = socket.set_nodelay(true);
        self.serial = self.serial.wrapping_add(1);
        // TLS begins after a PROXY header.
        let expects_header = self.settings.proxy_protocol.is_some();
        let Ok(tls) = (if expects_header { Ok(None) } else { self.tls_session() }) else {
            // rustls cannot use a configuration that it made itself: a bug of ours. No client is served in the clear
            // because of it.
            add(&self.shared.registry.slot(self.shared.slot).sockets_done, 1);
            return;
        };
        let key = self.connections.insert(Connection::new(self.serial, socket, peer, self.clock.now));
        let connection = &mut self.connections[key];
        let registered = connection.socket.as_mut().map(|socket| {
            self.poll.registry().register(socket, mio::Token(key.place()), Interest::READABLE | Interest::WRITABLE)
        });
        if let Some(Ok(())) = registered {
            let has_input = !input.is_empty();
            match tls {
                None => connection.input = input,
                Some(mut session) => {
                    session.keep(input);
                    connection.tls = Some(session);
                    connection.incoming = if has_input { Incoming::Readable } else { Incoming::Quiet };
                }
            }
            self.wait(key, Wait::Head);
            if has_input {
                self.make_ready(key);
            }
            if expects_header {
                self.expect_header(key);
            }
        } else {
            self.connections.remove(key);
            add(&self.shared.registry.slot(self.shared.slot).sockets_done, 1);
        }
    }

    /// The TLS state of a new connection, using the current certificate; `None` if this server does not speak TLS.
    pub(super) fn tls_session(&mut self) -> Result<Option<Box<Session>>, rustls::Error> {
        let Some(certificate) = &mut self.certificate else { return Ok(None) };
        let refreshed = certificate.refresh(self.clock.now);
        let session = certificate.session()?;
        if refreshed.is_some() {
            self.certificate_read = refreshed;
        }
        Ok(Some(Box::new(session)))
    }
}
