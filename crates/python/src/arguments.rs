//! Arguments from callers: ids, data, opcodes, topics; and the errors that say what is wrong with them.

use engine::{
    Content, DataOpcode, Fd, Fin, Format, MAX_KEY, MAX_PIPED, Position, Publication, enveloped_len, is_topic,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyMemoryView, PyString};
use wire::error::may_be_sent;
use wire::frame::{MAX_CLOSE_REASON, MAX_CONTROL_PAYLOAD};

/// A connection's id. Any int is accepted: one that cannot be an id becomes 0, which no connection has.
pub(crate) struct FdArgument(pub(crate) Fd);

impl FromPyObject<'_, '_> for FdArgument {
    type Error = PyErr;

    #[inline]
    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if value.is_instance_of::<PyInt>() {
            // CPython converts to a signed number several times faster, and no id needs the 64th bit.
            return Ok(Self(value.extract::<i64>().map_or(0, |fd| u64::try_from(fd).unwrap_or(0))));
        }
        Err(wrong_type("fd", "an int", value))
    }
}

/// Says what an argument must be, and what was given instead.
pub(crate) fn wrong_type(name: &str, wanted: &str, value: Borrowed<'_, '_, PyAny>) -> PyErr {
    match value.get_type().name() {
        Ok(given) => PyTypeError::new_err(format!("{name} must be {wanted}, not {given}")),
        Err(error) => error,
    }
}

/// An int. One that does not fit is as wrong as any other out-of-range value, and is refused here.
fn int_named(name: &str, value: Borrowed<'_, '_, PyAny>, refusal: fn(&str) -> String) -> PyResult<i64> {
    if value.is_instance_of::<PyInt>() {
        return value.extract::<i64>().map_err(|_| PyValueError::new_err(refusal(&short_number(value))));
    }
    Err(wrong_type(name, "an int", value))
}

/// A number for an error message, cut if it has very many digits; as `hubbub.errors.short_number`.
pub(crate) fn short_number(value: Borrowed<'_, '_, PyAny>) -> String {
    match value.str() {
        Ok(text) => {
            let text = text.to_string_lossy();
            if text.len() <= 100 { text.into_owned() } else { text.chars().take(97).collect::<String>() + "..." }
        }
        Err(_) => "a number with thousands of digits".to_owned(),
    }
}

fn wrong_code(given: &str) -> String {
    format!("close code {given} may not be sent; allowed are 1000-1003, 1007-1014 and 3000-4999")
}

#[cold]
fn not_expressible(name: &str) -> PyErr {
    PyValueError::new_err(format!("{name} must be text that UTF-8 can express, without lone surrogates"))
}

/// The characters of a `str`.
pub(crate) fn text_named<'a>(name: &str, value: Borrowed<'a, '_, PyAny>) -> PyResult<&'a str> {
    value.extract::<&str>().map_err(|_| {
        if value.is_instance_of::<PyString>() { not_expressible(name) } else { wrong_type(name, "a str", value) }
    })
}

/// Defines the type of an argument that errors refer to by its own name.
macro_rules! argument {
    ($(#[$doc:meta])* $type:ident($inner:ty), $extract:expr) => {
        $(#[$doc])*
        pub(crate) struct $type(pub(crate) $inner);

        impl FromPyObject<'_, '_> for $type {
            type Error = PyErr;

            #[inline]
            fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
                let extract: fn(Borrowed<'_, '_, PyAny>) -> PyResult<$inner> = $extract;
                extract(value).map(Self)
            }
        }
    };
}

argument! {
    /// The opcode of a message or frame.
    OpcodeArgument(i64), |value| {
        int_named("opcode", value, |given| format!("opcode must be one of RFC 6455 §5.2, not {given}"))
    }
}
argument! {
    /// A close code.
    CodeArgument(i64), |value| int_named("code", value, wrong_code)
}
argument! {
    /// Whether a frame is the last of its message.
    FinishArgument(Fin), |value| match value.extract() {
        Ok(true) => Ok(Fin::Last),
        Ok(false) => Ok(Fin::More),
        Err(_) => Err(wrong_type("finish", "a bool", value)),
    }
}

/// The name of a topic, which has been checked.
pub(crate) struct Topic<'a>(pub(crate) &'a str);

impl<'a> FromPyObject<'a, '_> for Topic<'a> {
    type Error = PyErr;

    #[inline]
    fn extract(value: Borrowed<'a, '_, PyAny>) -> PyResult<Self> {
        let topic = text_named("topic", value)?;
        if !is_topic(topic) {
            let length = topic.len();
            return Err(PyValueError::new_err(format!("topic must have 1 to 255 bytes of UTF-8, not {length}")));
        }
        Ok(Self(topic))
    }
}

/// The key of a message, which has been checked.
pub(crate) struct MessageKey<'a>(pub(crate) &'a str);

impl<'a> FromPyObject<'a, '_> for MessageKey<'a> {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, '_, PyAny>) -> PyResult<Self> {
        let key = text_named("key", value)?;
        if key.len() > MAX_KEY {
            let length = key.len();
            return Err(PyValueError::new_err(format!("key must have at most 255 bytes of UTF-8, not {length}")));
        }
        Ok(Self(key))
    }
}

/// What the names of topics begin with.
pub(crate) struct Prefix<'a>(pub(crate) &'a str);

impl<'a> FromPyObject<'a, '_> for Prefix<'a> {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, '_, PyAny>) -> PyResult<Self> {
        let prefix = text_named("prefix", value)?;
        if !prefix.is_empty() && !is_topic(prefix) {
            let length = prefix.len();
            return Err(PyValueError::new_err(format!("prefix must have at most 255 bytes of UTF-8, not {length}")));
        }
        Ok(Self(prefix))
    }
}

/// The name of the topic after which a list begins; any text.
pub(crate) struct After<'a>(pub(crate) &'a str);

impl<'a> FromPyObject<'a, '_> for After<'a> {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, '_, PyAny>) -> PyResult<Self> {
        text_named("after", value).map(Self)
    }
}

/// The reason of a close.
pub(crate) struct Reason<'a>(pub(crate) &'a str);

impl<'a> FromPyObject<'a, '_> for Reason<'a> {
    type Error = PyErr;

    #[inline]
    fn extract(value: Borrowed<'a, '_, PyAny>) -> PyResult<Self> {
        text_named("reason", value).map(Self)
    }
}

/// What the data of a message must be.
pub(crate) const SENDABLE: &str = "str, bytes-like, a dict or a list";

/// The content of a message: text or bytes, borrowed if possible.
pub(crate) enum Data<'py> {
    Text(Bound<'py, PyString>),
    Bytes(Bound<'py, PyBytes>),
}

impl<'py> FromPyObject<'_, 'py> for Data<'py> {
    type Error = PyErr;

    #[inline]
    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match Self::of(&value) {
            Some(data) => Ok(data),
            None => Self::of_buffer(&value, SENDABLE),
        }
    }
}

/// The same, where a dict or list cannot be sent.
pub(crate) struct PlainData<'py>(pub(crate) Data<'py>);

impl<'py> FromPyObject<'_, 'py> for PlainData<'py> {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(match Data::of(&value) {
            Some(data) => data,
            None => Data::of_buffer(&value, "str or bytes-like")?,
        }))
    }
}

impl<'py> Data<'py> {
    /// A `str` or `bytes`, which need no conversion.
    #[inline]
    pub(crate) fn of(value: &Bound<'py, PyAny>) -> Option<Self> {
        if let Ok(text) = value.cast::<PyString>() {
            return Some(Self::Text(text.clone()));
        }
        value.cast::<PyBytes>().ok().map(|bytes| Self::Bytes(bytes.clone()))
    }

    /// A copy of what any other bytes-like object holds. `wanted` is what the argument must be.
    pub(crate) fn of_buffer(value: &Bound<'py, PyAny>, wanted: &str) -> PyResult<Self> {
        let Ok(view) = PyMemoryView::from(value) else {
            return Err(wrong_type("data", wanted, value.as_borrowed()));
        };
        let bytes = value.py().get_type::<PyBytes>().call1((view,))?;
        Ok(Self::Bytes(bytes.cast_into()?))
    }
}

impl Data<'_> {
    /// The payload as it is sent.
    ///
    /// # Errors
    /// ValueError if a `str` contains lone surrogates, which UTF-8 cannot express.
    #[inline]
    pub(crate) fn payload(&self) -> PyResult<&[u8]> {
        match self {
            Self::Text(text) => Ok(text.to_str().map_err(|_| not_expressible("data"))?.as_bytes()),
            Self::Bytes(bytes) => Ok(bytes.as_bytes()),
        }
    }

    /// The format and the payload of a message for a worker.
    ///
    /// # Errors
    /// ValueError if it is too long.
    pub(crate) fn piped(&self) -> PyResult<(Format, &[u8])> {
        let format = match self {
            Self::Text(_) => Format::Text,
            Self::Bytes(_) => Format::Binary,
        };
        let payload = self.payload()?;
        if payload.len() > MAX_PIPED {
            let message = format!("a message of {} bytes is larger than the maximum, {MAX_PIPED}", payload.len());
            return Err(PyValueError::new_err(message));
        }
        Ok((format, payload))
    }

    /// The opcode and the payload of a message.
    ///
    /// # Errors
    /// ValueError if the opcode is not that of a data frame, the payload is longer than `limit`, or a whole text
    /// message is not UTF-8.
    #[inline]
    pub(crate) fn message(&self, opcode: Option<i64>, fin: Fin, limit: usize) -> PyResult<(DataOpcode, &[u8])> {
        let opcode = match (opcode, self) {
            (None, Self::Text(_)) | (Some(1), _) => DataOpcode::Text,
            (None, Self::Bytes(_)) | (Some(2), _) => DataOpcode::Binary,
            (Some(0), _) => DataOpcode::Continuation,
            (Some(other), _) => {
                let message = format!("opcode must be 0 (continuation), 1 (text) or 2 (binary), not {other}");
                return Err(PyValueError::new_err(message));
            }
        };
        let payload = self.payload()?;
        if payload.len() > limit {
            let length = payload.len();
            let message = format!("a message of {length} bytes is larger than send_queue_size, which is {limit}");
            return Err(PyValueError::new_err(message));
        }
        if opcode == DataOpcode::Text && fin == Fin::Last && matches!(self, Self::Bytes(_)) {
            std::str::from_utf8(payload).map_err(|error| not_utf8(&error.to_string()))?;
        }
        Ok((opcode, payload))
    }
}

impl Data<'_> {
    /// The message for the subscribers of a topic. `is_json`: whether it was made from a dict or list.
    ///
    /// # Errors
    /// ValueError if the payload is longer than `limit`.
    pub(crate) fn publication<'a>(
        &'a self,
        is_json: bool,
        key: Option<&'a str>,
        limit: usize,
    ) -> PyResult<Publication<'a>> {
        let (_, payload) = self.message(None, Fin::Last, limit)?;
        let content = match self {
            Self::Bytes(_) => Content::Binary,
            Self::Text(_) if is_json => Content::Json,
            Self::Text(_) => Content::Text,
        };
        Ok(Publication { content, payload, key })
    }
}

/// Checks that a message can be put in the envelope of a topic.
///
/// # Errors
/// TypeError if it is bytes; ValueError if it is longer than `limit` in its envelope.
pub(crate) fn check_enveloped(topic: &str, publication: &Publication<'_>, limit: usize) -> PyResult<()> {
    if publication.content == Content::Binary {
        return Err(needs_text(topic));
    }
    let length = enveloped_len(topic, publication);
    if length > limit {
        let message =
            format!("a message of {length} bytes in its envelope is larger than send_queue_size, which is {limit}");
        return Err(PyValueError::new_err(message));
    }
    Ok(())
}

/// Says that bytes cannot be published to a topic with envelopes.
fn needs_text(topic: &str) -> PyErr {
    PyTypeError::new_err(format!("data must be str, a dict or a list, because the topic {topic:?} has envelopes"))
}

pub(crate) fn not_utf8(detail: &str) -> PyErr {
    PyValueError::new_err(format!("a text message must be UTF-8 (RFC 6455 §5.6): {detail}"))
}

/// Checks a ping's payload.
pub(crate) fn check_ping(payload: &[u8]) -> PyResult<()> {
    if payload.len() > MAX_CONTROL_PAYLOAD {
        let length = payload.len();
        return Err(PyValueError::new_err(format!("a ping carries at most 125 bytes (RFC 6455 §5.5), not {length}")));
    }
    Ok(())
}

/// Checks a close code and its reason.
pub(crate) fn check_close(code: i64, reason: &str) -> PyResult<u16> {
    let sendable = u16::try_from(code).ok().filter(|code| may_be_sent(*code));
    let Some(code) = sendable else {
        return Err(PyValueError::new_err(wrong_code(&code.to_string())));
    };
    if reason.len() > MAX_CLOSE_REASON {
        let length = reason.len();
        let message = format!("reason must have at most 123 bytes of UTF-8 (RFC 6455 §5.5), not {length}");
        return Err(PyValueError::new_err(message));
    }
    Ok(code)
}

/// Where a client says that it is: the text of an epoch, and an offset. A position that cannot be one becomes one that no
/// topic has.
#[derive(FromPyObject)]
pub(crate) struct PositionArgument<'py>(Bound<'py, PyAny>, Bound<'py, PyAny>);

impl PositionArgument<'_> {
    pub(crate) fn position(&self) -> Position {
        let epoch = self.0.extract::<&str>().ok().and_then(Position::parse_epoch);
        match (epoch, self.1.extract::<u64>()) {
            (Some(epoch), Ok(offset)) => Position { epoch, offset },
            _ => Position::default(),
        }
    }
}

/// The ids to which a fan-out is not delivered.
pub(crate) fn excluded(ids: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Fd>> {
    let Some(ids) = ids else {
        return Ok(Vec::new());
    };
    let wrong = |value: &Bound<'_, PyAny>, wanted| wrong_type("exclude", wanted, value.as_borrowed());
    let py = ids.py();
    let given = ids.try_iter().map_err(|error| {
        if error.is_instance_of::<PyTypeError>(py) { wrong(ids, "an iterable of ids (int)") } else { error }
    })?;
    given
        .map(|id| {
            let id = id?;
            id.extract::<FdArgument>().map(|fd| fd.0).map_err(|_| wrong(&id, "ids (int)"))
        })
        .collect()
}
