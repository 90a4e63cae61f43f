//! One WebSocket of an ASGI application: `receive` and `send` are what the application is called with ("HTTP & WebSocket
//! ASGI Message Format", version 2.4).
//!
//! Messages in both directions are handled here. Everything that happens only once for a connection is in
//! `hubbub.asgi.websocket`.

use std::collections::VecDeque;
use std::mem;

use engine::{Borrow, Fd, Fin, LoopCell, Sending, Token};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::app_request::client_disconnected;
use crate::application::no_application;
use crate::arguments::Data;
use crate::borrowing::borrow;
use crate::operation::{Attempt, Operation};
use crate::reactor::Reactor;
use crate::ready::{Done, Failed};
use crate::waiter::{Waiter, Waiters};

/// Messages that may wait for the application before its connection is no longer read.
const MAX_WAITING: usize = 64;
/// The same for the lengths of such messages together.
const MAX_WAITING_LENGTH: usize = 1024 * 1024;
/// The connection broke (RFC 6455 §7.4.1).
const ABNORMAL_CLOSURE: u16 = 1006;

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// The application has begun to answer the handshake with a response of its own.
    Refusing,
    Open,
    Closed,
}

/// An event for the application. The disconnect, which is repeated, is not among them.
enum Event {
    Connect,
    /// `str` or `bytes`.
    Message(Py<PyAny>),
}

struct State {
    stage: Stage,
    /// The connection's id, once it is open.
    fd: Fd,
    events: VecDeque<Event>,
    /// The lengths of the messages in `events`, and of those taken since it was empty.
    waiting: usize,
    /// Whether no more messages are read.
    is_held: bool,
    /// The code and the reason.
    disconnect: Option<(u16, String)>,
    /// Who waits in `receive`.
    waiters: Waiters,
}

/// One WebSocket.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct AppSocket {
    reactor: Py<Reactor>,
    token: Token,
    /// A weak reference to what sends all events but usual messages, as long as the application runs.
    send_other: Py<PyAny>,
    state: LoopCell<State>,
}

impl AppSocket {
    /// What changes, for one step in which no Python runs.
    ///
    /// # Errors
    /// RuntimeError on any other thread than the event loop's.
    #[inline]
    fn state(&self) -> PyResult<Borrow<'_, State>> {
        borrow(&self.state)
    }

    // ---- receiving --------------------------------------------------------------------------------------------------

    /// Queues a message for the application; if it lags, no more of them are read.
    pub(crate) fn queue(&self, py: Python<'_>, data: Py<PyAny>) -> PyResult<()> {
        let length = data.bind(py).len()?;
        let fd = {
            let mut state = self.state()?;
            if state.disconnect.is_some() {
                return Ok(());
            }
            state.events.push_back(Event::Message(data));
            state.waiting += length;
            let is_full = state.events.len() >= MAX_WAITING || state.waiting >= MAX_WAITING_LENGTH;
            if !is_full || mem::replace(&mut state.is_held, true) {
                return Ok(());
            }
            state.fd
        };
        self.reactor.get().on_loop(py, |engine| engine.hold(fd))
    }

    /// Those who wait for events, to be woken.
    pub(crate) fn take_waiters(&self) -> PyResult<Waiters> {
        Ok(self.state()?.waiters.take())
    }

    /// The next event; `None` if the application has to wait for it. After the end of the connection, always its
    /// disconnect.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let next = {
            let mut state = self.state()?;
            let next = state.events.pop_front();
            if next.is_some() && state.events.is_empty() {
                state.waiting = 0;
            }
            next.map(|event| (event, state.events.is_empty() && state.is_held))
        };
        if let Some((event, is_caught_up)) = next {
            if is_caught_up {
                self.let_go(py)?;
            }
            return event.into_dict(py).map(Some);
        }
        if self.state()?.stage == Stage::Connecting && self.reactor.get().engine()?.has_left(self.token) {
            self.end(py, ABNORMAL_CLOSURE, String::new())?;
        }
        let state = self.state()?;
        let Some((code, reason)) = &state.disconnect else { return Ok(None) };
        let (code, reason) = (*code, reason.clone());
        drop(state);
        let event = PyDict::new(py);
        event.set_item(intern!(py, "type"), intern!(py, "websocket.disconnect"))?;
        event.set_item(intern!(py, "code"), code)?;
        event.set_item(intern!(py, "reason"), reason)?;
        Ok(Some(event))
    }

    /// A new waiter, which is woken when there is something new to receive.
    fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Waiter>> {
        let waiter = self.reactor.get().waiter(py)?;
        self.state()?.waiters.add(py, &waiter);
        Ok(waiter)
    }

    // ---- sending ----------------------------------------------------------------------------------------------------

    /// Sends a message. Returns false if nothing was done, because this is another event, or there is no room.
    #[inline]
    fn send_now(&self, message: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = message.py();
        let Ok(message) = message.cast::<PyDict>() else { return Ok(false) };
        let fd = {
            let state = self.state()?;
            if state.stage != Stage::Open {
                return Ok(false);
            }
            state.fd
        };
        let kind = message.get_item(intern!(py, "type"))?;
        let is_message = kind.is_some_and(|kind| {
            kind.cast::<PyString>().is_ok_and(|kind| kind.to_str().is_ok_and(|kind| kind == "websocket.send"))
        });
        if !is_message {
            return Ok(false);
        }
        let data = match message.get_item(intern!(py, "text"))? {
            Some(text) if !text.is_none() => Some(text),
            _ => message.get_item(intern!(py, "bytes"))?,
        };
        let Some(data) = data.as_ref().and_then(Data::of) else { return Ok(false) };
        let reactor = self.reactor.get();
        let (opcode, payload) = data.message(None, Fin::Last, reactor.send_queue_size())?;
        match reactor.on_loop(py, |engine| engine.send(fd, opcode, payload))? {
            Ok(Sending::Done) => Ok(true),
            Ok(Sending::NotOpen) => Err(client_disconnected(py)),
            // Python's code tries again, and then waits.
            Ok(Sending::Waits) | Err(_) => Ok(false),
        }
    }

    fn let_go(&self, py: Python<'_>) -> PyResult<()> {
        let fd = {
            let mut state = self.state()?;
            if !mem::take(&mut state.is_held) {
                return Ok(());
            }
            state.fd
        };
        self.reactor.get().on_loop(py, |engine| engine.release(fd))
    }
}

/// Receives the next event.
struct Receiving(Py<AppSocket>);

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

impl Event {
    fn into_dict(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let event = PyDict::new(py);
        match self {
            Self::Connect => event.set_item(intern!(py, "type"), intern!(py, "websocket.connect"))?,
            Self::Message(data) => {
                let data = data.into_bound(py);
                let key = if data.is_instance_of::<PyString>() { intern!(py, "text") } else { intern!(py, "bytes") };
                event.set_item(intern!(py, "type"), intern!(py, "websocket.receive"))?;
                event.set_item(key, data)?;
            }
        }
        Ok(event)
    }
}

#[pymethods]
impl AppSocket {
    /// A connection whose handshake has just arrived. `send_other` is a weak reference to what sends all events but usual
    /// messages.
    #[new]
    fn new(reactor: Py<Reactor>, token: u64, send_other: Py<PyAny>) -> Self {
        let state = State {
            stage: Stage::Connecting,
            fd: 0,
            events: VecDeque::from([Event::Connect]),
            waiting: 0,
            is_held: false,
            disconnect: None,
            waiters: Waiters::default(),
        };
        Self { reactor, token: Token::from_bits(token), send_other, state: LoopCell::new(state) }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.reactor)?;
        visit.call(&self.send_other)?;
        // On another thread, or in the middle of a step, it is only seen as in use.
        let Some(Ok(state)) = self.state.mine().map(|mine| mine.borrow()) else { return Ok(()) };
        state.waiters.traverse(&visit)
    }

    // ---- the application's side -------------------------------------------------------------------------------------

    /// Return the next event; after the end of the connection always its `websocket.disconnect`.
    fn receive(this: &Bound<'_, Self>) -> Operation {
        Operation::new(Receiving(this.clone().unbind()))
    }

    /// Send an event: a message at once, if there is room for it. What is wrong is raised when the result is awaited.
    ///
    /// Raises:
    ///     ClientDisconnected: The connection has ended.
    ///     ProtocolError: The event is not allowed here.
    ///     RuntimeError: This is another thread than that of the event loop.
    ///     TypeError: A part of the event has the wrong type.
    ///     ValueError: A part of the event cannot be sent.
    fn send<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = message.py();
        match self.send_now(message) {
            Ok(true) => Done::get(py),
            Ok(false) => match self.send_other.bind(py).call0()? {
                send if send.is_none() => Failed::with(py, client_disconnected(py)),
                send => send.call1((message,)),
            },
            Err(error) => Failed::with(py, error),
        }
    }

    // ---- the server's side ------------------------------------------------------------------------------------------

    /// "connecting", "refusing" (its answer has begun), "open" or "closed".
    #[getter]
    fn stage(&self) -> PyResult<&'static str> {
        Ok(match self.state()?.stage {
            Stage::Connecting => "connecting",
            Stage::Refusing => "refusing",
            Stage::Open => "open",
            Stage::Closed => "closed",
        })
    }

    /// The connection's id; 0 until it is open.
    #[getter]
    fn fd(&self) -> PyResult<Fd> {
        Ok(self.state()?.fd)
    }

    /// Whether `receive` returns a disconnect, once there are no more messages.
    #[getter]
    fn has_ended(&self) -> PyResult<bool> {
        Ok(self.state()?.disconnect.is_some())
    }

    /// Notes that the application answers the handshake with a response.
    fn begin_refusal(&self) -> PyResult<()> {
        self.state()?.stage = Stage::Refusing;
        Ok(())
    }

    /// Notes that the handshake has been accepted: messages of the connection go here.
    fn open(this: &Bound<'_, Self>, fd: Fd) -> PyResult<()> {
        {
            let mut state = this.get().state()?;
            (state.stage, state.fd) = (Stage::Open, fd);
        }
        let application = this.get().reactor.get().application().ok_or_else(no_application)?;
        application.add(fd, this.clone().into_any().unbind())
    }

    /// Notes that no answer to the handshake can be sent any longer.
    fn close(&self) -> PyResult<()> {
        self.state()?.stage = Stage::Closed;
        Ok(())
    }

    /// Drops the messages that the application has not received.
    fn clear(&self) -> PyResult<()> {
        let events = mem::take(&mut self.state()?.events);
        drop(events);
        Ok(())
    }

    /// Notes that the connection has ended. The first code and reason count.
    pub(crate) fn end(&self, py: Python<'_>, code: u16, reason: String) -> PyResult<()> {
        {
            let mut state = self.state()?;
            state.stage = Stage::Closed;
            state.disconnect.get_or_insert((code, reason));
        }
        self.let_go(py)?;
        self.tell(py)
    }

    /// Has its messages read again, if the application lagged. To be called when it does not receive any longer.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.let_go(py)
    }

    /// Wakes the application, if it waits, to look again.
    fn tell(&self, py: Python<'_>) -> PyResult<()> {
        self.take_waiters()?.wake_soon(py)
    }
}
