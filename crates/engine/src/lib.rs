//! The engine: one [`Reactor`] owns the sockets of one worker and runs in the worker's own thread.
//!
//! Events go up ([`Event`], taken with [`Reactor::next`]); commands come down, through the methods of [`Reactor`] on
//! its own thread and as [`Command`]s through [`Shared`] from any other thread. Nothing here knows about Python.

mod broker;
mod connection;
mod endpoints;
mod hub;
mod language;
mod reactor;
mod redis_address;
mod registry;
mod settings;
mod system;
mod tls;
mod topics;

pub use connection::outbox::Kept;
pub use endpoints::{Bodies, Endpoint, EndpointId, Endpoints, WebSockets};
pub use hub::client::{Publisher, PublisherError};
pub use hub::{Hub, HubEvent};
pub use language::command::{Command, Format, MAX_INFO, MAX_KEY, MAX_PIPED, OUTSIDE, is_topic};
pub use language::history::{History, OldMessage};
pub use language::listing::{MAX_MEMBERS_PAGE, MAX_TOPICS_PAGE, Member, Page, TopicSize};
pub use language::message::{Answer, Joined, Leave, MAX_DRAIN, MAX_PATIENCE, Message, PATIENCE, Question, VERSION};
pub use reactor::{
    Event, MemberEvent, Owner, Part, Payload, PushError, Reactor, Refused, Relief, Requests, Sending, Shared, Shortage,
    Subscribed, Taken, TlsFacts, Token, Watching,
};
pub use redis_address::RedisAddress;
pub use registry::{
    BrokerMetrics, COUNTS, Counts, Fd, Held, HostInfo, Info, Measured, Metrics, Registry, Stats, Stuck, StuckCell,
    Times, Totals, WorkerStats,
};
pub use settings::{BrokerSettings, Settings, SlowConsumer};
pub use system::acceptor::Ownership;
pub use system::clock::coarse_now;
pub use system::codec::Malformed;
pub use system::loop_cell::{Borrow, InUse, LoopCell, Mine};
pub use system::processes::die_with_parent;
pub use system::sockets::explain;
pub use system::watch::Watcher;
pub use tls::certificate::CertificateFiles;
pub use tls::private_key::Password;
pub use topics::envelope::enveloped_len;
pub use topics::options::{Lagging, TopicOptions, TopicRules};
pub use topics::publication::{Content, MAX_OFFSET, Position, Publication};
pub use wire::frame::{DataOpcode, Fin};
