//! The receiver's events: what a connection's peer has sent.

/// Something that a peer has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping, which wants a pong with the same payload (RFC 6455 §5.5.3).
    Ping(&'a [u8]),
    /// A pong, requested or not.
    Pong(&'a [u8]),
    /// The peer's half of the closing handshake, the last event of a connection.
    Close {
        /// `None` if the frame was empty, which is reported as 1005 (RFC 6455 §7.1.5).
        code: Option<u16>,
        /// Empty if there was none.
        reason: &'a str,
    },
}
