//! TLS, between a connection's bytes and its socket.

pub(crate) mod certificate;
pub(crate) mod session;
