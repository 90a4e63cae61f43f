//! The engine: one [`Reactor`] owns the sockets of one worker and runs in the worker's own thread.
//!
//! Events go up ([`Event`], taken with [`Reactor::next`]), commands come down (the methods of [`Reactor`] on its own
//! thread, [`Command`]s through [`Shared`] from every other). Nothing here knows Python.

mod acceptor;
mod command;
mod connection;
mod deadlines;
mod door;
mod ending;
mod fanout;
mod loop_cell;
mod outbox;
mod reactor;
mod registry;
mod sending;
mod settings;
mod timers;
mod topics;
mod visit;

pub use command::{Command, Shared, Totals, Traffic};
pub use loop_cell::{Borrow, InUse, LoopCell, Mine};
pub use reactor::{Event, Payload, Reactor, Token};
pub use registry::{Fd, Info, Registry};
pub use sending::{DataOpcode, PushError};
pub use settings::{Settings, SlowConsumer};
