//! Notices from the rest of the server to this worker's application.

use crate::language::command::Format;
use crate::language::message::Leave;
use crate::registry::Fd;

/// Bytes of `pipe_message`s that may wait for their handlers. This also limits a single one.
pub const MAX_PIPED: usize = 32 * 1024 * 1024;

/// A notice for the application's side of this worker.
pub(crate) enum Notice {
    Leave(Leave),
    /// A command asked to subscribe a connection that already has `max_topics`.
    TopicsExceeded,
    Subscribers {
        number: u64,
        count: Result<u64, Unanswered>,
    },
    /// A watched connection is no longer open.
    Gone(Fd),
    /// The outbox of a connection has room that the application waits for.
    Room(Fd),
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Too many questions are already waiting.
    TooMany,
    /// These workers did not answer in time.
    Silent(Vec<u8>),
}

pub(crate) struct PipeMessage {
    pub(crate) from: u8,
    pub(crate) format: Format,
    pub(crate) payload: Vec<u8>,
}
