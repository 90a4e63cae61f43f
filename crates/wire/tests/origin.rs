//! Which pages may connect from a browser.

use wire::http::{Head, Scheme};
use wire::origin::OriginPolicy;

fn list(origins: &[&str]) -> OriginPolicy {
    OriginPolicy::parse_list(origins).expect("valid origins")
}

fn same(origin: &str, host: &str) -> bool {
    OriginPolicy::Same.allows(Some(origin.as_bytes()), Some(host.as_bytes()), Scheme::Http)
}

#[track_caller]
fn assert_allows(policy: &OriginPolicy, origin: &str) {
    assert!(policy.allows(Some(origin.as_bytes()), Some(b"server"), Scheme::Http), "{origin}");
}

#[track_caller]
fn assert_refuses(policy: &OriginPolicy, origin: &str) {
    assert!(!policy.allows(Some(origin.as_bytes()), Some(b"server"), Scheme::Http), "{origin}");
}

#[test]
fn without_an_origin_everybody_may() {
    for policy in [OriginPolicy::Same, OriginPolicy::Any, list(&[])] {
        assert!(policy.allows(None, Some(b"a"), Scheme::Https));
        assert!(policy.allows(None, None, Scheme::Http));
    }
}

#[test]
fn the_same_origin_has_the_same_host_and_port() {
    assert!(same("http://a.example", "a.example"));
    assert!(same("http://a.example", "A.Example:80"));
    assert!(same("http://a.example:80", "a.example"));
    assert!(same("https://a.example", "a.example"));
    assert!(same("https://a.example", "a.example:443"));
    assert!(same("HTTP://127.0.0.1:9501", "127.0.0.1:9501"));
    assert!(same("http://[::1]:9501", "[::1]:9501"));
    assert!(same("https://[::1]", "[::1]:443"));

    assert!(!same("http://a.example", "b.example"));
    assert!(!same("http://a.example", "a.example:9501"));
    assert!(!same("http://a.example:9501", "a.example"));
    assert!(!same("https://a.example", "a.example:80"));
    assert!(!same("http://127.0.0.1:9501", "localhost:9501"));
    assert!(!same("http://a.example.evil", "a.example"));
}

#[test]
fn ipv6_addresses_are_compared_as_addresses() {
    for spelling in ["0:0:0:0:0:0:0:1", "::0001", "0::1", "::0.0.0.1"] {
        assert_allows(&list(&[&format!("http://[{spelling}]:9741")]), "http://[::1]:9741");
        assert_allows(&list(&["http://[::1]:9741"]), &format!("http://[{spelling}]:9741"));
        assert!(same("http://[::1]:9741", &format!("[{spelling}]:9741")));
    }
    assert_allows(&list(&["https://[2001:DB8::A]"]), "https://[2001:db8:0::a]:443");
    assert_allows(&list(&["http://[::ffff:127.0.0.1]"]), "http://[::ffff:7f00:1]");
    assert_refuses(&list(&["http://[0:0:0:0:0:0:0:1]"]), "http://[::2]");
    assert!(!same("http://[::1]", "[::2]"));
}

#[test]
fn a_page_that_came_without_tls_is_not_of_a_server_with_it() {
    let same = |origin: &str, host: &str| {
        OriginPolicy::Same.allows(Some(origin.as_bytes()), Some(host.as_bytes()), Scheme::Https)
    };
    assert!(same("https://a.example", "a.example"));
    assert!(same("https://a.example:9501", "a.example:9501"));
    assert!(same("HTTPS://a.example", "a.example:443"));

    assert!(!same("http://a.example", "a.example"));
    assert!(!same("http://a.example", "a.example:80"));
    assert!(!same("http://a.example:9501", "a.example:9501"));
    assert!(!same("http://a.example:443", "a.example"));
    assert!(!same("app://a.example", "a.example"));
    assert!(list(&["http://a.example"]).allows(Some(b"http://a.example"), Some(b"a.example"), Scheme::Https));
}

#[test]
fn what_is_not_an_origin_is_not_the_same() {
    for origin in [
        "",
        "null",
        "a.example",
        "//a.example",
        "://a.example",
        "http://",
        "http://a.example/",
        "http://a.example http://a.example",
        "http://u@a.example",
        "1://a.example",
        "http://a.example:x",
    ] {
        assert!(!same(origin, "a.example"), "{origin}");
    }
    assert!(!OriginPolicy::Same.allows(Some(b"http://a"), None, Scheme::Http));
    assert!(!OriginPolicy::Same.allows(Some(b"http://a\xff"), Some(b"a"), Scheme::Http));
    assert!(!same("http://", ""));
}

#[test]
fn a_list_permits_its_origins() {
    let policy = list(&["https://app.example.com", "http://localhost:3000", "app://desktop"]);
    assert_allows(&policy, "https://app.example.com");
    assert_allows(&policy, "https://APP.example.com:443");
    assert_allows(&policy, "http://localhost:3000");
    assert_allows(&policy, "app://desktop");

    assert_refuses(&policy, "http://app.example.com");
    assert_refuses(&policy, "https://app.example.com:8443");
    assert_refuses(&policy, "https://x.app.example.com");
    assert_refuses(&policy, "http://localhost");
    assert_refuses(&policy, "http://server");
    assert_refuses(&policy, "null");
}

#[test]
fn a_pattern_permits_subdomains_only() {
    let policy = list(&["https://*.example.com"]);
    assert_allows(&policy, "https://a.example.com");
    assert_allows(&policy, "https://a.b.Example.com");

    assert_refuses(&policy, "https://example.com");
    assert_refuses(&policy, "https://.example.com");
    assert_refuses(&policy, "https://evilexample.com");
    assert_refuses(&policy, "https://a.example.com.evil");
    assert_refuses(&policy, "http://a.example.com");
    assert_refuses(&policy, "https://a.example.com:8443");

    assert_allows(&list(&["http://*.example.com:8080"]), "http://a.example.com:8080");
}

#[test]
fn origins_of_applications_are_permitted_if_listed() {
    for origin in [
        "file://",
        "app://.",
        "app://localhost",
        "capacitor://localhost",
        "ionic://localhost",
        "tauri://localhost",
        "http://tauri.localhost",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "moz-extension://0f2a4c1e-1111-4222-8333-444455556666",
        "safari-web-extension://0F2A4C1E-1111-4222-8333-444455556666",
        "vscode-webview://1a2b3c",
    ] {
        assert_allows(&list(&[origin]), origin);
        assert_refuses(&list(&["https://a.example", "null"]), origin);
        assert_refuses(&OriginPolicy::Same, origin);
    }
    let files = list(&["file://"]);
    assert_refuses(&files, "null");
    assert_refuses(&files, "file:///");
    assert_refuses(&files, "file://host");
    assert_refuses(&files, "https://");
    assert!(!OriginPolicy::Same.allows(Some(b"file://"), Some(b""), Scheme::Http));
}

#[test]
fn null_is_permitted_if_listed() {
    assert_allows(&list(&["https://a.example", "null"]), "null");
    assert_allows(&OriginPolicy::Any, "null");
    assert_refuses(&OriginPolicy::Same, "null");
}

#[test]
fn a_star_permits_all() {
    assert_eq!(list(&["https://a.example", "*"]), OriginPolicy::Any);
    assert_allows(&OriginPolicy::Any, "whatever it is");
}

#[test]
fn what_is_not_an_origin_cannot_be_listed() {
    for text in [
        "",
        "a.example",
        "https://",
        "https://a.example/path",
        "https://*",
        "https://*.",
        "https://a.*.example",
        "https://*.*.example",
        "file://*.",
        "file:///",
        "*.example.com",
        "https://a.example:x",
    ] {
        let error = OriginPolicy::parse_list(&["null", text]).expect_err(text);
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

#[test]
fn a_request_has_at_most_one_origin() {
    let head = |lines: &str| {
        Head::parse(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes()).expect("a valid head")
    };
    assert!(OriginPolicy::Same.allows_head(&head(""), Scheme::Http));
    assert!(OriginPolicy::Same.allows_head(&head("Origin: http://a\r\n"), Scheme::Http));
    assert!(!OriginPolicy::Same.allows_head(&head("Origin: http://b\r\n"), Scheme::Http));
    assert!(!OriginPolicy::Any.allows_head(&head("Origin: http://a\r\nOrigin: http://a\r\n"), Scheme::Http));
}
