//! The table of all connections of the server: what `exists`, `info`, `connections`, `stats` and other processes read.
//!
//! It lies in memory that the processes of a server share, and has no locks. Every field is an atomic that one process
//! writes; a process that dies in the middle of anything leaves nothing locked.
//!
//! - A *slot* belongs to one worker process: its counts, and which topics it has subscribers for.
//! - A *row* is one open connection: it is free as soon as either side closes. An id tells its row, so looking one up
//!   never searches; ids whose row is taken are skipped when a new one is given out. The owner marks a free row as taken
//!   in `id`, fills it, and stores the id; a reader reads `id`, the row, and `id` again.
//! - What a dead process leaves is cleared by the hub, once the process is gone for certain.

mod counts;
mod fd;
mod ids;
mod info;
mod measured;
mod memory;
mod metrics;
mod stats;
mod stuck;
mod table;
#[cfg(test)]
mod tests;

pub use counts::{COUNTS, Counts, Totals};
pub use fd::Fd;
pub(crate) use fd::{COUNTER, SLOTS, TOPIC_BITS, WORKERS, add, topic_bit};
pub(crate) use ids::{Ids, NoId};
pub use info::Info;
pub use measured::{Held, Measured};
pub use memory::Registry;
pub use metrics::{Metrics, Times};
pub use stats::{Stats, WorkerStats};
pub use stuck::{Stuck, StuckCell};
pub(crate) use table::Reservation;
