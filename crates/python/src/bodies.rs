//! The bodies of answers, as the engine takes them.

use engine::Kept;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

/// From this many bytes on, it costs less to keep an object than to copy its bytes.
const LONG: usize = 8 * 1024;

/// The bytes of a long body, or part of one, as an object to be kept until they have been sent. `None` if they are to be
/// copied. That includes a subclass of `bytes`, which may have code that runs when an instance is released.
pub(crate) fn kept(body: &Bound<'_, PyBytes>) -> Option<Kept> {
    (body.as_bytes().len() >= LONG && body.is_exact_instance_of::<PyBytes>())
        .then(|| Box::new(PyBackedBytes::from(body.clone())) as Kept)
}
