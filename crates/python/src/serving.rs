//! Serves an ASGI application: calls it for HTTP requests, each in a task of its own, and passes it messages.

use std::sync::atomic::Ordering;

use engine::{Fd, Token};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::app_request::AppRequest;
use crate::app_socket::AppSocket;
use crate::application::{Application, no_application};
use crate::contexts::enter;
use crate::events::Message;
use crate::reactor::Reactor;
use crate::runner::ends_the_loop;
use crate::waiter::Waiter;

impl Reactor {
    /// What a task of the application can wait for.
    pub(crate) fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Waiter>> {
        let application = self.application().ok_or_else(no_application)?;
        Bound::new(py, Waiter::new(application.event_loop.clone_ref(py)))
    }

    /// Queues a message for the application. The task that waits for it is woken when there are no more messages of the
    /// same connection, so that it is woken once for all of them.
    pub(crate) fn queue_for_application(&self, py: Python<'_>, message: Message) -> PyResult<()> {
        let Some(application) = self.application() else { return Ok(()) };
        let (fd, data) = message.into_parts();
        let mut socket = application.due(py, fd)?;
        if socket.is_none() {
            self.wake_application(py)?;
            socket = application.begin_queueing(py, fd)?;
        }
        match socket {
            Some(socket) => socket.bind(py).cast::<AppSocket>()?.get().queue(py, data),
            None => Ok(()),
        }
    }

    /// Runs the task of the application that waits for the messages that were queued last.
    ///
    /// # Errors
    /// SystemExit and KeyboardInterrupt from the application.
    pub(crate) fn wake_application(&self, py: Python<'_>) -> PyResult<()> {
        let Some(application) = self.application() else { return Ok(()) };
        let Some(socket) = application.end_queueing()? else { return Ok(()) };
        let waiters = socket.bind(py).cast::<AppSocket>()?.get().take_waiters()?;
        if waiters.is_empty() {
            return Ok(());
        }
        if !application.current_task.bind(py).call0()?.is_none() {
            // The turn was begun by a task, so no other task can run in it.
            return waiters.wake_soon(py);
        }
        self.runner.in_parent(py, waiters.wake_now(py))??;
        self.runner.stopwatch.restart();
        Ok(())
    }

    /// Notes that a WebSocket of the application has ended.
    pub(crate) fn end_for_application(&self, py: Python<'_>, fd: Fd, code: u16, reason: &str) -> PyResult<()> {
        let Some(application) = self.application() else { return Ok(()) };
        match application.remove(fd)? {
            Some(socket) => socket.bind(py).cast::<AppSocket>()?.get().end(py, code, reason.to_owned()),
            None => Ok(()),
        }
    }

    /// Calls the application for a request. Without a body, the application takes it as it arrives.
    ///
    /// # Errors
    /// SystemExit and KeyboardInterrupt from the application.
    pub(crate) fn call_application_for(
        &self,
        application: &Application,
        token: Token,
        scope: Bound<'_, PyDict>,
        body: Option<Py<PyBytes>>,
    ) -> PyResult<()> {
        let py = scope.py();
        let reactor = application.reactor.load(Ordering::Relaxed);
        // SAFETY: it is the object that `self` is the content of, so it is alive.
        let reactor = unsafe { Bound::from_borrowed_ptr(py, reactor).cast_into_unchecked::<Reactor>() };
        let request = AppRequest::new(reactor.unbind(), token, scope.clone().unbind(), body);
        let request = Bound::new(py, request)?;
        let task = {
            let _entered = enter(application.context.bind(py))?;
            let arguments = (&scope, request.getattr(intern!(py, "receive"))?, request.getattr(intern!(py, "send"))?);
            let called = application.callable.bind(py).call1(arguments);
            // The task runs in a copy of the context.
            let options = Some(self.runner.task_options.bind(py));
            let task = called.and_then(|coroutine| self.runner.make_task.bind(py).call((coroutine,), options));
            self.runner.in_parent(py, task)?
        };
        let front = application.front.bind(py);
        let ended = match &task {
            Ok(task) if !task.call_method0(intern!(py, "done"))?.is_truthy()? => {
                return front.call_method1(intern!(py, "follow"), (request, task)).map(|_| ());
            }
            Ok(task) => match task.call_method0(intern!(py, "exception")) {
                Ok(error) if error.is_none() => None,
                Ok(error) => Some(PyErr::from_value(error)),
                Err(cancelled) => Some(cancelled),
            },
            Err(error) => Some(error.clone_ref(py)),
        };
        match ended {
            None if request.get().is_done()? && !application.tells_all => request.get().finish(py),
            ended => {
                front.call_method1(intern!(py, "ended"), (request, ended))?;
                match task {
                    Err(error) if ends_the_loop(py, &error) => Err(error),
                    _ => Ok(()),
                }
            }
        }
    }
}
