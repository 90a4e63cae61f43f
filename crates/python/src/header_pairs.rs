//! The headers of an answer, as an argument.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyString, PyTuple};
use wire::http::{valid_header_name, valid_header_value};

use std::ops::Deref;

/// Checked names and values. Each may be `str` or `bytes`.
pub(crate) struct HeaderPairs(pub(crate) Vec<HeaderPair>);

/// A name and a value.
pub(crate) type HeaderPair = (HeaderPart, HeaderPart);

/// A name or a value as it is sent. It is not copied, because neither `bytes` nor `str` ever change.
pub(crate) enum HeaderPart {
    Bytes(PyBackedBytes),
    Ascii(PyBackedStr),
}

impl Deref for HeaderPart {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Ascii(text) => text.as_bytes(),
        }
    }
}

impl AsRef<[u8]> for HeaderPart {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl FromPyObject<'_, '_> for HeaderPairs {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let mut pairs = Vec::with_capacity(value.len().unwrap_or_default());
        for pair in value.try_iter()? {
            let (name, content) = name_and_value(&pair?)?;
            let (name, content) = (part_of(name)?, part_of(content)?);
            if !valid_header_name(&name) || !valid_header_value(&content) {
                let (name, content) = (name.escape_ascii(), content.escape_ascii());
                return Err(PyValueError::new_err(format!("not a header: \"{name}\": \"{content}\"")));
            }
            pairs.push((name, content));
        }
        Ok(Self(pairs))
    }
}

#[inline]
fn name_and_value<'py>(pair: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    if let Ok(pair) = pair.cast_exact::<PyTuple>()
        && pair.len() == 2
    {
        return Ok((pair.get_item(0)?, pair.get_item(1)?));
    }
    let mut parts = pair.try_iter().map_err(|_| not_a_pair(pair))?;
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(content), None) => Ok((name?, content?)),
        _ => Err(not_a_pair(pair)),
    }
}

#[cold]
fn not_a_pair(value: &Bound<'_, PyAny>) -> PyErr {
    let name = value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("each header must be a name and a value, not {name}"))
}

#[inline]
fn part_of(value: Bound<'_, PyAny>) -> PyResult<HeaderPart> {
    match value.cast_into::<PyBytes>() {
        Ok(bytes) => Ok(HeaderPart::Bytes(bytes.into())),
        Err(other) => match other.into_inner().cast_into::<PyString>() {
            Ok(text) if text.to_str().is_ok_and(str::is_ascii) => Ok(HeaderPart::Ascii(text.try_into()?)),
            Ok(text) => converted(text.as_any()).map(HeaderPart::Bytes),
            Err(other) => converted(&other.into_inner()).map(HeaderPart::Bytes),
        },
    }
}

fn converted(value: &Bound<'_, PyAny>) -> PyResult<PyBackedBytes> {
    let py = value.py();
    if let Ok(text) = value.cast::<PyString>() {
        // Values are sent as latin-1 (RFC 9110 §5.5).
        let latin1 = text.to_str()?.chars().map(|character| u8::try_from(u32::from(character)));
        let bytes = latin1.collect::<Result<Vec<u8>, _>>();
        let bytes = bytes.map_err(|_| PyValueError::new_err("a header is not Latin-1"))?;
        return Ok(PyBytes::new(py, &bytes).into());
    }
    // bytearray and memoryview.
    let bytes = value.extract::<Vec<u8>>().map_err(|_| {
        let name = value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("names and values of headers must be bytes, not {name}"))
    })?;
    Ok(PyBytes::new(py, &bytes).into())
}
