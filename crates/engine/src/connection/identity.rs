//! The id of a connection, and the life of its WebSocket, from open to forgotten.

use crate::registry::Fd;

/// How the application identifies a connection.
#[derive(Debug)]
pub(crate) enum Identity {
    /// HTTP, or a WebSocket that is being refused: there are no events, so there is no id.
    Unnamed,
    /// A WebSocket that was accepted.
    Named { fd: Fd, life: Life },
    /// Its `close` handler has ended, and its id no longer means anything. Output may still be on its way.
    Forgotten,
}

/// The life of a WebSocket, as its application sees it. Each state leads only to those after it.
#[derive(Debug)]
pub(crate) enum Life {
    /// Messages go both ways. Its row in the registry holds its counts.
    Open { row: usize },
    /// One side has begun to close. It is no longer open, and its row may belong to another connection. `our_code` is
    /// the code of our Close frame, if we sent ours first.
    Closing { our_code: Option<u16> },
    /// Its `close` event waits for the handlers before it.
    Ended(Box<Ending>),
    /// Its `close` event was passed on, and that handler may still run.
    Reported,
}

/// How a WebSocket ended, for its `close` event.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl Identity {
    /// The id; `None` if the application knows no such connection (any more).
    #[inline]
    pub(crate) fn fd(&self) -> Option<Fd> {
        match self {
            Self::Named { fd, .. } => Some(*fd),
            Self::Unnamed | Self::Forgotten => None,
        }
    }

    /// The id of an open WebSocket, and the registry row of that id.
    #[inline]
    pub(crate) fn open(&self) -> Option<(Fd, usize)> {
        match self {
            Self::Named { fd, life: Life::Open { row } } => Some((*fd, *row)),
            _ => None,
        }
    }

    /// Takes the ending of a WebSocket whose `close` event is due; the event counts as passed on.
    pub(crate) fn take_ending(&mut self) -> Option<(Fd, Ending)> {
        let Self::Named { fd, life: life @ Life::Ended(_) } = self else { return None };
        match std::mem::replace(life, Life::Reported) {
            Life::Ended(ending) => Some((*fd, *ending)),
            _ => None,
        }
    }
}
