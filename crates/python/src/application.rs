//! The ASGI application of a reactor, and what is needed to call it; `serving.rs` does.

use std::collections::HashMap;
use std::sync::atomic::AtomicPtr;

use engine::{Borrow, Fd, LoopCell};
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::borrowing::borrow;
use crate::scopes::Scopes;

/// The application that serves all paths without an endpoint.
pub(crate) struct Application {
    /// An `async def` function of (scope, receive, send), or what is called in the same way.
    pub(crate) callable: Py<PyAny>,
    /// The `hubbub.asgi.front.Front`, which takes over when a request does not end at once, or not well.
    pub(crate) front: Py<PyAny>,
    pub(crate) event_loop: Py<PyAny>,
    pub(crate) scopes: Scopes,
    /// The context whose copies requests run in.
    pub(crate) context: Py<PyAny>,
    /// Whether the front is told of all requests that have ended.
    pub(crate) tells_all: bool,
    /// `asyncio.current_task`.
    pub(crate) current_task: Py<PyAny>,
    /// Whether usual requests need not be shown to the worker first, which would then call `Reactor.call_application`.
    pub(crate) is_direct: bool,
    sockets: LoopCell<Sockets>,
    /// The object of the reactor, whose reference this does not own.
    pub(crate) reactor: AtomicPtr<ffi::PyObject>,
}

/// The open WebSockets of the application: each is an `AppSocket`.
#[derive(Default)]
struct Sockets {
    by_fd: HashMap<Fd, Py<PyAny>>,
    /// The one whose messages are being queued.
    due: Option<(Fd, Py<PyAny>)>,
}

impl Application {
    /// `reactor` is the object that this is going to belong to.
    #[expect(clippy::too_many_arguments, reason = "everything that is needed to call it")]
    pub(crate) fn new(
        reactor: &Bound<'_, PyAny>,
        callable: Py<PyAny>,
        front: Py<PyAny>,
        event_loop: Py<PyAny>,
        context: Py<PyAny>,
        scope: &Bound<'_, PyDict>,
        tells_all: bool,
        is_direct: bool,
    ) -> PyResult<Self> {
        Ok(Self {
            callable,
            front,
            event_loop,
            scopes: Scopes::new(scope)?,
            context,
            tells_all,
            current_task: reactor.py().import("asyncio")?.getattr("current_task")?.unbind(),
            is_direct,
            sockets: LoopCell::new(Sockets::default()),
            reactor: AtomicPtr::new(reactor.as_ptr()),
        })
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.scopes.traverse(visit)?;
        let own = [&self.callable, &self.front, &self.event_loop, &self.context, &self.current_task];
        own.into_iter().try_for_each(|object| visit.call(object))?;
        // On another thread, or in the middle of a step, they are only seen as in use.
        let Some(Ok(sockets)) = self.sockets.mine().map(|mine| mine.borrow()) else { return Ok(()) };
        let due = sockets.due.iter().map(|(_, socket)| socket);
        sockets.by_fd.values().chain(due).try_for_each(|socket| visit.call(socket))
    }

    fn sockets(&self) -> PyResult<Borrow<'_, Sockets>> {
        borrow(&self.sockets)
    }

    /// Passes the messages of a connection to a WebSocket from here on.
    pub(crate) fn add(&self, fd: Fd, socket: Py<PyAny>) -> PyResult<()> {
        self.sockets()?.by_fd.insert(fd, socket);
        Ok(())
    }

    /// Removes the WebSocket of a connection that has ended.
    pub(crate) fn remove(&self, fd: Fd) -> PyResult<Option<Py<PyAny>>> {
        Ok(self.sockets()?.by_fd.remove(&fd))
    }

    /// The WebSocket of this connection, if its messages are those that are being queued.
    pub(crate) fn due(&self, py: Python<'_>, fd: Fd) -> PyResult<Option<Py<PyAny>>> {
        let sockets = self.sockets()?;
        Ok(sockets.due.as_ref().filter(|(due, _)| *due == fd).map(|(_, socket)| socket.clone_ref(py)))
    }

    /// Notes that messages of this connection are going to be queued. Returns its WebSocket. There must be no other whose
    /// messages are being queued.
    pub(crate) fn begin_queueing(&self, py: Python<'_>, fd: Fd) -> PyResult<Option<Py<PyAny>>> {
        let mut sockets = self.sockets()?;
        let socket = sockets.by_fd.get(&fd).map(|socket| socket.clone_ref(py));
        sockets.due = socket.as_ref().map(|socket| (fd, socket.clone_ref(py)));
        Ok(socket)
    }

    /// The WebSocket whose messages were queued, once there are no more of them.
    pub(crate) fn end_queueing(&self) -> PyResult<Option<Py<PyAny>>> {
        Ok(self.sockets()?.due.take().map(|(_, socket)| socket))
    }
}

#[cold]
pub(crate) fn no_application() -> PyErr {
    PyRuntimeError::new_err("no application is served here")
}
