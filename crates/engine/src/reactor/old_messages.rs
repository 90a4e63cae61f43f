//! Messages that were published earlier, for connections that join their topic now.
//!
//! They are encoded once for all connections that get the same ones. They are neither replaced nor left out: whoever
//! asks for them is promised that none is missing.

use crate::reactor::Reactor;
use crate::system::table::Key;
use crate::topics::envelope::envelope;
use crate::topics::gathered::{Fanout, Gathered};
use crate::topics::policy::Policy;
use crate::topics::publication::{Content, Position, Publication};

impl Reactor {
    /// Old messages of a topic, in the form in which its subscribers get them. A message that has no such form keeps
    /// its place among them, but is dropped when it is delivered: bytes, from before the topic's messages had an
    /// envelope. [`Reactor::end_fanout`] has to follow.
    pub(crate) fn fanout_of<'a>(
        &self,
        topic: &str,
        messages: impl IntoIterator<Item = (Position, Publication<'a>)>,
    ) -> Fanout {
        let options = self.settings.topics.of(topic);
        let has_envelope = options.is_some_and(|options| options.envelope);
        let mut gathered = Gathered::default();
        gathered.begin(Some(topic), options.and_then(Policy::of_old).map(Box::new), &[]);
        for (position, publication) in messages {
            if !has_envelope {
                gathered.push(publication.content.opcode(), publication.payload);
            } else if let Some(text) = envelope(topic, position, publication) {
                gathered.push(Content::Json.opcode(), &text);
            } else {
                gathered.push_missing();
            }
        }
        gathered.into_messages()
    }

    /// Queues the messages from number `first` on for one connection: after everything that was published until now,
    /// and after a message that is being sent in fragments. Returns how many were queued; all of them if there was room
    /// for what [`Fanout::cost_from`] says.
    pub(crate) fn deliver_from(&mut self, key: Key, first: usize, messages: &mut Fanout) -> usize {
        self.settle_for(key);
        (first..messages.len()).filter(|index| self.deliver_one(key, *index, messages)).count()
    }

    /// Ends a fan-out that has been delivered to all; outboxes keep what they need of it.
    pub(crate) fn end_fanout(&mut self, messages: Fanout) {
        messages.finish(|frame| self.tools.pool.count_shared(frame));
    }
}
