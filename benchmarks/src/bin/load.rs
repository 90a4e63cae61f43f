//! The load generator: one thread that keeps a WebSocket server busy, checks every byte that comes
//! back, and prints one line of JSON.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use benchmarks::client::Target;
use benchmarks::control::Control;
use benchmarks::limits;
use benchmarks::stream::Tls;
use benchmarks::workload::echo::{self, Echo};
use benchmarks::workload::fanout::{self, Fanout};
use benchmarks::workload::handshake::{self, Handshake};
use benchmarks::workload::idle::{self, Idle};
use benchmarks::workload::latency::{self, Latency};
use benchmarks::workload::push::{self, Push};
use benchmarks::workload::receive::{self, Receive};
use benchmarks::workload::request::{self, Request};
use clap::{Parser, Subcommand};

/// Puts load on a WebSocket server at 127.0.0.1 and checks all that it answers.
#[derive(Parser)]
struct Arguments {
    /// The server's port
    #[arg(long)]
    port: u16,
    /// Seconds of silence after which the run fails; fewer than lie between two pings, which are no silence
    #[arg(long, default_value_t = 15.0)]
    timeout: f64,
    /// Wait for a line on standard input before the messages start, and before the connections close
    #[arg(long)]
    stepped: bool,
    /// Speak TLS, and trust servers that the authority in this PEM file has signed
    #[arg(long, value_name = "FILE")]
    tls: Option<PathBuf>,
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand)]
enum Workload {
    /// Messages that come back to their sender
    Echo(Echo),
    /// Messages that go to all subscribers
    Fanout(Fanout),
    /// Connections that are opened and closed
    Handshake(Handshake),
    /// Connections that say nothing, until a line comes in
    Idle(Idle),
    /// Messages on a fixed schedule that come back to their sender
    Latency(Latency),
    /// Messages that go to connections of the same worker or of another
    Push(Push),
    /// Messages that another program publishes
    Receive(Receive),
    /// Plain HTTP requests, one at a time on each connection
    Request(Request),
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    limits::raise_open_files()?;
    let target = Target {
        port: arguments.port,
        timeout: Duration::from_secs_f64(arguments.timeout),
        tls: arguments.tls.as_deref().map(Tls::trusting).transpose()?,
    };
    let control = Control { stepped: arguments.stepped };
    match &arguments.workload {
        Workload::Echo(options) => echo::run(options, target, control),
        Workload::Fanout(options) => fanout::run(options, target, control),
        Workload::Handshake(options) => handshake::run(options, target, control),
        Workload::Idle(options) => idle::run(options, target),
        Workload::Latency(options) => latency::run(options, target, control),
        Workload::Push(options) => push::run(options, target, control),
        Workload::Receive(options) => receive::run(options, target, control),
        Workload::Request(options) => request::run(options, target, control),
    }
}
