//! Calling the handlers of `open`, `message`, `close` and `drain`.

use std::time::Duration;

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PySystemExit, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{ffi, intern};

use crate::fork::is_forked;
use crate::stopwatch::Stopwatch;

/// How a handler is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Called directly from the turn.
    Sync,
    /// Its coroutine runs as a task, which is started at once where Python supports that.
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
    /// ValueError if `kind` is not "sync", "async" or "threaded".
    pub(crate) fn new(callable: Py<PyAny>, count: usize, kind: &str) -> PyResult<Self> {
        let kind = match kind {
            "sync" => Kind::Sync,
            "async" => Kind::Async,
            "threaded" => Kind::Threaded,
            other => {
                return Err(PyValueError::new_err(format!("unknown kind of handler: {other}")));
            }
        };
        Ok(Self { callable, count, kind })
    }

    pub(crate) fn callable(&self) -> &Py<PyAny> {
        &self.callable
    }

    /// Whether the handler wants the event's argument number `index`.
    pub(crate) fn wants(&self, index: usize) -> bool {
        index < self.count
    }
}

/// The result of a call.
#[derive(PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has ended, successfully or not (a failure has been reported).
    Ended,
    /// It continues; the worker reports when it has ended.
    Suspended,
}

/// Runs handlers, and tells the worker (a Python object) which ones continue and what went wrong.
pub(crate) struct Runner {
    pub(crate) worker: Py<PyAny>,
    /// Creates a task from a coroutine, with these keywords.
    pub(crate) make_task: Py<PyAny>,
    pub(crate) task_options: Py<PyDict>,
    pub(crate) stopwatch: Stopwatch,
}

impl Runner {
    /// Passes on what a handler returned, unless this is a child that the handler forked: its copy of the reactor must
    /// not be used, and the child ends here.
    #[inline]
    fn in_parent<T>(&self, py: Python<'_>, result: PyResult<T>) -> PyResult<PyResult<T>> {
        if is_forked() {
            self.worker.bind(py).call_method1(intern!(py, "end_child"), (result.err(),))?;
            return Err(PyRuntimeError::new_err("a forked child goes on"));
        }
        Ok(result)
    }

    /// Calls `handler` with as many of `arguments` as it takes.
    ///
    /// # Errors
    /// SystemExit and KeyboardInterrupt. Every other exception is reported to the worker.
    #[inline]
    pub(crate) fn run<'py>(
        &self,
        py: Python<'py>,
        event: &'static str,
        fd: u64,
        handler: &Handler,
        arguments: &[Bound<'py, PyAny>],
        contexts: &mut Contexts<'py>,
    ) -> PyResult<Outcome> {
        let arguments = &arguments[..handler.count.min(arguments.len())];
        if handler.kind == Kind::Threaded {
            let arguments = PyTuple::new(py, arguments)?;
            let worker = self.worker.bind(py);
            worker.call_method1(intern!(py, "run_in_thread"), (event, fd, &handler.callable, arguments))?;
            return Ok(Outcome::Suspended);
        }
        let begin = self.stopwatch.begin();
        let outcome = self.run_here(py, event, fd, handler, arguments, contexts);
        if let Some(held) = self.stopwatch.end(begin) {
            self.was_slow(py, event, handler, held)?;
        }
        outcome
    }

    /// Like `run`, for a handler that is not threaded: it blocks the event loop while it runs.
    #[inline(always)]
    fn run_here<'py>(
        &self,
        py: Python<'py>,
        event: &'static str,
        fd: u64,
        handler: &Handler,
        arguments: &[Bound<'py, PyAny>],
        contexts: &mut Contexts<'py>,
    ) -> PyResult<Outcome> {
        if handler.kind == Kind::Async {
            return match self.in_parent(py, call(py, handler, arguments))? {
                Ok(coroutine) => self.run_coroutine(py, event, fd, &coroutine),
                Err(error) => self.failed(py, event, fd, error),
            };
        }
        match self.in_parent(py, contexts.run(py, || call(py, handler, arguments)))? {
            Ok(result) if result.is_none() => Ok(Outcome::Ended),
            Ok(result) if is_coroutine(&result) => self.run_coroutine(py, event, fd, &result),
            Ok(_) => Ok(Outcome::Ended),
            Err(error) => self.failed(py, event, fd, error),
        }
    }

    #[cold]
    fn was_slow(&self, py: Python<'_>, event: &str, handler: &Handler, held: Duration) -> PyResult<()> {
        let arguments = (event, &handler.callable, held.as_secs_f64());
        self.worker.bind(py).call_method1(intern!(py, "handler_was_slow"), arguments).map(|_| ())
    }

    #[inline(always)]
    fn run_coroutine(&self, py: Python<'_>, event: &str, fd: u64, coroutine: &Bound<'_, PyAny>) -> PyResult<Outcome> {
        let task = self.make_task.bind(py).call((coroutine,), Some(self.task_options.bind(py)));
        let task = match self.in_parent(py, task)? {
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
    // SAFETY: the pointer is to a live object, and the type is only read.
    unsafe { ffi::PyCoro_CheckExact(value.as_ptr()) == 1 }
}

/// Copies of the current context (PEP 567), a separate one for each handler, so that what one handler sets is not seen
/// by another.
///
/// An empty copy that its handler has left empty is reused. Handlers cannot distinguish it from a new one, and it costs
/// half as much.
#[derive(Default)]
pub(crate) struct Contexts<'py> {
    spare: Option<Bound<'py, PyAny>>,
}

impl<'py> Contexts<'py> {
    /// Calls `body` in a copy of its own. The current context must be the same for all calls.
    #[inline]
    fn run<T>(&mut self, py: Python<'py>, body: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        let (context, was_empty) = match self.spare.take() {
            Some(context) => (context, true),
            None => {
                let context = copy_current_context(py)?;
                let is_empty = is_empty(&context);
                (context, is_empty)
            }
        };
        // SAFETY: `context` is a live Context that is not entered: it is new, or has been left again.
        if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
            return Err(PyErr::fetch(py));
        }
        let entered = Entered(&context);
        let result = body();
        drop(entered);
        // SAFETY: the pointer is to a live object.
        let references = unsafe { ffi::Py_REFCNT(context.as_ptr()) };
        // Another reference would be that of a `Token`, which could still reset a variable.
        if was_empty && references == 1 && is_empty(&context) {
            self.spare = Some(context);
        }
        result
    }
}

fn is_empty(context: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live Context, whose length is that of its map; asking for it runs no Python code.
    unsafe { ffi::PyObject_Size(context.as_ptr()) == 0 }
}

/// Leaves a context, even when a panic unwinds.
pub(crate) struct Entered<'a, 'py>(pub(crate) &'a Bound<'py, PyAny>);

impl Drop for Entered<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it is the context that was entered last: any context entered since has been left. No exception is
        // set: pyo3 moves that of a call into its result.
        if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } < 0 {
            PyErr::fetch(self.0.py()).write_unraisable(self.0.py(), None);
        }
    }
}

fn copy_current_context(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached (`py`); the call gives a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }
}
