//! The watcher of a program's files as a Python class, for `hubbub run --reload`.

use std::path::PathBuf;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::publisher::Wait;

/// Watches the Python files below a directory, and all files below some others.
///
/// Hidden files, editors' copies (`page.html~`), and files in hidden directories, virtual environments, caches and
/// directories called node_modules do not count.
///
/// Raises:
///     OSError: One of the paths is not a readable directory, or the system does not allow so many watches.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct Watcher {
    engine: engine::Watcher,
}

#[pymethods]
impl Watcher {
    #[new]
    fn new(py: Python<'_>, directory: PathBuf, others: Vec<PathBuf>) -> PyResult<Self> {
        let engine = py.detach(|| engine::Watcher::new(&directory, &others)).map_err(PyOSError::new_err)?;
        Ok(Self { engine })
    }

    /// Wait for changes. Changes that follow closely on one another are returned together.
    ///
    /// Args:
    ///     timeout: The seconds to wait.
    ///
    /// Returns:
    ///     The paths of the files, sorted; empty if there were none in time, or the watcher was closed.
    fn next(&self, py: Python<'_>, timeout: Wait) -> Vec<String> {
        let changed = py.detach(|| self.engine.next(timeout.0));
        changed.into_iter().map(|path| path.display().to_string()).collect()
    }

    /// Stop waiting.
    fn close(&self) {
        self.engine.close();
    }
}
