//! Keeps track of whether workers are serving, and answers clients with 503 while none is.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use wire::proxy;

use super::peer::Handed;
use crate::settings::Settings;
use crate::system::sockets::SEND;
use crate::tls::certificate::Certificate;
use crate::tls::session::Session;

/// Connections that may wait here.
const MAX_WAITING: u64 = 4096;
/// Clients that may still be reading their answers. Closing a socket with unread input would take the answer back, so
/// their further input is read, within limits.
const MAX_PARTING: u64 = 1024;
/// The share of this process's descriptors that each of these two may take. New workers need some too.
const PART_OF_DESCRIPTORS: u64 = 4;
const BODY: &str = "no worker is ready\n";
/// How much may come from a client until its request begins, and until it has taken its answer: much of a body may be
/// on its way.
const MAX_HANDSHAKE: usize = 64 * 1024;
const MAX_DRAINED: usize = 4 * 1024 * 1024;
/// Read from a client before the hub does its other work.
const READ_AT_ONCE: usize = 256 * 1024;
const READ: usize = 16 * 1024;
/// How long a client has to take its answer: at least this long, and without TLS at most this long. With TLS it has
/// `handshake_timeout`, unless others wait.
const LINGER: Duration = Duration::from_secs(2);
/// How many TLS handshakes to continue before the hub does its other work: a signature may take a millisecond.
const MAX_HANDSHAKES_AT_ONCE: usize = 8;

/// A client that is being answered, or is still reading its answer.
struct Parting {
    socket: Arc<OwnedFd>,
    /// Its TLS session, until it has been answered.
    session: Option<Box<Session>>,
    /// Whether a PROXY header comes first.
    awaits_header: bool,
    read: usize,
    /// When something last came from it, or was waiting to be read.
    progress_at: Instant,
    until: Instant,
}

/// See the module documentation.
pub(super) struct TurningAway {
    speaks_tls: bool,
    awaits_headers: bool,
    /// The certificate of a server that speaks TLS, unless its files cannot be used.
    certificate: Option<Certificate>,
    handshake_timeout: Duration,
    began: Instant,
    pub(super) most_waiting: usize,
    most_parting: usize,
    /// Since when no worker has been serving.
    pub(super) unserved_since: Option<Instant>,
    /// In the order of their deadlines.
    parting: VecDeque<Parting>,
    pub(super) told_at: Option<Instant>,
}

impl TurningAway {
    pub(super) fn new(settings: &Settings, now: Instant) -> Self {
        let certificate = settings.certificate.as_ref();
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let part = files / PART_OF_DESCRIPTORS;
        Self {
            speaks_tls: certificate.is_some(),
            awaits_headers: settings.proxy_protocol.is_some(),
            certificate: certificate.and_then(|files| Certificate::new(files.clone()).ok()),
            handshake_timeout: settings.handshake_timeout,
            began: now,
            most_waiting: MAX_WAITING.min(part) as usize,
            most_parting: MAX_PARTING.min(part) as usize,
            unserved_since: None,
            parting: VecDeque::new(),
            told_at: None,
        }
    }

    /// What to poll for: the remaining input of clients that have been answered.
    pub(super) fn polled(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.parting.iter().map(|parting| PollFd::new(&parting.socket, PollFlags::IN))
    }

    /// Whether clients can be answered, not only be closed.
    pub(super) fn can_answer(&self) -> bool {
        !self.speaks_tls || self.certificate.is_some()
    }

    /// How many clients can be answered now without giving up too early on one whose TLS handshake is in progress.
    pub(super) fn room(&self, now: Instant) -> usize {
        if !self.speaks_tls {
            return usize::MAX;
        }
        self.most_parting.saturating_sub(self.parting.iter().filter(|parting| !parting.is_idle(now)).count())
    }

    /// Whether a client has not been answered yet, or may still be reading its answer.
    pub(super) fn is_busy(&self) -> bool {
        !self.parting.is_empty()
    }

    /// Answers a client, once it has asked for something if it speaks TLS, and closes its connection.
    pub(super) fn answer(&mut self, handed: Handed, now: Instant) {
        let linger = if self.speaks_tls { self.handshake_timeout } else { LINGER };
        let mut parting = Parting {
            socket: handed.socket,
            session: None,
            awaits_header: self.awaits_headers,
            read: 0,
            progress_at: now,
            until: now + linger,
        };
        if self.speaks_tls {
            parting.session = self.new_session(now).map(Box::new);
            if let Some(session) = &mut parting.session {
                session.keep(handed.input);
            }
            if parting.session.is_none() || parting.begin_handshake() {
                parting.end();
                return;
            }
        } else {
            // It fits into the buffer of a socket that has not been written to.
            let _ = rustix::net::send(&parting.socket, answer().as_bytes(), SEND);
            let _ = shutdown(&parting.socket, Shutdown::Write);
            if parting.has_ended() {
                parting.end();
                return;
            }
        }
        // If there are too many such clients, one that does nothing is dropped, or else the oldest.
        if self.parting.len() >= self.most_parting {
            let idle = self.parting.iter().position(|parting| parting.is_idle(now));
            if let Some(dropped) = self.parting.remove(idle.unwrap_or(0)) {
                dropped.end();
            }
        }
        self.parting.push_back(parting);
    }

    fn new_session(&mut self, now: Instant) -> Option<Session> {
        let certificate = self.certificate.as_mut()?;
        // The workers report files that cannot be used.
        let _ = certificate.refresh(now.duration_since(self.began).as_millis() as u64);
        certificate.session().ok()
    }

    /// When to stop waiting for the first of these clients.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.parting.front().map(|parting| parting.until)
    }

    /// Continues with the clients that are `ready`, and drops those that have ended or take too long.
    pub(super) fn go_on(&mut self, ready: &[bool], now: Instant) {
        let (mut ready, mut handshakes) = (ready.iter(), 0);
        self.parting.retain_mut(|parting| {
            let has_input = ready.next().copied().unwrap_or(false);
            let is_next = has_input && (parting.session.is_none() || handshakes < MAX_HANDSHAKES_AT_ONCE);
            handshakes += usize::from(is_next && parting.session.is_some());
            if has_input {
                parting.progress_at = now;
            }
            // A client whose input has to wait here is not late.
            let has_time = parting.until > now || has_input && !is_next;
            let stays = has_time && !(is_next && parting.has_ended());
            if !stays {
                parting.end();
            }
            stays
        });
    }
}

impl Parting {
    /// Whether nothing has come from it for a while.
    fn is_idle(&self, now: Instant) -> bool {
        now.duration_since(self.progress_at) >= LINGER
    }

    /// Reads what there is, and answers if it is time to. Returns whether that was the end, or more than enough.
    fn has_ended(&mut self) -> bool {
        let enough = self.read + READ_AT_ONCE;
        while self.read < if self.session.is_some() { MAX_HANDSHAKE } else { MAX_DRAINED } {
            if self.read >= enough {
                return false;
            }
            let mut buffer = vec![0; self.session.as_ref().map_or(0, |session| session.kept()) + READ];
            let room = match &self.session {
                Some(session) => session.room_behind_kept(&mut buffer),
                None => &mut buffer,
            };
            match rustix::io::read(&self.socket, room) {
                Ok(0) => return true,
                Ok(count) => {
                    self.read += count;
                    buffer.truncate(buffer.len() - READ + count);
                    if self.session.is_some() && self.converse(&mut buffer) {
                        return true;
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => return error != Errno::AGAIN,
            }
        }
        true
    }

    /// Begins with the input that arrived along with the socket. Returns whether that was the end.
    fn begin_handshake(&mut self) -> bool {
        let Some(session) = self.session.as_ref().filter(|session| session.has_unseen()) else { return false };
        let mut input = vec![0; session.kept()];
        session.room_behind_kept(&mut input);
        self.converse(&mut input)
    }

    /// Continues with the TLS session, and answers as soon as a request begins. Returns whether that was the end.
    fn converse(&mut self, mut input: &mut [u8]) -> bool {
        let Some(session) = &mut self.session else { return false };
        if self.awaits_header {
            match proxy::parse(input) {
                Ok(Some(header)) => input = &mut input[header.length..],
                Ok(None) => {
                    session.keep(input.to_vec());
                    return false;
                }
                Err(_) => return true,
            }
            self.awaits_header = false;
        }
        let (mut plain, mut sealed) = (vec![0; input.len()], Vec::new());
        let asks = session.receive(input, &mut plain, &mut sealed) > 0;
        let is_answered = asks && session.seal(answer().as_bytes(), &mut sealed).is_ok();
        if is_answered {
            session.end_output(&mut sealed);
        }
        let has_ended = session.input_has_ended();
        // A flight of the handshake, and the answer, fit into the buffer of a socket that has hardly been written to.
        if !sealed.is_empty() && rustix::net::send(&self.socket, &sealed, SEND) != Ok(sealed.len()) {
            return true;
        }
        if is_answered {
            let _ = shutdown(&self.socket, Shutdown::Write);
            self.session = None;
        }
        has_ended && !is_answered
    }

    /// Ends the connection, even if a stopped worker holds the socket too.
    fn end(&self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

fn answer() -> String {
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Retry-After: 5\r\nConnection: close\r\n\r\n{BODY}",
        BODY.len()
    )
}
