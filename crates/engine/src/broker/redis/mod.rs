//! Redis, or Valkey, as the broker of several hosts.

pub(crate) mod address;
mod back_off;
mod connection;
mod desk;
mod greeting;
mod input;
mod interest;
pub(crate) mod link;
mod pipeline;
mod pulse;
mod report;
mod resolver;
mod resp;
mod stream;
mod thread;

#[cfg(test)]
mod tests;
