//! What a `message` handler is given.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyInt, PyString};
use wire::frame::Opcode;

/// One message, whole, as it came from a connection.
///
/// Attributes:
///     fd: The connection's id.
///     data: `str` for a text message, `bytes` for a binary one (RFC 6455 §5.6).
///     opcode: `Opcode.TEXT` or `Opcode.BINARY`.
///     finish: Always `True` for a received message: fragments are merged (RFC 6455 §5.4).
#[pyclass(frozen, module = "hubbub")]
pub(crate) struct Frame {
    // Python objects all of them: CPython then reads the attributes without a call.
    #[pyo3(get)]
    fd: Py<PyInt>,
    #[pyo3(get)]
    data: Py<PyAny>,
    #[pyo3(get)]
    opcode: Py<PyAny>,
    #[pyo3(get)]
    finish: Py<PyBool>,
}

impl Frame {
    #[inline]
    pub(crate) fn received(py: Python<'_>, fd: u64, data: Py<PyAny>, opcode: Opcode) -> PyResult<Self> {
        Ok(Self {
            fd: fd.into_pyobject(py)?.unbind(),
            data,
            opcode: member(py, opcode)?.clone_ref(py),
            finish: PyBool::new(py, true).to_owned().unbind(),
        })
    }
}

/// The `hubbub.Opcode` of a data frame.
#[inline]
fn member(py: Python<'_>, opcode: Opcode) -> PyResult<&Py<PyAny>> {
    static TEXT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static BINARY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let cell = if opcode == Opcode::Text { &TEXT } else { &BINARY };
    cell.get_or_try_init(py, || opcodes(py)?.call1((opcode as u8,)).map(Bound::unbind))
}

fn opcodes(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("hubbub.events")?.getattr("Opcode")
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
    fn new(
        fd: Bound<'_, PyInt>,
        data: Bound<'_, PyAny>,
        opcode: Option<Bound<'_, PyInt>>,
        finish: bool,
    ) -> PyResult<Self> {
        let py = fd.py();
        let by_type = if data.is_instance_of::<PyString>() {
            Opcode::Text
        } else if data.is_instance_of::<PyBytes>() {
            Opcode::Binary
        } else {
            return Err(PyTypeError::new_err(format!("data must be str or bytes, not {}", data.get_type().name()?)));
        };
        let opcode = match opcode {
            Some(opcode) => opcodes(py)?.call1((opcode,))?.unbind(),
            None => member(py, by_type)?.clone_ref(py),
        };
        Ok(Self { fd: fd.unbind(), data: data.unbind(), opcode, finish: PyBool::new(py, finish).to_owned().unbind() })
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (fd, data, opcode, finish) = self.parts(py);
        Ok(format!("Frame(fd={}, data={}, opcode={}, finish={})", fd, data.repr()?, opcode, finish))
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        self.parts(py).into_pyobject(py)?.eq(other.parts(py))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.parts(py).into_pyobject(py)?.hash()
    }
}

type Parts<'a, 'py> = (&'a Bound<'py, PyInt>, &'a Bound<'py, PyAny>, &'a Bound<'py, PyAny>, &'a Bound<'py, PyBool>);

impl Frame {
    fn parts<'a, 'py>(&'a self, py: Python<'py>) -> Parts<'a, 'py> {
        (self.fd.bind(py), self.data.bind(py), self.opcode.bind(py), self.finish.bind(py))
    }
}
