//! What the processes of a server know of topics together: the order and the history of messages, and who is there.
//!
//! A broker is asked in calls that return at once. What comes of a call is told to the function given with it, or with
//! a later one: a broker may have to ask another host.

pub(crate) mod hosts;
pub(crate) mod memory;
pub(crate) mod redis;

use crate::broker::hosts::{Hosts, News};
use crate::language::history::History;
use crate::language::listing::{Member, Page};
use crate::registry::Fd;
use crate::topics::history::{Moment, Range};
use crate::topics::publication::{Position, Publication};

/// Tells who asked a question. Returned with the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The key of the peer that asked, and that peer's serial number.
    pub(crate) asker: usize,
    pub(crate) serial: u64,
    /// The peer's own number for the question.
    pub(crate) number: u64,
}

/// What a broker tells.
pub(crate) enum Told<'a> {
    /// A message has its place in the order of its topic, and is to be delivered to the topic's subscribers.
    Placed { topic: &'a str, position: Position, publication: Publication<'a>, exclude: &'a [Fd] },
    /// A message of a topic has no place in its order, because the broker is not there or takes none; it is to be
    /// delivered to the topic's subscribers nevertheless. If the broker is not there, those of this host alone get it.
    Unplaced { topic: &'a str, publication: Publication<'a>, exclude: &'a [Fd] },
    /// The answer to [`Broker::read`] and [`Broker::recover`].
    Read(Ticket, History),
    /// The answer to [`Broker::forget`].
    Forgotten(Ticket),
    /// The answer to [`Broker::members`].
    Members(Ticket, Page<Member>),
    /// The question cannot be answered: the broker is not there, or has refused it.
    Failed(Ticket),
    /// Something about other hosts.
    News(News<'a>),
}

/// The function that is told.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(Told<'_>);

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
