//! Who is subscribed to the topics whose members are known. No I/O.

use std::collections::{BTreeMap, HashMap};

use crate::registry::Fd;

/// The members of all topics, each with what is to be known about it.
#[derive(Default)]
pub(crate) struct Members {
    topics: HashMap<Box<str>, BTreeMap<Fd, Box<str>>>,
}

impl Members {
    /// Adds a member, or changes what is known about it.
    pub(crate) fn join(&mut self, topic: &str, fd: Fd, info: &str) {
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.into(), BTreeMap::new());
        }
        if let Some(members) = self.topics.get_mut(topic) {
            members.insert(fd, info.into());
        }
    }

    /// Removes a member, if it is one.
    pub(crate) fn leave(&mut self, topic: &str, fd: Fd) {
        let Some(members) = self.topics.get_mut(topic) else { return };
        members.remove(&fd);
        if members.is_empty() {
            self.topics.remove(topic);
            if self.topics.len() * 4 < self.topics.capacity() {
                self.topics.shrink_to(2 * self.topics.len());
            }
        }
    }

    /// The members of a topic with ids above `after`, in order.
    pub(crate) fn after(&self, topic: &str, after: Fd) -> impl Iterator<Item = (Fd, &str)> {
        let members = self.topics.get(topic).into_iter();
        members.flat_map(move |members| members.range(after.saturating_add(1)..)).map(|(fd, info)| (*fd, &**info))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(members: &Members, topic: &str) -> Vec<(Fd, String)> {
        members.after(topic, 0).map(|(fd, info)| (fd, info.to_owned())).collect()
    }

    #[test]
    fn members_come_and_go() {
        let mut all = Members::default();
        let of = |slot: u64, number: u64| (slot << 38) + number;
        for (topic, fd) in [("a", of(1, 7)), ("a", of(2, 1)), ("b", of(1, 7)), ("b", of(1, 8)), ("c", of(2, 1))] {
            all.join(topic, fd, "null");
        }
        all.join("a", of(2, 1), "1");
        assert_eq!(members(&all, "a"), [(of(1, 7), "null".into()), (of(2, 1), "1".into())]);
        assert_eq!(all.after("a", of(1, 7)).count(), 1);
        assert_eq!(all.after("a", u64::MAX).count(), 0);
        all.leave("a", of(1, 7));
        all.leave("b", of(1, 7));
        all.leave("b", of(1, 8));
        assert!(members(&all, "b").is_empty());
        all.leave("a", of(2, 1));
        all.leave("a", of(2, 1));
        all.leave("c", of(2, 1));
        assert!(all.topics.is_empty());
    }
}
