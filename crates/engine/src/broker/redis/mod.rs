//! Redis, or Valkey, as the broker of several hosts.

pub(crate) mod address;
pub(crate) mod link;

use std::io;
use std::os::fd::OwnedFd;

use crate::broker::Broker;
use crate::settings::{BrokerSettings, Settings};

/// See the module documentation.
pub(crate) struct Redis {}

impl Redis {
    /// Connects to Redis, in a thread. `number` is a file that keeps this host's number and its token over a restart.
    ///
    /// # Errors
    /// If there is no thread or descriptor.
    pub(crate) fn start(
        _broker: &BrokerSettings,
        _settings: &Settings,
        _number: Option<OwnedFd>,
    ) -> io::Result<Box<dyn Broker>> {
        todo!()
    }
}
