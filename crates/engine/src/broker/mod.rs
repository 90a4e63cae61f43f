//! What the processes of a server know of topics together: the order and the history of messages, and who is there.
//!
//! A broker is asked in calls that return at once. What comes of a call is told to the function given with it, or with
//! a later one: a broker may have to ask another host.

pub(crate) mod hosts;
pub(crate) mod memory;
pub(crate) mod redis;
pub(crate) mod told;

use crate::broker::hosts::Hosts;
pub(crate) use crate::broker::told::{Tell, Ticket, Told};
use crate::registry::Fd;
use crate::topics::history::{Moment, Range};
use crate::topics::publication::{Position, Publication};

/// See the module documentation.
pub(crate) trait Broker: Send {
    /// Puts a message in the order of its topic, and keeps it if the topic has a history.
    fn publish(&mut self, topic: &str, publication: Publication<'_>, exclude: &[Fd], at: Moment, tell: Tell<'_>);

    /// Asks for messages that are in a range. They are those after `after`, if that is a position of the topic.
    fn read(&mut self, ticket: Ticket, topic: &str, after: Option<Position>, range: Range, at: Moment, tell: Tell<'_>);

    /// Asks for the newest messages, in order: at least `last`, and all after the earliest of those positions that are
    /// positions of the topic; but at most `max_bytes` of payloads.
    #[expect(clippy::too_many_arguments, reason = "what is wanted, from where, and by whom")]
    fn recover(
        &mut self,
        ticket: Ticket,
        topic: &str,
        since: &[Position],
        last: usize,
        max_bytes: usize,
        at: Moment,
        tell: Tell<'_>,
    );

    /// Removes a topic's history; a new epoch begins.
    fn forget(&mut self, ticket: Ticket, topic: &str, tell: Tell<'_>);

    /// The position of a topic's newest message, as far as it is known here; `None` if the topic has no order.
    fn position(&mut self, topic: &str, at: Moment) -> Option<Position>;

    /// Notes that a connection is subscribed to a topic, and what is to be known about it.
    fn join(&mut self, topic: &str, fd: Fd, info: &str);

    /// Notes that it is no longer subscribed.
    fn leave(&mut self, topic: &str, fd: Fd);

    /// Asks for the members of a topic with ids above `after`.
    fn members(&mut self, ticket: Ticket, topic: &str, after: Fd, limit: usize, tell: Tell<'_>);

    /// The number of messages removed to save memory since the last call.
    fn take_evicted(&mut self) -> u64;

    /// Removes what has expired. `is_wanted` says whether a topic has subscribers.
    fn expire(&mut self, now: u64, is_wanted: &dyn Fn(&str) -> bool);

    /// When [`Broker::expire`] has something to do, by the clock of [`Moment::now`].
    fn next_expiry(&self) -> Option<u64>;

    /// The way to other hosts, if there is one.
    fn hosts(&mut self) -> Option<&mut dyn Hosts> {
        None
    }
}
