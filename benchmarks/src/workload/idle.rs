//! Connections that are held and say nothing.

use std::io;

use crate::client::{self, Target};
use crate::control::Control;

/// The size of an idle run.
#[derive(clap::Args)]
pub struct Idle {
    /// Connections
    #[arg(long, default_value_t = 8000)]
    connections: usize,
}

/// Opens the connections, says `ready`, holds them until a line comes in, and closes them.
///
/// # Errors
///
/// A connection that is refused, not upgraded, or not closed in time, with its number.
pub fn run(options: &Idle, target: Target) -> io::Result<()> {
    let streams = target.open("/", options.connections)?;
    Control { stepped: true }.ready()?;
    client::close(streams)
}
