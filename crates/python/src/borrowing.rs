//! Borrows what belongs to the event loop's thread.

use engine::{Borrow, InUse, LoopCell};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// The value of a cell, for one step in which no Python runs.
///
/// # Errors
/// RuntimeError on any other thread than that of the event loop.
#[inline]
pub(crate) fn borrow<T>(cell: &LoopCell<T>) -> PyResult<Borrow<'_, T>> {
    cell.mine().ok_or_else(of_another_thread)?.borrow().map_err(in_use)
}

#[cold]
pub(crate) fn of_another_thread() -> PyErr {
    PyRuntimeError::new_err("this belongs to the thread of the server's event loop")
}

#[cold]
pub(crate) fn in_use(error: InUse) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}
