//! PROXY headers: what is valid, and that nothing else is taken for one.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use wire::proxy::{Header, Malformed, parse, write};

fn client(text: &str) -> Option<SocketAddr> {
    Some(text.parse().expect("an address"))
}

/// A header of version 2 with these bytes after the signature.
fn v2(rest: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n", rest].concat()
}

#[test]
fn version_1_tells_the_client() {
    for (line, told) in [
        ("PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n", client("192.0.2.7:4711")),
        ("PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", client("[2001:db8::7]:4711")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", client("255.255.255.255:65535")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    ] {
        let header = Header { length: line.len(), client: told };
        assert_eq!(parse(line.as_bytes()), Ok(Some(header)), "{line}");
        assert_eq!(parse(format!("{line}GET / HTTP/1.1\r\n").as_bytes()), Ok(Some(header)), "{line}");
    }
}

#[test]
fn other_lines_are_malformed() {
    for (line, why) in [
        ("GET / HTTP/1.1\r\n", Malformed::Missing),
        ("POST / HTTP/1.1\r\n", Malformed::Missing),
        ("PROXY\r\n", Malformed::Missing),
        ("proxy TCP4 192.0.2.7 198.51.100.1 4711 443\r\n", Malformed::Case),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n", Malformed::LineEnd),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n", Malformed::Fields),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 \r\n", Malformed::Fields),
        ("PROXY TCP4  192.0.2.7 198.51.100.1 4711 443\r\n", Malformed::Fields),
        ("PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n", Malformed::Address),
        ("PROXY TCP6 192.0.2.7 198.51.100.1 4711 443\r\n", Malformed::Address),
        ("PROXY TCP4 192.0.2.07 198.51.100.1 4711 443\r\n", Malformed::Address),
        ("PROXY TCP4 192.0.2 198.51.100.1 4711 443\r\n", Malformed::Address),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n", Malformed::Port),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 +4711 443\r\n", Malformed::Port),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n", Malformed::Port),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 4711 -1\r\n", Malformed::Port),
        ("PROXY UDP4 192.0.2.7 198.51.100.1 4711 443\r\n", Malformed::Protocol),
        ("PROXY UNKNOWNS\r\n", Malformed::Protocol),
        ("PROXY \r\n", Malformed::Protocol),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(why), "{line}");
    }
    assert_eq!(parse(b"PROXY TCP4 \xff\r\n"), Err(Malformed::Fields));
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert_eq!(parse(&endless.as_bytes()[..106]), Ok(None));
    assert_eq!(parse(&endless.as_bytes()[..107]), Err(Malformed::TooLong));
}

#[test]
fn version_2_tells_the_client() {
    let ipv4 = v2(&[0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb]);
    assert_eq!(parse(&ipv4), Ok(Some(Header { length: 28, client: client("192.0.2.7:4711") })));
    // With a fact of 4 bytes that is not used.
    let more = v2(&[0x21, 0x11, 0, 16, 192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb, 4, 0, 1, 0]);
    assert_eq!(parse(&more), Ok(Some(Header { length: 32, client: client("192.0.2.7:4711") })));
    let local = Header { length: 16, client: None };
    assert_eq!(parse(&v2(&[0x20, 0, 0, 0])), Ok(Some(local)));
    assert_eq!(parse(&v2(&[0x20, 0x99, 0, 0])), Ok(Some(local)));
    assert_eq!(parse(&v2(&[0x21, 0, 0, 0])), Ok(Some(local)));
    let unix = v2(&[&[0x21, 0x31, 0, 216], &[b'/'; 216][..]].concat());
    assert_eq!(parse(&unix), Ok(Some(Header { length: 232, client: None })));
}

#[test]
fn other_headers_of_version_2_are_malformed() {
    for (rest, why) in [
        (&[0x11, 0x11, 0, 12][..], Malformed::Version),
        (&[0x31, 0x11, 0, 12], Malformed::Version),
        (&[0x22, 0x11, 0, 12], Malformed::Command),
        (&[0x21, 0x11, 0, 11], Malformed::TooShort),
        (&[0x21, 0x21, 0, 35], Malformed::TooShort),
        (&[0x21, 0x31, 0, 215], Malformed::TooShort),
        // Datagrams.
        (&[0x21, 0x12, 0, 12], Malformed::Family),
        (&[0x21, 0x22, 0, 36], Malformed::Family),
        (&[0x21, 0x41, 0, 12], Malformed::Family),
    ] {
        assert_eq!(parse(&v2(rest)), Err(why), "{rest:?}");
    }
    assert_eq!(parse(&v2(&[0x11])), Err(Malformed::Version));
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_arrives(client in any::<Option<(IpAddr, u16)>>(), after in any::<Vec<u8>>()) {
        let client = client.map(|(address, port)| SocketAddr::new(address, port));
        let mut bytes = Vec::new();
        write(client, &mut bytes);
        let length = bytes.len();
        bytes.extend(after);
        for end in 0..length {
            prop_assert_eq!(parse(&bytes[..end]), Ok(None));
        }
        prop_assert_eq!(parse(&bytes), Ok(Some(Header { length, client })));
    }

    #[test]
    fn version_1_is_read_however_it_arrives(source: SocketAddr, port: u16, after in any::<Vec<u8>>()) {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let address = source.ip();
        let line = format!("PROXY {family} {address} {address} {} {port}\r\n", source.port());
        let mut bytes = line.into_bytes();
        let length = bytes.len();
        bytes.extend(after);
        for end in 0..length {
            prop_assert_eq!(parse(&bytes[..end]), Ok(None));
        }
        let client = Some(SocketAddr::new(address, source.port()));
        prop_assert_eq!(parse(&bytes), Ok(Some(Header { length, client })));
    }

    #[test]
    fn more_input_never_changes_a_decision(input in prop_oneof![
        any::<Vec<u8>>(),
        any::<Vec<u8>>().prop_map(|rest| v2(&rest)),
        any::<Vec<u8>>().prop_map(|rest| [b"PROXY ", &rest[..]].concat()),
        "[PROXYproxy]{0,8} ?".prop_map(String::into_bytes),
        "PROXY (TCP4|TCP6|UNKNOWN)( [0-9.:a-f]{0,12}){0,5}\r\n".prop_map(String::into_bytes),
    ]) {
        let mut decision = Ok(None);
        for end in 0..=input.len() {
            let now = parse(&input[..end]);
            if decision != Ok(None) {
                prop_assert_eq!(now, decision);
            }
            if let Ok(Some(header)) = now {
                prop_assert!(header.length <= end);
            }
            decision = now;
        }
    }
}
