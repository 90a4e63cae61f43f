//! One connection has the server push to many others by their ids: to those of its own worker, or of the other one.
//!
//! The server answers `who` with the number of the connection's worker and the connection's id. Any other message lists
//! ids the first time, and is pushed to those from then on.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};

use clap::ValueEnum;

use crate::client::{self, Target};
use crate::control::Control;
use crate::frame;
use crate::messages;
use crate::stream::Stream;
use crate::workload::fanout::Publishing;
use crate::workload::{Clients, timed};

/// How often to open as many connections as one worker needs before concluding that the server does not spread them.
const MAX_BATCHES: usize = 8;

/// The size of a pushing run.
#[derive(clap::Args)]
pub struct Push {
    /// Whose connections are pushed to
    #[arg(long, default_value = "same")]
    to: Worker,
    /// Connections that every message is pushed to
    #[arg(long, default_value_t = 100)]
    recipients: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 128, value_parser = messages::size)]
    size: usize,
    /// Messages that the sender has on the way
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Messages in all; the result counts the pushes
    #[arg(long, default_value_t = 1000)]
    messages: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Worker {
    /// The sender's own worker
    Same,
    /// The other worker
    Other,
}

/// Opens connections to both workers of a server, names the recipients, sends messages until
/// each of these has them all, and closes.
///
/// # Errors
///
/// Connections that are not in two workers, a lost one, a wrong or missing message, or silence.
pub fn run(options: &Push, target: Target, control: Control) -> io::Result<()> {
    let [mut own, mut others] = open(options.recipients + 1, &target)?;
    let mut sender = own.pop().expect("one more than there are recipients").stream;
    let pool = match options.to {
        Worker::Same => &mut own,
        Worker::Other => &mut others,
    };
    let recipients = pool.split_off(pool.len() - options.recipients);
    let ids: Vec<&str> = recipients.iter().map(|member| member.id.as_str()).collect();
    sender.write_all(&text(&ids.join(" ")))?;

    let streams = recipients.into_iter().map(|member| member.stream).chain([sender]);
    let mut clients = Clients::new(streams.collect(), target.timeout)?;
    timed(control, || {
        Publishing::new(options.recipients, options.size, options.in_flight).run(options.messages, &mut clients)
    })?;
    clients.close()?;
    client::close(own.into_iter().chain(others).map(|member| member.stream))
}

/// A connection of a worker, and the id by which the server knows it.
struct Member {
    stream: Stream,
    id: String,
}

/// Opens connections until there are `enough` in each of the two workers of a server.
fn open(enough: usize, target: &Target) -> io::Result<[Vec<Member>; 2]> {
    let mut workers = BTreeMap::<String, Vec<Member>>::new();
    for _ in 0..MAX_BATCHES {
        for (number, mut stream) in target.open("/", enough)?.into_iter().enumerate() {
            let (worker, id) = ask(&mut stream).map_err(|error| client::named("asking who is", number, &error))?;
            workers.entry(worker).or_default().push(Member { stream, id });
        }
        if workers.len() == 2 && workers.values().all(|members| members.len() >= enough) {
            return Ok([workers.pop_first(), workers.pop_last()].map(|worker| worker.expect("one of two").1));
        }
    }
    let sizes: Vec<usize> = workers.values().map(Vec::len).collect();
    Err(io::Error::other(format!(
        "there should be {enough} connections or more in each of two workers, and they hold {sizes:?}"
    )))
}

/// Asks the server for the worker and the id of a connection.
fn ask(stream: &mut Stream) -> io::Result<(String, String)> {
    stream.write_all(&text("who"))?;
    let mut answer = [0; 64];
    let mut length = 0;
    loop {
        match stream.read(&mut answer[length..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => length += read,
        }
        if let Some(frame) = frame::parse(&answer[..length]) {
            let answer = String::from_utf8_lossy(frame.payload);
            let (worker, id) = answer.split_once(' ').ok_or(ErrorKind::InvalidData)?;
            return Ok((worker.to_owned(), id.to_owned()));
        }
    }
}

fn text(message: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::append(&mut bytes, frame::TEXT, Some([1, 2, 3, 4]), message.as_bytes());
    bytes
}
