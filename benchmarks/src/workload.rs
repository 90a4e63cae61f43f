//! The workloads. Each opens its connections, says `ready`, runs, prints its result, and closes.

pub mod echo;
pub mod fanout;
pub mod handshake;
pub mod idle;
pub mod latency;
pub mod push;
pub mod receive;
pub mod request;

use std::io;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::client;
use crate::connection::{Connection, READ_BUFFER};
use crate::control::Control;
use crate::frame::{self, Frame};
use crate::poller::Poller;
use crate::stream::Stream;

/// Runs and times `work`, which returns how many messages or handshakes it did. The result contains the elapsed
/// seconds, and the CPU seconds of this process, to show that it was not the limit.
fn timed(control: Control, work: impl FnOnce() -> io::Result<u64>) -> io::Result<()> {
    timed_with(control, || work().map(|messages| (messages, json!({}))))
}

/// The same for `work` that has measured more than how long it took.
fn timed_with(control: Control, work: impl FnOnce() -> io::Result<(u64, Value)>) -> io::Result<()> {
    control.ready()?;
    let (started, cpu) = (Instant::now(), cpu_time());
    let (messages, found) = work()?;
    control.finish(&json!({
        "messages": messages,
        "seconds": started.elapsed().as_secs_f64(),
        "load_cpu_seconds": (cpu_time() - cpu).as_secs_f64(),
        "found": found,
    }))
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Open connections, and the buffers for reading them. A connection is identified by its number.
struct Clients {
    connections: Vec<Connection>,
    poller: Poller,
    buffer: Vec<u8>,
    timeout: Duration,
}

impl Clients {
    fn new(streams: Vec<Stream>, timeout: Duration) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut connections = Vec::with_capacity(streams.len());
        for (number, stream) in streams.into_iter().enumerate() {
            poller.add(&stream, number)?;
            connections.push(Connection::new(stream, number)?);
        }
        Ok(Self { connections, poller, buffer: vec![0; READ_BUFFER], timeout })
    }

    /// Waits until connections are readable. Returns how many; [`Clients::receive`] takes each.
    fn wait(&mut self) -> io::Result<usize> {
        self.poller
            .wait(Some(self.timeout))
            .map_err(|error| io::Error::new(error.kind(), format!("nothing came for {} s", self.timeout.as_secs_f64())))
    }

    /// Returns how many connections are readable now, which may be none.
    fn poll(&mut self) -> io::Result<usize> {
        self.poller.poll(Some(Duration::ZERO))
    }

    /// Reads connection number `index` of the last wait once, answers pings, and passes on each message with the
    /// connection's number. Returns that number.
    fn receive(
        &mut self,
        index: usize,
        mut each: impl FnMut(usize, &Frame<'_>) -> io::Result<()>,
    ) -> io::Result<usize> {
        let (number, writable) = self.poller.ready(index);
        let connection = &mut self.connections[number];
        let mut pongs = Vec::new();
        let received = connection.read(&mut self.buffer, |frame| match frame.opcode {
            frame::PING => {
                frame::append(&mut pongs, frame::PONG, Some([1, 2, 3, 4]), frame.payload);
                Ok(())
            }
            frame::CLOSE => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                format!("the server closed it: {:?}", frame.payload),
            )),
            _ => each(number, frame),
        });
        received
            .and_then(|()| if writable { connection.flush(&self.poller) } else { Ok(()) })
            .and_then(|()| connection.send(&pongs, &self.poller))
            .map_err(|error| client::named("receiving on", number, &error))?;
        Ok(number)
    }

    fn send(&mut self, number: usize, frames: &[u8]) -> io::Result<()> {
        self.connections[number].send(frames, &self.poller).map_err(|error| client::named("sending on", number, &error))
    }

    fn close(self) -> io::Result<()> {
        client::close(self.connections.into_iter().map(Connection::into_stream))
    }
}
