//! The load generator's end of a connection: a TCP socket, or TLS over one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// How to speak TLS.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// TLS with servers whose certificate was signed by the authority in the PEM file `path`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is not a certificate.
    pub fn trusting(path: &Path) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(path).map_err(io::Error::other)?).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

/// A connection, blocking or not.
pub struct Stream {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self { socket, tls: None }
    }
}

impl Stream {
    /// Speaks TLS over a connected socket, if `tls` is given. The first read or write performs the handshake.
    ///
    /// # Errors
    ///
    /// Those of rustls.
    pub fn new(socket: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let tls = tls.map(|tls| ClientConnection::new(Arc::clone(&tls.0), name).map(Box::new)).transpose();
        Ok(Self { socket, tls: tls.map_err(io::Error::other)? })
    }

    /// See [`TcpStream::set_nonblocking`].
    ///
    /// # Errors
    ///
    /// The operating system's own.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    /// See [`TcpStream::set_nodelay`].
    ///
    /// # Errors
    ///
    /// The operating system's own.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket.set_nodelay(nodelay)
    }

    /// Limits how long a blocking read or write may take.
    ///
    /// # Errors
    ///
    /// The operating system's own.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(timeout))?;
        self.socket.set_write_timeout(Some(timeout))
    }

    /// Whether written data is waiting for room in the socket.
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            if tls.is_handshaking() {
                tls.complete_io(&mut self.socket)?;
                continue;
            }
            tls.read_tls(&mut self.socket)?;
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.write(bytes) };
        if tls.is_handshaking() {
            tls.complete_io(&mut self.socket)?;
        }
        let written = tls.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(written),
            result => result.map(|()| written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}
