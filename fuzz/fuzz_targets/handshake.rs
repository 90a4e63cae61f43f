//! The opening handshake: whatever the headers say, either a refusal with its status or one well-formed answer.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use wire::handshake::{Offers, check, choose_subprotocol, write_accept};
use wire::http::{Body, Head, Persistence, find_head_end, write_response};

/// A handshake like a browser's, with some lines of it replaced or added to.
#[derive(Arbitrary, Debug)]
struct Input<'a> {
    compression: bool,
    key: Option<&'a str>,
    version: Option<&'a str>,
    upgrade: Option<&'a str>,
    connection: Option<&'a str>,
    subprotocols: Vec<&'a str>,
    extensions: Vec<&'a str>,
    more: &'a [u8],
}

impl Input<'_> {
    fn head(&self) -> Vec<u8> {
        let mut head = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: {}\r\nConnection: {}\r\n\
             Sec-WebSocket-Version: {}\r\nSec-WebSocket-Key: {}\r\n",
            self.upgrade.unwrap_or("websocket"),
            self.connection.unwrap_or("Upgrade"),
            self.version.unwrap_or("13"),
            self.key.unwrap_or("dGhlIHNhbXBsZSBub25jZQ=="),
        );
        for subprotocol in &self.subprotocols {
            head.push_str(&format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"));
        }
        for extension in &self.extensions {
            head.push_str(&format!("Sec-WebSocket-Extensions: {extension}\r\n"));
        }
        [head.as_bytes(), self.more, b"\r\n"].concat()
    }
}

fuzz_target!(|input: Input<'_>| {
    let bytes = input.head();
    let Some(end) = find_head_end(&bytes, &mut 0) else {
        return;
    };
    let Ok(head) = Head::parse(&bytes[..end]) else {
        return;
    };
    let mut answer = Vec::new();
    let offers = if input.compression { Offers::Accepted } else { Offers::Declined };
    match check(&head, offers) {
        Err(rejection) => {
            assert!(matches!(rejection.status, 400 | 405 | 426 | 501), "{rejection:?}");
            let body = Body::Announced(rejection.reason.len());
            write_response(&mut answer, rejection.status, rejection.headers, body, Persistence::Close, "");
        }
        Ok(upgrade) => {
            assert!(input.compression || upgrade.compression.is_none());
            let subprotocol = choose_subprotocol(&upgrade.protocols, &upgrade.protocols);
            assert_eq!(subprotocol, upgrade.protocols.first().map(String::as_str));
            write_accept::<&str, &str>(&mut answer, &upgrade, subprotocol, &[], "");
        }
    }
    assert_eq!(find_head_end(&answer, &mut 0), Some(answer.len()), "a header was smuggled in");
    assert!(answer.iter().all(|byte| byte.is_ascii()));
});
