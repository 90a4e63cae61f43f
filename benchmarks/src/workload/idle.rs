//! Connections that are held and say nothing.

use std::io;

use crate::client::{self, Target};
use crate::control::Control;
use crate::workload::request;

/// The size of an idle run.
#[derive(clap::Args)]
pub struct Idle {
    /// Connections
    #[arg(long, default_value_t = 8000)]
    connections: usize,
    /// Plain HTTP connections, each after one request whose answer has so many bytes, instead of WebSockets
    #[arg(long, value_name = "SIZE")]
    answered: Option<usize>,
}

/// Opens the connections, says `ready`, holds them until a line comes in, and closes them.
///
/// # Errors
///
/// A connection that is refused, not upgraded, not answered, or not closed in time, with its number.
pub fn run(options: &Idle, target: Target) -> io::Result<()> {
    if let Some(size) = options.answered {
        let _answered = request::answered(options.connections, size, &target)?;
        return Control { stepped: true }.ready();
    }
    let streams = target.open("/", options.connections)?;
    Control { stepped: true }.ready()?;
    client::close(streams)
}
