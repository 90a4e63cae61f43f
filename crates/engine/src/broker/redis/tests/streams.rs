//! Other ways to Redis than plain TCP.
