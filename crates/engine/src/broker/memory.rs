//! The broker of a single host: tables in memory. They are lost with the process; the new epochs tell.

use super::{Broker, Tell, Ticket, Told};
use crate::language::history::{History, OldMessage};
use crate::language::listing::{Entry, Member, Page};
use crate::registry::Fd;
use crate::settings::Settings;
use crate::topics::history::{Histories, Moment, Range, Selection};
use crate::topics::presence::Members;
use crate::topics::publication::{Position, Publication};

/// See the module documentation.
pub(crate) struct Memory {
    histories: Histories,
    members: Members,
}

impl Memory {
    /// A broker for these settings.
    pub(crate) fn for_settings(settings: &Settings) -> Box<dyn Broker> {
        let histories = Histories::new(settings.topics.clone(), settings.history_memory);
        Box::new(Self { histories, members: Members::default() })
    }
}

impl Broker for Memory {
    fn publish(&mut self, topic: &str, publication: Publication<'_>, exclude: &[Fd], at: Moment, tell: Tell<'_>) {
        if let Some(position) = self.histories.append(topic, &publication, at) {
            tell(Told::Placed { topic, position, publication, exclude });
        }
    }

    fn read(&mut self, ticket: Ticket, topic: &str, after: Option<Position>, range: Range, at: Moment, tell: Tell<'_>) {
        let found = self.histories.read(topic, at, |position| {
            // Everything is later than a position of another epoch.
            let after = after.filter(|after| after.epoch == position.epoch).map_or(0, |after| after.offset);
            Range { after: range.after.max(after), ..range }
        });
        tell(Told::Read(ticket, found.map_or_else(History::default, history)));
    }

    fn recover(
        &mut self,
        ticket: Ticket,
        topic: &str,
        since: &[Position],
        last: usize,
        max_bytes: usize,
        at: Moment,
        tell: Tell<'_>,
    ) {
        let found = self.histories.read(topic, at, |position| {
            let missed = since.iter().filter(|since| since.epoch == position.epoch && since.offset <= position.offset);
            let earliest = missed.map(|since| since.offset).min().unwrap_or(position.offset);
            let limit = (position.offset - earliest).max(last as u64);
            Range { after: 0, before: 0, limit: limit as usize, newest_first: true, max_bytes }
        });
        let mut found = found.map_or_else(History::default, history);
        found.messages.reverse();
        tell(Told::Read(ticket, found));
    }

    fn forget(&mut self, ticket: Ticket, topic: &str, tell: Tell<'_>) {
        self.histories.forget(topic);
        tell(Told::Forgotten(ticket));
    }

    fn position(&mut self, topic: &str, at: Moment) -> Option<Position> {
        let nothing = Range { after: 0, before: 0, limit: 0, newest_first: true, max_bytes: 0 };
        self.histories.read(topic, at, |_| nothing).map(|(position, _)| position)
    }

    fn join(&mut self, topic: &str, fd: Fd, info: &str) {
        self.members.join(topic, fd, info);
    }

    fn leave(&mut self, topic: &str, fd: Fd) {
        self.members.leave(topic, fd);
    }

    fn members(&mut self, ticket: Ticket, topic: &str, after: Fd, limit: usize, tell: Tell<'_>) {
        let mut members = self.members.after(topic, after);
        let most = limit.min(Member::MAX_PAGE);
        let entries = members.by_ref().take(most).map(|(fd, info)| (fd, info.to_owned())).collect();
        let goes_on = members.next().is_some();
        tell(Told::Members(ticket, Page { entries, goes_on }));
    }

    fn take_evicted(&mut self) -> u64 {
        self.histories.take_evicted()
    }

    fn expire(&mut self, now: u64, is_wanted: &dyn Fn(&str) -> bool) {
        self.histories.expire(now, is_wanted);
    }

    fn next_expiry(&self) -> Option<u64> {
        self.histories.next_expiry()
    }
}

fn history((position, selection): (Position, Selection<'_>)) -> History {
    let goes_on = selection.goes_on;
    let messages = selection.map(|kept| OldMessage {
        offset: kept.offset,
        unix: kept.unix,
        content: kept.content,
        key: kept.key.map(Into::into),
        payload: kept.payload.into(),
    });
    History { position, messages: messages.collect(), goes_on }
}
