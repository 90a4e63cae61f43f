//! The states of a worker's connections, to which its frames and requests refer.

use std::sync::{Arc, Weak};

use engine::{Fd, Owner, Shared};
use pyo3::exceptions::PyKeyError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyString, PyType};

use crate::arguments::{FdArgument, short_number};

/// The states of the connections of one worker, and how it encodes JSON. Frames and requests refer to this and not to
/// the reactor, whose descriptors are to be closed even if the application keeps them.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct Home {
    states: Py<PyDict>,
    /// `None` for a frame that the application has created itself: it has a state of its own.
    shared: Option<Weak<Shared>>,
    /// The `hubbub.jsons.Json` of the server.
    json: Py<PyAny>,
}

impl Home {
    pub(crate) fn new(shared: &Arc<Shared>, json: Bound<'_, PyAny>) -> Self {
        let states = PyDict::new(json.py()).unbind();
        Self { states, shared: Some(Arc::downgrade(shared)), json: json.unbind() }
    }

    /// The home of a frame that no worker has received.
    pub(crate) fn of_none(py: Python<'_>) -> PyResult<Self> {
        let json = py.import("hubbub.jsons")?.getattr("STANDARD")?.unbind();
        Ok(Self { states: PyDict::new(py).unbind(), shared: None, json })
    }

    /// What is sent of a value: JSON text for a dict or list.
    #[cold]
    pub(crate) fn encode<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
        let text = self.json.bind(value.py()).call_method1(intern!(value.py(), "encode"), (value,))?;
        Ok(text.cast_into()?)
    }

    /// The value of JSON text.
    pub(crate) fn decode<'py>(&self, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.json.bind(data.py()).call_method1(intern!(data.py(), "decode"), (data,))
    }

    /// The state of a connection, which is created at its first use.
    ///
    /// # Errors
    /// KeyError if the connection is not this worker's, or its `close` handler has ended.
    pub(crate) fn state<'py>(&self, fd: &Bound<'py, PyInt>) -> PyResult<Bound<'py, PyAny>> {
        static NAMESPACE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let py = fd.py();
        let states = self.states.bind(py);
        if let Some(state) = states.get_item(fd)? {
            return Ok(state);
        }
        self.check(fd)?;
        let namespace = NAMESPACE.import(py, "types", "SimpleNamespace")?.call0()?;
        // Another thread may have been faster.
        let state = states.call_method1(intern!(py, "setdefault"), (fd, namespace))?;
        self.check_again(fd)?;
        Ok(state)
    }

    /// Forgets the state of a connection whose `close` handler has ended.
    pub(crate) fn forget(&self, py: Python<'_>, fd: Fd) -> PyResult<()> {
        let states = self.states.bind(py);
        if !states.is_empty() {
            states.call_method1(intern!(py, "pop"), (fd, py.None()))?;
        }
        Ok(())
    }

    /// Forgets the states of all connections.
    pub(crate) fn forget_all(&self, py: Python<'_>) {
        self.states.bind(py).clear();
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.json)?;
        visit.call(&self.states)
    }

    fn check(&self, fd: &Bound<'_, PyInt>) -> PyResult<()> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let FdArgument(id) = fd.as_any().extract()?;
        let number = short_number(fd.as_any().as_borrowed());
        let owner = shared.upgrade().map_or(Owner::Nobody, |shared| shared.owner(id));
        let message = match owner {
            Owner::This => return Ok(()),
            Owner::Worker(worker_id) => {
                format!("connection {number} belongs to worker {worker_id}, and only that worker has its state")
            }
            Owner::Nobody => format!("there is no connection {number}"),
        };
        Err(PyKeyError::new_err(message))
    }

    /// Called after a state was stored. If the connection was forgotten in the meantime, by the event loop's thread,
    /// its state must not remain.
    fn check_again(&self, fd: &Bound<'_, PyInt>) -> PyResult<()> {
        self.check(fd).inspect_err(|_| {
            let _ = self.states.bind(fd.py()).del_item(fd);
        })
    }
}

#[pymethods]
impl Home {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.traverse(&visit)
    }

    /// The state of a connection of this worker.
    fn state_of<'py>(&self, fd: &Bound<'py, PyInt>) -> PyResult<Bound<'py, PyAny>> {
        self.state(fd)
    }

    /// Sets the state of a connection.
    fn keep(&self, fd: &Bound<'_, PyInt>, state: Bound<'_, PyAny>) -> PyResult<()> {
        self.states.bind(fd.py()).set_item(fd, state)?;
        self.check_again(fd)
    }
}
