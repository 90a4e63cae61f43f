//! Request heads that are accepted, and those that are refused; responses.

use wire::http::{
    Body, BodyLength, Head, MAX_HEADERS, Persistence, Rejection, body_length, find_head_end, reason_phrase,
    valid_header_name, valid_header_value, write_response,
};

const DATE: &str = "Tue, 15 Nov 1994 08:12:31 GMT";

#[track_caller]
fn parsed(head: &str) -> Head {
    Head::parse(head.as_bytes()).unwrap_or_else(|rejection| panic!("{head:?}: {rejection:?}"))
}

/// A request with these lines after `GET / HTTP/1.1` and a Host.
fn with_lines(lines: &str) -> Head {
    parsed(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
}

#[track_caller]
fn assert_rejected(head: impl AsRef<[u8]>, status: u16) {
    let head = head.as_ref();
    match Head::parse(head) {
        Err(rejection) => assert_eq!(rejection.status, status, "{}", head.escape_ascii()),
        Ok(_) => panic!("taken: {}", head.escape_ascii()),
    }
}

const HELLO: Body<'_> = Body::Sent(b"Hello");

fn response(status: u16, headers: &[(&str, &str)], body: Body<'_>, persistence: Persistence) -> String {
    let mut out = Vec::new();
    write_response(&mut out, status, headers, body, persistence, DATE);
    String::from_utf8(out).expect("text")
}

#[test]
fn the_end_of_a_head_is_found() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\r\n\r\n";
    assert_eq!(find_head_end(bytes, &mut 0), Some(27));
    assert_eq!(find_head_end(&bytes[..26], &mut 0), None);
}

#[test]
fn the_search_goes_on_where_it_stopped() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut scanned = 0;
    for end in 0..bytes.len() {
        assert_eq!(find_head_end(&bytes[..end], &mut scanned), None);
        assert_eq!(scanned, end);
    }
    assert_eq!(find_head_end(bytes, &mut scanned), Some(bytes.len()));
}

#[test]
fn a_head_with_bare_line_feeds_is_found_and_refused() {
    for head in ["GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\n\r\n"] {
        assert_eq!(find_head_end(head.as_bytes(), &mut 0), Some(head.len()));
        assert_rejected(head, 400);
    }
}

#[test]
fn a_head_is_taken_apart() {
    let head = Head::parse(b"GET /a%20b?x=1?y HTTP/1.1\r\nHost: a\r\nX-Ray:\t b c \r\nx-RAY:\xe9\r\nE:\r\n\r\n");
    let head = head.expect("a valid head");
    assert_eq!((head.method(), head.target(), head.minor_version()), ("GET", "/a%20b?x=1?y", 1));
    assert_eq!(head.path_and_query(), ("/a%20b", "x=1?y"));
    let headers: Vec<(&str, &[u8])> = head.headers().collect();
    assert_eq!(headers, [("Host", &b"a"[..]), ("X-Ray", b"b c"), ("x-RAY", b"\xe9"), ("E", b"")]);
    assert_eq!(head.get_all("x-ray").collect::<Vec<_>>(), [&b"b c"[..], b"\xe9"]);
    assert_eq!(head.get("X-RAY"), Some(&b"b c"[..]));
    assert_eq!(head.get("none"), None);
}

#[test]
fn targets_in_every_form() {
    for (target, expected) in [
        ("/", ("/", "")),
        ("/?", ("/", "")),
        ("//double", ("//double", "")),
        ("/see?url=http://b/", ("/see", "url=http://b/")),
        ("http://b", ("/", "")),
        ("http://b:80?q", ("/", "q")),
        ("WS://b/chat?q=1", ("/chat", "q=1")),
        ("https://[::1]:8443/", ("/", "")),
    ] {
        let head = parsed(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((head.target(), head.path_and_query()), (target, expected));
    }
    assert_eq!(parsed("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path_and_query(), ("*", ""));
}

#[test]
fn an_absolute_target_overrides_the_host() {
    let head = parsed("GET http://b:81/ HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n");
    assert_eq!(head.authority(), Some(&b"b:81"[..]));
    let headers: Vec<_> = head.headers().collect();
    assert_eq!(headers, [("Host", &b"b:81"[..]), ("X", b"y")]);
    assert_eq!(parsed("GET http://b/ HTTP/1.0\r\n\r\n").authority(), Some(&b"b"[..]));
    assert_eq!(parsed("GET / HTTP/1.1\r\nHost: a:1\r\n\r\n").authority(), Some(&b"a:1"[..]));
    assert_eq!(parsed("GET / HTTP/1.0\r\n\r\n").authority(), None);
}

#[test]
fn bad_targets_are_refused() {
    for target in [
        "*",
        "path",
        "a:80",
        "http://",
        "http:///path",
        "http://user@b/",
        "http://b:x/",
        "ftp://b/",
        "/a#b",
        "/\u{e9}",
        "/a\u{7f}",
        "http://[::1",
        "http://b:65536/",
    ] {
        assert_rejected(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    }
}

#[test]
fn tunnels_are_refused() {
    assert_rejected("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501);
    assert_rejected("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 501);
}

#[test]
fn expectations_are_met_or_refused() {
    for (lines, expected) in [
        ("", Ok(false)),
        ("Expect:\r\n", Ok(false)),
        ("Expect: 100-continue\r\n", Ok(true)),
        ("expect: 100-Continue, 100-continue\r\n", Ok(true)),
        ("Expect: 100-continue\r\nExpect: a-cookie\r\n", Err(417)),
        ("Expect: 100-continue=1\r\n", Err(417)),
    ] {
        let expectation = with_lines(lines).expects_continue().map_err(|rejection| rejection.status);
        assert_eq!(expectation, expected, "{lines}");
    }
    let old = parsed("GET / HTTP/1.0\r\nExpect: a-cookie\r\n\r\n");
    assert_eq!(old.expects_continue(), Ok(false));
}

#[test]
fn bad_request_lines_are_refused() {
    for line in [
        "",
        " ",
        "GET",
        "GET /",
        "GET / ",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /  HTTP/1.1",
        "GET / HTTP/1",
        "GET / http/1.1",
        "GET / FTP/1.1",
        "GET / HTTP/11.1",
        "G@T / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "/ HTTP/1.1",
    ] {
        assert_rejected(format!("{line}\r\nHost: a\r\n\r\n"), 400);
    }
}

#[test]
fn other_versions_are_refused() {
    for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0"] {
        assert_rejected(format!("GET / {version}\r\nHost: a\r\n\r\n"), 505);
    }
    assert_rejected("PRI * HTTP/2.0\r\n\r\n", 505);
}

#[test]
fn bad_lines_are_refused() {
    for lines in [
        "A: b\nC: d\r\n",
        "A: b\rC: d\r\n",
        "A: b\r\r\n",
        "A: b\r\n c\r\n",
        "A: b\r\n\tc\r\n",
        "A : b\r\n",
        "A\t: b\r\n",
        " A: b\r\n",
        ": b\r\n",
        "A\r\n",
        "A b\r\n",
        "A: b\0\r\n",
        "A: \u{1}\r\n",
        "A: \u{7f}\r\n",
        "\u{e9}: b\r\n",
        "A(: b\r\n",
    ] {
        assert_rejected(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), 400);
    }
}

#[test]
fn empty_lines_in_front_are_refused() {
    assert_rejected("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    assert_rejected("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    assert_rejected("\r\n\r\n", 400);
}

#[test]
fn what_is_not_one_whole_head_is_refused() {
    assert_rejected("", 400);
    assert_rejected("GET / HTTP/1.1\r\nHost: a\r\n", 400);
    assert_rejected("GET / HTTP/1.1\r\nHost: a\r\n\r\nmore", 400);
}

#[test]
fn there_is_one_valid_host() {
    for host in ["a", "a.example:80", "127.0.0.1:9501", "[::1]", "[fe80::1]:9501", "", "a:"] {
        parsed(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    for host in [
        "a b", "a/b", "a@b", "a:b", "a:80:80", ":80", "[::1", "[a]", "::1", "a,b c", "a:99999", "a:+80", "[::1]80",
        "\u{e9}",
    ] {
        assert_rejected(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400);
    }
    assert_rejected("GET / HTTP/1.1\r\n\r\n", 400);
    assert_rejected("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400);
    assert_rejected("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    parsed("GET / HTTP/1.0\r\n\r\n");
}

#[test]
fn too_many_headers_are_refused() {
    let most = "A: b\r\n".repeat(MAX_HEADERS - 1);
    assert_eq!(with_lines(&most).headers().count(), MAX_HEADERS);
    assert_rejected(format!("GET / HTTP/1.1\r\nHost: a\r\n{most}A: b\r\n\r\n"), 431);
}

#[test]
fn tokens_are_found_in_lists_over_several_headers() {
    let head = with_lines("Connection: keep-alive ,\tUpGrade\r\nconnection: ,x\r\nOther: y\r\n");
    for token in ["keep-alive", "upgrade", "x"] {
        assert!(head.has_token("Connection", token));
    }
    for token in ["keep", "alive", "y", ""] {
        assert!(!head.has_token("connection", token));
    }
}

#[test]
fn a_connection_is_kept_as_the_version_and_the_client_say() {
    assert!(with_lines("").keep_alive());
    assert!(!with_lines("Connection: x, Close\r\n").keep_alive());
    assert!(!parsed("GET / HTTP/1.0\r\n\r\n").keep_alive());
    assert!(parsed("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive());
    assert!(!parsed("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n").keep_alive());
}

#[test]
fn a_handshake_is_told_from_other_requests() {
    assert!(!with_lines("").wants_upgrade());
    assert!(!with_lines("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n").wants_upgrade());
    assert!(with_lines("Upgrade: WebSocket\r\n").wants_upgrade());
    assert!(with_lines("Sec-WebSocket-Key: x\r\n").wants_upgrade());
}

#[test]
fn bodies_are_delimited() {
    for (lines, expected) in [
        ("", BodyLength::None),
        ("Content-Length: 0\r\n", BodyLength::Length(0)),
        ("content-length: 18446744073709551615\r\n", BodyLength::Length(u64::MAX)),
        ("Transfer-Encoding: Chunked\r\n", BodyLength::Chunked),
    ] {
        assert_eq!(body_length(&with_lines(lines)), Ok(expected), "{lines}");
    }
}

#[test]
fn ambiguous_bodies_are_refused() {
    for (lines, status) in [
        ("Content-Length:\r\n", 400),
        ("Content-Length: +1\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: 1, 1\r\n", 400),
        ("Content-Length: 0x1\r\n", 400),
        ("Content-Length: 18446744073709551616\r\n", 400),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding:\r\n", 400),
        ("Transfer-Encoding: gzip\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", 400),
        ("Transfer-Encoding: ,chunked,,\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
    ] {
        let rejection = body_length(&with_lines(lines)).expect_err("a refusal");
        assert_eq!(rejection.status, status, "{lines}");
    }
    let old = parsed("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(matches!(body_length(&old), Err(Rejection { status: 400, .. })));
}

#[test]
fn a_response_is_whole() {
    assert_eq!(
        response(200, &[("Content-Type", "text/plain")], HELLO, Persistence::KeepAlive),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: {DATE}\r\nContent-Length: 5\r\n\
             Connection: keep-alive\r\n\r\nHello"
        )
    );
}

#[test]
fn a_response_to_head_announces_the_body() {
    assert!(
        response(200, &[], Body::Announced(5), Persistence::Close)
            .ends_with("Content-Length: 5\r\nConnection: close\r\n\r\n")
    );
}

#[test]
fn some_statuses_have_no_body() {
    for status in [100, 204, 304] {
        let response = response(status, &[], HELLO, Persistence::KeepAlive);
        assert!(response.ends_with("Connection: keep-alive\r\n\r\n"), "{response}");
        assert!(!response.contains("Content-Length"), "{response}");
    }
}

#[test]
fn framing_is_not_for_the_caller() {
    let headers = [
        ("connection", "x"),
        ("CONTENT-LENGTH", "99"),
        ("Transfer-Encoding", "chunked"),
        ("Date", "never"),
        ("X", "y"),
    ];
    let expected = response(200, &[("X", "y")], HELLO, Persistence::KeepAlive);
    assert_eq!(response(200, &headers, HELLO, Persistence::KeepAlive), expected);
}

#[test]
fn an_upgrade_header_is_named_in_connection() {
    let response = response(426, &[("Upgrade", "websocket")], HELLO, Persistence::Close);
    assert!(response.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
    assert!(response.contains("\r\nConnection: upgrade, close\r\n"));
}

#[test]
fn an_unknown_status_has_no_words() {
    assert_eq!(reason_phrase(299), "");
    assert!(response(299, &[], HELLO, Persistence::KeepAlive).starts_with("HTTP/1.1 299 \r\n"));
}

#[test]
fn header_names_and_values() {
    assert!(valid_header_name(b"X-Ray_1!"));
    for name in [&b""[..], b"a b", b"a:", b"\xe9", b"a\r\n", b"\"", b"a,"] {
        assert!(!valid_header_name(name), "{}", name.escape_ascii());
    }
    for value in [&b""[..], b"a b\tc", b"\xe9"] {
        assert!(valid_header_value(value), "{}", value.escape_ascii());
    }
    for value in [&b"a\r\nb"[..], b"\n", b"\r", b"\0", b"\x7f"] {
        assert!(!valid_header_value(value), "{}", value.escape_ascii());
    }
}
