//! The object that a `message` handler receives.

use std::{mem, ptr};

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyInt, PyString};
use wire::frame::{Fin, Opcode};

use crate::arguments::{FinishArgument, OpcodeArgument, wrong_type};
use crate::home::Home;

/// One whole message received from a connection.
///
/// Attributes:
///     fd: The connection's id.
///     data: `str` for a text message, `bytes` for a binary one (RFC 6455 §5.6).
///     opcode: `Opcode.TEXT` or `Opcode.BINARY`.
///     finish: Always `True` for a received message: fragments are merged (RFC 6455 §5.4).
///     state: The state of the connection, the same object as `Request.state`.
#[pyclass(frozen, module = "hubbub")]
pub(crate) struct Frame {
    // These two are Python objects because nearly every handler reads them, and this way CPython does so without a
    // call.
    #[pyo3(get)]
    fd: Py<PyInt>,
    #[pyo3(get)]
    data: Py<PyAny>,
    opcode: Opcode,
    #[pyo3(get)]
    finish: bool,
    home: Py<Home>,
}

/// The frames of received messages. A frame that a handler keeps is never reused.
///
/// A frame that its handler has released is reused. Handlers cannot distinguish it from a new one, and creating a new
/// one would cost a tenth of a short message.
#[derive(Default)]
pub(crate) struct Frames<'py> {
    spare: Option<Bound<'py, Frame>>,
}

impl<'py> Frames<'py> {
    /// The frame of a message.
    #[inline(always)]
    pub(crate) fn take(
        &mut self,
        fd: &Bound<'py, PyInt>,
        data: Py<PyAny>,
        opcode: Opcode,
        home: &Py<Home>,
    ) -> PyResult<Bound<'py, Frame>> {
        match self.spare.take() {
            Some(mut frame) => {
                // SAFETY: `give_back` got the only reference to it.
                let content = unsafe { content(&mut frame) };
                if !content.fd.is(fd) {
                    mem::replace(&mut content.fd, fd.clone().unbind()).drop_ref(fd.py());
                }
                // Unlike `drop`, this need not first find out whether the thread is attached.
                mem::replace(&mut content.data, data).drop_ref(fd.py());
                content.opcode = opcode;
                Ok(frame)
            }
            None => {
                let home = home.clone_ref(fd.py());
                Bound::new(fd.py(), Frame { fd: fd.clone().unbind(), data, opcode, finish: true, home })
            }
        }
    }

    /// Takes back a frame whose handler has returned. Returns what it held, unless it is still in use.
    #[inline(always)]
    pub(crate) fn give_back(&mut self, mut frame: Bound<'py, Frame>) -> Option<Py<PyAny>> {
        let py = frame.py();
        // SAFETY: the pointer is to a live object.
        if unsafe { ffi::Py_REFCNT(frame.as_ptr()) } != 1 {
            return None;
        }
        // SAFETY: `frame` is the only reference.
        let data = mem::replace(unsafe { &mut content(&mut frame).data }, py.None());
        self.spare = Some(frame);
        Some(data)
    }
}

/// The content of a frame.
///
/// # Safety
/// There is no other reference to the frame, nor to its content.
#[inline]
unsafe fn content<'a>(frame: &'a mut Bound<'_, Frame>) -> &'a mut Frame {
    let object = frame.as_ptr();
    let offset = ptr::from_ref(frame.get()).addr() - object.addr();
    // SAFETY: the place lies `offset` bytes inside the object that `frame` keeps alive, and holds a `Frame`. As above,
    // and the interpreter's lock is held, so no other thread can look at it.
    unsafe { &mut *object.byte_add(offset).cast::<Frame>() }
}

#[pymethods]
impl Frame {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str, &'static str) {
        ("fd", "data", "opcode", "finish")
    }

    /// Create a frame like those that handlers receive, for an application's tests.
    ///
    /// Raises:
    ///     TypeError: `data` is neither `str` nor `bytes`.
    ///     ValueError: `opcode` is not an opcode.
    #[new]
    #[pyo3(
        signature = (fd, data, opcode=None, finish=FinishArgument(Fin::Last)),
        text_signature = "(fd, data, opcode=None, finish=True)"
    )]
    fn new(
        fd: Bound<'_, PyAny>,
        data: Bound<'_, PyAny>,
        opcode: Option<OpcodeArgument>,
        finish: FinishArgument,
    ) -> PyResult<Self> {
        let Ok(fd) = fd.cast::<PyInt>() else {
            return Err(wrong_type("fd", "an int", fd.as_borrowed()));
        };
        let by_type = if data.is_instance_of::<PyString>() {
            Opcode::Text
        } else if data.is_instance_of::<PyBytes>() {
            Opcode::Binary
        } else {
            return Err(wrong_type("data", "str or bytes", data.as_borrowed()));
        };
        let opcode = match opcode {
            None => by_type,
            Some(OpcodeArgument(number)) => u8::try_from(number)
                .ok()
                .and_then(|bits| Opcode::from_bits(bits).ok())
                .ok_or_else(|| PyValueError::new_err(format!("opcode must be one of RFC 6455 §5.2, not {number}")))?,
        };
        let home = Py::new(fd.py(), Home::of_none(fd.py())?)?;
        Ok(Self { fd: fd.clone().unbind(), data: data.unbind(), opcode, finish: finish.0 == Fin::Last, home })
    }

    #[getter]
    fn opcode<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static TEXT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static BINARY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let make = || py.import("hubbub.events")?.getattr("Opcode")?.call1((self.opcode as u8,)).map(Bound::unbind);
        match self.opcode {
            Opcode::Text => Ok(TEXT.get_or_try_init(py, make)?.bind(py).clone()),
            Opcode::Binary => Ok(BINARY.get_or_try_init(py, make)?.bind(py).clone()),
            _ => Ok(make()?.into_bound(py)),
        }
    }

    /// The state of the connection; see `hubbub.Server.state`.
    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.home.get().state(self.fd.bind(py))
    }

    /// Decodes `data` as JSON.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.home.get().decode(self.data.bind(py))
    }

    /// For pickle and copy.
    fn __getnewargs__<'py>(&self, py: Python<'py>) -> (&Bound<'py, PyInt>, &Bound<'py, PyAny>, u8, bool) {
        self.parts(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (fd, data, opcode, finish) = self.parts(py);
        let finish = if finish { "True" } else { "False" };
        Ok(format!("Frame(fd={fd}, data={}, opcode={opcode}, finish={finish})", data.repr()?))
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        self.parts(py).into_pyobject(py)?.eq(other.parts(py))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.parts(py).into_pyobject(py)?.hash()
    }
}

impl Frame {
    fn parts<'a, 'py>(&'a self, py: Python<'py>) -> (&'a Bound<'py, PyInt>, &'a Bound<'py, PyAny>, u8, bool) {
        (self.fd.bind(py), self.data.bind(py), self.opcode as u8, self.finish)
    }
}
