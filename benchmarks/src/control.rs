//! The points where a run waits, so that its caller can read the server's CPU time or memory in between.

use std::io::{self, Write};

/// The two stops of a run: with its connections open, and with its result printed.
#[derive(Clone, Copy)]
pub struct Control {
    /// Whether to wait for a line on standard input at each stop.
    pub stepped: bool,
}

impl Control {
    /// Says `ready` and waits, if the run is stepped.
    ///
    /// # Errors
    ///
    /// Those of the standard streams.
    pub fn ready(self) -> io::Result<()> {
        if self.stepped {
            println!("ready");
        }
        self.wait()
    }

    /// Prints the result, a line of JSON, and waits, if the run is stepped.
    ///
    /// # Errors
    ///
    /// Those of the standard streams.
    pub fn finish(self, result: &serde_json::Value) -> io::Result<()> {
        println!("{result}");
        self.wait()
    }

    fn wait(self) -> io::Result<()> {
        io::stdout().flush()?;
        if self.stepped {
            io::stdin().read_line(&mut String::new())?;
        }
        Ok(())
    }
}
