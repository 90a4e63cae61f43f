//! The strings that hold received text.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Python 3.12. A string of Python 3.11 may keep a copy of its content for old native modules.
const FIRST_WITHOUT_COPIES: std::ffi::c_ulong = 0x030C_0000;

/// Makes strings, and uses the memory of one that its handler has released for the next one, as `Frames` does with
/// frames: making and freeing them would cost a tenth of a short message.
#[derive(Default)]
pub(crate) struct Texts<'py> {
    /// The string that was made last, if it can be used again once it is given back.
    made: Option<Made>,
    spare: Option<Bound<'py, PyString>>,
}

/// A string of ASCII characters as it was made.
#[derive(Clone, Copy)]
struct Made {
    string: *mut ffi::PyObject,
    /// The most characters that it has room for.
    room: usize,
    /// Its flags. They change if it is interned, and then others find it without counting as references.
    state: u32,
}

impl<'py> Texts<'py> {
    /// A `str` with this content.
    #[inline(always)]
    pub(crate) fn make(&mut self, py: Python<'py>, text: &str) -> Bound<'py, PyString> {
        // Strings of one character are shared by all of Python.
        if !text.is_ascii() || text.len() < 2 {
            self.made = None;
            return PyString::new(py, text);
        }
        match (self.spare.take(), self.made) {
            (Some(string), Some(made)) if text.len() <= made.room => {
                // SAFETY: `give_back` got the only reference to it, and it has room for as many ASCII characters.
                unsafe { fill(string.as_ptr(), text) };
                string
            }
            _ => self.make_new(py, text),
        }
    }

    fn make_new(&mut self, py: Python<'py>, text: &str) -> Bound<'py, PyString> {
        self.made = None;
        // SAFETY: the thread is attached (`py`). A new string for characters below 128 is compact ASCII, with room for as
        // many, and no other code has seen it yet.
        unsafe {
            let string = ffi::PyUnicode_New(text.len() as ffi::Py_ssize_t, 127);
            if string.is_null() {
                return PyString::new(py, text);
            }
            fill(string, text);
            let state = (*string.cast::<ffi::PyASCIIObject>()).state;
            self.made = Some(Made { string, room: text.len(), state });
            Bound::from_owned_ptr(py, string).cast_into_unchecked()
        }
    }

    /// Takes back the data of the last message: if it is the string that was made last, it is used again.
    #[inline(always)]
    pub(crate) fn give_back(&mut self, py: Python<'py>, data: Py<PyAny>) {
        let pointer = data.as_ptr();
        // SAFETY: the pointer is to a live object. A string has flags; other data may have taken the place of a string that
        // was freed. The version never changes.
        let is_released = self.made.is_some_and(|made| unsafe {
            made.string == pointer
                && ffi::Py_Version >= FIRST_WITHOUT_COPIES
                && ffi::PyUnicode_CheckExact(pointer) != 0
                && ffi::Py_REFCNT(pointer) == 1
                && (*pointer.cast::<ffi::PyASCIIObject>()).state == made.state
        });
        if is_released {
            // SAFETY: it was made as a string.
            self.spare = Some(unsafe { data.into_bound(py).cast_into_unchecked() });
        } else {
            self.made = None;
            data.drop_ref(py);
        }
    }
}

/// Makes this the content of a string that no one else can see.
///
/// # Safety
/// It is a live compact ASCII string with room for as many characters, all of which are below 128, and there is no
/// other reference to it.
#[inline]
unsafe fn fill(string: *mut ffi::PyObject, text: &str) {
    // SAFETY: as above. The characters lie right after the header, followed by a zero, for which there is room.
    unsafe {
        let header = string.cast::<ffi::PyASCIIObject>();
        (*header).length = text.len() as ffi::Py_ssize_t;
        // Not computed yet.
        (*header).hash = -1;
        let first = ffi::PyUnicode_1BYTE_DATA(string);
        first.copy_from_nonoverlapping(text.as_ptr(), text.len());
        *first.add(text.len()) = 0;
    }
}
