//! Topics whose members are known: the hub has the list, because this worker may die, and the application is told who
//! joins and who leaves.
//!
//! The hub is told just before the application is. So it knows for which members of a worker that was killed `join` has
//! run and `leave` has not, and has another worker tell that they have left.

use rustc_hash::FxHashMap;

use crate::broker::{Ticket, Told};
use crate::language::message::{Answer, Message, Question};
use crate::reactor::Reactor;
use crate::reactor::event::MemberEvent;
use crate::reactor::notice::Notice;
use crate::registry::{Fd, Registry};
use crate::topics::history::{Moment, Range};

/// The topics of which the connections of this process are members, and what is known about them, as JSON.
#[derive(Default)]
pub(crate) struct Memberships {
    of: FxHashMap<Fd, Vec<Membership>>,
    last_number: u64,
}

/// A stay of a connection in a topic.
struct Membership {
    number: u64,
    topic: Box<str>,
    info: Box<str>,
}

/// Bytes of the messages in one answer.
pub(crate) const MAX_HISTORY_ANSWER: usize = 1024 * 1024;

/// What is known about a member if nothing was said.
const NOTHING: &str = "null";

impl Reactor {
    /// Notes that a connection is subscribed, if the topic's members are known.
    pub(crate) fn note_member(&mut self, fd: Fd, topic: &str, info: Option<&str>) {
        if !self.settings.topics.has_presence(topic) {
            return;
        }
        let Memberships { of, last_number } = &mut self.memberships;
        let mine = of.entry(fd).or_default();
        let (number, is_new) = match (mine.iter_mut().find(|membership| *membership.topic == *topic), info) {
            (Some(_), None) => return,
            (Some(membership), Some(info)) if *membership.info == *info => return,
            (Some(membership), Some(info)) => {
                membership.info = info.into();
                (membership.number, false)
            }
            (None, info) => {
                *last_number += 1;
                let (number, info) = (*last_number, info.unwrap_or(NOTHING).into());
                mine.push(Membership { number, topic: topic.into(), info });
                (number, true)
            }
        };
        let info = info.unwrap_or(NOTHING);
        match &mut self.broker {
            Some(broker) => broker.join(topic, fd, info),
            None => self.uplink.tell_hub(&Message::Joined { fd, number, topic, info }),
        }
        if is_new {
            let (event, topic, info) = (MemberEvent::Joined, topic.into(), info.into());
            self.uplink.notices.push_back(Notice::Member { event, topic, fd, number, info });
        }
    }

    /// Notes that a connection is no longer subscribed.
    pub(crate) fn note_left(&mut self, fd: Fd, topic: &str) {
        let Some(mine) = self.memberships.of.get_mut(&fd) else { return };
        let Some(place) = mine.iter().position(|membership| *membership.topic == *topic) else { return };
        let membership = mine.swap_remove(place);
        if mine.is_empty() {
            self.memberships.of.remove(&fd);
        }
        self.member_has_left(fd, membership);
    }

    /// Notes that a connection is no longer open.
    pub(crate) fn note_all_left(&mut self, fd: Fd) {
        if !self.memberships.of.is_empty() {
            for membership in self.memberships.of.remove(&fd).into_iter().flatten() {
                self.member_has_left(fd, membership);
            }
        }
    }

    /// Forgets all members with counters up to this one: others have told the application that they have left.
    pub(crate) fn forget_members(&mut self, counter: u64) {
        self.memberships.of.retain(|fd, _| Registry::counter_of(*fd) > counter);
    }

    fn member_has_left(&mut self, fd: Fd, membership: Membership) {
        let Membership { number, topic, info } = membership;
        match &mut self.broker {
            Some(broker) => broker.leave(&topic, fd),
            None => self.uplink.tell_hub(&Message::Left { fd, number, topic: &topic }),
        }
        self.uplink.notices.push_back(Notice::Member { event: MemberEvent::Left, topic, fd, number, info });
    }

    /// To be called just before the application is told what has happened to a member, with the values of the event; or
    /// when it is not going to be told.
    pub fn tells_of_member(&mut self, event: MemberEvent, fd: Fd, number: u64) {
        self.uplink.tell_hub(&match event {
            MemberEvent::Joined => Message::JoinTold { fd, number },
            MemberEvent::Left => Message::LeaveTold { fd, number },
        });
        self.uplink.flush();
    }

    /// The answer to a question about history and presence, in a process that has the broker.
    pub(crate) fn ask_broker(&mut self, question: &Question<'_>) -> Option<Answer> {
        self.clock.read();
        let at = self.moment();
        let broker = self.broker.as_mut()?;
        let (ticket, mut answer) = (Ticket::default(), None);
        let tell = &mut |told: Told<'_>| {
            answer = match told {
                Told::Read(_, history) => Some(Answer::History(Box::new(history))),
                Told::Forgotten(_) => Some(Answer::Done(true)),
                Told::Members(_, page) => Some(Answer::Presence(page)),
                Told::Placed { .. } | Told::Unplaced { .. } | Told::Renewed(_) | Told::Failed(_) | Told::News(_) => {
                    None
                }
            };
        };
        match *question {
            Question::History { topic, after, before, limit, newest_first } => {
                let range =
                    Range { after: 0, before, limit: limit as usize, newest_first, max_bytes: MAX_HISTORY_ANSWER };
                broker.read(ticket, topic, after, range, at, tell);
            }
            Question::Forget(topic) => broker.forget(ticket, topic, tell),
            Question::Presence { topic, after, limit } => broker.members(ticket, topic, after, limit as usize, tell),
            _ => {}
        }
        answer
    }

    /// Removes what has expired, in a process that has the broker.
    pub(crate) fn expire_histories(&mut self) {
        let (now, topics) = (self.clock.now, &self.topics);
        if let Some(broker) = &mut self.broker
            && broker.next_expiry().is_some_and(|at| at <= now)
        {
            broker.expire(now, &|topic| topics.find(topic).is_some());
        }
    }

    /// Now.
    pub(crate) fn moment(&self) -> Moment {
        Moment { now: self.clock.now, unix: self.clock.unix }
    }
}

#[cfg(test)]
impl Reactor {
    /// Whether no connection is a member of a topic.
    pub(crate) fn memberships_are_empty(&self) -> bool {
        self.memberships.of.is_empty()
    }
}
