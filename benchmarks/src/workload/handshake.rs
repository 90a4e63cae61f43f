//! Connections that are opened, upgraded and closed with a closing handshake, and nothing else.

use std::io;
use std::num::NonZeroUsize;

use crate::client::{self, Target};
use crate::control::Control;
use crate::workload::timed;

/// The size of a handshake run.
#[derive(clap::Args)]
pub struct Handshake {
    /// Connections in all
    #[arg(long, default_value_t = 5000)]
    connections: usize,
    /// Connections at the same time
    #[arg(long, default_value_t = client::PARALLEL)]
    parallel: NonZeroUsize,
}

/// Opens and closes all the connections, `parallel` at a time.
///
/// # Errors
///
/// A connection that is refused, not upgraded, or not closed in time, with its number.
pub fn run(options: &Handshake, target: Target, control: Control) -> io::Result<()> {
    timed(control, || {
        let parallel = options.parallel.get();
        for first in (0..options.connections).step_by(parallel) {
            let count = parallel.min(options.connections - first);
            client::close(target.open_at_once("/", first, count)?)?;
        }
        Ok(options.connections as u64)
    })
}
