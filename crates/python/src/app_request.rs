//! One HTTP request to an ASGI application: `receive` and `send` are what the application is called with ("HTTP &
//! WebSocket ASGI Message Format", version 2.4).
//!
//! A call to `send` has its effect at once if there is room for the event, and one to `receive` when it is awaited.

use std::fs::File;
use std::mem;
use std::os::fd::RawFd;

use engine::{Borrow, LoopCell, Part, Taken, Token};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyInt, PyMemoryView, PyString, PyType};
use pyo3::{PyTypeInfo, intern};

use crate::bodies::kept;
use crate::borrowing::borrow;
use crate::header_pairs::{HeaderPair, HeaderPairs};
use crate::operation::{Attempt, Operation};
use crate::reactor::{Reactor, TOO_LONG, TOO_SHORT, taken_over};
use crate::ready::{Done, Failed};
use crate::waiter::{Waiter, Waiters};

const PLAIN_TEXT: [(&str, &str); 1] = [("content-type", "text/plain; charset=utf-8")];

/// The event that `send` takes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Start,
    Body,
    Trailers,
    /// The answer is complete, or can no longer be completed.
    Nothing,
}

impl Expected {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Body => "body",
            Self::Trailers => "trailers",
            Self::Nothing => "nothing",
        }
    }
}

/// What becomes of an event that the application sends.
enum Sent<'py> {
    Done,
    /// There is no room for this part of the body yet. Whether more follow.
    Waits(Bound<'py, PyBytes>, bool),
}

/// What changes while a request is answered.
struct State {
    /// `None` once the application's call has ended, so that the reactor is not kept by an application that keeps `send`.
    reactor: Option<Py<Reactor>>,
    /// The whole body, until `receive` has returned it. `None` from the beginning if the reactor has it.
    body: Option<Py<PyBytes>>,
    /// Whether `receive` has returned all of the body.
    is_received: bool,
    expected: Expected,
    was_cut_short: bool,
    /// The status of the answer, once its head is sent; until then 0.
    sent_status: u16,
    /// Of the answer that the application has started.
    status: u16,
    /// The answer's headers; once its body is sent, its trailers.
    headers: Vec<HeaderPair>,
    /// Bytes of the body that are still to be sent, if the application has announced them.
    length: Option<u64>,
    wants_trailers: bool,
    /// Who waits for progress.
    waiters: Waiters,
}

/// One HTTP request.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct AppRequest {
    token: Token,
    #[pyo3(get)]
    scope: Py<PyDict>,
    state: LoopCell<State>,
}

impl AppRequest {
    /// A request that has just arrived. Without a body, it is taken from the reactor as it arrives.
    pub(crate) fn new(reactor: Py<Reactor>, token: Token, scope: Py<PyDict>, body: Option<Py<PyBytes>>) -> Self {
        let state = State {
            reactor: Some(reactor),
            body,
            is_received: false,
            expected: Expected::Start,
            was_cut_short: false,
            sent_status: 0,
            status: 0,
            headers: Vec::new(),
            length: None,
            wants_trailers: false,
            waiters: Waiters::default(),
        };
        Self { token, scope, state: LoopCell::new(state) }
    }

    /// What changes, for one step in which no Python runs.
    ///
    /// # Errors
    /// RuntimeError on any other thread than the event loop's.
    #[inline]
    fn state(&self) -> PyResult<Borrow<'_, State>> {
        borrow(&self.state)
    }

    /// # Errors
    /// RuntimeError on any other thread, ClientDisconnected once the application's call has ended.
    #[inline]
    fn reactor<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Reactor>> {
        let reactor = self.state()?.reactor.as_ref().map(|reactor| reactor.bind(py).clone());
        reactor.ok_or_else(|| client_disconnected(py))
    }

    /// Does something about this request in the reactor.
    #[inline]
    fn in_reactor<T>(&self, py: Python<'_>, act: impl FnOnce(&mut engine::Reactor, Token) -> T) -> PyResult<T> {
        self.reactor(py)?.get().on_loop(py, |engine| act(engine, self.token))
    }

    // ---- receiving --------------------------------------------------------------------------------------------------

    /// The next event that the application receives; `None` if it has to wait for it.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let (body, has_more) = {
            let mut state = self.state()?;
            let body = state.body.take();
            state.is_received |= body.is_some();
            (body, !state.is_received && state.expected != Expected::Nothing)
        };
        if let Some(body) = body {
            return content(body.bind(py), false).map(Some);
        }
        if has_more {
            match self.in_reactor(py, engine::Reactor::take_body)? {
                Taken::Content { content: bytes, is_last } => {
                    self.state()?.is_received = is_last;
                    return content(&PyBytes::new(py, &bytes), !is_last).map(Some);
                }
                Taken::Awaited => return Ok(None),
                Taken::Nothing => return disconnect(py).map(Some),
            }
        }
        if self.is_over(py)? { disconnect(py).map(Some) } else { Ok(None) }
    }

    /// Whether the client has left, or has its whole answer.
    fn is_over(&self, py: Python<'_>) -> PyResult<bool> {
        if self.state()?.expected == Expected::Nothing {
            return Ok(true);
        }
        let reactor = self.reactor(py)?;
        let engine = reactor.get().engine()?;
        Ok(engine.has_left(self.token))
    }

    // ---- waiting ----------------------------------------------------------------------------------------------------

    /// A new waiter, which is woken once the reactor has something new about this request.
    fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Waiter>> {
        let waiter = self.reactor(py)?.get().waiter(py)?;
        self.state()?.waiters.add(py, &waiter);
        Ok(waiter)
    }

    // ---- sending ----------------------------------------------------------------------------------------------------

    fn send_now<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
        let py = message.py();
        let message = &as_dict(message)?;
        let kind = message.as_any().get_item(intern!(py, "type"))?;
        let name = kind.cast::<PyString>().ok().and_then(|name| name.to_str().ok());
        let (expected, has_begun) = {
            let state = self.state()?;
            (state.expected, state.sent_status != 0)
        };
        match (expected, name.unwrap_or_default()) {
            (Expected::Start, "http.response.start") => self.start(message)?,
            (Expected::Body, "http.response.body") => return self.send_body(message),
            (Expected::Body, "http.response.pathsend") if !has_begun => self.send_file(message)?,
            (Expected::Trailers, "http.response.trailers") => self.send_trailers(message)?,
            (Expected::Start, "http.response.early_hint") => self.send_early_hints(message)?,
            _ => return Err(self.refusal(&kind)),
        }
        Ok(Sent::Done)
    }

    #[cold]
    fn refusal(&self, kind: &Bound<'_, PyAny>) -> PyErr {
        let py = kind.py();
        let (expected, was_cut_short) = match self.state() {
            Ok(state) => (state.expected, state.was_cut_short),
            Err(error) => return error,
        };
        let kind = match kind.repr() {
            Ok(kind) => kind.to_string(),
            Err(error) => return error,
        };
        match expected {
            _ if was_cut_short => client_disconnected(py),
            Expected::Nothing => {
                protocol_error(py, format!("the application sent {kind} after the end of its response"))
            }
            _ => {
                let wanted = expected.name();
                protocol_error(py, format!("the application sent {kind} where ASGI expects 'http.response.{wanted}'"))
            }
        }
    }

    fn start(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = message.py();
        let status = final_status(&message.as_any().get_item(intern!(py, "status"))?)?;
        let headers = headers_of(message)?;
        let length = content_length(py, &headers)?;
        let wants_trailers = is_set(message, intern!(py, "trailers"))?;
        let mut state = self.state()?;
        (state.status, state.headers, state.length) = (status, headers, length);
        (state.wants_trailers, state.expected) = (wants_trailers, Expected::Body);
        Ok(())
    }

    fn send_body<'py>(&self, message: &Bound<'py, PyDict>) -> PyResult<Sent<'py>> {
        let py = message.py();
        let body = match message.get_item(intern!(py, "body"))? {
            Some(body) => bytes_of(body)?,
            None => PyBytes::new(py, b""),
        };
        let more_body = is_set(message, intern!(py, "more_body"))?;
        let is_whole = {
            let state = self.state()?;
            !more_body && state.sent_status == 0 && !state.wants_trailers
        };
        if is_whole {
            self.send_whole(&body)?;
            return Ok(Sent::Done);
        }
        if self.state()?.sent_status == 0 {
            self.begin(py)?;
        }
        let is_sent = self.send_part(&body, more_body)?;
        Ok(if is_sent { Sent::Done } else { Sent::Waits(body, more_body) })
    }

    /// Sends an answer that has only one part.
    fn send_whole(&self, body: &Bound<'_, PyBytes>) -> PyResult<()> {
        let (py, bytes) = (body.py(), body.as_bytes());
        let length = self.state()?.length;
        let has_wrong_length = length.is_some_and(|length| length != bytes.len() as u64);
        // An answer to HEAD without a body does not tell how long that of GET is.
        if has_wrong_length || (length.is_none() && bytes.is_empty() && self.is_head(py)?) {
            self.begin(py)?;
            return self.send_part(body, false).map(|_| ());
        }
        let (status, headers) = self.take_head()?;
        let is_there = self.reactor(py)?.get().send_body(self.token, status, &headers, body)?;
        self.answered(py, status, is_there)
    }

    fn is_head(&self, py: Python<'_>) -> PyResult<bool> {
        self.scope.bind(py).as_any().get_item(intern!(py, "method"))?.eq("HEAD")
    }

    /// The status and the headers that the application has sent.
    fn take_head(&self) -> PyResult<(u16, Vec<HeaderPair>)> {
        let mut state = self.state()?;
        Ok((state.status, mem::take(&mut state.headers)))
    }

    /// Notes that the whole answer was passed to the reactor. `is_there`: whether the client is.
    fn answered(&self, py: Python<'_>, status: u16, is_there: bool) -> PyResult<()> {
        {
            let mut state = self.state()?;
            (state.expected, state.sent_status) = (Expected::Nothing, status);
        }
        if is_there { self.tell(py) } else { Err(self.left(py)) }
    }

    /// Sends the head of an answer that has several parts.
    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        let (status, headers) = self.take_head()?;
        let length = self.state()?.length;
        if !self.in_reactor(py, |engine, token| engine.begin_answer(token, status, &headers, length))? {
            return Err(self.left(py));
        }
        self.state()?.sent_status = status;
        Ok(())
    }

    /// Sends a part of the body for which there was no room. Returns false if there still is none.
    fn put(&self, body: &Bound<'_, PyBytes>, more_body: bool) -> PyResult<bool> {
        if self.is_done()? { Err(client_disconnected(body.py())) } else { self.send_part(body, more_body) }
    }

    /// Sends a part of the body. Returns whether it was sent, or has to wait because too much waits for the client.
    fn send_part(&self, body: &Bound<'_, PyBytes>, more_body: bool) -> PyResult<bool> {
        let (py, bytes) = (body.py(), body.as_bytes());
        if !bytes.is_empty() {
            let kept = kept(body);
            let part = self.in_reactor(py, |engine, token| match kept {
                Some(kept) => engine.send_kept_part(token, kept),
                None => engine.send_part(token, bytes),
            })?;
            match part {
                Part::Queued => {
                    let mut state = self.state()?;
                    state.length = state.length.map(|length| length.saturating_sub(bytes.len() as u64));
                }
                Part::Waits => return Ok(false),
                Part::Gone => return Err(self.left(py)),
                Part::WrongLength => {
                    self.state()?.expected = Expected::Nothing;
                    self.tell(py)?;
                    return Err(protocol_error(py, TOO_LONG.to_owned()));
                }
            }
        } else if self.is_over(py)? && (more_body || !self.has_sent_all()?) {
            return Err(self.left(py));
        }
        if more_body {
            return Ok(true);
        }
        {
            let mut state = self.state()?;
            if state.wants_trailers {
                state.expected = Expected::Trailers;
                return Ok(true);
            }
        }
        self.end(py, &[])?;
        Ok(true)
    }

    fn end(&self, py: Python<'_>, trailers: &[HeaderPair]) -> PyResult<()> {
        let part = self.in_reactor(py, |engine, token| engine.end_answer(token, trailers))?;
        if part == Part::WrongLength {
            self.give_up(py)?;
            self.tell(py)?;
            return Err(protocol_error(py, TOO_SHORT.to_owned()));
        }
        self.state()?.expected = Expected::Nothing;
        // The client may leave once it has as many bytes as were announced.
        if part == Part::Queued || self.has_sent_all()? { self.tell(py) } else { Err(self.left(py)) }
    }

    /// Whether as many bytes of the body have been sent as the application has announced.
    fn has_sent_all(&self) -> PyResult<bool> {
        Ok(self.state()?.length == Some(0))
    }

    fn send_file(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        static OPEN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = message.py();
        let path = message.as_any().get_item(intern!(py, "path"))?;
        let length = self.state()?.length;
        let opened = OPEN.import(py, "hubbub.asgi.http", "open_file")?.call1((path, length))?;
        let (descriptor, length): (RawFd, usize) = opened.extract()?;
        let file = File::from(taken_over(descriptor));
        let (status, headers) = self.take_head()?;
        let is_there =
            self.in_reactor(py, |engine, token| engine.respond_file(token, status, &headers, file, 0, length))?;
        self.answered(py, status, is_there)
    }

    fn send_trailers(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = message.py();
        let more = headers_of(message)?;
        let more_trailers = is_set(message, intern!(py, "more_trailers"))?;
        let mut trailers = {
            let mut state = self.state()?;
            state.headers.extend(more);
            if more_trailers {
                return Ok(());
            }
            mem::take(&mut state.headers)
        };
        let extensions = self.scope.bind(py).as_any().get_item(intern!(py, "extensions"))?;
        if !extensions.contains(intern!(py, "http.response.trailers"))? {
            trailers.clear();
        }
        self.end(py, &trailers)
    }

    fn send_early_hints(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = message.py();
        let links = message.as_any().get_item(intern!(py, "links"))?;
        let pairs = links.try_iter()?.map(|link| Ok((PyBytes::new(py, b"link"), link?)));
        let HeaderPairs(headers) = pairs.collect::<PyResult<Vec<_>>>()?.into_pyobject(py)?.extract()?;
        self.in_reactor(py, |engine, token| engine.send_early_hints(token, &headers))
    }

    /// Notes that the client has left; the error for the application.
    fn left(&self, py: Python<'_>) -> PyErr {
        let noted = self.state().map(|mut state| {
            (state.expected, state.was_cut_short) = (Expected::Nothing, true);
        });
        match noted.and_then(|()| self.tell(py)) {
            Ok(()) => client_disconnected(py),
            Err(error) => error,
        }
    }

    /// Whether the application has sent a whole answer, or can no longer.
    pub(crate) fn is_done(&self) -> PyResult<bool> {
        Ok(self.state()?.expected == Expected::Nothing)
    }
}

#[pymethods]
impl AppRequest {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scope)?;
        // On another thread, or in the middle of a step, it is only seen as in use.
        let Some(Ok(state)) = self.state.mine().map(|mine| mine.borrow()) else { return Ok(()) };
        if let Some(reactor) = &state.reactor {
            visit.call(reactor)?;
        }
        state.waiters.traverse(&visit)
    }

    // ---- the application's side -------------------------------------------------------------------------------------

    /// Return the next part of the body; after its end, wait for the client's disconnect, and return that.
    fn receive(this: &Bound<'_, Self>) -> Operation {
        Operation::new(Receiving(this.clone().unbind()))
    }

    /// Send an event of the answer, at once if there is room for it. What is wrong is raised when the result is awaited.
    ///
    /// Raises:
    ///     ClientDisconnected: The client has left.
    ///     ProtocolError: The event is not allowed here.
    ///     RuntimeError: This is another thread than that of the event loop.
    ///     TypeError: A part of the event has the wrong type.
    ///     ValueError: A status or header cannot be sent.
    fn send<'py>(this: &Bound<'py, Self>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = message.py();
        match this.get().send_now(message) {
            Ok(Sent::Done) => Done::get(py),
            Ok(Sent::Waits(body, more_body)) => {
                let sending = Sending { request: this.clone().unbind(), body: body.unbind(), more_body };
                Ok(Bound::new(py, Operation::new(sending))?.into_any())
            }
            Err(error) => Failed::with(py, error),
        }
    }

    // ---- the server's side ------------------------------------------------------------------------------------------

    #[getter]
    fn token(&self) -> u64 {
        self.token.to_bits()
    }

    /// The status, once it is sent; until then 0.
    #[getter]
    fn status(&self) -> PyResult<u16> {
        Ok(self.state()?.sent_status)
    }

    /// Whether the answer is complete, or can no longer be completed.
    #[getter]
    fn is_answered(&self, py: Python<'_>) -> PyResult<bool> {
        self.is_over(py)
    }

    /// Wakes the application, if it waits, to look at its request again.
    fn tell(&self, py: Python<'_>) -> PyResult<()> {
        let waiters = self.state()?.waiters.take();
        waiters.wake_soon(py)
    }

    /// Ends the request because the server stops: the application is told that the client has disconnected.
    fn disconnect(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_done()? {
            return Ok(());
        }
        if self.state()?.sent_status == 0 {
            self.answer(py, 503, b"the server is stopping\n")?;
        } else {
            self.give_up(py)?;
        }
        self.state()?.was_cut_short = true;
        self.tell(py)
    }

    /// Answers in place of the application, which has not begun to.
    fn answer(&self, py: Python<'_>, status: u16, body: &[u8]) -> PyResult<()> {
        {
            let mut state = self.state()?;
            (state.expected, state.sent_status) = (Expected::Nothing, status);
        }
        self.in_reactor(py, |engine, token| engine.respond(token, status, &PLAIN_TEXT, body)).map(|_| ())
    }

    /// Cuts off the answer, if it has begun and is not complete.
    fn give_up(&self, py: Python<'_>) -> PyResult<()> {
        let has_begun = {
            let mut state = self.state()?;
            let before = mem::replace(&mut state.expected, Expected::Nothing);
            before != Expected::Nothing && state.sent_status != 0
        };
        if has_begun { self.in_reactor(py, engine::Reactor::cut_answer) } else { Ok(()) }
    }

    /// To be called when the application's call has ended.
    pub(crate) fn finish(&self, py: Python<'_>) -> PyResult<()> {
        self.in_reactor(py, engine::Reactor::done)?;
        let reactor = {
            let mut state = self.state()?;
            state.expected = Expected::Nothing;
            state.reactor.take()
        };
        if let Some(reactor) = reactor {
            reactor.drop_ref(py);
        }
        self.tell(py)
    }
}

// ---- what waits ----------------------------------------------------------------------------------------------------

/// Receives the next event.
struct Receiving(Py<AppRequest>);

impl Attempt for Receiving {
    fn make<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.0.get().take(py)?.map(Bound::into_any))
    }

    fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Waiter>> {
        self.0.get().waiter(py)
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

/// Sends a part of the body of an answer.
struct Sending {
    request: Py<AppRequest>,
    body: Py<PyBytes>,
    more_body: bool,
}

impl Attempt for Sending {
    fn make<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let is_sent = self.request.get().put(self.body.bind(py), self.more_body)?;
        Ok(is_sent.then(|| py.None().into_bound(py)))
    }

    fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Waiter>> {
        self.request.get().waiter(py)
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.request)
    }
}

// ---- events ---------------------------------------------------------------------------------------------------------

fn content<'py>(body: &Bound<'py, PyBytes>, more_body: bool) -> PyResult<Bound<'py, PyDict>> {
    let py = body.py();
    let event = PyDict::new(py);
    event.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
    event.set_item(intern!(py, "body"), body)?;
    event.set_item(intern!(py, "more_body"), more_body)?;
    Ok(event)
}

fn disconnect(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let event = PyDict::new(py);
    event.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?;
    Ok(event)
}

/// An event, which may be any mapping.
#[inline]
fn as_dict<'py>(message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    match message.cast::<PyDict>() {
        Ok(message) => Ok(message.clone()),
        Err(_) => Ok(PyDict::type_object(message.py()).call1((message,))?.cast_into()?),
    }
}

/// Whether the event has this key, with a true value.
#[inline]
fn is_set(message: &Bound<'_, PyDict>, name: &Bound<'_, PyString>) -> PyResult<bool> {
    message.get_item(name)?.map_or(Ok(false), |value| value.is_truthy())
}

fn headers_of(message: &Bound<'_, PyDict>) -> PyResult<Vec<HeaderPair>> {
    match message.get_item(intern!(message.py(), "headers"))? {
        Some(headers) => headers.extract().map(|HeaderPairs(pairs)| pairs),
        None => Ok(Vec::new()),
    }
}

/// The length that the headers announce.
///
/// # Errors
/// ValueError if it is no number, or there are two.
fn content_length(py: Python<'_>, headers: &[HeaderPair]) -> PyResult<Option<u64>> {
    let mut length = None;
    for (_, value) in headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-length")) {
        let digits = str::from_utf8(value).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(number) if length.is_none_or(|length| length == number) => length = Some(number),
            _ => {
                let value = PyBytes::new(py, value).repr()?;
                return Err(PyValueError::new_err(format!("not a Content-Length: {value}")));
            }
        }
    }
    Ok(length)
}

/// The status of an answer.
///
/// # Errors
/// TypeError if it is not an int, ValueError if it is not that of a final response.
fn final_status(status: &Bound<'_, PyAny>) -> PyResult<u16> {
    if !status.is_instance_of::<PyInt>() {
        let given = status.get_type().name()?;
        return Err(PyTypeError::new_err(format!("status must be an int, not {given}")));
    }
    let number = status.extract::<u16>().ok().filter(|number| (200..=999).contains(number));
    number.ok_or_else(|| PyValueError::new_err(format!("status {status} is not that of a final response")))
}

/// The bytes of a part of a body.
#[inline]
fn bytes_of(body: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyBytes>> {
    match body.cast_into::<PyBytes>() {
        Ok(bytes) => Ok(bytes),
        Err(other) => copied(&other.into_inner()),
    }
}

fn copied<'py>(body: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if !body.is_instance_of::<PyByteArray>() && !body.is_instance_of::<PyMemoryView>() {
        let given = body.get_type().name()?;
        return Err(PyTypeError::new_err(format!("the body of a response must be bytes, not {given}")));
    }
    Ok(PyBytes::type_object(body.py()).call1((body,))?.cast_into()?)
}

// ---- errors ---------------------------------------------------------------------------------------------------------

#[cold]
pub(crate) fn client_disconnected(py: Python<'_>) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let made = CLASS.import(py, "hubbub.asgi.http", "ClientDisconnected").and_then(|class| class.call0());
    made.map_or_else(|error| error, PyErr::from_value)
}

#[cold]
fn protocol_error(py: Python<'_>, message: String) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let made = CLASS.import(py, "hubbub.asgi.http", "ProtocolError").and_then(|class| class.call1((message,)));
    made.map_or_else(|error| error, PyErr::from_value)
}
