//! What a broker does for servers of several hosts: it carries frames between them, and gives each a number.
//!
//! All that is sent, and all messages that are put in order with [`Broker::publish`](super::Broker::publish), goes one
//! way: whatever one host sends arrives at any other in the order in which it was sent, if it arrives. The answers to
//! [`Broker::read`](super::Broker::read), [`Broker::recover`](super::Broker::recover) and
//! [`Broker::members`](super::Broker::members) come in that order, too: between the messages of the topic that the
//! answer tells of, and later ones.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::broker::Tell;
use crate::registry::Fd;

/// What is heard from, and about, other hosts.
#[derive(Debug)]
pub(crate) enum News<'a> {
    /// A whole frame, from that host: for this host alone, for all, or for the subscribers of a topic.
    Frame { from: u8, frame: &'a [u8] },
    /// This host has this number. Counters above `above` are new in its name.
    Numbered { host: u8, above: u64 },
    /// Counters up to this one may be given out in the name of this host.
    Leased(u64),
    /// The number is this host's until then, in milliseconds of the boot clock.
    Held(u64),
    /// Others have declared this host dead: all its connections have to end, and it is going to have another number.
    Fenced,
    /// What this host has put there is lost: its members have to be put there again.
    Emptied,
    /// Messages for this host may be lost.
    Missed,
    /// Nobody has that number.
    Absent(u8),
    /// This member's host is gone. Only this host hears of it.
    Lost { topic: &'a str, fd: Fd, info: &'a str },
    /// The way to other hosts is open again, or is not.
    Open(bool),
    /// The broker cannot be reached for now, and why.
    Unreachable(String),
    /// This server cannot be a part of the others, and why: a wrong password, for example. It is tried again.
    Unusable(String),
    /// For the log.
    Warning(String),
}

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

    /// Sends a frame to one host. Returns false if it does not fit.
    fn send(&mut self, host: u8, frame: &[u8]) -> bool;

    /// The same to all others.
    fn send_to_all(&mut self, frame: &[u8]) -> bool;

    /// The same to those that want the topic.
    fn publish(&mut self, topic: &str, frame: &[u8]) -> bool;

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
