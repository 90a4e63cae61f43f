//! `Server.push` while a worker runs. It is on the path of every message, so calling it has to be cheap.
//!
//! Python finds a native method of a class several times faster than an attribute of the object that hides the class's
//! method. So while a worker runs, this takes the place of `Server.push` in the class. It serves one server of the
//! process, and leaves the calls for all others to the method that it replaces.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};

use engine::DataOpcode;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use pyo3::{ffi, intern};

use crate::reactor::Reactor;

const DOC: &CStr = c"push($self, fd, data, opcode=None, finish=True)\n--\n\nQueue one message for the connection `fd`.";

/// The server whose reactor is [`REACTOR`]; null if there is none. Read and written only by attached threads.
static SERVER: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
/// The object of its [`Reactor`]. All three are reset when its server leaves, or at the latest before it is freed.
static OBJECT: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
/// The content of that object.
static REACTOR: AtomicPtr<Reactor> = AtomicPtr::new(ptr::null_mut());
/// The method that this replaces.
static REPLACED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Binds a reactor to its server, and returns the method that is to replace `push` in the class of servers. It calls
/// `replaced` for every other server. `None` if another reactor is bound.
#[pyfunction]
pub(crate) fn bind_push<'py>(
    reactor: &Bound<'py, Reactor>,
    class_: &Bound<'py, PyType>,
    replaced: Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    static METHOD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = reactor.py();
    if !SERVER.load(Ordering::Relaxed).is_null() {
        return Ok(None);
    }
    REPLACED.get_or_init(py, || replaced.unbind());
    let method = METHOD.get_or_try_init(py, || {
        let definition = Box::leak(Box::new(ffi::PyMethodDef {
            ml_name: c"push".as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: push },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: DOC.as_ptr(),
        }));
        // SAFETY: the class is alive, and the definition stays forever.
        unsafe {
            let method = ffi::PyDescr_NewMethod(class_.as_type_ptr(), definition);
            Bound::from_owned_ptr_or_err(py, method).map(Bound::unbind)
        }
    })?;
    OBJECT.store(reactor.as_ptr(), Ordering::Relaxed);
    REACTOR.store(ptr::from_ref(reactor.get()).cast_mut(), Ordering::Relaxed);
    SERVER.store(reactor.get().server.as_ptr(), Ordering::Relaxed);
    Ok(Some(method.bind(py).clone()))
}

/// Unbinds the reactor of a server that leaves, however long something still refers to it: the next server can be bound.
/// Does nothing if it is not bound.
#[pyfunction]
pub(crate) fn unbind_push(server: &Bound<'_, PyAny>) {
    if server.as_ptr() == SERVER.load(Ordering::Relaxed) {
        unbind();
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        if ptr::eq(REACTOR.load(Ordering::Relaxed), self) {
            unbind();
        }
    }
}

fn unbind() {
    SERVER.store(ptr::null_mut(), Ordering::Relaxed);
    REACTOR.store(ptr::null_mut(), Ordering::Relaxed);
    OBJECT.store(ptr::null_mut(), Ordering::Relaxed);
}

/// The method.
///
/// # Safety
/// Python calls it, from an attached thread, with an instance of the class, `count` positional arguments, and after
/// these one for each of the `names`.
unsafe extern "C" fn push(
    server: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as above.
    let py = unsafe { Python::assume_attached() };
    let is_bound = server == SERVER.load(Ordering::Relaxed);
    if is_bound && count == 2 && names.is_null() {
        // SAFETY: the reactor has not been freed, or there would be no server; the arguments are two live objects.
        let queued = unsafe {
            let (reactor, fd, data) = (&*REACTOR.load(Ordering::Relaxed), *arguments, *arguments.add(1));
            catch_unwind(AssertUnwindSafe(|| push_in_turn(reactor, fd, data)))
        };
        if let Ok(Some(queued)) = queued {
            // SAFETY: both are live objects.
            return unsafe { ffi::Py_NewRef(if queued { ffi::Py_True() } else { ffi::Py_False() }) };
        }
    }
    // SAFETY: there are as many arguments, followed by as many as there are names; all are live objects.
    unsafe {
        let keywords = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names) };
        let all = slice::from_raw_parts(arguments, (count + keywords) as usize);
        push_anyhow(py, if is_bound { None } else { Some(server) }, all, count as usize, names)
    }
}

/// Pushes what handlers usually push, from within a turn. `None`: nothing was done, it has to be pushed in another way.
///
/// # Safety
/// Both are live objects, and the thread is attached.
#[inline]
unsafe fn push_in_turn(reactor: &Reactor, fd: *mut ffi::PyObject, data: *mut ffi::PyObject) -> Option<bool> {
    // SAFETY: as above. A compact ASCII string consists of as many bytes as characters, right after its header. What is
    // borrowed from the arguments is used only as long as Python's caller keeps them.
    let (fd, opcode, payload) = unsafe {
        let fd = match reactor.current.fd_of(fd) {
            Some(fd) => fd,
            None => exact_int(fd)?,
        };
        if ffi::PyUnicode_CheckExact(data) != 0 && ffi::PyUnicode_IS_COMPACT_ASCII(data) != 0 {
            let length = ffi::PyUnicode_GET_LENGTH(data) as usize;
            (fd, DataOpcode::Text, slice::from_raw_parts(ffi::PyUnicode_1BYTE_DATA(data), length))
        } else if ffi::PyBytes_CheckExact(data) != 0 {
            let (first, length) = (ffi::PyBytes_AS_STRING(data).cast::<u8>(), ffi::Py_SIZE(data) as usize);
            (fd, DataOpcode::Binary, slice::from_raw_parts(first, length))
        } else {
            return None;
        }
    };
    reactor.push_in_turn(fd, opcode, payload)
}

/// # Safety
/// A live object, and an attached thread.
#[inline]
unsafe fn exact_int(object: *mut ffi::PyObject) -> Option<u64> {
    // SAFETY: as above; a conversion of an exact int sets no exception.
    unsafe {
        if ffi::PyLong_CheckExact(object) == 0 {
            return None;
        }
        let mut overflow = 0;
        let value = ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow);
        if overflow == 0 { u64::try_from(value).ok() } else { None }
    }
}

/// Pushes with the bound reactor's own method, or, with the server, with the method that was replaced.
///
/// # Safety
/// All are live objects; the arguments that come after the first `count` have `names`.
unsafe fn push_anyhow(
    py: Python<'_>,
    server: Option<*mut ffi::PyObject>,
    arguments: &[*mut ffi::PyObject],
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let first = server.unwrap_or_else(|| OBJECT.load(Ordering::Relaxed));
    let mut all = Vec::with_capacity(1 + arguments.len());
    all.push(first);
    all.extend_from_slice(arguments);
    // SAFETY: as above. `first` is kept for the time of the call: by the caller, or here.
    unsafe {
        let kept = Bound::from_borrowed_ptr(py, first);
        let result = match (server, REPLACED.get(py)) {
            (Some(_), Some(replaced)) => ffi::PyObject_Vectorcall(replaced.as_ptr(), all.as_ptr(), 1 + count, names),
            _ => {
                let name = intern!(py, "push").as_ptr();
                ffi::PyObject_VectorcallMethod(name, all.as_ptr(), 1 + count, names)
            }
        };
        drop(kept);
        result
    }
}
