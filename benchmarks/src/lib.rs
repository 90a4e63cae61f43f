//! The parts shared by the load generator and the bare loop: the frame layout, a connection that reads and writes it,
//! and epoll. Linux only, like the measurements.
//!
//! The load generator must cost less than the servers it measures, so that it never becomes the limit: frames are
//! masked once for a whole run, a connection is read once per readiness event, and everything it has to send goes out
//! in one write.

pub mod client;
pub mod connection;
pub mod control;
pub mod frame;
pub mod inflater;
pub mod limits;
pub mod messages;
pub mod poller;
pub mod stream;
pub mod workload;
