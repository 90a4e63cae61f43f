//! What the engine can be told; names, defaults and meaning are those of the Python `Settings`.

use std::time::Duration;

use wire::host::HostPolicy;
use wire::origin::OriginPolicy;

use crate::tls::certificate::CertificateFiles;

/// What happens to a connection whose outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowConsumer {
    /// The frame under way is ended, the rest discarded, and the connection closed with 1013.
    Close,
    /// The message is dropped and counted.
    Drop,
}

/// Limits in bytes or messages, times as durations.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Open WebSockets; a handshake above it is answered with 503.
    pub max_connections: usize,
    /// One message, also after inflating; above it the connection is closed with 1009.
    pub max_message_size: usize,
    /// Unsent bytes of one connection.
    pub send_queue_size: usize,
    /// The policy for a full outbox.
    pub slow_consumer: SlowConsumer,
    /// Memory of all connections of this worker together, for what is queued for them and what has come of unfinished
    /// input; above it the largest holders are closed.
    pub max_memory: usize,
    /// Topics that one connection may be subscribed to.
    pub max_topics: usize,
    /// Messages that wait for one connection's handler before its socket is no longer read.
    pub receive_queue: usize,
    /// Time between pings; `None`: none are sent.
    pub ping_interval: Option<Duration>,
    /// Time for the pong; `None`: it may take for ever.
    pub ping_timeout: Option<Duration>,
    /// Time that an unfinished message may make no progress; `None`: for ever.
    pub message_timeout: Option<Duration>,
    /// Time for a whole request head, the TLS handshake before it included; a body may take a second more for each 16
    /// KiB of it that arrive.
    pub handshake_timeout: Duration,
    /// Time for the peer's answer to a Close frame, and for its end of the TCP connection.
    pub close_timeout: Duration,
    /// Time that an HTTP connection may stay idle between two requests.
    pub keep_alive_timeout: Duration,
    /// Who may connect from a browser.
    pub origins: OriginPolicy,
    /// Which hosts requests may be for; others are answered with 400.
    pub allowed_hosts: HostPolicy,
    /// In the server's order of preference.
    pub subprotocols: Vec<String>,
    /// Whether permessage-deflate is negotiated.
    pub compression: bool,
    /// Messages shorter than this are sent as they are.
    pub compression_threshold: usize,
    /// Of a request head; above it 431.
    pub max_header_size: usize,
    /// Of a request body; above it 413.
    pub max_body_size: usize,
    /// How long an event loop may stand still before its worker is taken for stuck; `None`: for ever.
    pub stuck_after: Option<Duration>,
    /// Where there is a certificate, its port speaks TLS and nothing else.
    pub certificate: Option<CertificateFiles>,
}

#[cfg(test)]
impl Settings {
    /// Those of a small server, for tests.
    pub(crate) fn small() -> Self {
        let time = Duration::from_secs(20);
        Self {
            max_connections: 100,
            max_message_size: 1000,
            max_memory: 1_000_000,
            message_timeout: None,
            send_queue_size: 1000,
            slow_consumer: SlowConsumer::Close,
            max_topics: 100,
            receive_queue: 10,
            ping_interval: None,
            ping_timeout: None,
            handshake_timeout: time,
            close_timeout: time,
            keep_alive_timeout: time,
            origins: OriginPolicy::Same,
            allowed_hosts: HostPolicy::Any,
            subprotocols: Vec::new(),
            compression: false,
            compression_threshold: 1000,
            max_header_size: 1000,
            max_body_size: 1000,
            stuck_after: None,
            certificate: None,
        }
    }
}
