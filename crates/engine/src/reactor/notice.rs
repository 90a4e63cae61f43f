//! What the rest of the server tells this worker's application.

use crate::language::message::Leave;
use crate::registry::Fd;

/// Bytes of `pipe_message`s that may wait for their handlers; and so of one of them.
pub const MAX_PIPED: usize = 32 * 1024 * 1024;

/// What the application's side of this worker is told.
pub(crate) enum Notice {
    Leave(Leave),
    /// A command was to subscribe a connection that has `max_topics`.
    TopicsExceeded,
    Subscribers {
        number: u64,
        count: Result<u64, Unanswered>,
    },
    /// A connection that is watched is open no more.
    Gone(Fd),
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Too many questions wait already.
    TooMany,
    /// These workers have not answered in time.
    Silent(Vec<u8>),
}

pub(crate) struct PipeMessage {
    pub(crate) from: u8,
    pub(crate) is_text: bool,
    pub(crate) payload: Vec<u8>,
}
