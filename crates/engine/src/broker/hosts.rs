//! What a broker does for servers of several hosts: it carries frames between them, and gives each a number.
//!
//! All that is sent, and all messages that are put in order with [`Broker::publish`](super::Broker::publish), goes one
//! way: whatever one host sends arrives at any other in the order in which it was sent, if it arrives. The answers to
//! [`Broker::read`](super::Broker::read), [`Broker::recover`](super::Broker::recover) and
//! [`Broker::members`](super::Broker::members) come in that order, too: between the messages of the topic that the
//! answer tells of, and later ones.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::broker::told::Tell;

/// See the module documentation.
pub(crate) trait Hosts {
    /// Readable when there is something to hear.
    fn fileno(&self) -> BorrowedFd<'_>;

    /// Tells what has arrived, and does what is due.
    fn hear(&mut self, now: Instant, tell: Tell<'_>);

    /// When something is due.
    fn next_deadline(&self) -> Option<Instant>;

    /// Sends on its way what has been asked for.
    fn flush(&mut self);

    /// Sends a frame to one host. Returns false if it does not fit; it is then counted.
    fn send(&mut self, host: u8, frame: &[u8]) -> bool;

    /// The same to all others.
    fn send_to_all(&mut self, frame: &[u8]) -> bool;

    /// The same to those that want the topic.
    fn publish(&mut self, topic: &str, frame: &[u8]) -> bool;

    /// Tells all others about this host, now or not at all. It is not counted if it is lost.
    fn announce(&mut self, frame: &[u8]);

    /// Wants the messages of a topic.
    fn want(&mut self, topic: &str);

    /// Does not want them any longer.
    fn unwant(&mut self, topic: &str);

    /// Asks for counters up to this one; told with [`News::Leased`].
    fn lease(&mut self, up_to: u64);

    /// Whether more fits into what waits for the broker.
    fn has_room(&self) -> bool;

    /// How many frames were lost on the way to other hosts since the last call.
    fn take_dropped(&mut self) -> u64;

    /// Gives the number back: no connection of this host is open, and none will be.
    fn leave(&mut self);
}
