//! The server's half of the opening handshake (RFC 6455 §4.2).

use data_encoding::BASE64;
use sha1::{Digest, Sha1};

use crate::deflate::{self, Parameters};
use crate::http::{
    BodyLength, Head, Rejection, body_length, list_elements, valid_header_name, write_headers, write_line,
};

/// Appended to the key, so that only a server that speaks WebSocket gives the right answer (RFC 6455 §1.3).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The only version.
const VERSION: &[u8] = b"13";

/// More subprotocols than this are refused: each is compared with the previous ones.
pub const MAX_SUBPROTOCOLS: usize = 64;

/// Headers of the 101 that this module writes itself, or that do not belong in one.
const RESERVED_HEADERS: [&str; 8] = [
    "connection",
    "content-length",
    "date",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "transfer-encoding",
    "upgrade",
];

/// A handshake that can be accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upgrade {
    /// The answer to the client's key: the value of Sec-WebSocket-Accept.
    pub accept: [u8; 28],
    /// The subprotocols that the client offers, in its order of preference.
    pub protocols: Vec<String>,
    /// The agreed compression, with the value for the response's Sec-WebSocket-Extensions.
    pub compression: Option<(Parameters, String)>,
}

/// How offers to compress messages are treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offers {
    /// The first acceptable one is accepted.
    Accepted,
    /// None is accepted.
    Declined,
}

/// Checks a request that asks for a WebSocket (RFC 6455 §4.2.1).
///
/// # Errors
///
/// 405 for a method other than GET. 426 for a version other than 13. 400 for HTTP/1.0 (which has no
/// Upgrade), a body, Upgrade without `websocket`, Connection without `upgrade`, anything but one
/// Sec-WebSocket-Key of 16 bytes in base64, a malformed or repeated subprotocol, more than
/// [`MAX_SUBPROTOCOLS`] of them, malformed extensions.
pub fn check(head: &Head, compression: Offers) -> Result<Upgrade, Rejection> {
    if head.method() != "GET" {
        return Err(Rejection::new(405, "a WebSocket handshake is a GET request", &[("Allow", "GET")]));
    }
    if head.minor_version() != 1 {
        return Err(Rejection::bad_request("a WebSocket handshake needs HTTP/1.1"));
    }
    if !head.has_token("upgrade", "websocket") {
        return Err(Rejection::bad_request("the Upgrade header does not name websocket"));
    }
    if !head.has_token("connection", "upgrade") {
        return Err(Rejection::bad_request("the Connection header does not name upgrade"));
    }
    if !matches!(body_length(head)?, BodyLength::None | BodyLength::Length(0)) {
        return Err(Rejection::bad_request("a WebSocket handshake has no body"));
    }
    if only(head.get_all("sec-websocket-version")) != Some(VERSION) {
        return Err(Rejection::new(
            426,
            "only version 13 of WebSocket is supported",
            &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")],
        ));
    }
    let key = only(head.get_all("sec-websocket-key"))
        .filter(|key| is_key(key))
        .ok_or(Rejection::bad_request("there must be one Sec-WebSocket-Key, 16 bytes in base64"))?;
    Ok(Upgrade { accept: accept(key), protocols: offered_subprotocols(head)?, compression: agreed(head, compression)? })
}

/// The only element of `values`, if there is exactly one.
fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    values.next().filter(|_| values.next().is_none())
}

/// Whether this is base64 of 16 bytes: 22 characters, the last of which carries only two bits, and the padding.
///
/// The unused bits of that last character may be set, as they are in the RFC's own example (§4.1).
fn is_key(key: &[u8]) -> bool {
    match key.strip_suffix(b"==") {
        Some(digits) => {
            digits.len() == 22 && digits.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        }
        None => false,
    }
}

fn accept(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize();
    let mut accept = [0; 28];
    BASE64.encode_mut(&digest, &mut accept);
    accept
}

/// The tokens of all Sec-WebSocket-Protocol headers (RFC 6455 §11.3.4).
fn offered_subprotocols(head: &Head) -> Result<Vec<String>, Rejection> {
    let mut offered: Vec<String> = Vec::new();
    for element in head.get_all("sec-websocket-protocol").flat_map(list_elements) {
        let name = str::from_utf8(element)
            .ok()
            .filter(|_| valid_header_name(element))
            .ok_or(Rejection::bad_request("invalid Sec-WebSocket-Protocol"))?;
        if offered.len() == MAX_SUBPROTOCOLS {
            return Err(Rejection::bad_request("too many subprotocols"));
        }
        if offered.iter().any(|earlier| earlier == name) {
            return Err(Rejection::bad_request("a subprotocol is offered twice"));
        }
        offered.push(name.to_owned());
    }
    Ok(offered)
}

/// The answer to the offers of compression. They are checked even if we would not compress (RFC 6455 §9.1).
fn agreed(head: &Head, compression: Offers) -> Result<Option<(Parameters, String)>, Rejection> {
    let malformed = Rejection::bad_request("invalid Sec-WebSocket-Extensions");
    let headers: Vec<&str> = head
        .get_all("sec-websocket-extensions")
        .map(str::from_utf8)
        .collect::<Result<_, _>>()
        .map_err(|_| malformed)?;
    let agreed = deflate::negotiate(headers.into_iter()).map_err(|_| malformed)?;
    Ok(agreed.filter(|_| compression == Offers::Accepted))
}

/// The first of `ours` that was offered: the server's order of preference decides.
pub fn choose_subprotocol<'a>(ours: &'a [String], offered: &[String]) -> Option<&'a str> {
    ours.iter().find(|name| offered.contains(name)).map(String::as_str)
}

/// Appends the 101 response that opens the connection (RFC 6455 §4.2.2).
///
/// `extra` headers must have passed [`crate::http::valid_header_name`] and [`crate::http::valid_header_value`]; those
/// that the handshake itself determines are left out. `date` is the Date header's value (RFC 9110 §5.6.7).
pub fn write_accept<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    upgrade: &Upgrade,
    subprotocol: Option<&str>,
    extra: &[(N, V)],
    date: &str,
) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    write_line(out, &[b"Sec-WebSocket-Accept: ", &upgrade.accept]);
    if let Some(subprotocol) = subprotocol {
        write_line(out, &[b"Sec-WebSocket-Protocol: ", subprotocol.as_bytes()]);
    }
    if let Some((_, extensions)) = &upgrade.compression {
        write_line(out, &[b"Sec-WebSocket-Extensions: ", extensions.as_bytes()]);
    }
    write_line(out, &[b"Date: ", date.as_bytes()]);
    write_headers(out, extra, &RESERVED_HEADERS);
    write_line(out, &[]);
}
