//! Parts that the tests of reactors share.

use std::time::Duration;

/// The longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Settings with small limits.
pub fn settings() -> engine::Settings {
    engine::Settings {
        topics: engine::TopicRules::default(),
        history_memory: 1 << 20,
        broker: None,
        max_connections: 100,
        max_message_size: 1000,
        send_queue_size: 1000,
        slow_consumer: engine::SlowConsumer::Close,
        max_memory: 1_000_000,
        max_topics: 100,
        receive_queue: 10,
        ping_interval: None,
        ping_timeout: None,
        message_timeout: None,
        idle_timeout: None,
        handshake_timeout: PATIENCE,
        close_timeout: PATIENCE,
        keep_alive_timeout: PATIENCE,
        origins: wire::origin::OriginPolicy::Same,
        allowed_hosts: wire::host::HostPolicy::Any,
        subprotocols: Vec::new(),
        compression: false,
        compression_threshold: 1000,
        max_header_size: 1000,
        max_body_size: 1000,
        stuck_after: None,
        proxy_protocol: None,
        certificate: None,
        endpoints: engine::Endpoints::default(),
    }
}
