//! How far a worker is on its way out.

/// How far the reactor is on its way out; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It takes whoever comes.
    Serving,
    /// Each answer is the last one of its connection.
    Leaving,
    /// No further message is handed to a handler; who has asked already is still answered, and still let in.
    Quiet,
    /// Nobody is let in any more.
    Refusing,
}
