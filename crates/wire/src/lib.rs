//! The server side of the WebSocket protocol, without sockets, clock or Python: bytes in, events out; messages in,
//! bytes out.
//!
//! A connection begins as HTTP/1.1 (after a [`proxy`] header, if one is expected: [`http`], [`body`], [`host`],
//! [`origin`], [`path`], [`handshake`]) and continues as a [`receiver::Receiver`] and a [`sender::Sender`]. Everything
//! here is driven by its caller: nothing blocks or reads from outside, and the date of a response is an argument.

pub mod body;
pub mod deflate;
pub mod error;
pub mod event;
pub mod frame;
pub mod handshake;
pub mod host;
pub mod http;
pub mod mask;
mod message;
pub mod network;
pub mod origin;
pub mod path;
pub mod proxy;
pub mod receiver;
pub mod sender;
