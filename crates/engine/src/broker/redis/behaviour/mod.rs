//! The broker against a real Redis: its scripts alone, and the whole of it.

mod client;
mod faults;
mod frames;
mod histories;
mod ids;
mod node;
mod numbers;
mod same;
