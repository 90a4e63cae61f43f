//! One connection to Redis, from the name of a host to a server that has been found usable, and what is read and written
//! then. When it is lost, it is made again.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Registry, Token};
use rustls::pki_types::ServerName;

use super::back_off::BackOff;
use super::greeting::{Failure, Greeting, Identity, Ready, Welcome};
use super::input::Input;
use super::resolver::Resolver;
use super::stream::Stream;
use crate::redis_address::{Host, Place, RedisAddress, Trust};
use crate::system::sockets;
use crate::tls::trusted;

/// The time for each: to resolve a name, to connect to one of its addresses and be found usable.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same for a Sentinel: there are others.
const PATIENCE_WITH_SENTINEL: Duration = Duration::from_secs(1);

/// What somebody has to change is not changed within a moment.
const PAUSE_IF_UNUSABLE: Duration = Duration::from_secs(2);

enum Stage {
    Waiting { until: Instant },
    Resolving { host: Host },
    Connecting { place: String },
    Greeting(Greeting),
    Usable { since: Instant },
}

/// See the module documentation.
pub(super) struct Connection {
    token: Token,
    /// What Redis calls it in the list of its clients.
    name: &'static str,
    address: Arc<RedisAddress>,
    stage: Stage,
    /// By when the stage has to be over.
    deadline: Instant,
    /// The Sentinels that are yet to be asked in this attempt; the server that the last one named.
    sentinels: VecDeque<Host>,
    /// Why those that were asked before could not help.
    failed: Option<Failure>,
    /// Whom the attempt connects to now, and that host's other addresses.
    target: Option<Host>,
    addresses: VecDeque<SocketAddr>,
    asks_sentinel: bool,
    stream: Option<Stream>,
    /// What the server calls the connection that is usable, or was the last to be.
    identity: Option<Identity>,
    is_readable: bool,
    is_writable: bool,
    pub(super) input: Input,
    /// What is to be sent, beside the commands.
    pub(super) output: Vec<u8>,
    back_off: BackOff,
}

impl Connection {
    pub(super) fn new(token: Token, name: &'static str, address: Arc<RedisAddress>, now: Instant) -> Self {
        Self {
            token,
            name,
            address,
            stage: Stage::Waiting { until: now },
            deadline: now,
            sentinels: VecDeque::new(),
            failed: None,
            target: None,
            addresses: VecDeque::new(),
            asks_sentinel: false,
            stream: None,
            identity: None,
            is_readable: false,
            is_writable: false,
            input: Input::default(),
            output: Vec::new(),
            back_off: BackOff::default(),
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        matches!(self.stage, Stage::Usable { .. })
    }

    /// When [`Connection::advance`] has something to do, even without an event.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waiting { until } => Some(until),
            Stage::Usable { .. } => None,
            _ => Some(self.deadline),
        }
    }

    /// Notes an event.
    pub(super) fn note(&mut self, event: &Event) {
        self.is_readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.is_writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    // ---- on the way to a usable server ------------------------------------------------------------------------------

    /// Goes on as far as it can without waiting. Returns what is known of the server when it has become usable.
    ///
    /// # Errors
    /// Why the attempt has failed. [`Connection::lose`] is to follow.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        registry: &Registry,
        resolver: &Resolver,
    ) -> Result<Option<Ready>, Failure> {
        loop {
            let done = match self.stage {
                Stage::Waiting { until } if now < until => return Ok(None),
                Stage::Usable { .. } => return Ok(None),
                Stage::Waiting { .. } => self.begin(now, registry).map(|()| true),
                Stage::Resolving { .. } => self.resolve(now, registry, resolver),
                Stage::Connecting { .. } => self.connect(now),
                Stage::Greeting(_) => match self.greet() {
                    Ok(Some(Welcome::Ready(ready))) => {
                        self.stage = Stage::Usable { since: now };
                        self.identity = Some(ready.identity.clone());
                        return Ok(Some(ready));
                    }
                    Ok(Some(Welcome::Server(host))) => {
                        self.drop_stream(registry);
                        self.asks_sentinel = false;
                        self.approach(host, now);
                        Ok(true)
                    }
                    Ok(None) => Ok(false),
                    Err(failure) => Err(failure),
                },
            };
            let done = match done {
                Ok(false) if now >= self.deadline => Err(Failure::Lost(self.too_late())),
                done => done,
            };
            match done {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(failure) => self.try_another(failure, now, registry)?,
            }
        }
    }

    fn begin(&mut self, now: Instant, registry: &Registry) -> Result<(), Failure> {
        match &self.address.place {
            Place::Host(host) => {
                let host = host.clone();
                self.approach(host, now);
            }
            Place::Sentinels { sentinels, .. } => {
                self.sentinels = sentinels.iter().cloned().collect();
                self.failed = None;
                self.asks_sentinel = true;
                if let Some(first) = self.sentinels.pop_front() {
                    self.approach(first, now);
                }
            }
            Place::Socket(path) => {
                let stream = Stream::unix(path);
                let place = self.address.to_string();
                self.deadline = now + PATIENCE;
                self.begin_to_connect(stream, place, registry)?;
            }
        }
        Ok(())
    }

    /// Goes to another host.
    fn approach(&mut self, host: Host, now: Instant) {
        self.set_deadline(now);
        self.target = Some(host.clone());
        self.addresses.clear();
        self.stage = Stage::Resolving { host };
    }

    fn set_deadline(&mut self, now: Instant) {
        self.deadline = now + if self.asks_sentinel { PATIENCE_WITH_SENTINEL } else { PATIENCE };
    }

    fn resolve(&mut self, now: Instant, registry: &Registry, resolver: &Resolver) -> Result<bool, Failure> {
        let Stage::Resolving { host } = &self.stage else { return Ok(false) };
        match resolver.find(host) {
            None => Ok(false),
            Some(Err(error)) => Err(Failure::Lost(format!("cannot find the host of Redis, {}: {error}", host.name))),
            Some(Ok(addresses)) => {
                self.addresses = addresses.into();
                let nowhere = || Failure::Lost(format!("the host of Redis, {}, has no address", host.name));
                let first = self.addresses.pop_front().ok_or_else(nowhere)?;
                self.connect_to(first, now, registry).map(|()| true)
            }
        }
    }

    fn connect_to(&mut self, address: SocketAddr, now: Instant, registry: &Registry) -> Result<(), Failure> {
        self.set_deadline(now);
        let name = self.target.as_ref().map_or_else(|| address.to_string(), Host::to_string);
        let place = if name == address.to_string() { name } else { format!("{name} ({})", address.ip()) };
        self.begin_to_connect(Stream::tcp(address), place, registry)
    }

    fn begin_to_connect(
        &mut self,
        stream: io::Result<Stream>,
        place: String,
        registry: &Registry,
    ) -> Result<(), Failure> {
        let registered = stream.and_then(|mut stream| {
            stream.register(registry, self.token)?;
            Ok(stream)
        });
        self.stream = Some(registered.map_err(|error| cannot_connect(&place, &error))?);
        (self.is_readable, self.is_writable) = (false, false);
        self.stage = Stage::Connecting { place };
        Ok(())
    }

    fn connect(&mut self, now: Instant) -> Result<bool, Failure> {
        let Stage::Connecting { place } = &self.stage else { return Ok(false) };
        let Some(stream) = self.stream.as_mut().filter(|_| self.is_writable) else { return Ok(false) };
        if !stream.is_connected().map_err(|error| cannot_connect(place, &error))? {
            self.is_writable = false;
            return Ok(false);
        }
        if let Some((trust, host)) = self.address.trust.as_ref().zip(self.target.as_ref()) {
            let file = match trust {
                Trust::File(path) => Some(path.as_path()),
                Trust::System => None,
            };
            let config = trusted::client_config(file);
            let config = config.map_err(|error| Failure::Unusable(format!("TLS to Redis is not possible: {error}")))?;
            let name = ServerName::try_from(host.name.clone());
            let name = name.map_err(|_| Failure::Unusable(format!("no certificate can be for {}", host.name)))?;
            stream.begin_tls(config, name).map_err(|error| cannot_connect(place, &error))?;
        }
        self.output.clear();
        self.input = Input::default();
        self.set_deadline(now);
        self.stage = Stage::Greeting(match (&self.address.place, &self.stage) {
            (Place::Sentinels { name, .. }, Stage::Connecting { place }) if self.asks_sentinel => {
                let login = self.address.sentinel_login.as_ref();
                Greeting::sentinel(place.clone(), name, login, &mut self.output)
            }
            (_, Stage::Connecting { place }) => {
                let former = self.identity.clone();
                Greeting::server(place.clone(), &self.address, self.name, former, &mut self.output)
            }
            _ => return Ok(false),
        });
        Ok(true)
    }

    fn greet(&mut self) -> Result<Option<Welcome>, Failure> {
        self.write_output()?;
        loop {
            let Stage::Greeting(greeting) = &mut self.stage else { return Ok(None) };
            while let Some(frame) = self.input.next().map_err(malformed)? {
                if let Some(welcome) = greeting.take(&frame, &mut self.output)? {
                    return Ok(Some(welcome));
                }
            }
            if !self.fill()? {
                // A reply may have called for more, and TLS may have something to say, too.
                self.write_output()?;
                return Ok(None);
            }
        }
    }

    fn too_late(&self) -> String {
        let seconds = if self.asks_sentinel { PATIENCE_WITH_SENTINEL } else { PATIENCE }.as_secs();
        match &self.stage {
            Stage::Resolving { host } => {
                format!("cannot find the host of Redis, {}: no name server has answered within {seconds} s", host.name)
            }
            Stage::Connecting { place } => format!("cannot connect to Redis at {place} within {seconds} s"),
            _ => format!("Redis at {} has not answered within {seconds} s", self.place()),
        }
    }

    /// Goes on with another address, or another Sentinel.
    fn try_another(&mut self, failure: Failure, now: Instant, registry: &Registry) -> Result<(), Failure> {
        self.drop_stream(registry);
        if matches!(self.stage, Stage::Connecting { .. }) {
            while let Some(address) = self.addresses.pop_front() {
                if self.connect_to(address, now, registry).is_ok() {
                    return Ok(());
                }
            }
        }
        if !self.asks_sentinel {
            return Err(failure);
        }
        let failure = match self.failed.take() {
            Some(before) => before.and(failure),
            None => failure,
        };
        match self.sentinels.pop_front() {
            Some(sentinel) => {
                self.failed = Some(failure);
                self.approach(sentinel, now);
                Ok(())
            }
            None => Err(failure),
        }
    }

    /// Where the connection leads, for people.
    fn place(&self) -> String {
        self.target.as_ref().map_or_else(|| self.address.to_string(), Host::to_string)
    }

    // ---- reading and writing ----------------------------------------------------------------------------------------

    /// Reads what has arrived, once. Returns false if nothing has.
    ///
    /// # Errors
    /// If the connection is lost.
    pub(super) fn fill(&mut self) -> Result<bool, Failure> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.is_readable) else { return Ok(false) };
        match stream.read(self.input.room()) {
            Ok(0) => Err(Failure::Lost(format!("Redis at {} has ended the connection", self.place()))),
            Ok(count) => {
                self.input.filled(count);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                Ok(false)
            }
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// Writes, once. Returns how much was taken; 0 if nothing can be for now.
    ///
    /// # Errors
    /// If the connection is lost.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.is_writable) else { return Ok(0) };
        loop {
            let written = if bytes.is_empty() { stream.flush().map(|()| 0) } else { stream.write(bytes) };
            match written {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_writable = false;
                    return Ok(0);
                }
                written => return written.map_err(|error| self.broken(&error)),
            }
        }
    }

    /// Writes what is to be sent beside the commands.
    ///
    /// # Errors
    /// If the connection is lost.
    pub(super) fn write_output(&mut self) -> Result<(), Failure> {
        let output = std::mem::take(&mut self.output);
        let mut head = 0;
        while head < output.len() {
            match self.write(&output[head..])? {
                0 => break,
                count => head += count,
            }
        }
        self.output = output;
        self.output.drain(..head);
        self.write(&[]).map(|_| ())
    }

    fn broken(&self, error: &io::Error) -> Failure {
        Failure::Lost(format!("the connection to Redis at {} is broken: {}", self.place(), sockets::explain(error)))
    }

    // ---- the end ----------------------------------------------------------------------------------------------------

    /// Ends the connection, or the attempt, and plans the next one. Returns whether it was usable.
    pub(super) fn lose(&mut self, is_unusable: bool, now: Instant, registry: &Registry) -> bool {
        let usable_since = match self.stage {
            Stage::Usable { since } => Some(since),
            _ => None,
        };
        self.drop_stream(registry);
        let pause = self.back_off.after_failure(usable_since, now);
        self.stage = Stage::Waiting { until: now + if is_unusable { PAUSE_IF_UNUSABLE } else { pause } };
        usable_since.is_some()
    }

    fn drop_stream(&mut self, registry: &Registry) {
        if let Some(stream) = self.stream.take() {
            stream.end(registry);
        }
        self.input = Input::default();
        self.output = Vec::new();
    }
}

fn cannot_connect(place: &str, error: &io::Error) -> Failure {
    Failure::Lost(format!("cannot connect to Redis at {place}: {}", sockets::explain(error)))
}

/// The failure of a connection on which something strange has arrived.
pub(super) fn malformed(what: &str) -> Failure {
    Failure::Lost(format!("Redis has sent {what}"))
}
