//! The subscriptions of connections that have ended, when there are too many to remove at once.
//!
//! Such a connection keeps its key until the last subscription is removed. Until then it remains among the subscribers
//! of its topics, but receives nothing, as it is not open, and is not counted.

use std::collections::VecDeque;

use crate::reactor::Reactor;
use crate::reactor::slice::Slice;
use crate::system::table::Key;

/// Subscriptions removed in one step.
const AT_ONCE: usize = 64;

/// The keys of connections that have ended and are still subscribed.
pub(crate) type Unsubscribing = VecDeque<Key>;

impl Reactor {
    /// Ends the subscriptions of a connection that is no longer open, at once or over several turns. While a fan-out is
    /// going through the subscribers, it is later: the last subscriber, which has its messages already, would move to
    /// a place that is still to be visited.
    pub(crate) fn end_subscriptions(&mut self, key: Key) {
        if !self.is_fanning_out {
            self.end_some_subscriptions(key);
        }
        if !self.connections[key].subscriptions.is_empty() {
            self.unsubscribing.push_back(key);
        }
    }

    fn end_some_subscriptions(&mut self, key: Key) {
        let subscriptions = &mut self.connections[key].subscriptions;
        self.topics.unsubscribe_some(key, subscriptions, AT_ONCE);
    }

    /// Continues with connections that still have subscriptions.
    pub(crate) fn go_on_unsubscribing(&mut self, slice: &mut Slice) {
        while let Some(key) = self.unsubscribing.front().copied() {
            self.end_some_subscriptions(key);
            if self.connections[key].subscriptions.is_empty() {
                self.unsubscribing.pop_front();
                self.free_if_over(key);
            }
            if slice.is_over() {
                return;
            }
        }
    }
}
