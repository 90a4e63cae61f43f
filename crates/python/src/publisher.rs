//! The client of the control socket as a Python class; `hubbub.publisher` turns it into what users see.

use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::{Answer, Command, DataOpcode, Fin, Message, OUTSIDE, PATIENCE, PublisherError, Question};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyBlockingIOError, PyConnectionError, PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;

use crate::arguments::{
    After, CodeArgument, Data, FdArgument, MessageKey, OpcodeArgument, PlainData, PositionArgument, Prefix, Reason,
    Topic, check_close, check_enveloped, excluded,
};
use crate::everywhere;
use crate::values::{
    everywhere_tuple, history_tuple, host_tuples, info_tuple, joined_tuple, page_tuple, silent_host, stats_dict,
};

/// One connection to a server's control socket.
///
/// Every method may be called from any thread. All except `publish` and `broadcast` ask a question: `next_answer`
/// returns the answer, with the number from the `ticket`. The ticket also holds the seconds that the hub gives the
/// workers to answer. A call waits up to `timeout` seconds for room for its message.
///
/// Args:
///     path: The socket's path.
///     timeout: Seconds to wait for the server's welcome.
///
/// Raises (each method):
///     ConnectionError: There is no connection (any more), and nothing has been sent.
///     TimeoutError: There was no room in time. With a `timeout` of 0: BlockingIOError.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct Publisher {
    engine: engine::Publisher,
    path: PathBuf,
}

impl Publisher {
    fn ask(&self, py: Python<'_>, ticket: Ticket, question: Question<'_>, wait: Wait) -> PyResult<()> {
        let Ticket(number, Wait(patience)) = ticket;
        self.send(py, &Message::Ask(number, patience, question), wait)
    }

    fn send(&self, py: Python<'_>, message: &Message<'_>, Wait(wait): Wait) -> PyResult<()> {
        let mut sent = self.engine.send(message, Duration::ZERO);
        if sent == Err(PublisherError::TimedOut) {
            if wait.is_zero() {
                return Err(PyBlockingIOError::new_err("the connection cannot take more at the moment"));
            }
            sent = py.detach(|| self.engine.send(message, wait));
        }
        sent.map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &PublisherError) -> PyErr {
        failure(&self.path, error)
    }

    fn to_python<'py>(&self, py: Python<'py>, answer: Answer) -> PyResult<Bound<'py, PyAny>> {
        match answer {
            Answer::Done(done) => done.into_bound_py_any(py),
            Answer::Count(count) => count.into_bound_py_any(py),
            Answer::Topics(page) => page_tuple(py, page),
            Answer::Members(page) => page_tuple(py, page),
            Answer::History(history) => history_tuple(py, &history),
            Answer::Presence(page) => page_tuple(py, page),
            Answer::Joined(joined) => joined_tuple(py, joined),
            Answer::Stats(stats) => stats_dict(py, &stats)?.into_bound_py_any(py),
            Answer::Connections(ids) => ids.into_bound_py_any(py),
            Answer::Info(info) => match info {
                Some((worker_id, info)) => info_tuple(py, worker_id, &info)?.into_bound_py_any(py),
                None => py.None().into_bound_py_any(py),
            },
            Answer::Everywhere { answers, silent } => everywhere_tuple(py, answers, silent),
            Answer::Hosts(hosts) => host_tuples(py, hosts),
            Answer::SilentHost(host) => Ok(silent_host(host).into_value(py).into_bound(py).into_any()),
            Answer::NoWorker(workers) => workers.into_bound_py_any(py),
            Answer::Refused => Ok(PyRuntimeError::new_err("too many questions are waiting for answers")
                .into_value(py)
                .into_bound(py)
                .into_any()),
            Answer::Silent(workers) => {
                let ids: Vec<String> = workers.iter().map(u8::to_string).collect();
                let name = if ids.len() == 1 { "worker" } else { "workers" };
                let who = format!("{name} {} of the server at {}", ids.join(", "), self.path.display());
                Ok(PyTimeoutError::new_err(format!("{who} did not answer in time"))
                    .into_value(py)
                    .into_bound(py)
                    .into_any())
            }
        }
    }

    /// A whole message: the same as `Data::message`, without continuations.
    fn message<'a>(&self, data: &'a Data<'_>, opcode: Option<OpcodeArgument>) -> PyResult<(DataOpcode, &'a [u8])> {
        match data.message(opcode.map(|opcode| opcode.0), Fin::Last, self.engine.send_queue_size())? {
            (DataOpcode::Continuation, _) => Err(PyValueError::new_err(
                "opcode must be 1 (text) or 2 (binary): only whole messages can be sent from here",
            )),
            message => Ok(message),
        }
    }
}

#[pymethods]
impl Publisher {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, timeout: Wait) -> PyResult<Self> {
        let engine = py.detach(|| engine::Publisher::connect(&path, timeout.0));
        let engine = engine.map_err(|error| failure(&path, &error))?;
        Ok(Self { engine, path })
    }

    /// See `hubbub.Publisher.publish`. `is_json`: whether `data` was made from a dict or list.
    #[expect(clippy::too_many_arguments, reason = "a message, and how it is published")]
    fn publish(
        &self,
        py: Python<'_>,
        topic: Topic<'_>,
        data: Data<'_>,
        is_json: bool,
        exclude: &Bound<'_, PyAny>,
        key: Option<MessageKey<'_>>,
        timeout: Wait,
    ) -> PyResult<()> {
        let Topic(topic) = topic;
        let key = key.as_ref().map(|key| key.0);
        let publication = data.publication(is_json, key, self.engine.send_queue_size())?;
        if self.engine.has_envelope(topic) {
            check_enveloped(topic, &publication, self.engine.send_queue_size())?;
        }
        let exclude = excluded(Some(exclude))?.into();
        self.send(py, &Message::Command(Command::Publish { topic, publication, exclude }), timeout)
    }

    /// See `hubbub.Publisher.broadcast`.
    fn broadcast(&self, py: Python<'_>, data: Data<'_>, exclude: &Bound<'_, PyAny>, timeout: Wait) -> PyResult<()> {
        let (opcode, payload) = self.message(&data, None)?;
        let exclude = excluded(Some(exclude))?.into();
        self.send(py, &Message::Command(Command::Broadcast { opcode, payload, exclude }), timeout)
    }

    /// See `hubbub.Publisher.push`.
    fn push(
        &self,
        py: Python<'_>,
        ticket: Ticket,
        fd: FdArgument,
        data: Data<'_>,
        opcode: Option<OpcodeArgument>,
        timeout: Wait,
    ) -> PyResult<()> {
        let (opcode, payload) = self.message(&data, opcode)?;
        self.ask(py, ticket, Question::Do(Command::Push { fd: fd.0, opcode, fin: Fin::Last, payload }), timeout)
    }

    /// See `hubbub.Publisher.disconnect`.
    fn disconnect(
        &self,
        py: Python<'_>,
        ticket: Ticket,
        fd: FdArgument,
        code: CodeArgument,
        reason: Reason<'_>,
        timeout: Wait,
    ) -> PyResult<()> {
        let Reason(reason) = reason;
        let code = check_close(code.0, reason)?;
        self.ask(py, ticket, Question::Do(Command::Disconnect { fd: fd.0, code, reason }), timeout)
    }

    /// See `hubbub.Publisher.send_message`; the answer is `True`, or, if there is no such worker, the number of
    /// workers.
    fn send_message(
        &self,
        py: Python<'_>,
        ticket: Ticket,
        data: PlainData<'_>,
        worker_id: u8,
        timeout: Wait,
    ) -> PyResult<()> {
        let (format, payload) = data.0.piped()?;
        let command = Command::PipeMessage { from: OUTSIDE, to: worker_id, format, payload };
        self.ask(py, ticket, Question::Do(command), timeout)
    }

    /// See `hubbub.Publisher.subscribers`.
    fn subscribers(&self, py: Python<'_>, ticket: Ticket, topic: Topic<'_>, timeout: Wait) -> PyResult<()> {
        let Topic(topic) = topic;
        self.ask(py, ticket, Question::Subscribers(topic), timeout)
    }

    /// A page of `hubbub.Publisher.topics`: the first `limit` after the name `after`, or fewer, and whether more
    /// follow.
    fn topics(
        &self,
        py: Python<'_>,
        ticket: Ticket,
        prefix: Prefix<'_>,
        after: After<'_>,
        limit: u32,
        timeout: Wait,
    ) -> PyResult<()> {
        self.ask(py, ticket, Question::Topics { prefix: prefix.0, after: after.0, limit }, timeout)
    }

    /// A page of `hubbub.Publisher.members`: the first `limit` ids above `after`, or fewer, and whether more follow.
    fn members(
        &self,
        py: Python<'_>,
        ticket: Ticket,
        topic: Topic<'_>,
        after: FdArgument,
        limit: u32,
        timeout: Wait,
    ) -> PyResult<()> {
        self.ask(py, ticket, Question::Members { topic: topic.0, after: after.0, limit }, timeout)
    }

    /// Messages that a topic has kept; as `Reactor.history`.
    #[expect(clippy::too_many_arguments, reason = "a range of messages")]
    fn history(
        &self,
        py: Python<'_>,
        ticket: Ticket,
        topic: Topic<'_>,
        after: Option<PositionArgument<'_>>,
        before: u64,
        limit: u32,
        newest_first: bool,
        timeout: Wait,
    ) -> PyResult<()> {
        let after = after.map(|after| after.position());
        let question = Question::History { topic: topic.0, after, before, limit, newest_first };
        self.ask(py, ticket, question, timeout)
    }

    /// A page of a topic's members and what is known about them, as JSON: the first `limit` with ids above `after`.
    fn presence(
        &self,
        py: Python<'_>,
        ticket: Ticket,
        topic: Topic<'_>,
        after: FdArgument,
        limit: u32,
        timeout: Wait,
    ) -> PyResult<()> {
        self.ask(py, ticket, Question::Presence { topic: topic.0, after: after.0, limit }, timeout)
    }

    /// See `hubbub.Publisher.stats`.
    fn stats(&self, py: Python<'_>, ticket: Ticket, timeout: Wait) -> PyResult<()> {
        self.ask(py, ticket, Question::Stats, timeout)
    }

    /// See `hubbub.Publisher.connections`.
    fn connections(&self, py: Python<'_>, ticket: Ticket, timeout: Wait) -> PyResult<()> {
        self.ask(py, ticket, Question::Connections, timeout)
    }

    /// See `hubbub.Publisher.info`; the answer is the values of a `hubbub.ConnectionInfo`, or `None`.
    fn info(&self, py: Python<'_>, ticket: Ticket, fd: FdArgument, timeout: Wait) -> PyResult<()> {
        self.ask(py, ticket, Question::Info(fd.0), timeout)
    }

    /// Asks all hosts; as `Reactor.ask_everywhere`.
    #[expect(clippy::too_many_arguments, reason = "the arguments of several questions")]
    #[pyo3(signature = (
        ticket, what, timeout, *, fd=None, topic=None, prefix=None, after_name=None, after=None, limit=0
    ))]
    fn ask_everywhere(
        &self,
        py: Python<'_>,
        ticket: Ticket,
        what: &str,
        timeout: Wait,
        fd: Option<FdArgument>,
        topic: Option<Topic<'_>>,
        prefix: Option<Prefix<'_>>,
        after_name: Option<After<'_>>,
        after: Option<FdArgument>,
        limit: u32,
    ) -> PyResult<()> {
        let question = everywhere::question(what, fd, topic, prefix, after_name, after, limit)?;
        self.ask(py, ticket, question, timeout)
    }

    /// See `hubbub.Publisher.hosts`; the answer is a list as `Reactor.hosts` returns it.
    fn hosts(&self, py: Python<'_>, ticket: Ticket, timeout: Wait) -> PyResult<()> {
        self.ask(py, ticket, Question::Hosts, timeout)
    }

    /// See `hubbub.Publisher.drain`; the answer is `True`.
    fn drain(&self, py: Python<'_>, ticket: Ticket, seconds: Wait, timeout: Wait) -> PyResult<()> {
        self.ask(py, ticket, Question::Drain(seconds.0), timeout)
    }

    /// Asks for an answer once everything sent before has been accepted. Never waits.
    fn flush(&self, py: Python<'_>, number: u64) -> PyResult<()> {
        self.ask(py, Ticket(number, Wait(PATIENCE)), Question::Flush, Wait(Duration::ZERO))
    }

    /// Waits for the next answer, however long it takes. For one thread only.
    ///
    /// Returns:
    ///     The question's number, and the answer: a value, or the exception that stands for it.
    ///
    /// Raises:
    ///     ConnectionError: The connection has ended: there will be no more answers.
    fn next_answer<'py>(&self, py: Python<'py>) -> PyResult<(u64, Bound<'py, PyAny>)> {
        let (number, answer) = py.detach(|| self.engine.next_answer()).map_err(|error| self.failure(&error))?;
        Ok((number, self.to_python(py, answer)?))
    }

    /// Ends the connection at once, and any calls waiting for it.
    fn close(&self) {
        self.engine.close();
    }

    /// To be called in a forked child: closes its copy of the connection, which remains the parent's. Nothing else may
    /// be called afterwards.
    fn abandon(&self) {
        self.engine.abandon();
    }
}

/// A question's number, and the seconds that the hub gives the workers to answer.
#[derive(FromPyObject)]
pub(crate) struct Ticket(u64, Wait);

/// Seconds to wait, possibly 0.
pub(crate) struct Wait(pub(crate) Duration);

/// A longer wait amounts to forever, and a clock that far ahead cannot be relied on.
const MAX_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

impl FromPyObject<'_, '_> for Wait {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let seconds: f64 = value.extract()?;
        match Duration::try_from_secs_f64(seconds) {
            Ok(wait) => Ok(Self(wait.min(MAX_WAIT))),
            Err(_) if seconds > 0.0 => Ok(Self(MAX_WAIT)),
            Err(error) => Err(PyValueError::new_err(format!("a timeout of {seconds} seconds: {error}"))),
        }
    }
}

fn failure(path: &Path, error: &PublisherError) -> PyErr {
    let message = format!("cannot reach the server at {}: {error}", path.display());
    match error {
        PublisherError::TimedOut => PyTimeoutError::new_err(message),
        PublisherError::Broken(_) => PyConnectionError::new_err(message),
    }
}
