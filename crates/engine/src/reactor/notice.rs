//! Notices from the rest of the server to this worker's application.

use std::time::Duration;

use crate::language::command::Format;
use crate::language::message::{Answer, Leave};
use crate::reactor::event::{MemberEvent, Token};
use crate::registry::Fd;

/// A notice for the application's side of this worker.
pub(crate) enum Notice {
    Leave(Leave),
    Drain(Duration),
    /// A command asked to subscribe a connection that already has `max_topics`.
    TopicsExceeded,
    /// To a question of this worker's.
    Answered {
        number: u64,
        answer: Box<Answer>,
    },
    /// Something has happened to a member of a topic; see [`Event::Member`](crate::Event::Member).
    Member {
        event: MemberEvent,
        topic: Box<str>,
        fd: Fd,
        number: u64,
        info: Box<str>,
    },
    /// A watched connection is no longer open.
    Gone(Fd),
    /// The outbox of a connection has room that the application waits for.
    Room(Fd),
    /// A request has something new for the application; see [`Event::Progress`](crate::Event::Progress).
    Progress(Token),
}

pub(crate) struct PipeMessage {
    pub(crate) from: u8,
    pub(crate) format: Format,
    pub(crate) payload: Vec<u8>,
}
