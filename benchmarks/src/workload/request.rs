//! Plain HTTP requests on kept connections, one at a time on each, whose answers must have a certain length.

use std::io::{self, ErrorKind, Read, Write};

use crate::client::{self, Target};
use crate::control::Control;
use crate::poller::Poller;
use crate::stream::Stream;
use crate::workload::timed;

/// Bytes of a read.
const READ_BUFFER: usize = 256 * 1024;
/// The longest head of an answer.
const MAX_HEAD: usize = 16 * 1024;

/// The size of a run of requests.
#[derive(clap::Args)]
pub struct Request {
    /// Connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of the body of each answer
    #[arg(long)]
    size: usize,
    /// Requests in all
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
}

/// Opens the connections, keeps them busy until all requests are answered, and closes them.
///
/// # Errors
///
/// A lost connection, an answer of another status or length, or silence, with the number of the connection.
pub fn run(options: &Request, target: Target, control: Control) -> io::Result<()> {
    let request = request_to(&target);
    let mut poller = Poller::new()?;
    let mut peers = Vec::new();
    for (number, stream) in target.open_plain(options.connections)?.into_iter().enumerate() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        poller.add(&stream, number)?;
        peers.push((stream, Answer::default()));
    }
    let mut buffer = vec![0; READ_BUFFER];
    timed(control, || {
        let (mut unsent, mut unanswered) = (options.requests, options.requests);
        for (stream, _) in &mut peers {
            ask(stream, &request, &mut unsent)?;
        }
        while unanswered > 0 {
            for index in 0..poller.wait(Some(target.timeout))? {
                let (number, _) = poller.ready(index);
                let (stream, answer) = &mut peers[number];
                let ended = read(stream, &mut buffer).and_then(|count| answer.receive(&buffer[..count], options.size));
                if ended.map_err(|error| client::named("receiving on", number, &error))? {
                    unanswered -= 1;
                    ask(stream, &request, &mut unsent)?;
                }
            }
        }
        Ok(options.requests)
    })
}

/// Opens connections, and has one request answered on each, one after the other. Returns the connections.
///
/// # Errors
///
/// The same as for [`run`].
pub fn answered(connections: usize, size: usize, target: &Target) -> io::Result<Vec<Stream>> {
    let request = request_to(target);
    let mut buffer = vec![0; READ_BUFFER];
    let mut streams = target.open_plain(connections)?;
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut ask = || {
            let mut answer = Answer::default();
            stream.write_all(request.as_bytes())?;
            loop {
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                if answer.receive(&buffer[..count], size)? {
                    return Ok(());
                }
            }
        };
        ask().map_err(|error| client::named("asking on", number, &error))?;
    }
    Ok(streams)
}

fn request_to(target: &Target) -> String {
    format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAccept: */*\r\nUser-Agent: load\r\n\r\n", target.port)
}

/// Sends a request if any are left. It always fits into an idle socket.
fn ask(stream: &mut Stream, request: &str, unsent: &mut u64) -> io::Result<()> {
    if *unsent > 0 {
        *unsent -= 1;
        stream.write_all(request.as_bytes())?;
    }
    Ok(())
}

/// Reads once; returns 0 if there is nothing to read.
fn read(stream: &mut Stream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream.read(buffer) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

/// An answer that is being read.
#[derive(Default)]
struct Answer {
    /// The head, until it is whole; then lines of chunks.
    line: Vec<u8>,
    state: State,
    /// Bytes of the body that have arrived.
    size: usize,
}

#[derive(Default)]
enum State {
    #[default]
    Head,
    /// This many bytes of the body, which are the last.
    Rest(usize),
    ChunkSize,
    /// This many bytes of a chunk, and of the end of its line.
    Chunk(usize),
    /// This many bytes of the empty line after the last chunk.
    LastLine(usize),
}

impl Answer {
    /// Takes what has arrived; returns whether the answer is whole. It must have a body of `size` bytes.
    fn receive(&mut self, mut input: &[u8], size: usize) -> io::Result<bool> {
        loop {
            match self.state {
                State::Head => {
                    let searched = self.line.len().saturating_sub(3);
                    let before = self.line.len();
                    self.line.extend_from_slice(input);
                    let found = self.line[searched..].windows(4).position(|bytes| bytes == b"\r\n\r\n");
                    let Some(end) = found.map(|place| searched + place + 4) else {
                        return if self.line.len() > MAX_HEAD {
                            Err(unexpected("no end of the head"))
                        } else {
                            Ok(false)
                        };
                    };
                    input = &input[end - before..];
                    self.state = framing(&self.line[..end])?;
                    self.line.clear();
                }
                State::Rest(left) => {
                    let taken = left.min(input.len());
                    self.size += taken;
                    if taken == left {
                        return self.end(&input[taken..], size);
                    }
                    self.state = State::Rest(left - taken);
                    return Ok(false);
                }
                State::ChunkSize => {
                    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
                        self.line.extend_from_slice(input);
                        return Ok(false);
                    };
                    self.line.extend_from_slice(&input[..end]);
                    input = &input[end + 1..];
                    let digits = str::from_utf8(self.line.trim_ascii()).unwrap_or_default();
                    let length = usize::from_str_radix(digits, 16).map_err(|_| unexpected("not a chunk"))?;
                    self.line.clear();
                    self.size += length;
                    self.state = if length == 0 { State::LastLine(2) } else { State::Chunk(length + 2) };
                }
                State::Chunk(left) => {
                    let taken = left.min(input.len());
                    input = &input[taken..];
                    if taken < left {
                        self.state = State::Chunk(left - taken);
                        return Ok(false);
                    }
                    self.state = State::ChunkSize;
                }
                State::LastLine(left) => {
                    let taken = left.min(input.len());
                    if taken == left {
                        return self.end(&input[taken..], size);
                    }
                    self.state = State::LastLine(left - taken);
                    return Ok(false);
                }
            }
        }
    }

    fn end(&mut self, rest: &[u8], size: usize) -> io::Result<bool> {
        if !rest.is_empty() || self.size != size {
            return Err(unexpected(&format!("a body of {} bytes and {} after it", self.size, rest.len())));
        }
        *self = Self::default();
        Ok(true)
    }
}

/// How the body after this head is delimited.
fn framing(head: &[u8]) -> io::Result<State> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200 ") {
        return Err(unexpected(head.lines().next().unwrap_or_default()));
    }
    for line in head.lines() {
        if let Some(length) = line.strip_prefix("content-length:") {
            return length.trim().parse().map(State::Rest).map_err(|_| unexpected(line));
        }
        if line == "transfer-encoding: chunked" {
            return Ok(State::ChunkSize);
        }
    }
    Err(unexpected("neither a length nor chunks"))
}

fn unexpected(found: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the server answered with {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";

    #[test]
    fn answers_are_read_however_they_are_split() {
        for answer in [PLAIN, CHUNKED] {
            for split in 0..answer.len() {
                let mut reader = Answer::default();
                assert!(!reader.receive(&answer[..split], 5).expect("begun"));
                assert!(reader.receive(&answer[split..], 5).expect("ended"), "split at {split}");
                assert!(reader.receive(PLAIN, 5).expect("the next one"));
            }
        }
    }

    #[test]
    fn wrong_answers_are_noticed() {
        for answer in [&b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nhello"[..], PLAIN, CHUNKED] {
            assert!(Answer::default().receive(answer, 6).is_err());
        }
        let twice = [PLAIN, PLAIN].concat();
        assert!(Answer::default().receive(&twice, 5).is_err());
    }
}
