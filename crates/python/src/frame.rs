//! What a `message` handler is given.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};
use wire::frame::Opcode;

/// One message, whole, as it came from a connection.
///
/// Attributes:
///     fd: The connection's id.
///     data: `str` for a text message, `bytes` for a binary one (RFC 6455 §5.6).
///     opcode: `Opcode.TEXT` or `Opcode.BINARY`.
///     finish: Always `True` for a received message: fragments are merged (RFC 6455 §5.4).
#[pyclass(frozen, freelist = 64, module = "hubbub")]
pub(crate) struct Frame {
    #[pyo3(get)]
    fd: u64,
    #[pyo3(get)]
    data: Py<PyAny>,
    opcode: u8,
    #[pyo3(get)]
    finish: bool,
}

impl Frame {
    pub(crate) fn received(fd: u64, data: Py<PyAny>, opcode: Opcode) -> Self {
        Self { fd, data, opcode: opcode as u8, finish: true }
    }
}

#[pymethods]
impl Frame {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str, &'static str) {
        ("fd", "data", "opcode", "finish")
    }

    /// Makes a frame as a handler would be given it, for the tests of an application.
    ///
    /// Raises:
    ///     TypeError: `data` is neither `str` nor `bytes`.
    ///     ValueError: `opcode` is no opcode.
    #[new]
    #[pyo3(signature = (fd, data, opcode=None, finish=true))]
    fn new(fd: u64, data: Bound<'_, PyAny>, opcode: Option<u8>, finish: bool) -> PyResult<Self> {
        let by_type = if data.is_instance_of::<PyString>() {
            Opcode::Text
        } else if data.is_instance_of::<PyBytes>() {
            Opcode::Binary
        } else {
            return Err(PyTypeError::new_err(format!("data must be str or bytes, not {}", data.get_type().name()?)));
        };
        let opcode = opcode.unwrap_or(by_type as u8);
        if !matches!(opcode, 0..=2 | 8..=10) {
            return Err(PyValueError::new_err(format!("{opcode} is not an opcode of RFC 6455 §5.2")));
        }
        Ok(Self { fd, data: data.unbind(), opcode, finish })
    }

    #[getter]
    fn opcode(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        static OPCODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        OPCODE.import(py, "hubbub.events", "Opcode")?.call1((self.opcode,)).map(Bound::unbind)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let data = self.data.bind(py).repr()?;
        let finish = if self.finish { "True" } else { "False" };
        Ok(format!("Frame(fd={}, data={data}, opcode={}, finish={finish})", self.fd, self.opcode))
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        Ok((self.fd, self.opcode, self.finish) == (other.fd, other.opcode, other.finish)
            && self.data.bind(py).eq(&other.data)?)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (self.fd, self.opcode, self.finish, self.data.bind(py).hash()?).into_pyobject(py)?.hash()
    }
}
