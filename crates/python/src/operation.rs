//! What `receive` returns, and `send` if it has to wait: a coroutine that tries, and if it cannot go on, waits until
//! there is something new, and tries again.
//!
//! Like every object with `send`, `throw` and `close`, these are coroutines to asyncio, so tasks can be made of them.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::ready::thrown;
use crate::waiter::Waiter;

/// What is tried.
pub(crate) trait Attempt: Send + Sync {
    /// The result; `None` if it has to wait.
    fn make<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>>;

    /// A new waiter, which is woken when there is something new.
    fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Waiter>>;

    /// Shows the objects that it refers to to the garbage collector.
    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError>;
}

/// How far it is.
enum Stage {
    New,
    Waiting(Py<Waiter>),
    Ended,
}

/// Repeats an attempt until it succeeds.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct Operation {
    attempt: Box<dyn Attempt>,
    stage: Mutex<Stage>,
}

impl Operation {
    #[inline]
    pub(crate) fn new(attempt: impl Attempt + 'static) -> Self {
        Self { attempt: Box::new(attempt), stage: Mutex::new(Stage::New) }
    }

    fn set(&self, stage: Stage) -> Stage {
        std::mem::replace(&mut *self.stage.lock().unwrap_or_else(PoisonError::into_inner), stage)
    }

    /// Ends it early.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        match self.set(Stage::Ended) {
            Stage::Waiting(waiter) => waiter.bind(py).get().abandon(),
            Stage::New | Stage::Ended => Ok(()),
        }
    }
}

#[pymethods]
impl Operation {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.attempt.traverse(&visit)?;
        match self.stage.try_lock().as_deref() {
            Ok(Stage::Waiting(waiter)) => visit.call(waiter),
            _ => Ok(()),
        }
    }

    fn __await__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Waiter>> {
        if let Stage::Ended = self.set(Stage::Ended) {
            return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
        }
        if let Some(value) = self.attempt.make(py)? {
            return Err(PyStopIteration::new_err((value.unbind(),)));
        }
        let waiter = self.attempt.waiter(py)?;
        self.set(Stage::Waiting(waiter.clone().unbind()));
        Ok(waiter)
    }

    fn send<'py>(&self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Waiter>> {
        // The event loop has nothing to say.
        let _ = value;
        self.__next__(py)
    }

    #[pyo3(signature = (*error))]
    fn throw(&self, py: Python<'_>, error: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.end(py)?;
        Err(thrown(error))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.end(py)
    }
}
