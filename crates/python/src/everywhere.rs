//! Questions to all hosts.

use engine::Question;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arguments::{After, FdArgument, Prefix, Topic};

/// The question to all hosts that `what` names; it needs only some of the arguments.
///
/// # Errors
/// If there is no such question.
pub(crate) fn question<'a>(
    what: &str,
    fd: Option<FdArgument>,
    topic: Option<Topic<'a>>,
    prefix: Option<Prefix<'a>>,
    after_name: Option<After<'a>>,
    after: Option<FdArgument>,
    limit: u32,
) -> PyResult<Question<'a>> {
    let topic = topic.map_or("", |topic| topic.0);
    let question = match what {
        "info" => Question::Info(fd.map_or(0, |fd| fd.0)),
        "connections" => Question::Connections,
        "stats" => Question::Stats,
        "subscribers" => Question::Subscribers(topic),
        "topics" => Question::Topics {
            prefix: prefix.map_or("", |prefix| prefix.0),
            after: after_name.map_or("", |after| after.0),
            limit,
        },
        "members" => Question::Members { topic, after: after.map_or(0, |after| after.0), limit },
        other => return Err(PyValueError::new_err(format!("unknown question to all hosts: {other}"))),
    };
    Ok(Question::Everywhere(Box::new(question)))
}
