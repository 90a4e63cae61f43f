//! What `send` returns once its event has been taken: a coroutine that has its result already.
//!
//! To create, start and end a coroutine of Python's costs more than all that `send` does. Like every object with `send`,
//! `throw` and `close`, these are coroutines to asyncio, so tasks can be made of them.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

/// Returns `None` at once; again, if it is awaited again.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct Done;

impl Done {
    /// The only one: it does not change.
    #[inline]
    pub(crate) fn get(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        static DONE: PyOnceLock<Py<Done>> = PyOnceLock::new();
        Ok(DONE.get_or_try_init(py, || Py::new(py, Self))?.bind(py).clone().into_any())
    }
}

#[pymethods]
impl Done {
    fn __await__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self) -> Option<()> {
        None
    }

    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let _ = value;
        Err(PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (*error))]
    fn throw(&self, error: &Bound<'_, PyTuple>) -> PyResult<()> {
        Err(thrown(error))
    }

    fn close(&self) {}
}

/// Raises an exception when it is awaited, as a coroutine does, and not when it is made.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct Failed(Mutex<Option<PyErr>>);

impl Failed {
    #[cold]
    pub(crate) fn with(py: Python<'_>, error: PyErr) -> PyResult<Bound<'_, PyAny>> {
        Ok(Bound::new(py, Self(Mutex::new(Some(error))))?.into_any())
    }

    fn take(&self) -> PyErr {
        let error = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        error.unwrap_or_else(|| PyRuntimeError::new_err("cannot reuse already awaited coroutine"))
    }
}

#[pymethods]
impl Failed {
    fn __await__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self) -> PyResult<()> {
        Err(self.take())
    }

    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let _ = value;
        Err(self.take())
    }

    #[pyo3(signature = (*error))]
    fn throw(&self, error: &Bound<'_, PyTuple>) -> PyResult<()> {
        Err(thrown(error))
    }

    fn close(&self) {}
}

/// The exception that was passed to `throw`.
pub(crate) fn thrown(error: &Bound<'_, PyTuple>) -> PyErr {
    error.get_item(0).map_or_else(|error| error, PyErr::from_value)
}
