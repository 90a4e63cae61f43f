//! The broker against a real Redis: its scripts alone, and the whole of it.

mod client;
mod ids;
mod numbers;
mod topics;
