//! The scripts of topics with memory.
