//! Patterns of request paths, such as `/chat/{room}`.
//!
//! A path is compared as applications see it: percent-decoded. So an encoded slash separates segments like a plain one,
//! and no parameter but the rest of a path can contain a slash.

use std::borrow::Cow;
use std::fmt;

use crate::http::Head;

/// The most digits of a number: those of the largest one in 64 bits.
const MAX_DIGITS: usize = 20;

/// The pattern of a path, by segments: `/chat/{room}`, `/users/{id:int}`, `/files/{name:path}`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    segments: Vec<Segment>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Segment {
    Literal(String),
    Parameter { name: String, kind: Kind },
}

/// What a parameter matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// One segment that is not empty.
    Text,
    /// One segment of ASCII digits, as a number below 2^64.
    Number,
    /// All remaining segments: at least one, which may be empty.
    Rest,
}

/// The value of a parameter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// One segment, or the rest of the path.
    Text(String),
    /// The number that a segment of digits means.
    Number(u64),
}

/// A text that is not a pattern; it says why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidPattern(String);

impl fmt::Display for InvalidPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for InvalidPattern {}

/// A percent-decoded path, split into segments.
#[derive(Debug)]
pub struct Path<'a> {
    decoded: Cow<'a, str>,
}

impl<'a> Path<'a> {
    /// The path of a request. `None` if no pattern may match it: it is not UTF-8; or a segment is `.` or `..`, which
    /// browsers resolve before they send a path, and proxies before they compare it with their own rules.
    pub fn of(head: &'a Head) -> Option<Self> {
        Self::decode(head.path_and_query().0)
    }

    /// Like [`Path::of`], for a path that is still percent-encoded.
    pub fn decode(encoded: &'a str) -> Option<Self> {
        let decoded = match encoded.contains('%') {
            false => Cow::Borrowed(encoded),
            true => Cow::Owned(String::from_utf8(percent_decoded(encoded)).ok()?),
        };
        let path = Self { decoded };
        (path.decoded.starts_with('/') && !path.segments().any(is_dots)).then_some(path)
    }

    fn segments(&self) -> impl Iterator<Item = &str> {
        self.decoded.split('/').skip(1)
    }
}

impl Pattern {
    /// Parses a pattern. Each segment is a text, or one parameter in braces, of which `{name:path}` must be the last.
    ///
    /// # Errors
    ///
    /// A text that does not begin with a slash, or that no path can match (an empty segment that is not the last one,
    /// `.`, `..`, `?`, `#`, `%` or a control character); braces that do not enclose a whole segment; an unknown kind, a
    /// parameter without a name, or one name twice.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = |problem: String| InvalidPattern(format!("the path {text:?} {problem}"));
        let Some(path) = text.strip_prefix('/') else { return Err(invalid("does not begin with /".to_owned())) };
        let mut segments: Vec<Segment> = Vec::new();
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let segment = Segment::parse(part).map_err(invalid)?;
            let is_last = parts.peek().is_none();
            match &segment {
                Segment::Literal(text) if text.is_empty() && !is_last => {
                    return Err(invalid("has an empty segment".to_owned()));
                }
                Segment::Parameter { name, kind: Kind::Rest } if !is_last => {
                    return Err(invalid(format!("goes on after {{{name}:path}}, which is the rest of a path")));
                }
                Segment::Parameter { name, .. } if segments.iter().any(|other| other.name() == Some(name)) => {
                    return Err(invalid(format!("has two parameters called {name:?}")));
                }
                _ => segments.push(segment),
            }
        }
        Ok(Self { segments })
    }

    /// Whether it matches a path.
    pub fn matches(&self, path: &Path<'_>) -> bool {
        let mut parts = path.segments();
        for segment in &self.segments {
            let Some(part) = parts.next() else { return false };
            if segment.kind() == Some(Kind::Rest) {
                return true;
            }
            if !segment.matches(part) {
                return false;
            }
        }
        parts.next().is_none()
    }

    /// Names and values of the parameters of a path that it matches, in order; empty for any other path.
    pub fn parameters(&self, path: &Path<'_>) -> Vec<(&str, Value)> {
        if !self.matches(path) {
            return Vec::new();
        }
        let mut parts = path.segments();
        let mut values = Vec::new();
        for segment in &self.segments {
            let part = parts.next().unwrap_or_default();
            let Segment::Parameter { name, kind } = segment else { continue };
            values.push(match kind {
                Kind::Text => (name.as_str(), Value::Text(part.to_owned())),
                Kind::Number => (name.as_str(), Value::Number(number(part).unwrap_or_default())),
                Kind::Rest => {
                    let rest = parts.by_ref().fold(part.to_owned(), |rest, part| rest + "/" + part);
                    (name.as_str(), Value::Text(rest))
                }
            });
        }
        values
    }

    /// Whether it matches every path that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        let mut others = other.segments.iter();
        for segment in &self.segments {
            let Some(other) = others.next() else { return false };
            if segment.kind() == Some(Kind::Rest) {
                return true;
            }
            if !segment.covers(other) {
                return false;
            }
        }
        others.next().is_none()
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains(['{', '}']) {
            let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
            let Some(inner) = inner.filter(|inner| !inner.contains(['{', '}'])) else {
                return Err("has braces that do not enclose a whole segment".to_owned());
            };
            let (name, kind) = match inner.split_once(':') {
                None => (inner, Kind::Text),
                Some((name, "int")) => (name, Kind::Number),
                Some((name, "path")) => (name, Kind::Rest),
                Some((_, kind)) => {
                    return Err(format!("has a parameter of the unknown kind {kind:?}; known kinds are int and path"));
                }
            };
            if !is_name(name) {
                return Err(format!("has a parameter whose name is not an identifier: {name:?}"));
            }
            return Ok(Self::Parameter { name: name.to_owned(), kind });
        }
        if is_dots(text) {
            return Err(format!("has the segment {text:?}, with which no request path is matched"));
        }
        if text.contains(['?', '#', '%']) || text.contains(char::is_control) {
            return Err("contains ?, #, % or a control character; it is compared with the decoded path, without query"
                .to_owned());
        }
        Ok(Self::Literal(text.to_owned()))
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Parameter { name, .. } => Some(name),
        }
    }

    fn kind(&self) -> Option<Kind> {
        match self {
            Self::Literal(_) => None,
            Self::Parameter { kind, .. } => Some(*kind),
        }
    }

    /// Whether it matches one segment of a path.
    fn matches(&self, part: &str) -> bool {
        match self {
            Self::Literal(text) => text == part,
            Self::Parameter { kind: Kind::Text, .. } => !part.is_empty(),
            Self::Parameter { kind: Kind::Number, .. } => number(part).is_some(),
            Self::Parameter { kind: Kind::Rest, .. } => true,
        }
    }

    /// Whether it matches every segment that `other`, which is in the same place of another pattern, matches.
    fn covers(&self, other: &Self) -> bool {
        match (self.kind(), other) {
            (_, Self::Literal(text)) => self.matches(text),
            (Some(Kind::Text), Self::Parameter { kind, .. }) => *kind != Kind::Rest,
            (Some(Kind::Number), Self::Parameter { kind, .. }) => *kind == Kind::Number,
            (Some(Kind::Rest), _) => true,
            (None, Self::Parameter { .. }) => false,
        }
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

/// The number that a segment of digits means, if it has at most 64 bits.
fn number(text: &str) -> Option<u64> {
    let is_short = (1..=MAX_DIGITS).contains(&text.len());
    (is_short && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// A path as people read it: percent-decoded, with U+FFFD for bytes that are not UTF-8.
pub fn shown(encoded: &str) -> String {
    String::from_utf8_lossy(&percent_decoded(encoded)).into_owned()
}

/// The percent-decoded path; bytes that are not UTF-8 become U+FFFD.
pub fn decoded(encoded: &str) -> Cow<'_, str> {
    match encoded.contains('%') {
        false => Cow::Borrowed(encoded),
        true => Cow::Owned(String::from_utf8_lossy(&percent_decoded(encoded)).into_owned()),
    }
}

/// The bytes that a percent-encoded text means. A percent sign without two hexadecimal digits stays.
fn percent_decoded(text: &str) -> Vec<u8> {
    let (bytes, mut decoded) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|&digit| char::from(digit).to_digit(16));
        match (byte, digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}
