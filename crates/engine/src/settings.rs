//! The engine's settings; names, defaults and meaning are those of the Python `Settings`.

use std::time::Duration;

use wire::host::HostPolicy;
use wire::network::Networks;
use wire::origin::OriginPolicy;

use crate::endpoints::{EndpointId, Endpoints};
use crate::redis_address::RedisAddress;
use crate::tls::certificate::CertificateFiles;
use crate::topics::options::TopicRules;

/// What happens to a connection whose outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowConsumer {
    /// The frame being sent is finished, the rest discarded, and the connection closed with 1013.
    Close,
    /// The message is dropped and counted.
    Drop,
}

/// Limits are in bytes or messages, times are durations.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Open WebSockets; further handshakes are answered with 503.
    pub max_connections: usize,
    /// Size of one message, also after inflating; a larger one closes the connection with 1009.
    pub max_message_size: usize,
    /// Unsent bytes of one connection.
    pub send_queue_size: usize,
    /// The policy for a full outbox.
    pub slow_consumer: SlowConsumer,
    /// Memory of all connections of this worker together, for queued output and the unfinished input received so far;
    /// above it, the largest holders are closed.
    pub max_memory: usize,
    /// Topics that one connection may be subscribed to.
    pub max_topics: usize,
    /// Messages waiting for one connection's handler before its socket is no longer read.
    pub receive_queue: usize,
    /// Time between pings; `None` means that none are sent.
    pub ping_interval: Option<Duration>,
    /// Time for the pong; `None` means no limit.
    pub ping_timeout: Option<Duration>,
    /// Time that an unfinished message may go without progress; `None` means no limit.
    pub message_timeout: Option<Duration>,
    /// Time without a message in either direction; `None` means no limit.
    pub idle_timeout: Option<Duration>,
    /// Time for a whole request head, including the TLS handshake before it. Every 16 KiB of body received extends the
    /// deadline by one second.
    pub handshake_timeout: Duration,
    /// Time for the peer's answer to a Close frame, and for its end of the TCP connection.
    pub close_timeout: Duration,
    /// Time that an HTTP connection may stay idle between two requests.
    pub keep_alive_timeout: Duration,
    /// Which pages may connect from a browser.
    pub origins: OriginPolicy,
    /// Which hosts requests may be for; others get a 400.
    pub allowed_hosts: HostPolicy,
    /// In the server's order of preference.
    pub subprotocols: Vec<String>,
    /// Whether permessage-deflate is negotiated.
    pub compression: bool,
    /// Messages shorter than this are not compressed.
    pub compression_threshold: usize,
    /// Size of a request head; a larger one gets a 431.
    pub max_header_size: usize,
    /// Size of a request body; a larger one gets a 413.
    pub max_body_size: usize,
    /// How long an event loop may stand still before its worker counts as stuck; `None` means forever.
    pub stuck_after: Option<Duration>,
    /// The proxies that begin each connection with a PROXY header, and from which alone connections are accepted;
    /// `None` means that there is no such header.
    pub proxy_protocol: Option<Networks>,
    /// With a certificate, the port speaks TLS and nothing else.
    pub certificate: Option<CertificateFiles>,
    /// The paths with handlers and settings of their own. The settings above are those of all other paths.
    pub endpoints: Endpoints,
    /// The options of topics.
    pub topics: TopicRules,
    /// Bytes of all history that is kept in memory.
    pub history_memory: usize,
    /// What connects this host to others, if there are any.
    pub broker: Option<BrokerSettings>,
}

/// What connects hosts to one another.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// Where it is.
    pub address: RedisAddress,
    /// What the names of all keys and channels begin with.
    pub prefix: String,
    /// Bytes that may wait for it, and bytes from it that may wait for the hub.
    pub queue_size: usize,
    /// How the other hosts' people call this host.
    pub name: String,
}

impl Settings {
    /// Which pages may connect to an endpoint.
    pub(crate) fn origins_of(&self, id: EndpointId) -> &OriginPolicy {
        self.endpoints.get(id).map_or(&self.origins, |endpoint| &endpoint.origins)
    }

    /// The subprotocols of an endpoint, in the order of preference.
    pub(crate) fn subprotocols_of(&self, id: EndpointId) -> &[String] {
        self.endpoints.get(id).map_or(&self.subprotocols, |endpoint| &endpoint.subprotocols)
    }

    /// The size of one message to an endpoint.
    pub(crate) fn max_message_size_of(&self, id: EndpointId) -> usize {
        self.endpoints.get(id).map_or(self.max_message_size, |endpoint| endpoint.max_message_size)
    }
}

#[cfg(test)]
impl Settings {
    /// The settings of a small server, for tests.
    pub(crate) fn small() -> Self {
        let time = Duration::from_secs(20);
        Self {
            max_connections: 100,
            max_message_size: 1000,
            max_memory: 1_000_000,
            message_timeout: None,
            idle_timeout: None,
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
            proxy_protocol: None,
            certificate: None,
            endpoints: Endpoints::default(),
            topics: TopicRules::default(),
            history_memory: 1_000_000,
            broker: None,
        }
    }
}
