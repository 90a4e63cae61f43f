//! HTTP/1.1 as a server needs it before the upgrade: a request's head in, a whole response out (RFC 9112).
//!
//! The parsing is done by httparse. Whatever it accepts but a proxy in front could read differently than we do is
//! refused here: if two readers disagree about a request, another one can be smuggled in (RFC 9112 §11.2).

use std::net::Ipv6Addr;
use std::ops::Range;

use httparse::Status;

/// More headers than this are refused with 431.
pub const MAX_HEADERS: usize = 128;

/// A request that has to be answered with an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// The status of the response.
    pub status: u16,
    /// What was wrong, worded for the response's body.
    pub reason: &'static str,
    /// Headers that belong to this status, such as the versions we speak.
    pub headers: &'static [(&'static str, &'static str)],
}

impl Rejection {
    pub(crate) const fn new(
        status: u16,
        reason: &'static str,
        headers: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { status, reason, headers }
    }

    pub(crate) const fn bad_request(reason: &'static str) -> Self {
        Self::new(400, reason, &[])
    }
}

/// Finds the end of a request's head: the index after its empty line, or `None` if more bytes are needed.
///
/// `scanned` starts at 0 and records how far the search got, so that a head arriving byte by byte costs linear time in
/// total. A line may end in LF alone here: such a head is found, and then refused by [`Head::parse`], rather than
/// waited for.
pub fn find_head_end(bytes: &[u8], scanned: &mut usize) -> Option<usize> {
    let start = *scanned;
    *scanned = bytes.len();
    (start..bytes.len())
        .find(|&index| bytes[index] == b'\n' && (bytes[..index].ends_with(b"\n") || bytes[..index].ends_with(b"\n\r")))
        .map(|line_feed| line_feed + 1)
}

/// A request's head. It owns its data, so that it can outlive the buffer it arrived in.
#[derive(Clone, Debug)]
pub struct Head {
    method: String,
    target: String,
    minor_version: u8,
    /// The headers' names, one after another.
    names: String,
    /// The headers' values, one after another.
    values: Vec<u8>,
    headers: Vec<(Range<usize>, Range<usize>)>,
}

impl Head {
    /// Parses a whole head, including the empty line at its end.
    ///
    /// # Errors
    ///
    /// 400 for a head that breaks the grammar, even where RFC 9112 would let a server be lenient: line ends other than
    /// CRLF, empty lines at the start, folded headers (§5.2), space before a colon (§5.1), control bytes, a target that
    /// is neither a path nor an absolute URI (nor `*` for OPTIONS, §3.2), a missing, repeated or invalid Host (§3.2).
    /// 431 for more than [`MAX_HEADERS`] headers. 501 for CONNECT, whose target is no resource of ours (RFC 9110
    /// §9.3.6). 505 for a version other than HTTP/1.0 and HTTP/1.1.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        check_lines(bytes)?;
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => {
                return Err(Rejection::bad_request("the request head must contain one empty line, at its end"));
            }
            Err(error) => return Err(rejection(error, bytes)),
        }
        let mut head = Self {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            minor_version: request.version.unwrap_or_default(),
            names: String::new(),
            values: Vec::with_capacity(bytes.len()),
            headers: Vec::with_capacity(request.headers.len()),
        };
        for header in request.headers.iter() {
            let (name_start, value_start) = (head.names.len(), head.values.len());
            head.names.push_str(header.name);
            head.values.extend_from_slice(header.value);
            head.headers.push((name_start..head.names.len(), value_start..head.values.len()));
        }
        head.check_target()?;
        head.check_host()?;
        head.take_host_of_target();
        Ok(head)
    }

    /// The memory it holds, in bytes.
    pub fn size(&self) -> usize {
        let text = self.method.capacity() + self.target.capacity() + self.names.capacity() + self.values.capacity();
        text + self.headers.capacity() * size_of::<(Range<usize>, Range<usize>)>()
    }

    /// The method, as sent.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The request's target, as sent.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The target's path and query, still percent-encoded; the query is empty if there is none.
    pub fn path_and_query(&self) -> (&str, &str) {
        let target = absolute_form(&self.target).map_or(self.target.as_str(), |(_, target)| target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        (if path.is_empty() { "/" } else { path }, query)
    }

    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub fn minor_version(&self) -> u8 {
        self.minor_version
    }

    /// Names and values of all headers, as sent, except for the Host, which is that of an absolute target if there is
    /// one. Bytes of a value above 127 have no agreed meaning (RFC 9110 §5.5).
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (&self.names[name.clone()], &self.values[value.clone()]))
    }

    /// The values of all headers called `name`, ignoring case.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of the first header called `name`, ignoring case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Whether `token` is in the comma-separated list formed by all headers called `name`, ignoring case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.get_all(name).flat_map(list_elements).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The host and port that the request is for: those of an absolute target, or else of the Host header (RFC 9112
    /// §3.2.2).
    pub fn authority(&self) -> Option<&[u8]> {
        absolute_form(&self.target).map(|(authority, _)| authority.as_bytes()).or_else(|| self.get("host"))
    }

    /// Whether the client wants further requests on this connection (RFC 9112 §9.3).
    pub fn keep_alive(&self) -> bool {
        !self.has_token("connection", "close")
            && (self.minor_version == 1 || self.has_token("connection", "keep-alive"))
    }

    /// Whether the client waits for a 100 before it sends the body. HTTP/1.0 has no expectations (RFC 9110 §10.1.1).
    ///
    /// # Errors
    ///
    /// 417 for any other expectation.
    pub fn expects_continue(&self) -> Result<bool, Rejection> {
        let mut expectations = self.get_all("expect").flat_map(list_elements).peekable();
        if self.minor_version == 0 || expectations.peek().is_none() {
            return Ok(false);
        }
        if expectations.all(|expectation| expectation.eq_ignore_ascii_case(b"100-continue")) {
            Ok(true)
        } else {
            Err(Rejection::new(417, "only the expectation 100-continue is supported", &[]))
        }
    }

    /// Whether this is meant to be a WebSocket handshake, even a faulty one.
    pub fn wants_upgrade(&self) -> bool {
        self.has_token("upgrade", "websocket") || self.get("sec-websocket-key").is_some()
    }

    /// RFC 9112 §3.2.2: with an absolute target, the Host header is ignored, and replaced by the target's host.
    fn take_host_of_target(&mut self) {
        let Some((authority, _)) = absolute_form(&self.target) else { return };
        for (name, value) in &mut self.headers {
            if self.names[name.clone()].eq_ignore_ascii_case("host") {
                *value = self.values.len()..self.values.len() + authority.len();
                self.values.extend_from_slice(authority.as_bytes());
            }
        }
    }

    fn check_target(&self) -> Result<(), Rejection> {
        if self.method == "CONNECT" {
            return Err(Rejection::new(501, "CONNECT is not supported", &[]));
        }
        let target = self.target.as_str();
        let known_form = target.starts_with('/')
            || absolute_form(target).is_some_and(|(authority, _)| is_authority(authority.as_bytes()))
            || (target == "*" && self.method == "OPTIONS");
        if known_form && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            Ok(())
        } else {
            Err(Rejection::bad_request("the request's target is neither a path nor an absolute URI"))
        }
    }

    fn check_host(&self) -> Result<(), Rejection> {
        let mut hosts = self.get_all("host");
        match (hosts.next(), hosts.next()) {
            (None, _) if self.minor_version == 0 => Ok(()),
            (None, _) => Err(Rejection::bad_request("no Host header")),
            (Some(host), None) if host.is_empty() || is_authority(host) => Ok(()),
            (Some(_), None) => Err(Rejection::bad_request("invalid Host header")),
            (Some(_), Some(_)) => Err(Rejection::bad_request("more than one Host header")),
        }
    }
}

/// Refuses what httparse would skip or leave to us: line ends, folded lines, control bytes.
fn check_lines(bytes: &[u8]) -> Result<(), Rejection> {
    let mut before = b'\n';
    for &byte in bytes {
        match (before, byte) {
            (b'\r', b'\n') => {}
            (b'\r', _) | (_, b'\n') => {
                return Err(Rejection::bad_request("a line does not end in CRLF"));
            }
            (b'\n', b' ' | b'\t') => {
                return Err(Rejection::bad_request("a line begins with white space"));
            }
            (_, b'\t' | b'\r') => {}
            (_, byte) if byte.is_ascii_control() => {
                return Err(Rejection::bad_request("a control byte in the head"));
            }
            _ => {}
        }
        before = byte;
    }
    if bytes.starts_with(b"\r") { Err(Rejection::bad_request("an empty line before the request")) } else { Ok(()) }
}

fn rejection(error: httparse::Error, bytes: &[u8]) -> Rejection {
    match error {
        httparse::Error::TooManyHeaders => Rejection::new(431, "too many headers", &[]),
        httparse::Error::Version if names_http_version(bytes) => {
            Rejection::new(505, "only HTTP/1.1 and HTTP/1.0 are supported", &[])
        }
        httparse::Error::HeaderName => Rejection::bad_request("invalid header name"),
        httparse::Error::HeaderValue => Rejection::bad_request("invalid header value"),
        _ => Rejection::bad_request("invalid request line"),
    }
}

/// Whether the first line has a version of HTTP (RFC 9112 §2.3) after method and target.
fn names_http_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let version = line.splitn(3, |&byte| byte == b' ').nth(2).unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// The authority and the remainder of a target in absolute form (RFC 9112 §3.2.2).
fn absolute_form(target: &str) -> Option<(&str, &str)> {
    if target.starts_with('/') {
        return None;
    }
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https", "ws", "wss"].iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
        return None;
    }
    Some(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

fn is_authority(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|authority| split_authority(authority).is_some())
}

/// Host and port of `host[:port]` (RFC 3986 §3.2, without user information); `None` if it does not have that form.
pub(crate) fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let host_end = match authority.strip_prefix('[') {
        Some(literal) => literal.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_end);
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    is_host(host).then_some((host, port))
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(literal) => literal.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte))
        }
    }
}

/// The elements of one header's comma-separated list, without the empty ones (RFC 9110 §5.6.1).
pub(crate) fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Whether a byte may appear in a token (RFC 9110 §5.6.2).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[byte as usize]
}

/// By byte: looking it up is cheaper than comparing.
const TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte as usize] = matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
            || byte.is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

/// How a request's body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// This many bytes.
    Length(u64),
    /// In chunks, ending with an empty one (RFC 9112 §7.1).
    Chunked,
}

/// How the body after `head` is delimited (RFC 9112 §6.3).
///
/// # Errors
///
/// 400 where readers could disagree about the end: Content-Length with Transfer-Encoding, repeated, or not a plain
/// number; a Transfer-Encoding in HTTP/1.0, or one in which the only chunked is not last; one with empty elements. 501
/// for codings other than chunked.
pub fn body_length(head: &Head) -> Result<BodyLength, Rejection> {
    let mut lengths = head.get_all("content-length");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(Rejection::bad_request("more than one Content-Length"));
    }
    if head.get("transfer-encoding").is_some() {
        if length.is_some() {
            return Err(Rejection::bad_request("both Content-Length and Transfer-Encoding"));
        }
        return check_transfer_encoding(head).map(|()| BodyLength::Chunked);
    }
    match length {
        None => Ok(BodyLength::None),
        Some(digits) => {
            parse_length(digits).map(BodyLength::Length).ok_or(Rejection::bad_request("invalid Content-Length"))
        }
    }
}

fn check_transfer_encoding(head: &Head) -> Result<(), Rejection> {
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let codings: Vec<&[u8]> = head.get_all("transfer-encoding").flat_map(list_elements).collect();
    if head.minor_version == 0 {
        Err(Rejection::bad_request("Transfer-Encoding in HTTP/1.0"))
    } else if !codings.last().is_some_and(is_chunked) || codings.iter().filter(|coding| is_chunked(coding)).count() > 1
    {
        Err(Rejection::bad_request("Transfer-Encoding must name chunked once, at its end"))
    } else if codings.len() > 1 {
        Err(Rejection::new(501, "only the transfer coding chunked is supported", &[]))
    } else if !head.get_all("transfer-encoding").all(|value| is_chunked(&value)) {
        Err(Rejection::bad_request("Transfer-Encoding has an empty element"))
    } else {
        Ok(())
    }
}

/// Parses digits and nothing else: `parse` alone would accept a sign.
fn parse_length(digits: &[u8]) -> Option<u64> {
    let all_digits = digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits).ok().filter(|_| all_digits)?.parse().ok()
}

/// The usual phrase for a status (RFC 9110 §15); empty if there is none.
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a Teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        511 => "Network Authentication Required",
        _ => "",
    }
}

/// How a request came to this server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// In the clear. If a proxy has terminated TLS before this server, the client may have used either scheme.
    Http,
    /// Over TLS that ends here.
    Https,
}

/// Headers that determine where a response ends and what happens to the connection. Only this module writes them.
const FRAMING_HEADERS: [&str; 4] = ["connection", "content-length", "date", "transfer-encoding"];

/// What a trailer may not be: framing, routing, authentication, and what describes the body (RFC 9110 §6.5.1).
const NO_TRAILERS: [&str; 16] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "host",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
];

/// Tells a waiting client to continue with the body (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Whether a response with this status has no body, whatever its headers say (RFC 9112 §6.3).
pub const fn is_bodiless(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

/// Whether the connection continues after a response (RFC 9112 §9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// The next request may follow.
    KeepAlive,
    /// The connection is closed.
    Close,
}

/// The body of a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// These bytes.
    Sent(&'a [u8]),
    /// Only its length, in bytes: the answer to HEAD (RFC 9110 §9.3.2).
    Announced(usize),
}

/// How the end of a response's body is found (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// The body has this many bytes.
    Length(u64),
    /// It is sent in chunks ([`chunk_around`]), and ends with [`write_last_chunk`]. Only for clients that speak HTTP/1.1.
    Chunked,
    /// It ends with the connection, so the connection must not be kept.
    UntilClose,
}

/// Whether an application's headers say that the connection ends after the response (RFC 9112 §9.6).
pub fn asks_to_close<N: AsRef<[u8]>, V: AsRef<[u8]>>(headers: &[(N, V)]) -> bool {
    let connection = headers.iter().filter(|(name, _)| name.as_ref().eq_ignore_ascii_case(b"connection"));
    let mut options = connection.flat_map(|(_, value)| list_elements(value.as_ref()));
    options.any(|option| option.eq_ignore_ascii_case(b"close"))
}

/// Appends a whole response: [`write_response_head`], and the body; a status of 1xx, 204 or 304 has none (RFC 9112
/// §6.3).
pub fn write_response<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    status: u16,
    headers: &[(N, V)],
    body: Body<'_>,
    persistence: Persistence,
    date: &str,
) {
    let length = match body {
        Body::Sent(content) => content.len(),
        Body::Announced(length) => length,
    };
    write_response_head(out, status, headers, Framing::Length(length as u64), persistence, date);
    if let Body::Sent(content) = body
        && !is_bodiless(status)
    {
        out.extend_from_slice(content);
    }
}

/// Appends the head of a response. A status of 1xx, 204 or 304 has no body, whatever `framing` says.
///
/// `headers` must have passed [`valid_header_name`] and [`valid_header_value`]; Connection, Content-Length, Date and
/// Transfer-Encoding among them are left out in favour of our own. `date` is the Date header's value (RFC 9110 §5.6.7).
pub fn write_response_head<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    status: u16,
    headers: &[(N, V)],
    framing: Framing,
    persistence: Persistence,
    date: &str,
) {
    write_line(out, &[b"HTTP/1.1 ", status.to_string().as_bytes(), b" ", reason_phrase(status).as_bytes()]);
    write_headers(out, headers, &FRAMING_HEADERS);
    write_line(out, &[b"Date: ", date.as_bytes()]);
    match framing {
        _ if is_bodiless(status) => {}
        Framing::Length(length) => write_line(out, &[b"Content-Length: ", length.to_string().as_bytes()]),
        Framing::Chunked => write_line(out, &[b"Transfer-Encoding: chunked"]),
        Framing::UntilClose => {}
    }
    // RFC 9110 §7.8: a sender of Upgrade also names it in Connection, and a 426 has to come with an Upgrade.
    let upgrade = headers.iter().any(|(name, _)| name.as_ref().eq_ignore_ascii_case(b"upgrade"));
    let persistence: &[u8] = match persistence {
        Persistence::KeepAlive => b"keep-alive",
        Persistence::Close => b"close",
    };
    write_line(out, &[b"Connection: ", if upgrade { b"upgrade, " } else { b"" }, persistence]);
    write_line(out, &[]);
}

/// Appends a 103 with these headers (RFC 8297), which must have passed [`valid_header_name`] and [`valid_header_value`].
/// The final response follows it.
pub fn write_early_hints<N: AsRef<[u8]>, V: AsRef<[u8]>>(out: &mut Vec<u8>, headers: &[(N, V)]) {
    write_line(out, &[b"HTTP/1.1 103 Early Hints"]);
    write_headers(out, headers, &FRAMING_HEADERS);
    write_line(out, &[]);
}

/// What goes before the bytes of a chunk of a body (RFC 9112 §7.1) of this length, and after them. A chunk may not be
/// empty: that would end the body.
pub fn chunk_around(length: usize) -> (String, &'static [u8]) {
    (format!("{length:x}\r\n"), b"\r\n")
}

/// Appends the end of a chunked body, with `trailers` (RFC 9112 §7.1.2). They must have passed [`valid_header_name`] and
/// [`valid_header_value`]; those that would change the framing are left out (RFC 9110 §6.5.1).
pub fn write_last_chunk<N: AsRef<[u8]>, V: AsRef<[u8]>>(out: &mut Vec<u8>, trailers: &[(N, V)]) {
    write_line(out, &[b"0"]);
    write_headers(out, trailers, &NO_TRAILERS);
    write_line(out, &[]);
}

/// Appends `headers`, except those whose names, in lower case, are in `reserved`.
pub(crate) fn write_headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(out: &mut Vec<u8>, headers: &[(N, V)], reserved: &[&str]) {
    for (name, value) in headers {
        if !reserved.iter().any(|reserved| name.as_ref().eq_ignore_ascii_case(reserved.as_bytes())) {
            write_line(out, &[name.as_ref(), b": ", value.as_ref()]);
        }
    }
}

pub(crate) fn write_line(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether `name` is a valid header name: a token (RFC 9110 §5.1).
pub fn valid_header_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `value` is a valid header value: no control bytes except the tab (RFC 9110 §5.5).
pub fn valid_header_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| byte == b'\t' || !byte.is_ascii_control())
}
