//! Endpoints, and the patterns of their paths, as Python sees them.

use engine::{Bodies, Endpoint, Endpoints, WebSockets};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use wire::path::{Path, Pattern, Value};

use crate::arguments::text_named;
use crate::settings::origins;

/// The pattern of an endpoint's path.
///
/// Raises:
///     ValueError: It is not a pattern; the message says why.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct PathPattern(Pattern);

#[pymethods]
impl PathPattern {
    #[new]
    fn new(text: &Bound<'_, PyAny>) -> PyResult<Self> {
        Pattern::parse(text_named("path", text.as_borrowed())?)
            .map(Self)
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// The parameters of a path that it matches, as a dict; the path is still percent-encoded.
    pub(crate) fn parameters<'py>(&self, py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyDict>> {
        let values = PyDict::new(py);
        let Some(path) = Path::decode(path) else { return Ok(values) };
        for (name, value) in self.0.parameters(&path) {
            match value {
                Value::Text(text) => values.set_item(name, text)?,
                Value::Number(number) => values.set_item(name, number)?,
            }
        }
        Ok(values)
    }

    /// Whether it matches every path that `other` matches.
    fn covers(&self, other: &Self) -> bool {
        self.0.covers(&other.0)
    }
}

/// The endpoints of a server: for each its pattern, its `Settings`, and whether it serves WebSockets. `bodies` is how
/// requests at other paths are passed on.
///
/// # Errors
/// If an entry has another type.
pub(crate) fn read(
    endpoints: Vec<(Bound<'_, PathPattern>, Bound<'_, PyAny>, bool)>,
    others: bool,
    bodies: Bodies,
) -> PyResult<Endpoints> {
    let read_one = |(pattern, settings, websockets): (Bound<'_, PathPattern>, Bound<'_, PyAny>, bool)| {
        Ok(Endpoint {
            pattern: pattern.get().0.clone(),
            websockets: served(websockets),
            origins: origins(&settings)?,
            subprotocols: settings.getattr("subprotocols")?.extract()?,
            max_message_size: settings.getattr("max_message_size")?.extract()?,
        })
    };
    let list = endpoints.into_iter().map(read_one).collect::<PyResult<_>>()?;
    Ok(Endpoints { list, others: served(others), bodies })
}

fn served(are_served: bool) -> WebSockets {
    if are_served { WebSockets::Served } else { WebSockets::NotFound }
}
