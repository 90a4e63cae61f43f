//! A request's head: its end is found at the same place however it arrives, and nothing ambiguous is accepted.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use wire::host::HostPolicy;
use wire::http::{Head, MAX_HEADERS, Scheme, body_length, find_head_end, valid_header_name, valid_header_value};
use wire::origin::OriginPolicy;

/// Noise, or a request that is right except for some of its parts.
#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Noise(&'a [u8]),
    Request { target: Option<&'a str>, host: Option<&'a str>, lines: Vec<Line<'a>> },
}

#[derive(Arbitrary, Debug)]
enum Line<'a> {
    Origin(&'a str),
    ContentLength(&'a str),
    TransferEncoding(&'a str),
    Connection(&'a str),
    Any(&'a [u8]),
    AnyEnd(&'a [u8]),
}

impl Line<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Origin(value) => format!("Origin: {value}\r\n").into_bytes(),
            Self::ContentLength(value) => format!("Content-Length: {value}\r\n").into_bytes(),
            Self::TransferEncoding(value) => format!("Transfer-Encoding: {value}\r\n").into_bytes(),
            Self::Connection(value) => format!("Connection: {value}\r\n").into_bytes(),
            Self::Any(line) => [line, &b"\r\n"[..]].concat(),
            Self::AnyEnd(line) => line.to_vec(),
        }
    }
}

impl Input<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Noise(bytes) => bytes.to_vec(),
            Self::Request { target, host, lines } => {
                let (target, host) = (target.unwrap_or("/"), host.unwrap_or("a"));
                let mut bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
                bytes.extend(lines.iter().flat_map(Line::bytes));
                bytes.extend_from_slice(b"\r\n");
                bytes
            }
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let bytes = input.bytes();
    let at_once = find_head_end(&bytes, &mut 0);
    let mut scanned = 0;
    let by_byte = (0..=bytes.len()).find_map(|end| find_head_end(&bytes[..end], &mut scanned));
    assert_eq!(by_byte, at_once);

    let head = match Head::parse(&bytes[..at_once.unwrap_or(bytes.len())]) {
        Ok(head) => head,
        Err(rejection) => {
            assert!(matches!(rejection.status, 400 | 431 | 501 | 505), "{rejection:?}");
            return;
        }
    };
    assert!(at_once.is_some(), "a head without an end");
    assert!(valid_header_name(head.method().as_bytes()));
    assert!(head.target().bytes().all(|byte| byte.is_ascii_graphic()));
    let (path, _) = head.path_and_query();
    assert!(path.starts_with('/') || path == "*");
    assert!(head.headers().count() <= MAX_HEADERS);
    for (name, value) in head.headers() {
        assert!(valid_header_name(name.as_bytes()) && valid_header_value(value));
        assert_eq!(head.get_all(name).next(), head.get(name));
    }
    if let Err(rejection) = body_length(&head) {
        assert!(matches!(rejection.status, 400 | 501), "{rejection:?}");
    }
    head.keep_alive();
    if let Err(rejection) = head.expects_continue() {
        assert_eq!(rejection.status, 417, "{rejection:?}");
    }
    let allowed_hosts = HostPolicy::parse_list(&["a", "*.a", "[::1]:80"]).expect("hosts");
    for scheme in [Scheme::Http, Scheme::Https] {
        OriginPolicy::Same.allows_head(&head, scheme);
        allowed_hosts.allows_head(&head, scheme);
    }
});
