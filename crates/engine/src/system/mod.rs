//! The foundations: the operating system, time, tables, and numbers as bytes.

pub(crate) mod acceptor;
pub(crate) mod clock;
pub(crate) mod codec;
pub(crate) mod heap;
pub(crate) mod loop_cell;
pub(crate) mod processes;
pub(crate) mod sockets;
pub(crate) mod table;
pub(crate) mod timers;
pub(crate) mod watch;
