//! The reactor in simulated time. Both ends of every connection live in the test's own thread, and the clock stands
//! still until the test moves it: nothing here sleeps, and a test of an hour takes a moment.
//!
//! - [`simulation`] plays the event loop, [`application`] the binding and the program, [`client`] the other end.
//! - [`invariants`] are checked after every turn of every test.
//! - [`walk`] takes thousands of random steps. `HUBBUB_SEED` repeats the walk of a seed that a failure has named.

mod answering;
mod application;
mod calls;
mod client;
mod close;
mod deadlines;
mod invariants;
mod joining;
mod limits;
mod policies;
mod proxied;
mod random;
mod sending;
mod simulation;
mod slow_peers;
mod walk;
