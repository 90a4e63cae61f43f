//! Handles the reactor's events as the binding and the program on top of it do, in plain Rust.

use std::collections::{BTreeMap, BTreeSet};

use crate::language::message::Answer;
use crate::reactor::Reactor;
use crate::reactor::event::{Event, MemberEvent, Payload, Relief, Shortage, Token};
use crate::reactor::tests::simulation::NO_HEADERS;
use crate::registry::Fd;

/// A number that tells clients apart: the port of their made-up address.
pub(super) type Who = usize;

/// What the application has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Open(Fd),
    Text(Fd, String),
    Binary(Fd, Vec<u8>),
    Close(Fd, u16, String),
    Drain(Fd),
    /// A request with this body; without one, if the body is to be taken.
    Request(Vec<u8>),
    /// A client was turned away.
    Refused(Option<u16>),
    Relieved(Relief),
    Shortage(Shortage),
    AcceptPaused,
    TopicsExceeded(Fd),
    Member(MemberEvent, String, Fd, String),
    Answered(u64, Answer),
    Gone(Fd),
    Room(Fd),
    Progress(Token),
    PipeMessage(Vec<u8>),
    Other,
}

/// What an event asks the application to do, once the reactor is no longer borrowed.
enum Step {
    Handshake(Who, Token),
    Request(Who, Token, Vec<u8>),
    Note(Seen),
}

/// The end of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// `close` has been reported.
    Closed,
}

pub(super) struct Application {
    /// Whether handshakes are accepted at once. Otherwise they wait in `handshakes`.
    pub(super) accepts: bool,
    /// Whether `close` handlers end at once. Otherwise the connection waits in `unforgotten`.
    pub(super) forgets: bool,
    /// Whether the handlers of `open` and `message` keep running, until `release` is called.
    pub(super) keeps_running: bool,
    pub(super) handshakes: Vec<(Who, Token)>,
    pub(super) requests: Vec<(Who, Token)>,
    pub(super) unforgotten: Vec<Fd>,
    /// Connections whose handler is running.
    pub(super) running: BTreeSet<Fd>,
    /// Everything, in order.
    pub(super) seen: Vec<Seen>,
    lives: BTreeMap<Fd, Life>,
    fds: BTreeMap<Who, Fd>,
}

impl Application {
    pub(super) fn new() -> Self {
        Self {
            accepts: true,
            forgets: true,
            keeps_running: false,
            handshakes: Vec::new(),
            requests: Vec::new(),
            unforgotten: Vec::new(),
            running: BTreeSet::new(),
            seen: Vec::new(),
            lives: BTreeMap::new(),
            fds: BTreeMap::new(),
        }
    }

    /// Handles the reactor's next event. Returns false if there is none.
    pub(super) fn handle_next(&mut self, reactor: &mut Reactor) -> bool {
        let Some(step) = reactor.next(step_of) else { return false };
        match step {
            Step::Handshake(who, token) if self.accepts => self.accept(reactor, who, token),
            Step::Handshake(who, token) => self.handshakes.push((who, token)),
            Step::Request(who, token, body) => {
                self.requests.push((who, token));
                self.seen.push(Seen::Request(body));
            }
            Step::Note(seen) => self.note(reactor, seen),
        }
        true
    }

    /// Accepts a handshake. There may be no room any more.
    pub(super) fn accept(&mut self, reactor: &mut Reactor, who: Who, token: Token) {
        let accepted = reactor.accept(token, None, NO_HEADERS, None);
        reactor.done(token);
        let Some(fd) = accepted else { return };
        assert_eq!(self.lives.insert(fd, Life::Open), None, "an id is used again");
        self.fds.insert(who, fd);
        self.seen.push(Seen::Open(fd));
        self.run_handler(reactor, fd);
    }

    fn note(&mut self, reactor: &mut Reactor, seen: Seen) {
        match &seen {
            Seen::Text(fd, _) | Seen::Binary(fd, _) => {
                let fd = *fd;
                assert_eq!(self.lives.get(&fd), Some(&Life::Open), "a message before `open` or after `close`");
                self.run_handler(reactor, fd);
            }
            Seen::Close(fd, ..) => {
                let fd = *fd;
                assert!(!self.running.contains(&fd), "`close` while another handler runs");
                assert_eq!(self.lives.insert(fd, Life::Closed), Some(Life::Open), "`close` runs once, after `open`");
                if self.forgets {
                    reactor.forget(fd);
                } else {
                    self.unforgotten.push(fd);
                }
            }
            _ => {}
        }
        self.seen.push(seen);
    }

    fn run_handler(&mut self, reactor: &mut Reactor, fd: Fd) {
        assert!(!self.running.contains(&fd), "two handlers of a connection overlap");
        if self.keeps_running {
            reactor.hold(fd);
            self.running.insert(fd);
        }
    }

    /// Ends the running handler of a connection.
    pub(super) fn release(&mut self, reactor: &mut Reactor, fd: Fd) {
        assert!(self.running.remove(&fd), "no handler runs");
        reactor.release(fd);
    }

    /// Ends all `close` handlers.
    pub(super) fn forget_all(&mut self, reactor: &mut Reactor) {
        for fd in std::mem::take(&mut self.unforgotten) {
            reactor.forget(fd);
        }
    }

    /// The connection that a client has, or had.
    pub(super) fn fd(&self, who: Who) -> Option<Fd> {
        self.fds.get(&who).copied()
    }

    /// The text messages of a connection.
    pub(super) fn texts(&self, from: Fd) -> Vec<&str> {
        let texts = self.seen.iter().filter_map(|seen| match seen {
            Seen::Text(fd, text) if *fd == from => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// How a connection ended: the code and the reason that `close` was called with.
    pub(super) fn ending(&self, of: Fd) -> Option<(u16, &str)> {
        self.seen.iter().find_map(|seen| match seen {
            Seen::Close(fd, code, reason) if *fd == of => Some((*code, reason.as_str())),
            _ => None,
        })
    }

    /// The number of connections for which `open` has run.
    pub(super) fn opened(&self) -> usize {
        self.lives.len()
    }

    /// The number of connections for which `close` has run.
    pub(super) fn closed(&self) -> usize {
        self.lives.values().filter(|life| **life == Life::Closed).count()
    }

    pub(super) fn count(&self, is_wanted: impl Fn(&Seen) -> bool) -> usize {
        self.seen.iter().filter(|seen| is_wanted(seen)).count()
    }
}

fn step_of(event: Event<'_>) -> Step {
    Step::Note(match event {
        Event::Member { event, topic, fd, info, .. } => Seen::Member(event, topic.to_owned(), fd, info.to_owned()),
        Event::Handshake { token, peer, .. } => return Step::Handshake(peer.port().into(), token),
        Event::Request { token, peer, body, .. } => {
            return Step::Request(peer.port().into(), token, body.unwrap_or_default());
        }
        Event::Message { fd, payload: Payload::Text(text), .. } => Seen::Text(fd, text.to_owned()),
        Event::Message { fd, payload: Payload::Binary(bytes), .. } => Seen::Binary(fd, bytes.to_vec()),
        Event::Closed { fd, code, reason, .. } => Seen::Close(fd, code, reason),
        Event::Drained { fd, .. } => Seen::Drain(fd),
        Event::Refused(refused) => Seen::Refused(refused.status),
        Event::Relieved(relief) => Seen::Relieved(relief),
        Event::Shortage(shortage) => Seen::Shortage(shortage),
        Event::AcceptPaused { .. } => Seen::AcceptPaused,
        Event::TopicsExceeded { fd } => Seen::TopicsExceeded(fd),
        Event::Room { fd } => Seen::Room(fd),
        Event::Gone { fd } => Seen::Gone(fd),
        Event::Progress { token } => Seen::Progress(token),
        Event::PipeMessage { payload: Payload::Text(text), .. } => Seen::PipeMessage(text.into()),
        Event::PipeMessage { payload: Payload::Binary(bytes), .. } => Seen::PipeMessage(bytes.to_vec()),
        Event::Answered { number, answer } => Seen::Answered(number, *answer),
        Event::Leave(_) | Event::Drain(_) | Event::CertificateRead(_) => Seen::Other,
    })
}
