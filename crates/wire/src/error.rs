//! What a peer can do wrong after the handshake, expressed as the close code to send.

use std::fmt;

/// The close codes that the server itself sends and reports (RFC 6455 §7.4.1; those above 1011 are from the IANA
/// registry).
pub mod close_code {
    /// The purpose of the connection has been fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The server is stopping, or the browser is leaving the page.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// Reported for a Close without a code; never sent.
    pub const NO_STATUS: u16 = 1005;
    /// Reported for a connection that ended without a Close frame; never sent.
    pub const ABNORMAL: u16 = 1006;
    /// Data that does not fit the message's type, such as text that is not UTF-8.
    pub const INVALID_DATA: u16 = 1007;
    /// The peer did something that is not allowed here.
    pub const POLICY_VIOLATION: u16 = 1008;
    /// A message larger than the receiver accepts.
    pub const TOO_BIG: u16 = 1009;
    /// The server met an unexpected condition.
    pub const INTERNAL: u16 = 1011;
    /// The server is restarting; the client is to connect again.
    pub const SERVICE_RESTART: u16 = 1012;
    /// The server is overloaded, or this client reads too slowly.
    pub const TRY_AGAIN: u16 = 1013;
}

/// Whether `code` may appear in a Close frame, sent or received (RFC 6455 §7.4).
///
/// 1004 has no meaning yet; 1005, 1006 and 1015 exist only for local reports; 1016 to 2999 are reserved for future
/// versions of the protocol; 3000 to 3999 belong to libraries and 4000 to 4999 to applications.
pub const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The peer broke the protocol. The connection has to be failed with `code` (RFC 6455 §7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// The close code to send.
    pub code: u16,
    /// What was wrong, for the Close frame and the log; shorter than the 123 bytes available in a Close frame.
    pub reason: &'static str,
}

impl Error {
    pub(crate) const fn protocol(reason: &'static str) -> Self {
        Self { code: close_code::PROTOCOL_ERROR, reason }
    }

    pub(crate) const fn invalid_data(reason: &'static str) -> Self {
        Self { code: close_code::INVALID_DATA, reason }
    }

    pub(crate) const fn too_big() -> Self {
        Self { code: close_code::TOO_BIG, reason: "message too big" }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.reason, self.code)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_may_be_sent() {
        let allowed: Vec<u16> = (0..=u16::MAX).filter(|&code| may_be_sent(code)).collect();
        let expected: Vec<u16> = (1000..=1003).chain(1007..=1014).chain(3000..=4999).collect();
        assert_eq!(allowed, expected);
    }

    #[test]
    fn an_error_tells_reason_and_code() {
        assert_eq!(Error::too_big().to_string(), "message too big (1009)");
    }
}
