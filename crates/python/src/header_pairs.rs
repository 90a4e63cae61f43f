//! The headers of an answer, as an argument.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use wire::http::{valid_header_name, valid_header_value};

/// Checked names and values. Each may be `str` or `bytes`.
pub(crate) struct HeaderPairs(pub(crate) Vec<(Vec<u8>, Vec<u8>)>);

impl FromPyObject<'_, '_> for HeaderPairs {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let mut pairs = Vec::with_capacity(value.len().unwrap_or_default());
        for pair in value.try_iter()? {
            let pair = pair?;
            let mut parts = pair.try_iter().map_err(|_| not_a_pair(&pair))?;
            let (Some(name), Some(content), None) = (parts.next(), parts.next(), parts.next()) else {
                return Err(not_a_pair(&pair));
            };
            let (name, content) = (bytes_of(&name?)?, bytes_of(&content?)?);
            if !valid_header_name(&name) || !valid_header_value(&content) {
                let (name, content) = (name.escape_ascii(), content.escape_ascii());
                return Err(PyValueError::new_err(format!("not a header: \"{name}\": \"{content}\"")));
            }
            pairs.push((name, content));
        }
        Ok(Self(pairs))
    }
}

#[cold]
fn not_a_pair(value: &Bound<'_, PyAny>) -> PyErr {
    let name = value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("each header must be a name and a value, not {name}"))
}

fn bytes_of(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(bytes.as_bytes().to_vec());
    }
    if let Ok(text) = value.cast::<PyString>() {
        // Values are sent as latin-1 (RFC 9110 §5.5).
        let latin1 = text.to_str()?.chars().map(|character| u8::try_from(u32::from(character)));
        return latin1.collect::<Result<_, _>>().map_err(|_| PyValueError::new_err("a header is not Latin-1"));
    }
    // bytearray and memoryview.
    value.extract::<Vec<u8>>().map_err(|_| {
        let name = value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("names and values of headers must be bytes, not {name}"))
    })
}
