//! One subscriber to messages that another program publishes, in order.

use std::io;

use crate::client::Target;
use crate::control::Control;
use crate::messages::{self, Messages};
use crate::workload::fanout::PUBLISHER;
use crate::workload::{Clients, timed};

/// The size of a receiving run.
#[derive(clap::Args)]
pub struct Receive {
    /// Bytes of a message
    #[arg(long, default_value_t = 100, value_parser = messages::size)]
    size: usize,
    /// Messages in all
    #[arg(long, default_value_t = 100_000)]
    messages: u32,
}

/// Subscribes on `/fanout`, takes the messages until the last one is there, and closes.
///
/// # Errors
///
/// A lost connection, a wrong or missing message, or silence.
pub fn run(options: &Receive, target: Target, control: Control) -> io::Result<()> {
    let mut clients = Clients::new(target.open("/fanout", 1)?, target.timeout)?;
    let expected = Messages::new(options.size, 0);
    timed(control, || {
        let mut next = 0;
        while next < options.messages {
            for index in 0..clients.wait()? {
                clients.receive(index, |_, frame| {
                    expected.check(frame, PUBLISHER, next)?;
                    next += 1;
                    Ok(())
                })?;
            }
        }
        Ok(u64::from(next))
    })?;
    clients.close()
}
