//! A turn as seen by Python: events become objects, and handlers are called with them.

use std::net::SocketAddr;
use std::sync::Arc;

use engine::{Answer, EndpointId, Event, Fd, Leave, OUTSIDE, Payload, Refused, Relief, Shortage, Token};
use pyo3::IntoPyObjectExt;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyString};
use wire::frame::Opcode;
use wire::http::Head;

use crate::frame::Frames;
use crate::handlers::{Arguments, Contexts, Handler, Outcome};
use crate::hub::leave_name;
use crate::reactor::{Reactor, address, in_use};
use crate::text::Texts;

/// What an [`Event`] is turned into while the reactor is borrowed. Python is entered only afterwards.
enum Step {
    Handshake(Token, Arc<Head>, SocketAddr, EndpointId),
    Request(Token, Box<Head>, SocketAddr, EndpointId, Py<PyBytes>),
    Message(Fd, EndpointId, Py<PyAny>, Opcode),
    Closed(Fd, EndpointId, u16, String),
    Drained(Fd, EndpointId),
    PipeMessage(Option<u8>, Py<PyAny>),
    Answered(u64, Box<Answer>),
    Gone(Fd),
    Room(Fd),
    TopicsExceeded(Fd),
    Refused(Box<Refused>),
    Relieved(Relief),
    Leave(Leave),
    AcceptPaused(String),
    Shortage(Shortage),
    CertificateRead(Option<String>),
}

/// The worker that a message comes from; `None` if it comes from another program.
fn sender(from: u8) -> Option<u8> {
    (from != OUTSIDE).then_some(from)
}

impl Step {
    #[inline]
    fn of<'py>(py: Python<'py>, event: Event<'_>, texts: &mut Texts<'py>) -> Self {
        match event {
            Event::Message { fd, endpoint, payload: Payload::Text(text) } => {
                Self::Message(fd, endpoint, texts.make(py, text).into_any().unbind(), Opcode::Text)
            }
            Event::Message { fd, endpoint, payload: Payload::Binary(bytes) } => {
                Self::Message(fd, endpoint, PyBytes::new(py, bytes).into_any().unbind(), Opcode::Binary)
            }
            Event::Handshake { token, head, peer, endpoint } => Self::Handshake(token, head, peer, endpoint),
            Event::Request { token, head, peer, endpoint, body } => {
                Self::Request(token, Box::new(head), peer, endpoint, PyBytes::new(py, &body).unbind())
            }
            Event::Closed { fd, endpoint, code, reason } => Self::Closed(fd, endpoint, code, reason),
            Event::Drained { fd, endpoint } => Self::Drained(fd, endpoint),
            Event::PipeMessage { from, payload: Payload::Text(text) } => {
                Self::PipeMessage(sender(from), texts.make(py, text).into_any().unbind())
            }
            Event::PipeMessage { from, payload: Payload::Binary(bytes) } => {
                Self::PipeMessage(sender(from), PyBytes::new(py, bytes).into_any().unbind())
            }
            Event::Answered { number, answer } => Self::Answered(number, answer),
            Event::Gone { fd } => Self::Gone(fd),
            Event::Room { fd } => Self::Room(fd),
            Event::TopicsExceeded { fd } => Self::TopicsExceeded(fd),
            Event::Refused(refused) => Self::Refused(refused),
            Event::Relieved(relief) => Self::Relieved(relief),
            Event::Leave(why) => Self::Leave(why),
            Event::Shortage(shortage) => Self::Shortage(shortage),
            Event::AcceptPaused { error } => Self::AcceptPaused(engine::explain(&error)),
            Event::CertificateRead(result) => Self::CertificateRead(result.err()),
        }
    }
}

impl Reactor {
    /// Takes and handles events until there are no more, or the budget is used up.
    ///
    /// # Errors
    /// SystemExit and KeyboardInterrupt from a handler; anything else would be a bug of ours.
    pub(crate) fn run_turn(&self, py: Python<'_>) -> PyResult<()> {
        let mine = self.mine()?;
        mine.borrow().map_err(in_use)?.begin()?;
        self.runner.stopwatch.restart();
        // Messages of one connection arrive together, so its id is looked up once for all of them.
        let mut last: Option<(Fd, Bound<'_, PyInt>)> = None;
        // Declared after it, so that this is dropped first.
        let _cleared = ClearCurrent(self);
        let mut contexts = Contexts::default();
        let mut frames = Frames::default();
        let mut texts = Texts::default();
        loop {
            let Some(step) = mine.borrow().map_err(in_use)?.next(|event| Step::of(py, event, &mut texts)) else {
                if mine.borrow().map_err(in_use)?.go_on()? {
                    self.runner.stopwatch.restart();
                    continue;
                }
                return Ok(());
            };
            if !matches!(step, Step::Message(..)) {
                contexts.leave();
            }
            match step {
                Step::Message(fd, endpoint, data, opcode) => {
                    let Some(handler) = self.handlers(endpoint).message.get() else { continue };
                    let id = match &last {
                        Some((same, id)) if *same == fd => id,
                        _ => {
                            let id = &last.insert((fd, self.id(py, fd)?)).1;
                            self.current.set(id, fd);
                            id
                        }
                    };
                    let frame = frames.take(id, data, opcode, &self.home)?;
                    let arguments = Arguments::new([self.server.bind_borrowed(py), frame.as_any().as_borrowed()]);
                    self.run_in_order(py, "message", fd, handler, arguments, &mut contexts)?;
                    if let Some(data) = frames.give_back(frame) {
                        texts.give_back(py, data);
                    }
                    continue;
                }
                Step::Handshake(token, head, peer, endpoint) => self.handshake(py, token, &head, peer, endpoint)?,
                Step::Request(token, head, peer, endpoint, body) => {
                    let request =
                        self.request(py, Some(token), &head, self.client(py, token, peer)?, endpoint, body.bind(py))?;
                    let worker = self.runner.worker.bind(py);
                    worker.call_method1(intern!(py, "on_request"), (token.to_bits(), request))?;
                }
                Step::Closed(fd, endpoint, code, reason) => self.closed(py, fd, endpoint, code, &reason)?,
                Step::Drained(fd, endpoint) => self.drained(py, fd, endpoint)?,
                Step::PipeMessage(from, data) => {
                    self.runner.worker.bind(py).call_method1(intern!(py, "on_pipe_message"), (from, data))?;
                }
                Step::Answered(number, answer) => self.answered(py, number, *answer)?,
                Step::Gone(fd) => {
                    self.runner.worker.bind(py).call_method1(intern!(py, "connection_gone"), (fd,))?;
                }
                Step::Room(fd) => {
                    self.runner.worker.bind(py).call_method1(intern!(py, "outbox_has_room"), (fd,))?;
                }
                Step::TopicsExceeded(fd) => {
                    self.runner.worker.bind(py).call_method1(intern!(py, "topics_exceeded"), (fd,))?;
                }
                Step::Refused(refused) => self.refused(py, &refused)?,
                Step::Relieved(Relief { output, input, bodies, freed }) => {
                    let arguments = (output, input, bodies, freed);
                    self.runner.worker.bind(py).call_method1(intern!(py, "memory_relieved"), arguments)?;
                }
                Step::Leave(why) => {
                    self.runner.worker.bind(py).call_method1(intern!(py, "leave"), (leave_name(why),))?;
                }
                Step::AcceptPaused(error) => {
                    self.runner.worker.bind(py).call_method1(intern!(py, "accept_paused"), (error,))?;
                }
                Step::Shortage(shortage) => {
                    let (of, count) = match shortage {
                        Shortage::Handlers(count) => ("handlers", count),
                        Shortage::Ids => ("ids", 0),
                        Shortage::LeasedIds => ("leased ids", 0),
                    };
                    self.runner.worker.bind(py).call_method1(intern!(py, "on_shortage"), (of, count))?;
                }
                Step::CertificateRead(error) => {
                    self.runner.worker.bind(py).call_method1(intern!(py, "certificate_read"), (error,))?;
                }
            }
            // Handlers called from Python are measured there.
            self.runner.stopwatch.restart();
        }
    }

    /// Runs a handler that belongs to its connection's order.
    #[inline(always)]
    fn run_in_order<'py>(
        &self,
        py: Python<'py>,
        event: &'static str,
        fd: Fd,
        handler: &Handler,
        arguments: Arguments<'_>,
        contexts: &mut Contexts<'py>,
    ) -> PyResult<()> {
        if self.runner.run(py, event, fd, handler, arguments, contexts)? == Outcome::Suspended {
            self.engine()?.hold(fd);
        }
        Ok(())
    }

    fn handshake(
        &self,
        py: Python<'_>,
        token: Token,
        head: &Head,
        peer: SocketAddr,
        endpoint: EndpointId,
    ) -> PyResult<()> {
        let worker = self.runner.worker.bind(py);
        let decides = worker.getattr(intern!(py, "decides_handshakes"))?.get_item(endpoint.index())?;
        if decides.is_truthy()? {
            let client = self.client(py, token, peer)?;
            let request = self.request(py, Some(token), head, client, endpoint, &PyBytes::new(py, b""))?;
            worker.call_method1(intern!(py, "on_handshake"), (token.to_bits(), request))?;
            return Ok(());
        }
        let wants_request = self.handlers(endpoint).open.get().is_some_and(|open| open.wants(1));
        let request = if wants_request || head.get("x-forwarded-for").is_some() {
            let client = self.client(py, token, peer)?;
            Some(self.request(py, Some(token), head, client, endpoint, &PyBytes::new(py, b""))?)
        } else {
            None
        };
        let client = match &request {
            Some(request) => request.getattr(intern!(py, "client"))?.extract()?,
            None => (String::new(), 0),
        };
        let no_headers: [(String, String); 0] = [];
        let accepted = self.engine()?.accept(token, None, &no_headers, address(&client));
        match accepted {
            Some(fd) => self.opened(py, fd, endpoint, request),
            None => Ok(()),
        }
    }

    pub(crate) fn opened(
        &self,
        py: Python<'_>,
        fd: Fd,
        endpoint: EndpointId,
        request: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        if let Some(request) = &request {
            request.call_method1(intern!(py, "_accepted"), (fd, &self.home))?;
        }
        let Some(handler) = self.handlers(endpoint).open.get() else {
            return Ok(());
        };
        let server = self.server.bind_borrowed(py);
        self.runner.stopwatch.restart();
        let mut contexts = Contexts::default();
        let arguments = match &request {
            Some(request) => Arguments::new([server, request.as_borrowed()]),
            None => Arguments::new([server]),
        };
        self.run_in_order(py, "open", fd, handler, arguments, &mut contexts)
    }

    fn closed(&self, py: Python<'_>, fd: Fd, endpoint: EndpointId, code: u16, reason: &str) -> PyResult<()> {
        if let Some(handler) = self.handlers(endpoint).close.get() {
            let (id, code) = (fd.into_pyobject(py)?, code.into_pyobject(py)?);
            let reason = PyString::new(py, reason);
            let arguments = Arguments::new([
                self.server.bind_borrowed(py),
                id.as_any().as_borrowed(),
                code.as_any().as_borrowed(),
                reason.as_any().as_borrowed(),
            ]);
            // If the handler is suspended, the worker calls `forget` when it has ended.
            if self.runner.run(py, "close", fd, handler, arguments, &mut Contexts::default())? == Outcome::Suspended {
                return Ok(());
            }
        }
        self.engine()?.forget(fd);
        self.home.get().forget(py, fd)
    }

    fn drained(&self, py: Python<'_>, fd: Fd, endpoint: EndpointId) -> PyResult<()> {
        let Some(handler) = self.handlers(endpoint).drain.get() else {
            return Ok(());
        };
        let id = fd.into_pyobject(py)?;
        let arguments = Arguments::new([self.server.bind_borrowed(py), id.as_any().as_borrowed()]);
        self.runner.run(py, "drain", fd, handler, arguments, &mut Contexts::default()).map(|_| ())
    }

    /// Reports a client that was turned away to the worker.
    fn refused(&self, py: Python<'_>, refused: &Refused) -> PyResult<()> {
        // Turning client input into a request takes time, so it is not done for clients that are only counted.
        let is_wanted = self.runner.worker.bind(py).call_method0(intern!(py, "wants_refusals"))?.is_truthy()?;
        let request = match &refused.head {
            Some(head) if is_wanted => {
                let client = client_of(py, refused.peer, refused.hides_client)?;
                Some(self.request(py, None, head, client, EndpointId::SERVER, &PyBytes::new(py, b""))?)
            }
            _ => None,
        };
        let (client, reason) = (client_tuple(refused.peer), refused.reason.as_ref());
        let arguments = (client, request, refused.status, reason, refused.sent, refused.others);
        self.runner.worker.bind(py).call_method1(intern!(py, "on_refused"), arguments).map(|_| ())
    }

    /// The client of a request that is to be answered.
    fn client<'py>(&self, py: Python<'py>, token: Token, peer: SocketAddr) -> PyResult<Bound<'py, PyAny>> {
        let hides_client = self.engine()?.hides_client(token);
        client_of(py, peer, hides_client)
    }

    /// The Python `Request` of a head and a body; without a token, it is not for handlers.
    fn request<'py>(
        &self,
        py: Python<'py>,
        token: Option<Token>,
        head: &Head,
        client: Bound<'py, PyAny>,
        endpoint: EndpointId,
        body: &Bound<'py, PyBytes>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (path, query) = head.path_and_query();
        let headers = PyList::empty(py);
        for (name, value) in head.headers() {
            headers.append((name, latin1(value)))?;
        }
        let certificate = match token {
            Some(token) => self.engine()?.peer_certificate(token).map(<[u8]>::to_vec),
            None => None,
        };
        let certificate = certificate.map(|der| PyBytes::new(py, &der));
        let arguments = (head.method(), path, query, headers, client, body, endpoint.index(), certificate);
        self.runner.worker.bind(py).call_method1(intern!(py, "make_request"), arguments)
    }
}

/// Clears the current id at the end of a turn, whose object is then released.
struct ClearCurrent<'a>(&'a Reactor);

impl Drop for ClearCurrent<'_> {
    fn drop(&mut self) {
        self.0.current.clear();
    }
}

/// The client that a request comes from, as `make_request` takes it.
fn client_of(py: Python<'_>, peer: SocketAddr, hides_client: bool) -> PyResult<Bound<'_, PyAny>> {
    let client = client_tuple(peer).into_bound_py_any(py)?;
    if hides_client { py.import("hubbub.forwarding")?.getattr("ProxyItself")?.call1((client,)) } else { Ok(client) }
}

/// A client as Python sees it: its address and port.
fn client_tuple(peer: SocketAddr) -> (String, u16) {
    (peer.ip().to_canonical().to_string(), peer.port())
}

/// Header values are bytes; Python sees them as latin-1 (RFC 9110 §5.5).
fn latin1(value: &[u8]) -> String {
    value.iter().copied().map(char::from).collect()
}
