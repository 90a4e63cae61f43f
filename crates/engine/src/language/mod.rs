//! What processes say to one another, and how it gets across.

pub(crate) mod command;
pub(crate) mod link;
pub(crate) mod message;
