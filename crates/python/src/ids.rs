//! The ids of connections as Python objects.

use engine::Fd;
use pyo3::prelude::*;
use pyo3::types::PyInt;

/// How many are kept.
const PLACES: usize = 256;

/// Converts ids, and keeps the objects of those that were converted last, each in the place that its last bits name.
///
/// A connection usually sends more than one message, and making an int and freeing it would cost a short message that
/// comes alone about as much as parsing it.
pub(crate) struct Ids {
    places: Box<[Place]>,
}

type Place = Option<(Fd, Py<PyInt>)>;

impl Default for Ids {
    fn default() -> Self {
        Self { places: std::iter::repeat_with(|| None).take(PLACES).collect() }
    }
}

impl Ids {
    /// An id as a Python object.
    #[inline]
    pub(crate) fn get<'py>(&mut self, py: Python<'py>, fd: Fd) -> Bound<'py, PyInt> {
        let place = &mut self.places[fd as usize % PLACES];
        match place {
            Some((same, id)) if *same == fd => id.bind(py).clone(),
            _ => {
                let Ok(id) = fd.into_pyobject(py);
                if let Some((_, other)) = place.replace((fd, id.clone().unbind())) {
                    other.drop_ref(py);
                }
                id
            }
        }
    }
}
