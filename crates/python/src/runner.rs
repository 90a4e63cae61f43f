//! Runs handlers, and reports to the worker which ones continue and what went wrong.

use std::time::Duration;

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{ffi, intern};

use crate::contexts::Contexts;
use crate::fork::is_forked;
use crate::handlers::{Arguments, Handler, call};
use crate::stopwatch::Stopwatch;

/// The result of a call.
#[derive(PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has ended, successfully or not (a failure has been reported).
    Ended,
    /// It continues; the worker reports when it has ended.
    Suspended,
}

/// What is needed to run handlers in a shared task; see `batch.rs`.
pub(crate) struct SharedTasks {
    /// The class of these tasks.
    pub(crate) class: Py<PyAny>,
    /// `asyncio.current_task`.
    pub(crate) current_task: Py<PyAny>,
    /// `weakref.getweakrefcount`.
    pub(crate) count_weak_references: Py<PyAny>,
}

impl SharedTasks {
    /// `None` if the worker has no class of shared tasks, because this Python is not suited.
    pub(crate) fn of(worker: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let (py, class) = (worker.py(), worker.getattr("shared_task_class")?);
        if class.is_none() {
            return Ok(None);
        }
        let current_task = py.import("asyncio")?.getattr("current_task")?.unbind();
        let count_weak_references = py.import("weakref")?.getattr("getweakrefcount")?.unbind();
        Ok(Some(Self { class: class.unbind(), current_task, count_weak_references }))
    }
}

/// Runs handlers, and tells the worker (a Python object) which ones continue and what went wrong.
pub(crate) struct Runner {
    pub(crate) worker: Py<PyAny>,
    /// Creates a task from a coroutine, with these keywords.
    pub(crate) make_task: Py<PyAny>,
    pub(crate) task_options: Py<PyDict>,
    pub(crate) shared_tasks: Option<SharedTasks>,
    pub(crate) stopwatch: Stopwatch,
}

impl Runner {
    /// Passes on what was returned, unless this is a child that a handler forked: its copy of the reactor must not be
    /// used, and the child ends here.
    #[inline(always)]
    pub(crate) fn in_parent<T>(&self, py: Python<'_>, result: PyResult<T>) -> PyResult<PyResult<T>> {
        if is_forked() { Err(self.end_child(py, result.err())) } else { Ok(result) }
    }

    #[cold]
    fn end_child(&self, py: Python<'_>, error: Option<PyErr>) -> PyErr {
        match self.worker.bind(py).call_method1(intern!(py, "end_child"), (error,)) {
            Ok(_) => PyRuntimeError::new_err("a forked child goes on"),
            Err(error) => error,
        }
    }

    /// Calls `handler` with as many of `arguments` as it takes.
    ///
    /// # Errors
    /// SystemExit and KeyboardInterrupt. Every other exception is reported to the worker.
    #[inline(always)]
    pub(crate) fn run<'py>(
        &self,
        py: Python<'py>,
        event: &'static str,
        fd: u64,
        handler: &Handler,
        arguments: Arguments<'_>,
        contexts: &mut Contexts<'py>,
    ) -> PyResult<Outcome> {
        if handler.is_threaded() {
            contexts.leave();
            let arguments = arguments.tuple(py, handler)?;
            let worker = self.worker.bind(py);
            worker.call_method1(intern!(py, "run_in_thread"), (event, fd, handler.callable(), arguments))?;
            return Ok(Outcome::Suspended);
        }
        let begin = self.stopwatch.begin();
        let outcome = self.run_here(py, event, fd, handler, arguments, contexts);
        if let Some(held) = self.stopwatch.end(begin) {
            contexts.leave();
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
        arguments: Arguments<'_>,
        contexts: &mut Contexts<'py>,
    ) -> PyResult<Outcome> {
        if handler.is_async() {
            contexts.leave();
            let called = self.in_parent(py, call(py, handler, arguments))?;
            return self.run_called(py, event, fd, handler, called);
        }
        match self.in_parent(py, contexts.run(py, || call(py, handler, arguments)))? {
            Ok(result) if result.is_none() => Ok(Outcome::Ended),
            Ok(result) => {
                contexts.leave();
                if is_coroutine(&result) {
                    self.run_coroutine(py, event, fd, handler, &result)
                } else {
                    Ok(Outcome::Ended)
                }
            }
            Err(error) => {
                contexts.leave();
                self.failed(py, event, fd, handler, error)
            }
        }
    }

    #[cold]
    pub(crate) fn was_slow(&self, py: Python<'_>, event: &str, handler: &Handler, held: Duration) -> PyResult<()> {
        let arguments = (event, handler.callable(), held.as_secs_f64());
        self.worker.bind(py).call_method1(intern!(py, "handler_was_slow"), arguments).map(|_| ())
    }

    #[inline(always)]
    fn run_coroutine(
        &self,
        py: Python<'_>,
        event: &str,
        fd: u64,
        handler: &Handler,
        coroutine: &Bound<'_, PyAny>,
    ) -> PyResult<Outcome> {
        let task = self.make_task.bind(py).call((coroutine,), Some(self.task_options.bind(py)));
        match self.in_parent(py, task)? {
            Ok(task) => self.follow(py, event, fd, handler, &task),
            Err(error) => self.failed(py, event, fd, handler, error),
        }
    }

    /// Runs what calling an `async def` handler has returned.
    pub(crate) fn run_called(
        &self,
        py: Python<'_>,
        event: &str,
        fd: u64,
        handler: &Handler,
        called: PyResult<Bound<'_, PyAny>>,
    ) -> PyResult<Outcome> {
        match called {
            Ok(coroutine) => self.run_coroutine(py, event, fd, handler, &coroutine),
            Err(error) => self.failed(py, event, fd, handler, error),
        }
    }

    /// Reports to the worker how a handler's task has ended, or that it continues.
    #[inline]
    pub(crate) fn follow(
        &self,
        py: Python<'_>,
        event: &str,
        fd: u64,
        handler: &Handler,
        task: &Bound<'_, PyAny>,
    ) -> PyResult<Outcome> {
        if !task.call_method0(intern!(py, "done"))?.is_truthy()? {
            self.worker
                .bind(py)
                .call_method1(intern!(py, "handler_suspended"), (event, fd, handler.callable(), task))?;
            return Ok(Outcome::Suspended);
        }
        match task.call_method0(intern!(py, "exception")) {
            Ok(exception) if exception.is_none() => Ok(Outcome::Ended),
            Ok(exception) => self.failed(py, event, fd, handler, PyErr::from_value(exception)),
            Err(cancelled) => self.failed(py, event, fd, handler, cancelled),
        }
    }

    #[cold]
    pub(crate) fn failed(
        &self,
        py: Python<'_>,
        event: &str,
        fd: u64,
        handler: &Handler,
        error: PyErr,
    ) -> PyResult<Outcome> {
        if ends_the_loop(py, &error) {
            return Err(error);
        }
        self.worker.bind(py).call_method1(intern!(py, "handler_failed"), (event, fd, handler.callable(), error))?;
        Ok(Outcome::Ended)
    }
}

/// Whether an exception is meant for the event loop.
pub(crate) fn ends_the_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

#[inline]
pub(crate) fn is_coroutine(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the pointer is to a live object, and the type is only read.
    unsafe { ffi::PyCoro_CheckExact(value.as_ptr()) == 1 }
}
