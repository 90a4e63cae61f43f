//! The opening handshake (RFC 6455 §4.2): what is accepted, what is refused and how, and the answer.

use wire::deflate::Parameters;
use wire::handshake::{MAX_SUBPROTOCOLS, Offers, Upgrade, check, choose_subprotocol, write_accept};
use wire::http::{Head, Rejection};

const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Version: 13\r\n";

fn head(request: &str) -> Head {
    Head::parse(format!("{request}\r\n").as_bytes()).expect("a valid head")
}

fn check_text(request: &str) -> Result<Upgrade, Rejection> {
    check(&head(request), Offers::Accepted)
}

/// The example request with `from` replaced by `to`.
fn check_with(from: &str, to: &str) -> Result<Upgrade, Rejection> {
    assert!(REQUEST.contains(from));
    check_text(&REQUEST.replace(from, to))
}

/// The example request with additional lines.
fn check_and(lines: &str) -> Result<Upgrade, Rejection> {
    check_text(&format!("{REQUEST}{lines}"))
}

/// The upgrade that results from the example request with additional lines.
#[track_caller]
fn accepted(lines: &str) -> Upgrade {
    check_and(lines).expect("an upgrade")
}

#[track_caller]
fn assert_refused(outcome: Result<Upgrade, Rejection>, status: u16) -> Rejection {
    let rejection = outcome.expect_err("a refusal");
    assert_eq!(rejection.status, status, "{}", rejection.reason);
    rejection
}

#[test]
fn the_example_of_the_rfc_is_accepted() {
    let upgrade = check_text(REQUEST).expect("an upgrade");
    assert_eq!(&upgrade.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!((upgrade.protocols, upgrade.compression), (vec![], None));
}

#[test]
fn tokens_may_stand_in_lists_in_any_case() {
    for (from, to) in [
        ("Connection: Upgrade", "Connection: keep-alive, UPGRADE"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
        ("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
    ] {
        assert!(check_with(from, to).is_ok(), "{to}");
    }
}

#[test]
fn other_methods_are_refused() {
    for method in ["POST", "HEAD", "get"] {
        let rejection = assert_refused(check_with("GET", method), 405);
        assert_eq!(rejection.headers, [("Allow", "GET")]);
    }
}

#[test]
fn other_versions_of_http_are_refused() {
    assert_refused(check_with("HTTP/1.1", "HTTP/1.0"), 400);
}

#[test]
fn missing_upgrade_tokens_are_refused() {
    assert_refused(check_with("Upgrade: websocket\r\n", ""), 400);
    assert_refused(check_with("websocket\r\n", "websockets\r\n"), 400);
    assert_refused(check_with("Connection: Upgrade\r\n", ""), 400);
    assert_refused(check_with("Connection: Upgrade", "Connection: close"), 400);
}

#[test]
fn a_body_is_refused() {
    assert_refused(check_and("Content-Length: 1\r\n"), 400);
    assert_refused(check_and("Transfer-Encoding: chunked\r\n"), 400);
    assert!(check_and("Content-Length: 0\r\n").is_ok());
}

#[test]
fn other_websocket_versions_are_told_ours() {
    for line in ["", "Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 013\r\n"] {
        let rejection = assert_refused(check_with("Sec-WebSocket-Version: 13\r\n", line), 426);
        assert!(rejection.headers.contains(&("Sec-WebSocket-Version", "13")));
    }
    assert_refused(check_and("Sec-WebSocket-Version: 13\r\n"), 426);
}

#[test]
fn there_is_one_key_of_16_bytes() {
    for key in [
        "",
        "=",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZWE=",
        "dGhlIHNhbXBsZSBub25jZ===",
        "dGhlIHNhbXBsZSBub25j*Q==",
        "dGhlIHNhbXBsZSBub25j",
    ] {
        assert_refused(check_with("dGhlIHNhbXBsZSBub25jZQ==", key), 400);
    }
    assert_refused(check_with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400);
    assert_refused(check_and("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400);
    // The key that RFC 6455 §4.1 gives as an example has unused bits set.
    assert!(check_with("dGhlIHNhbXBsZSBub25jZQ==", "AQIDBAUGBwgJCgsMDQ4PEC==").is_ok());
}

#[test]
fn subprotocols_are_gathered_from_all_headers() {
    let lines = "Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Protocol: ,v2.json\r\n";
    assert_eq!(accepted(lines).protocols, ["chat", "superchat", "v2.json"]);
    assert_eq!(accepted("Sec-WebSocket-Protocol:\r\n").protocols, [""; 0]);
}

#[test]
fn bad_subprotocols_are_refused() {
    assert_refused(check_and("Sec-WebSocket-Protocol: two words\r\n"), 400);
    assert_refused(check_and("Sec-WebSocket-Protocol: a/b\r\n"), 400);
    assert_refused(check_and("Sec-WebSocket-Protocol: \u{e9}\r\n"), 400);
    assert_refused(check_and("Sec-WebSocket-Protocol: chat, chat\r\n"), 400);
    let repeated = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n";
    assert_refused(check_and(repeated), 400);
}

#[test]
fn too_many_subprotocols_are_refused() {
    let lines = |count| (0..count).map(|number| format!("Sec-WebSocket-Protocol: p{number}\r\n")).collect::<String>();
    assert_eq!(accepted(&lines(MAX_SUBPROTOCOLS)).protocols.len(), MAX_SUBPROTOCOLS);
    assert_refused(check_and(&lines(MAX_SUBPROTOCOLS + 1)), 400);
}

#[test]
fn the_server_prefers() {
    let ours = ["a", "b", "c"].map(String::from);
    assert_eq!(choose_subprotocol(&ours, &["c", "x", "b"].map(String::from)), Some("b"));
    assert_eq!(choose_subprotocol(&ours, &["B".to_owned()]), None);
    assert_eq!(choose_subprotocol(&ours, &[]), None);
}

#[test]
fn compression_is_agreed_only_if_wanted() {
    let offer = "Sec-WebSocket-Extensions: x-other\r\n\
                 Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n";
    let (parameters, _) = accepted(offer).compression.expect("an agreement");
    assert_eq!(parameters, Parameters { server_max_window_bits: 12 });

    let head = head(&format!("{REQUEST}{offer}"));
    assert_eq!(check(&head, Offers::Declined).map(|upgrade| upgrade.compression), Ok(None));
}

#[test]
fn malformed_extensions_are_refused() {
    assert_refused(check_and("Sec-WebSocket-Extensions: permessage-deflate;\r\n"), 400);
    assert_refused(check_and("Sec-WebSocket-Extensions: \u{e9}\r\n"), 400);
}

#[test]
fn the_answer() {
    let lines = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let upgrade = accepted(lines);
    let extra = [("X", "y"), ("Sec-WebSocket-Accept", "forged"), ("content-length", "5")];
    let mut out = Vec::new();
    write_accept(&mut out, &upgrade, Some("chat"), &extra, "now");
    assert_eq!(
        String::from_utf8_lossy(&out),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
         client_no_context_takeover\r\nDate: now\r\nX: y\r\n\r\n"
    );
}
