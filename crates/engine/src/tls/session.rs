//! TLS, using rustls: the layer between a connection's socket and everything else.
//!
//! rustls does no I/O here and holds no data. Input from a socket is decrypted all at once into the reactor's buffer,
//! so that later stages (heads, frames, budgets, lanes) need not know about TLS, and nothing is left inside that no
//! event would report. A [`Session`] keeps only the start of an incomplete record. The contents of an outbox are
//! encrypted as the socket accepts them; waiting ciphertext is kept in the outbox, and counts as unsent.

use std::io;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{Error, InvalidMessage, ProtocolVersion, ServerConfig};

/// The payload of one record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;
/// Bytes that may be kept until the rest arrives: a record, or a handshake message in several records. Only the longest
/// of these, a client's chain of certificates, can come near this.
const MAX_PENDING: usize = 2 * RECORD;
/// More than encryption adds to a record, plus what rustls may send before it.
const RECORD_OVERHEAD: usize = 64;

/// The alert of a server that does not speak TLS on this port (RFC 8446 §6): handshake_failure, which no client
/// mistakes for a version or cipher mismatch that it could retry with others.
pub(crate) const NO_TLS_HERE: &[u8] = &[21, 3, 1, 0, 2, 2, 40];

/// The alert of TLS 1.2 for a client without the certificate it needs (RFC 5246 §7.4.6): handshake_failure. rustls sends
/// certificate_required, which only TLS 1.3 defines.
const NO_CERTIFICATE_TLS12: &[u8] = &[21, 3, 3, 0, 2, 2, 40];

/// Whether these first bytes of a connection are a TLS handshake record, which no request begins with.
pub(crate) fn is_tls(input: &[u8]) -> bool {
    matches!(input, [22, 3, ..])
}

/// The TLS state of one connection.
pub(crate) struct Session {
    rustls: UnbufferedServerConnection,
    /// The start of a record (or of a handshake message, which may span several) whose end has not arrived.
    incoming: Vec<u8>,
    /// Whether rustls has been given input.
    is_fed: bool,
    /// Whether the peer has announced the end of its input.
    input_ended: bool,
    /// Whether we have announced the end of our output, or sent a fatal alert.
    output_ended: bool,
    /// Whether nothing more can be read or sent, because of an error.
    has_failed: bool,
    /// That error, until it has been handled.
    failure: Option<Error>,
}

impl Session {
    /// The session of a new connection.
    ///
    /// # Errors
    /// rustls's error, which would be a bug of ours.
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let rustls = UnbufferedServerConnection::new(config)?;
        let (is_fed, input_ended, output_ended, has_failed) = (false, false, false, false);
        Ok(Self { rustls, incoming: Vec::new(), is_fed, input_ended, output_ended, has_failed, failure: None })
    }

    /// Whether rustls has seen none of the input from the socket, if there was any.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.is_fed
    }

    /// Whether there is input that rustls has not seen, because it arrived along with the socket.
    pub(crate) fn has_unseen(&self) -> bool {
        self.is_fresh() && !self.incoming.is_empty()
    }

    /// The certificate that the client has shown, in DER, if clients need one and the handshake is done.
    pub(crate) fn peer_certificate(&self) -> Option<&[u8]> {
        if self.is_handshaking() {
            return None;
        }
        self.rustls.peer_certificates()?.first().map(|certificate| certificate.as_ref())
    }

    /// The agreed version and cipher suite, by their numbers in TLS.
    pub(crate) fn agreed(&self) -> (Option<u16>, Option<u16>) {
        let version = self.rustls.protocol_version().map(u16::from);
        (version, self.rustls.negotiated_cipher_suite().map(|suite| suite.suite().into()))
    }

    /// The certificates that the client has shown, in DER, its own first.
    pub(crate) fn peer_certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.rustls.peer_certificates().unwrap_or_default().iter().map(|certificate| certificate.as_ref())
    }

    /// Whether the handshake is still in progress.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.rustls.is_handshaking()
    }

    /// Bytes of an incomplete record.
    pub(crate) fn kept(&self) -> usize {
        self.incoming.len()
    }

    /// Bytes of memory that hold them.
    pub(crate) fn memory(&self) -> usize {
        self.incoming.capacity()
    }

    /// Whether the peer's close_notify has arrived (RFC 8446 §6.1), or a failure has occurred.
    pub(crate) fn input_has_ended(&self) -> bool {
        self.input_ended
    }

    /// Why the input has ended, unless by the peer's close_notify. Input from before that must be handled first.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Whether the input has ended by a failure.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Whether nothing more can be encrypted.
    pub(crate) fn output_has_ended(&self) -> bool {
        self.output_ended
    }

    /// Keeps input that was read from the socket before the session was created.
    pub(crate) fn keep(&mut self, input: Vec<u8>) {
        self.incoming = input;
    }

    /// Hands back the kept input, for another process.
    pub(crate) fn take_kept(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.incoming)
    }

    /// Copies the kept input to the front of `buffer`; returns the space after it.
    pub(crate) fn room_behind_kept<'b>(&self, buffer: &'b mut [u8]) -> &'b mut [u8] {
        let (front, room) = buffer.split_at_mut(self.incoming.len());
        front.copy_from_slice(&self.incoming);
        room
    }

    /// Decrypts `input`, which consists of the kept input and what was read after it, into `plain`, which has to be as
    /// long. Returns the length of the result. Output of rustls itself goes to `sealed`, including our alert if the
    /// peer has made an error; nothing more may be sent after that alert.
    pub(crate) fn receive(&mut self, mut input: &mut [u8], plain: &mut [u8], sealed: &mut Vec<u8>) -> usize {
        self.is_fed = true;
        let mut count = 0;
        let mut goes_on = true;
        while goes_on {
            let UnbufferedStatus { mut discard, state, .. } = self.rustls.process_tls_records(input);
            let mut failure = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                plain[count..][..record.payload.len()].copy_from_slice(record.payload);
                                count += record.payload.len();
                                discard += record.discard;
                            }
                            Err(error) => failure = Some(error),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, sealed),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.input_ended = true,
                Ok(_) => goes_on = false,
                Err(error) => failure = Some(error),
            }
            input = &mut input[discard..];
            if let Some(failure) = failure {
                let from = sealed.len();
                self.take_alerts(input, sealed);
                if failure == Error::NoCertificatesPresented
                    && self.rustls.protocol_version() == Some(ProtocolVersion::TLSv1_2)
                {
                    sealed.truncate(from);
                    sealed.extend_from_slice(NO_CERTIFICATE_TLS12);
                }
                self.fail(failure);
                return count;
            }
        }
        if input.is_empty() || self.input_ended {
            self.incoming = Vec::new();
        } else if input.len() > MAX_PENDING {
            self.fail(InvalidMessage::HandshakePayloadTooLarge.into());
        } else {
            self.incoming.clear();
            self.incoming.extend_from_slice(input);
        }
        count
    }

    /// Takes from rustls its output after a failure, and nothing else: later input is not looked at.
    fn take_alerts(&mut self, mut input: &mut [u8], sealed: &mut Vec<u8>) {
        while self.rustls.wants_write() {
            let UnbufferedStatus { discard, state, .. } = self.rustls.process_tls_records(input);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { return };
            encode(&mut data, sealed);
            input = &mut input[discard..];
        }
    }

    fn fail(&mut self, failure: Error) {
        (self.input_ended, self.output_ended, self.has_failed) = (true, true, true);
        self.incoming = Vec::new();
        self.failure = Some(failure);
    }

    /// Encrypts `plain`, appending it to `sealed`.
    ///
    /// # Errors
    /// If nothing may be sent (any more).
    pub(crate) fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> io::Result<()> {
        let room = plain.len() + (plain.len() / RECORD + 1) * RECORD_OVERHEAD;
        self.write(room, sealed, |traffic, room| traffic.encrypt(plain, room))
    }

    /// Whether the end of our output has yet to be announced, and the peer could understand that.
    pub(crate) fn may_end_output(&self) -> bool {
        !self.output_ended && !self.rustls.is_handshaking()
    }

    /// Announces the end of our output, unless that has been done. Returns true if the announcement is in `sealed`.
    pub(crate) fn end_output(&mut self, sealed: &mut Vec<u8>) -> bool {
        if !self.may_end_output() {
            return false;
        }
        let said = self.write(RECORD_OVERHEAD, sealed, |traffic, room| traffic.queue_close_notify(room));
        self.output_ended = true;
        said.is_ok()
    }

    fn write(
        &mut self,
        room: usize,
        sealed: &mut Vec<u8>,
        write: impl Fn(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        if self.output_ended {
            return Err(io::ErrorKind::NotConnected.into());
        }
        loop {
            // The kept input has to be passed each time: rustls has recorded where in it a message begins.
            match self.rustls.process_tls_records(&mut self.incoming).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let from = sealed.len();
                    sealed.resize(from + room, 0);
                    let written = write(&mut traffic, &mut sealed[from..]);
                    sealed.truncate(from + written.as_ref().map_or(0, |written| *written));
                    return written.map(|_| ()).map_err(io::Error::other);
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, sealed),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ => return Err(io::ErrorKind::NotConnected.into()),
            }
        }
    }
}

type Traffic<'c> = WriteTraffic<'c, ServerConnectionData>;

/// Appends the output of rustls in the handshake.
fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, sealed: &mut Vec<u8>) {
    // It reports the length by refusing a buffer that is too short.
    let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut []) else {
        return;
    };
    let from = sealed.len();
    sealed.resize(from + required_size, 0);
    let written = data.encode(&mut sealed[from..]).unwrap_or(0);
    sealed.truncate(from + written);
}

#[cfg(test)]
pub(crate) mod tests;
