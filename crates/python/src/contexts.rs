//! The contexts (PEP 567) of handlers.

use pyo3::ffi;
use pyo3::prelude::*;

/// Copies of the current context (PEP 567), a separate one for each handler, so that what one handler sets is not seen
/// by another.
///
/// An empty copy that its handler has left empty is used for the next one too, and stays entered in between: it cannot
/// be told from a new one. Everything that is no handler has to `leave` it first.
#[derive(Default)]
pub(crate) struct Contexts<'py> {
    entered: Option<EnteredContext<'py>>,
}

/// An empty context that has been entered.
struct EnteredContext<'py> {
    context: Bound<'py, PyAny>,
    /// The references to it before a handler has run. Another one would be that of a `Token`, which could still reset a
    /// variable.
    references: ffi::Py_ssize_t,
}

impl EnteredContext<'_> {
    #[inline(always)]
    fn is_like_new(&self) -> bool {
        // SAFETY: the pointer is to a live object.
        unsafe { ffi::Py_REFCNT(self.context.as_ptr()) == self.references && is_empty(&self.context) }
    }
}

impl Drop for EnteredContext<'_> {
    fn drop(&mut self) {
        exit(&self.context);
    }
}

impl<'py> Contexts<'py> {
    /// Calls `body` in a copy of its own. The current context must be the same for all calls.
    #[inline(always)]
    pub(crate) fn run<T>(&mut self, py: Python<'py>, body: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        if self.entered.is_none() {
            let entered = enter_copy(py)?;
            if !entered.is_like_new() {
                // The current context is not empty.
                return body();
            }
            self.entered = Some(entered);
        }
        let result = body();
        if !self.entered.as_ref().is_some_and(EnteredContext::is_like_new) {
            self.leave();
        }
        result
    }

    /// Returns to the current context.
    pub(crate) fn leave(&mut self) {
        self.entered = None;
    }
}

/// Enters a copy of the current context.
fn enter_copy(py: Python<'_>) -> PyResult<EnteredContext<'_>> {
    // SAFETY: the thread is attached (`py`); the calls give a new reference, or null with an exception set, and enter a
    // Context that no one else has. The last pointer is to a live object.
    unsafe {
        let context = Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent())?;
        if ffi::PyContext_Enter(context.as_ptr()) < 0 {
            return Err(PyErr::fetch(py));
        }
        let references = ffi::Py_REFCNT(context.as_ptr());
        Ok(EnteredContext { context, references })
    }
}

/// Exits a context, the one that was entered last: any context entered since has been exited.
fn exit(context: &Bound<'_, PyAny>) {
    // SAFETY: as above, and a live Context. No exception is set: that of a call has been moved into its result.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } < 0 {
        PyErr::fetch(context.py()).write_unraisable(context.py(), None);
    }
}

#[inline(always)]
pub(crate) fn is_empty(context: &Bound<'_, PyAny>) -> bool {
    let context = context.as_ptr();
    // SAFETY: a live Context, whose type has a length: that of its map. Asking for it runs no Python code.
    unsafe {
        let mapping = (*ffi::Py_TYPE(context)).tp_as_mapping;
        (*mapping).mp_length.is_some_and(|length| length(context) == 0)
    }
}

/// Enters a context until the result is dropped.
///
/// # Errors
/// RuntimeError if it has been entered already.
#[inline]
pub(crate) fn enter<'a, 'py>(context: &'a Bound<'py, PyAny>) -> PyResult<Entered<'a, 'py>> {
    // SAFETY: the thread is attached. The call checks that this is a Context that nobody has entered, or sets an
    // exception.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(context.py()));
    }
    Ok(Entered(context))
}

/// Exits a context when it is dropped, even when a panic unwinds.
pub(crate) struct Entered<'a, 'py>(&'a Bound<'py, PyAny>);

impl Drop for Entered<'_, '_> {
    fn drop(&mut self) {
        exit(self.0);
    }
}
