//! Calling the handlers of `open`, `message`, `close` and `drain`.

use std::marker::PhantomData;
use std::ptr;
use std::time::Duration;

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PySystemExit, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{ffi, intern};

use crate::fork::is_forked;
use crate::stopwatch::Stopwatch;

/// The most arguments that an event has.
const MAX_ARGUMENTS: usize = 4;

/// The arguments of an event, laid out as Python calls functions: the callee may use the place before the first.
pub(crate) struct Arguments<'a> {
    places: [*mut ffi::PyObject; 1 + MAX_ARGUMENTS],
    count: usize,
    borrowed: PhantomData<Borrowed<'a, 'a, PyAny>>,
}

impl<'a> Arguments<'a> {
    #[inline]
    pub(crate) fn new<'py: 'a, const COUNT: usize>(arguments: [Borrowed<'a, 'py, PyAny>; COUNT]) -> Self {
        const { assert!(COUNT <= MAX_ARGUMENTS) }
        let mut places = [ptr::null_mut(); 1 + MAX_ARGUMENTS];
        for (place, argument) in places[1..].iter_mut().zip(arguments) {
            *place = argument.as_ptr();
        }
        Self { places, count: COUNT, borrowed: PhantomData }
    }

    /// The first of them, as many as `handler` takes.
    fn tuple<'py>(&self, py: Python<'py>, handler: &Handler) -> PyResult<Bound<'py, PyTuple>> {
        let count = handler.count.min(self.count);
        // SAFETY: all of them are alive.
        PyTuple::new(py, self.places[1..=count].iter().map(|place| unsafe { Borrowed::from_ptr(py, *place) }))
    }
}

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
    /// Passes on what was returned, unless this is a child that a handler forked: its copy of the reactor must not be
    /// used, and the child ends here.
    #[inline(always)]
    fn in_parent<T>(&self, py: Python<'_>, result: PyResult<T>) -> PyResult<PyResult<T>> {
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
        if handler.kind == Kind::Threaded {
            contexts.leave();
            let arguments = arguments.tuple(py, handler)?;
            let worker = self.worker.bind(py);
            worker.call_method1(intern!(py, "run_in_thread"), (event, fd, &handler.callable, arguments))?;
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
        if handler.kind == Kind::Async {
            contexts.leave();
            return match self.in_parent(py, call(py, handler, arguments))? {
                Ok(coroutine) => self.run_coroutine(py, event, fd, handler, &coroutine),
                Err(error) => self.failed(py, event, fd, handler, error),
            };
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
    fn was_slow(&self, py: Python<'_>, event: &str, handler: &Handler, held: Duration) -> PyResult<()> {
        let arguments = (event, &handler.callable, held.as_secs_f64());
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
        let task = match self.in_parent(py, task)? {
            Ok(task) => task,
            Err(error) => return self.failed(py, event, fd, handler, error),
        };
        if !task.call_method0(intern!(py, "done"))?.is_truthy()? {
            self.worker
                .bind(py)
                .call_method1(intern!(py, "handler_suspended"), (event, fd, &handler.callable, task))?;
            return Ok(Outcome::Suspended);
        }
        match task.call_method0(intern!(py, "exception")) {
            Ok(exception) if exception.is_none() => Ok(Outcome::Ended),
            Ok(exception) => self.failed(py, event, fd, handler, PyErr::from_value(exception)),
            Err(cancelled) => self.failed(py, event, fd, handler, cancelled),
        }
    }

    #[cold]
    fn failed(&self, py: Python<'_>, event: &str, fd: u64, handler: &Handler, error: PyErr) -> PyResult<Outcome> {
        if error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py) {
            return Err(error);
        }
        self.worker.bind(py).call_method1(intern!(py, "handler_failed"), (event, fd, &handler.callable, error))?;
        Ok(Outcome::Ended)
    }
}

#[inline(always)]
fn call<'py>(py: Python<'py>, handler: &Handler, mut arguments: Arguments<'_>) -> PyResult<Bound<'py, PyAny>> {
    let callable = handler.callable.as_ptr();
    let count = handler.count.min(arguments.count);
    // SAFETY: the callable is alive, and so are `count` arguments from the second place on; the callee may use the
    // first. It returns a new reference, or null with an exception set. Its type's own function is called without the
    // checks of `PyObject_Vectorcall`, which find mistakes in native code.
    unsafe {
        let (first, count) =
            (arguments.places.as_mut_ptr().add(1).cast_const(), count | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET);
        let result = match ffi::PyVectorcall_Function(callable) {
            Some(function) => function(callable, first, count, ptr::null_mut()),
            None => ffi::PyObject_Vectorcall(callable, first, count, ptr::null_mut()),
        };
        Bound::from_owned_ptr_or_err(py, result)
    }
}

fn is_coroutine(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the pointer is to a live object, and the type is only read.
    unsafe { ffi::PyCoro_CheckExact(value.as_ptr()) == 1 }
}

/// Copies of the current context (PEP 567), a separate one for each handler, so that what one handler sets is not seen
/// by another.
///
/// An empty copy that its handler has left empty is used for the next one too, and stays entered in between: it cannot
/// be told from a new one. Everything that is no handler has to `leave` it first.
#[derive(Default)]
pub(crate) struct Contexts<'py> {
    entered: Option<EnteredContext<'py>>,
}

/// An empty context that has been entered.
struct EnteredContext<'py> {
    context: Bound<'py, PyAny>,
    /// The references to it before a handler has run. Another one would be that of a `Token`, which could still reset a
    /// variable.
    references: ffi::Py_ssize_t,
}

impl EnteredContext<'_> {
    #[inline(always)]
    fn is_like_new(&self) -> bool {
        // SAFETY: the pointer is to a live object.
        unsafe { ffi::Py_REFCNT(self.context.as_ptr()) == self.references && is_empty(&self.context) }
    }
}

impl Drop for EnteredContext<'_> {
    fn drop(&mut self) {
        exit(&self.context);
    }
}

impl<'py> Contexts<'py> {
    /// Calls `body` in a copy of its own. The current context must be the same for all calls.
    #[inline(always)]
    fn run<T>(&mut self, py: Python<'py>, body: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        if self.entered.is_none() {
            let entered = enter_copy(py)?;
            if !entered.is_like_new() {
                // The current context is not empty.
                return body();
            }
            self.entered = Some(entered);
        }
        let result = body();
        if !self.entered.as_ref().is_some_and(EnteredContext::is_like_new) {
            self.leave();
        }
        result
    }

    /// Returns to the current context.
    pub(crate) fn leave(&mut self) {
        self.entered = None;
    }
}

/// Enters a copy of the current context.
fn enter_copy(py: Python<'_>) -> PyResult<EnteredContext<'_>> {
    // SAFETY: the thread is attached (`py`); the calls give a new reference, or null with an exception set, and enter a
    // Context that no one else has. The last pointer is to a live object.
    unsafe {
        let context = Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent())?;
        if ffi::PyContext_Enter(context.as_ptr()) < 0 {
            return Err(PyErr::fetch(py));
        }
        let references = ffi::Py_REFCNT(context.as_ptr());
        Ok(EnteredContext { context, references })
    }
}

/// Exits a context, the one that was entered last: any context entered since has been exited.
fn exit(context: &Bound<'_, PyAny>) {
    // SAFETY: as above, and a live Context. No exception is set: that of a call has been moved into its result.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } < 0 {
        PyErr::fetch(context.py()).write_unraisable(context.py(), None);
    }
}

#[inline(always)]
fn is_empty(context: &Bound<'_, PyAny>) -> bool {
    let context = context.as_ptr();
    // SAFETY: a live Context, whose type has a length: that of its map. Asking for it runs no Python code.
    unsafe {
        let mapping = (*ffi::Py_TYPE(context)).tp_as_mapping;
        (*mapping).mp_length.is_some_and(|length| length(context) == 0)
    }
}

/// Exits a context when it is dropped, even when a panic unwinds.
pub(crate) struct Entered<'a, 'py>(pub(crate) &'a Bound<'py, PyAny>);

impl Drop for Entered<'_, '_> {
    fn drop(&mut self) {
        exit(self.0);
    }
}
