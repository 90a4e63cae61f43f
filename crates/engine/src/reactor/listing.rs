//! Lists of topics and of their subscribers: this worker's answers, and its own questions to the whole server.

use rustc_hash::FxHashMap;

use crate::language::listing::{Entry, Page, TopicSize};
use crate::language::message::{Answer, HUB_PATIENCE, Message, Question};
use crate::reactor::Reactor;
use crate::reactor::notice::Notice;
use crate::registry::Fd;

impl Reactor {
    /// Asks all workers about subscribers ([`Question::Subscribers`], [`Question::Topics`], [`Question::Members`] or
    /// [`Question::Presence`]), or the hub about what topics have kept ([`Question::History`], [`Question::Forget`]);
    /// the answer comes as [`crate::Event::Answered`]. Requests made so far by other threads of this process count.
    pub fn ask(&mut self, number: u64, question: &Question<'_>) {
        self.carry_out_waiting();
        if !self.uplink.is_linked() {
            let answer = self.ask_broker(question).unwrap_or_else(|| self.look_up(question));
            self.uplink.notices.push_back(Notice::Answered { number, answer: Box::new(answer) });
            return;
        }
        // The hub asks the workers, this one too, and the question reaches them after everything requested before.
        let is_on_its_way = self.uplink.send_to_hub(&Message::Ask(number, HUB_PATIENCE, question.clone()));
        self.uplink.flush();
        if !is_on_its_way {
            self.uplink.notices.push_back(Notice::Answered { number, answer: Box::new(Answer::Refused) });
        }
    }

    /// This worker's answer to a question about subscribers.
    pub(crate) fn look_up(&self, question: &Question<'_>) -> Answer {
        match question {
            Question::Subscribers(topic) => Answer::Count(self.subscribers(topic) as u64),
            Question::Topics { prefix, after, limit } => Answer::Topics(self.list_topics(prefix, after, *limit)),
            Question::Members { topic, after, limit } => Answer::Members(self.list_members(topic, *after, *limit)),
            // The hub has the list, and by now has been told all that was asked for before.
            Question::Presence { .. } => Answer::Done(true),
            _ => Answer::Done(false),
        }
    }

    /// The number of open connections of this process that are subscribed.
    pub fn subscribers(&self, topic: &str) -> usize {
        let Some(id) = self.topics.find(topic) else { return 0 };
        let ended = self.unsubscribing.iter().filter(|key| self.topics.has(id, **key)).count();
        self.topics.size(id) - ended
    }

    fn list_topics(&self, prefix: &str, after: &str, limit: u32) -> Page<TopicSize> {
        // Connections that have ended are not counted, although they may still be among the subscribers.
        let mut ended: FxHashMap<u32, usize> = FxHashMap::default();
        for key in &self.unsubscribing {
            for id in self.connections[*key].subscriptions.ids() {
                *ended.entry(id).or_default() += 1;
            }
        }
        let found = self.topics.all().filter(|(_, name, _)| *name > after && name.starts_with(prefix));
        let counted = found.map(|(id, name, size)| (name, size - ended.get(&id).copied().unwrap_or(0)));
        let page = Page::first(counted.filter(|(_, size)| *size > 0), (limit as usize).min(TopicSize::MAX_PAGE));
        page.map(|(name, size)| (name.to_owned(), size as u64))
    }

    fn list_members(&self, topic: &str, after: Fd, limit: u32) -> Page<Fd> {
        let subscribers = self.topics.find(topic).into_iter().flat_map(|id| self.topics.subscribers(id));
        let open = subscribers.filter_map(|key| self.connections.get(key)?.identity.open().map(|(fd, _)| fd));
        Page::first(open.filter(|fd| *fd > after), (limit as usize).min(Fd::MAX_PAGE))
    }
}
