//! Reads the options of topics, which Python has checked.

use std::time::Duration;

use engine::{Lagging, TopicOptions, TopicRules};
use pyo3::prelude::*;

/// The values of a `hubbub.topic_options.TopicOptions`, in their order: the pattern, how many messages are kept and for
/// how many seconds, whether there is presence, whether there are envelopes, `slow_consumer`, and the `ttl` in seconds.
#[derive(FromPyObject)]
pub(crate) struct OptionsArgument(String, usize, f64, bool, bool, Option<String>, Option<f64>);

/// The options of all topics.
pub(crate) fn rules(options: Vec<OptionsArgument>) -> TopicRules {
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let options = options.into_iter().map(|given| {
        let OptionsArgument(pattern, history, kept_for, presence, envelope, slow_consumer, ttl) = given;
        let lagging = slow_consumer.map(|policy| match policy.as_str() {
            "drop" => Lagging::Drop,
            "latest" => Lagging::Latest,
            _ => Lagging::Close,
        });
        TopicOptions {
            pattern,
            history,
            seconds: seconds(kept_for),
            presence,
            envelope,
            lagging,
            ttl: ttl.map(seconds),
        }
    });
    TopicRules::new(options.collect())
}
