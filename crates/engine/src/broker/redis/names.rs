//! The names of keys and channels. Braces keep what belongs to a topic together.

use std::fmt::Display;

/// See the module documentation.
pub(super) struct Names {
    pub(super) prefix: String,
    /// The channel on which this process gets the answers to its questions.
    pub(super) answers: String,
    pub(super) all: String,
    pub(super) run: String,
    topics: String,
}

impl Names {
    pub(super) fn new(prefix: &str, instance: u64) -> Self {
        Self {
            prefix: prefix.to_owned(),
            answers: format!("{prefix}:a:{instance:016x}"),
            all: format!("{prefix}:all"),
            run: format!("{prefix}:run"),
            topics: format!("{prefix}:t:{{"),
        }
    }

    /// The channel of a host.
    pub(super) fn host(&self, number: u8) -> String {
        self.key("h", number)
    }

    /// The host whose channel this is.
    pub(super) fn host_of(&self, channel: &[u8]) -> Option<u8> {
        str::from_utf8(channel.strip_prefix(self.key("h", "").as_bytes())?).ok()?.parse().ok()
    }

    /// The channel of a topic.
    pub(super) fn topic(&self, topic: &str) -> String {
        format!("{}{topic}}}", self.topics)
    }

    /// The topic whose channel this is.
    pub(super) fn topic_of<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        let rest = channel.strip_prefix(self.topics.as_bytes())?.strip_suffix(b"}")?;
        str::from_utf8(rest).ok()
    }

    /// What belongs to a topic: `m` for its position, `s` for its messages, `q` and `p` for its members.
    pub(super) fn of_topic(&self, kind: &str, topic: &str) -> String {
        format!("{}:{kind}:{{{topic}}}", self.prefix)
    }

    /// What belongs to a host: `lease`, or `i` for the topics that it has members in.
    pub(super) fn key(&self, kind: &str, number: impl Display) -> String {
        format!("{}:{kind}:{number}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_comes_back_from_its_channel() {
        let names = Names::new("p", 1);
        for topic in ["news", "a}b", "{", "}", "é:*"] {
            assert_eq!(names.topic_of(names.topic(topic).as_bytes()), Some(topic));
        }
        for other in [&b"p:all"[..], b"p:t:", b"p:t:{", b"p:t:{\xff}", b"q:t:{a}", b""] {
            assert_eq!(names.topic_of(other), None);
        }
    }
}
