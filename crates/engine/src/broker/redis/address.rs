//! Where Redis is.

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct RedisAddress {}
