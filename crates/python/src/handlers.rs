//! Calling the handlers of `open`, `message`, `close` and `drain`.

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{ffi, intern};

/// How a handler is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Called straight from the turn.
    Sync,
    /// Its coroutine is run as a task, which is started at once where Python can do that.
    Async,
    /// Called in the worker's pool of threads.
    Threaded,
}

/// A handler, and how many of its event's arguments it takes.
pub(crate) struct Handler {
    callable: Py<PyAny>,
    count: usize,
    kind: Kind,
}

impl Handler {
    /// # Errors
    /// ValueError: `kind` is none of "sync", "async" and "threaded".
    pub(crate) fn new(callable: Py<PyAny>, count: usize, kind: &str) -> PyResult<Self> {
        let kind = match kind {
            "sync" => Kind::Sync,
            "async" => Kind::Async,
            "threaded" => Kind::Threaded,
            other => {
                return Err(PyValueError::new_err(format!("no kind of handler: {other}")));
            }
        };
        Ok(Self { callable, count, kind })
    }

    /// Whether the handler wants the event's argument number `index`.
    pub(crate) fn wants(&self, index: usize) -> bool {
        index < self.count
    }
}

/// What became of a call.
#[derive(PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has ended, well or not (which has been told).
    Ended,
    /// It goes on; the worker says when it has ended.
    Suspended,
}

/// Runs handlers, and tells the worker (a Python object) what goes on or went wrong.
pub(crate) struct Runner {
    pub(crate) worker: Py<PyAny>,
    /// Makes a task of a coroutine.
    pub(crate) start_task: Py<PyAny>,
}

impl Runner {
    /// Calls `handler` with the first of `arguments` that it takes.
    ///
    /// # Errors
    /// SystemExit and KeyboardInterrupt; every other exception is told to the worker.
    #[inline]
    pub(crate) fn run<'py>(
        &self,
        py: Python<'py>,
        event: &'static str,
        fd: u64,
        handler: &Handler,
        arguments: &[Bound<'py, PyAny>],
    ) -> PyResult<Outcome> {
        let arguments = &arguments[..handler.count.min(arguments.len())];
        match handler.kind {
            Kind::Sync => match in_own_context(py, || call(py, handler, arguments)) {
                Ok(result) if result.is_none() => Ok(Outcome::Ended),
                Ok(result) if is_coroutine(&result) => self.run_coroutine(py, event, fd, &result),
                Ok(_) => Ok(Outcome::Ended),
                Err(error) => self.failed(py, event, fd, error),
            },
            Kind::Async => match call(py, handler, arguments) {
                Ok(coroutine) => self.run_coroutine(py, event, fd, &coroutine),
                Err(error) => self.failed(py, event, fd, error),
            },
            Kind::Threaded => {
                let arguments = PyTuple::new(py, arguments)?;
                let worker = self.worker.bind(py);
                worker.call_method1(intern!(py, "run_in_thread"), (event, fd, &handler.callable, arguments))?;
                Ok(Outcome::Suspended)
            }
        }
    }

    #[inline]
    fn run_coroutine(&self, py: Python<'_>, event: &str, fd: u64, coroutine: &Bound<'_, PyAny>) -> PyResult<Outcome> {
        let task = match self.start_task.bind(py).call1((coroutine,)) {
            Ok(task) => task,
            Err(error) => return self.failed(py, event, fd, error),
        };
        if !task.call_method0(intern!(py, "done"))?.is_truthy()? {
            self.worker.bind(py).call_method1(intern!(py, "handler_suspended"), (event, fd, task))?;
            return Ok(Outcome::Suspended);
        }
        match task.call_method0(intern!(py, "exception")) {
            Ok(exception) if exception.is_none() => Ok(Outcome::Ended),
            Ok(exception) => self.failed(py, event, fd, PyErr::from_value(exception)),
            Err(cancelled) => self.failed(py, event, fd, cancelled),
        }
    }

    #[cold]
    fn failed(&self, py: Python<'_>, event: &str, fd: u64, error: PyErr) -> PyResult<Outcome> {
        if error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py) {
            return Err(error);
        }
        self.worker.bind(py).call_method1(intern!(py, "handler_failed"), (event, fd, error))?;
        Ok(Outcome::Ended)
    }
}

#[inline]
fn call<'py>(py: Python<'py>, handler: &Handler, arguments: &[Bound<'py, PyAny>]) -> PyResult<Bound<'py, PyAny>> {
    let callable = handler.callable.bind(py);
    match arguments {
        [server, argument] => callable.call1((server, argument)),
        [server] => callable.call1((server,)),
        other => callable.call1(PyTuple::new(py, other)?),
    }
}

fn is_coroutine(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the pointer is that of a live object, and the type is read only.
    unsafe { ffi::PyCoro_CheckExact(value.as_ptr()) == 1 }
}

/// Calls `body` in its own copy of the current context (PEP 567), so that what it sets is seen by nobody else.
#[inline]
fn in_own_context<T>(py: Python<'_>, body: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    // SAFETY: the thread is attached (`py`); the call gives a new reference or null with an exception set.
    let context = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }?;
    // SAFETY: `context` is a live Context, new and so entered by nobody.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    let result = body();
    // SAFETY: it is the context entered above; `body` has left those that it entered itself. No exception is set here:
    // pyo3 has taken the one of `body` into `result`.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    result
}
