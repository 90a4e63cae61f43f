//! Redis fails, or hosts do.
