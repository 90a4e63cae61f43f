//! The table of all connections of the server: the source for `exists`, `info`, `connections`, `stats` and other
//! processes.
//!
//! It is in memory shared by the processes of a server, and has no locks. Every field is an atomic that one process
//! writes, so a process that dies in the middle of anything leaves nothing locked.
//!
//! - A *slot* belongs to one worker process: its counts, and the topics that it has subscribers for.
//! - A *row* is one open connection. It is free as soon as either side closes. The row follows from the id, so a lookup
//!   never searches; when a new id is given out, ids whose row is taken are skipped. The owner marks a free row as
//!   taken in `id`, fills it, and stores the id; a reader reads `id`, the row, and `id` again.
//! - The hub clears what a dead process leaves behind, once the process is certain to be gone.

mod counts;
mod fd;
mod hosts;
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
pub(crate) use fd::{COUNTER, HOST_SHIFT, SLOTS, TOPIC_BITS, WORKERS, add, topic_bit};
pub use hosts::{BrokerMetrics, HostInfo};
pub(crate) use hosts::{Way, boot_now};
pub(crate) use ids::{Ids, NoId, ticks};
pub use info::Info;
pub use measured::{Held, Measured};
pub(crate) use memory::MAX_HOST_NAME;
pub use memory::Registry;
pub use metrics::{Metrics, Times};
pub use stats::{Stats, WorkerStats};
pub use stuck::{Stuck, StuckCell};
pub(crate) use table::{Interest, Reservation, Room};
