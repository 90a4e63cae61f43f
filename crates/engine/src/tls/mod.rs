//! TLS, between a connection's bytes and its socket.

mod authorities;
pub(crate) mod certificate;
pub(crate) mod failure;
mod pem_file;
pub(crate) mod private_key;
pub(crate) mod session;
pub(crate) mod trusted;
