//! The messages that processes exchange, and how they are transported.

pub(crate) mod command;
pub(crate) mod history;
pub(crate) mod host;
pub(crate) mod link;
pub(crate) mod listing;
pub(crate) mod message;
