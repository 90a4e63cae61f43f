//! The engine: one [`Reactor`] owns the sockets of one worker and runs in the worker's own thread.
//!
//! Events go up ([`Event`], taken with [`Reactor::next`]), commands come down (the methods of [`Reactor`] on its own
//! thread, [`Command`]s through [`Shared`] from every other). Nothing here knows Python.

mod acceptor;
mod arrival;
mod backlog;
mod budget;
mod certificate;
mod clock;
mod codec;
mod command;
mod connection;
mod crossing;
mod deadlines;
mod door;
mod ending;
mod event;
mod fanout;
mod heap;
mod hub;
mod leaving;
mod link;
mod loop_cell;
mod message;
mod metrics;
mod outbox;
mod progress;
mod publisher;
mod reactor;
mod refusals;
mod registry;
mod sending;
mod settings;
mod shared;
mod stats;
mod systems;
mod timers;
mod tls;
mod topics;
mod unsubscribing;
mod visit;
mod watch;
mod watching;

pub use certificate::CertificateFiles;
pub use clock::coarse_now;
pub use codec::Malformed;
pub use command::{Command, is_topic};
pub use crossing::{MOST_PIPED, Unanswered};
pub use event::{Event, Payload, Relief, Shortage, Token};
pub use hub::{Hub, HubEvent};
pub use loop_cell::{Borrow, InUse, LoopCell, Mine};
pub use message::{Answer, LONGEST_PATIENCE, Leave, Message, PATIENCE, Question, VERSION};
pub use metrics::{Held, Measured, Metrics, Times};
pub use publisher::{Publisher, PublisherError};
pub use reactor::Reactor;
pub use refusals::Refused;
pub use registry::{Fd, Info, Registry, Stuck, StuckCell};
pub use sending::{PushError, Subscribed};
pub use settings::{Settings, SlowConsumer};
pub use shared::Shared;
pub use stats::{COUNTS, Counts, Stats, Totals, WorkerStats};
pub use systems::explain;
pub use watch::Watcher;
pub use watching::Watching;
pub use wire::frame::DataOpcode;

/// Has the kernel kill this process when the thread that started it ends. False: this system cannot.
///
/// # Errors
/// The kernel's.
#[cfg(target_os = "linux")]
pub fn die_with_parent() -> std::io::Result<bool> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(true)
}

/// Has the kernel kill this process when the thread that started it ends. False: this system cannot.
///
/// # Errors
/// None here.
#[cfg(not(target_os = "linux"))]
pub fn die_with_parent() -> std::io::Result<bool> {
    Ok(false)
}
