//! The handlers that are called from here, and how they are called.

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

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
    pub(crate) fn tuple<'py>(&self, py: Python<'py>, handler: &Handler) -> PyResult<Bound<'py, PyTuple>> {
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
    /// How many of the next calls get a task each.
    alone: AtomicU32,
}

/// If a call has used its task or suspended, so many of the next ones get a task each: they probably do the same, and a
/// task that cannot be shared costs more than one that need not be.
const ALONE: u32 = 32;

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
        Ok(Self { callable, count, kind, alone: AtomicU32::new(0) })
    }

    pub(crate) fn callable(&self) -> &Py<PyAny> {
        &self.callable
    }

    /// Whether its calls make coroutines.
    #[inline]
    pub(crate) fn is_async(&self) -> bool {
        self.kind == Kind::Async
    }

    /// Whether it is called in the worker's pool of threads.
    #[inline]
    pub(crate) fn is_threaded(&self) -> bool {
        self.kind == Kind::Threaded
    }

    /// Whether its next call may share a task with others.
    #[inline]
    pub(crate) fn shares_tasks(&self) -> bool {
        let alone = self.alone.load(Ordering::Relaxed);
        self.alone.store(alone.saturating_sub(1), Ordering::Relaxed);
        alone == 0
    }

    /// Records that a call has kept a task that others might have shared.
    pub(crate) fn keeps_its_task(&self) {
        self.alone.store(ALONE, Ordering::Relaxed);
    }

    /// Whether the handler wants the event's argument number `index`.
    pub(crate) fn wants(&self, index: usize) -> bool {
        index < self.count
    }
}

#[inline(always)]
pub(crate) fn call<'py>(
    py: Python<'py>,
    handler: &Handler,
    mut arguments: Arguments<'_>,
) -> PyResult<Bound<'py, PyAny>> {
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
