//! A turn as seen by Python: handlers are called for its events.

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;

use engine::{EndpointId, Fd, MemberEvent, Refused, Relief, Shortage, TlsFacts, Token};
use pyo3::IntoPyObjectExt;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use wire::http::Head;

use crate::batch::run_batch;
use crate::borrowing::in_use;
use crate::contexts::Contexts;
use crate::events::{ClearCurrent, Events, Kept, Message, Other, Step};
use crate::handlers::{Arguments, Handler};
use crate::hub::leave_name;
use crate::reactor::{Reactor, address};
use crate::request::{Source, client_of, client_tuple, is_forwarded};
use crate::runner::Outcome;

/// The first messages of a turn get a task each: a task for several messages costs twice as much, and there may be no
/// more of them.
const MESSAGES_ALONE: u32 = 2;

impl Reactor {
    /// Takes and handles events until there are no more, or the budget is used up.
    ///
    /// # Errors
    /// SystemExit and KeyboardInterrupt from a handler; anything else would be a bug of ours.
    pub(crate) fn run_turn(&self, py: Python<'_>) -> PyResult<()> {
        let mine = self.mine()?;
        mine.borrow().map_err(in_use)?.begin()?;
        self.runner.stopwatch.restart();
        let mut kept = Kept::default();
        // Declared after it, so that this is dropped first.
        let _cleared = ClearCurrent(self);
        let mut contexts = Contexts::default();
        let mut async_messages = 0;
        loop {
            let step = mine.borrow().map_err(in_use)?.next(|event| Step::of(py, event, &mut kept.texts));
            match step {
                Some(Step::Message(message)) => {
                    let Some(handler) = self.handlers(message.endpoint).message.get() else {
                        contexts.leave();
                        self.queue_for_application(py, message)?;
                        continue;
                    };
                    if handler.is_async() {
                        contexts.leave();
                        // Moved there and back, and not lent: what other functions have no pointer to can stay in
                        // registers, which makes sync handlers cheaper.
                        let mut events = Events { py, reactor: self, kept: mem::take(&mut kept) };
                        async_messages += 1;
                        self.run_async(&mut events, handler, message, async_messages > MESSAGES_ALONE)?;
                        kept = events.kept;
                    } else {
                        self.run_message(py, &mut kept, handler, message, &mut contexts)?;
                    }
                }
                Some(Step::Other(other)) => self.handle(py, other, &mut contexts)?,
                None => {
                    contexts.leave();
                    self.wake_application(py)?;
                    if !mine.borrow().map_err(in_use)?.go_on()? {
                        return Ok(());
                    }
                    self.runner.stopwatch.restart();
                }
            }
        }
    }

    /// Runs an async handler for a message, and perhaps for those that follow; and what the turn has taken after them.
    #[cold]
    #[inline(never)]
    fn run_async<'a>(
        &'a self,
        events: &mut Events<'a, '_>,
        handler: &'a Handler,
        message: Message,
        shares_tasks: bool,
    ) -> PyResult<()> {
        let (mut handler, mut message) = (handler, message);
        loop {
            let tasks = match &self.runner.shared_tasks {
                Some(tasks) if shares_tasks && handler.is_async() && handler.shares_tasks() => tasks,
                _ => {
                    return self.run_message(events.py, &mut events.kept, handler, message, &mut Contexts::default());
                }
            };
            match run_batch(events, tasks, handler, message)? {
                Some(Step::Message(next)) => {
                    let Some(of_next) = self.handlers(next.endpoint).message.get() else {
                        return self.queue_for_application(events.py, next);
                    };
                    (handler, message) = (of_next, next);
                }
                Some(Step::Other(other)) => return self.handle(events.py, other, &mut Contexts::default()),
                None => return Ok(()),
            }
        }
    }

    #[inline(always)]
    fn run_message<'py>(
        &self,
        py: Python<'py>,
        kept: &mut Kept<'py>,
        handler: &Handler,
        message: Message,
        contexts: &mut Contexts<'py>,
    ) -> PyResult<()> {
        let fd = message.fd;
        let frame = kept.frame(py, self, message)?;
        let arguments = Arguments::new([self.server.bind_borrowed(py), frame.as_any().as_borrowed()]);
        self.run_in_order(py, "message", fd, handler, arguments, contexts)?;
        kept.release(frame);
        Ok(())
    }

    /// Handles anything but a message.
    fn handle<'py>(&self, py: Python<'py>, other: Other, contexts: &mut Contexts<'py>) -> PyResult<()> {
        // Handlers of requests that follow each other may share a context; an application must see none of it.
        if !matches!(other, Other::Request(..)) || self.application().is_some() {
            contexts.leave();
        }
        self.wake_application(py)?;
        match other {
            Other::Handshake(token, head, peer, endpoint) => match self.application_of(endpoint) {
                Some(application) => {
                    let scopes = &application.scopes;
                    let scope = scopes.websocket(py, &head, self.client(py, token, peer)?, self.tls_facts(token)?)?;
                    let worker = self.runner.worker.bind(py);
                    let arguments = (token.to_bits(), scope, is_forwarded(&head));
                    worker.call_method1(intern!(py, "on_app_handshake"), arguments)?;
                }
                None => self.handshake(py, token, head, peer, endpoint)?,
            },
            Other::Request(token, head, peer, endpoint, body) => {
                let is_usual = !self.is_stopping() && !self.engine()?.is_overrun();
                if is_usual
                    && let Some(handler) = self.handlers(endpoint).request.get()
                    && !self.asks_for_health(&head)
                {
                    let request = self.request(py, head, self.source(token, peer)?, endpoint, body)?;
                    return self.answer_by(py, handler, token, request, contexts);
                }
                contexts.leave();
                if let Some(application) = self.application_of(endpoint) {
                    let scopes = &application.scopes;
                    let scope = scopes.http(py, &head, self.client(py, token, peer)?, self.tls_facts(token)?)?;
                    let is_forwarded = is_forwarded(&head);
                    if is_usual && application.is_direct && !is_forwarded {
                        self.call_application_for(application, token, scope, body)?;
                    } else {
                        let arguments = (token.to_bits(), scope, body, is_forwarded);
                        self.runner.worker.bind(py).call_method1(intern!(py, "on_app_request"), arguments)?;
                    }
                    self.runner.stopwatch.restart();
                    return Ok(());
                }
                let request = self.request(py, head, self.source(token, peer)?, endpoint, body)?;
                let worker = self.runner.worker.bind(py);
                worker.call_method1(intern!(py, "on_request"), (token.to_bits(), request))?;
            }
            Other::Closed(fd, endpoint, code, reason) => self.closed(py, fd, endpoint, code, &reason)?,
            Other::Drained(fd, endpoint) => self.drained(py, fd, endpoint)?,
            Other::PipeMessage(from, data) => {
                self.runner.worker.bind(py).call_method1(intern!(py, "on_pipe_message"), (from, data))?;
            }
            Other::Answered(number, answer) => self.answered(py, number, *answer)?,
            Other::Gone(fd) => {
                self.runner.worker.bind(py).call_method1(intern!(py, "connection_gone"), (fd,))?;
            }
            Other::Room(fd) => {
                self.runner.worker.bind(py).call_method1(intern!(py, "outbox_has_room"), (fd,))?;
            }
            Other::Progress(token) => {
                self.runner.worker.bind(py).call_method1(intern!(py, "request_progressed"), (token.to_bits(),))?;
            }
            Other::Member(event, topic, fd, number, info) => {
                let name = match event {
                    MemberEvent::Joined => "join",
                    MemberEvent::Left => "leave",
                };
                let arguments = (name, topic, fd, number, info);
                self.runner.worker.bind(py).call_method1(intern!(py, "on_member"), arguments)?;
            }
            Other::TopicsExceeded(fd) => {
                self.runner.worker.bind(py).call_method1(intern!(py, "topics_exceeded"), (fd,))?;
            }
            Other::Refused(refused) => self.refused(py, &refused)?,
            Other::Relieved(Relief { output, input, bodies, freed }) => {
                let arguments = (output, input, bodies, freed);
                self.runner.worker.bind(py).call_method1(intern!(py, "memory_relieved"), arguments)?;
            }
            Other::Leave(why) => {
                self.runner.worker.bind(py).call_method1(intern!(py, "leave"), (leave_name(why),))?;
            }
            Other::Drain(time) => {
                self.runner.worker.bind(py).call_method1(intern!(py, "drain"), (time.as_secs_f64(),))?;
            }
            Other::AcceptPaused(error) => {
                self.runner.worker.bind(py).call_method1(intern!(py, "accept_paused"), (error,))?;
            }
            Other::Shortage(shortage) => {
                let (of, count) = match shortage {
                    Shortage::Handlers(count) => ("handlers", count),
                    Shortage::Ids => ("ids", 0),
                    Shortage::LeasedIds => ("leased ids", 0),
                };
                self.runner.worker.bind(py).call_method1(intern!(py, "on_shortage"), (of, count))?;
            }
            Other::CertificateRead(error) => {
                self.runner.worker.bind(py).call_method1(intern!(py, "certificate_read"), (error,))?;
            }
        }
        // Handlers called from Python are measured there.
        self.runner.stopwatch.restart();
        Ok(())
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
        head: Arc<Head>,
        peer: SocketAddr,
        endpoint: EndpointId,
    ) -> PyResult<()> {
        let worker = self.runner.worker.bind(py);
        let decides = worker.getattr(intern!(py, "decides_handshakes"))?.get_item(endpoint.index())?;
        if decides.is_truthy()? {
            let request = self.request(py, head, self.source(token, peer)?, endpoint, None)?;
            worker.call_method1(intern!(py, "on_handshake"), (token.to_bits(), request))?;
            return Ok(());
        }
        let wants_request = self.handlers(endpoint).open.get().is_some_and(|open| open.wants(1));
        let request = if wants_request || head.get("x-forwarded-for").is_some() {
            Some(self.request(py, head, self.source(token, peer)?, endpoint, None)?)
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
        } else {
            self.end_for_application(py, fd, code, reason)?;
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
                let source = Source { peer: refused.peer, hides_client: refused.hides_client, peer_certificate: None };
                Some(self.request(py, Arc::clone(head), source, EndpointId::SERVER, None)?)
            }
            _ => None,
        };
        let (client, reason) = (client_tuple(refused.peer), refused.reason.as_ref());
        let arguments = (client, request, refused.status, reason, refused.sent, refused.others);
        self.runner.worker.bind(py).call_method1(intern!(py, "on_refused"), arguments).map(|_| ())
    }

    fn tls_facts(&self, token: Token) -> PyResult<Option<TlsFacts>> {
        Ok(self.engine()?.tls_facts(token))
    }

    /// Where a request comes from that is to be answered.
    fn source(&self, token: Token, peer: SocketAddr) -> PyResult<Source> {
        let engine = self.engine()?;
        let peer_certificate = engine.peer_certificate(token).map(<[u8]>::to_vec);
        Ok(Source { peer, hides_client: engine.hides_client(token), peer_certificate })
    }

    /// The client of a request that an application is to answer.
    fn client<'py>(&self, py: Python<'py>, token: Token, peer: SocketAddr) -> PyResult<Bound<'py, PyAny>> {
        if self.engine()?.hides_client(token) {
            return client_of(py, peer, true);
        }
        (self.address(py, peer.ip())?, peer.port()).into_bound_py_any(py)
    }
}
