//! The phases of a worker's shutdown.

/// The phase of the reactor's shutdown. It never goes back to an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// All clients are welcome.
    Serving,
    /// Each answer is the last on its connection.
    Leaving,
    /// No further messages go to handlers; requests already made are still answered, and handshakes accepted.
    Quiet,
    /// No more clients are let in.
    Refusing,
}
