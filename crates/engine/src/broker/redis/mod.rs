//! Redis, or Valkey, as the broker of several hosts.

pub(crate) mod address;
pub(crate) mod link;
