//! The watcher of a program's files as a Python class, for `hubbub run --reload`.

use std::path::PathBuf;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::publisher::Wait;

/// Watches the Python files below some directories.
///
/// Those in directories that are hidden, virtual environments, caches or called node_modules do not count.
///
/// Raises:
///     OSError: One of the paths is no directory that can be read, or the system does not allow so many watches.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct Watcher {
    engine: engine::Watcher,
}

#[pymethods]
impl Watcher {
    #[new]
    fn new(py: Python<'_>, directories: Vec<PathBuf>) -> PyResult<Self> {
        let engine = py.detach(|| engine::Watcher::new(&directories)).map_err(PyOSError::new_err)?;
        Ok(Self { engine })
    }

    /// Wait for changes; those that come close together are told together.
    ///
    /// Args:
    ///     timeout: The seconds to wait.
    ///
    /// Returns:
    ///     The paths of the files, sorted; empty: there were none in time, or the watcher was closed.
    fn next(&self, py: Python<'_>, timeout: Wait) -> Vec<String> {
        let changed = py.detach(|| self.engine.next(timeout.0));
        changed.into_iter().map(|path| path.display().to_string()).collect()
    }

    /// End the waiting.
    fn close(&self) {
        self.engine.close();
    }
}
