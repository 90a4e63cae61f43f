//! The states of the two directions between a connection and its socket.

/// The input that the kernel has reported, and that has not been read yet. A later state includes the earlier
/// ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Incoming {
    /// Nothing. The kernel will report more.
    Quiet,
    /// There may be input.
    Readable,
    /// There is an end of input to read: the peer has closed its end, or the connection is broken.
    HungUp,
}

impl Incoming {
    /// Whether there may be something to read.
    #[inline]
    pub(crate) fn is_readable(self) -> bool {
        self != Self::Quiet
    }
}

/// When the outbox will be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// Once something is queued.
    Idle,
    /// In this turn or the next: it is on the reactor's list of outboxes to write.
    Listed,
    /// When the socket accepts more, which the kernel will report.
    Blocked,
}

/// Whether the application will be told that the outbox is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// No: it has not passed half its limit since it was last empty.
    Low,
    /// Once it is empty: it has passed half its limit.
    High,
    /// In the next turn: it has become empty, or the connection has ended. It is on the reactor's list of drained ones.
    Listed,
}

/// How a connection ends once its queued output has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The socket is closed at once: the peer will send no more, or nothing that matters.
    Close,
    /// Our end of the TCP connection is closed, and input is discarded until the peer closes too: closing with unread
    /// input would reset the connection, and the peer might never see our last bytes.
    Linger,
    /// Our end has been closed; the peer's is awaited.
    Lingering,
}
