//! Which hosts a request may be for.

use wire::host::HostPolicy;
use wire::http::{Head, Scheme};

fn list(hosts: &[&str]) -> HostPolicy {
    HostPolicy::parse_list(hosts).expect("valid hosts")
}

#[track_caller]
fn assert_allows(policy: &HostPolicy, host: &str) {
    assert!(policy.allows(Some(host.as_bytes()), Scheme::Http), "{host}");
}

#[track_caller]
fn assert_refuses(policy: &HostPolicy, host: &str) {
    assert!(!policy.allows(Some(host.as_bytes()), Scheme::Http), "{host}");
}

#[test]
fn any_host_is_allowed_without_a_list() {
    assert_allows(&HostPolicy::Any, "whatever.example");
    assert_allows(&HostPolicy::Any, "");
    assert!(HostPolicy::Any.allows(None, Scheme::Http));
}

#[test]
fn a_list_allows_its_names_with_any_port() {
    let policy = list(&["App.example.com", "127.0.0.1"]);
    assert_allows(&policy, "app.example.com");
    assert_allows(&policy, "APP.EXAMPLE.COM:9501");
    assert_allows(&policy, "app.example.com.");
    assert_allows(&policy, "app.example.com.:443");
    assert_allows(&policy, "app.example.com:");
    assert_allows(&policy, "127.0.0.1:9501");

    assert_refuses(&policy, "rebound.example");
    assert_refuses(&policy, "example.com");
    assert_refuses(&policy, "x.app.example.com");
    assert_refuses(&policy, "app.example.com.evil");
    assert_refuses(&policy, "evilapp.example.com");
    assert_refuses(&policy, "app.example.com..");
    assert_refuses(&policy, "127.0.0.1.rebound.example");
    assert_refuses(&policy, "[::1]");
}

#[test]
fn a_fully_qualified_name_may_be_listed() {
    let policy = list(&["app.example.com.", "*.example.org."]);
    assert_allows(&policy, "app.example.com");
    assert_allows(&policy, "app.example.com.");
    assert_allows(&policy, "a.example.org");
}

#[test]
fn a_pattern_allows_subdomains_only() {
    let policy = list(&["*.example.com"]);
    assert_allows(&policy, "a.example.com");
    assert_allows(&policy, "a.b.Example.com:9501");
    assert_allows(&policy, "a.example.com.");

    assert_refuses(&policy, "example.com");
    assert_refuses(&policy, ".example.com");
    assert_refuses(&policy, "evilexample.com");
    assert_refuses(&policy, "a.example.com.evil");
}

#[test]
fn a_port_that_is_listed_is_the_only_one() {
    let policy = list(&["app.example.com:9501", "*.example.com:8080", "[::1]:9501"]);
    assert_allows(&policy, "app.example.com:9501");
    assert_allows(&policy, "a.example.com:8080");
    assert_allows(&policy, "[::1]:9501");

    assert_refuses(&policy, "app.example.com");
    assert_refuses(&policy, "app.example.com:9502");
    assert_refuses(&policy, "a.example.com:9501");
    assert_refuses(&policy, "[::1]");
}

#[test]
fn a_host_without_a_port_has_the_default_one() {
    let (http, https) = (list(&["a.example:80"]), list(&["a.example:443"]));
    let host = Some(b"a.example".as_slice());
    // What a proxy speaks on its other side is unknown here.
    assert!(http.allows(host, Scheme::Http) && https.allows(host, Scheme::Http));
    assert!(!http.allows(host, Scheme::Https) && https.allows(host, Scheme::Https));
}

#[test]
fn ipv6_addresses_are_compared_as_addresses() {
    let policy = list(&["[::1]", "[2001:DB8::1]"]);
    assert_allows(&policy, "[::1]");
    assert_allows(&policy, "[0:0:0:0:0:0:0:1]:9501");
    assert_allows(&policy, "[2001:db8:0::1]");

    assert_refuses(&policy, "[::2]");
    assert_refuses(&policy, "::1");
    assert_refuses(&policy, "[::ffff:127.0.0.1]");
}

#[test]
fn a_missing_or_malformed_host_is_not_in_a_list() {
    let policy = list(&["a.example", "*.b.example"]);
    assert!(!policy.allows(None, Scheme::Http));
    assert!(!policy.allows(Some(b"a.example\xff"), Scheme::Http));
    for host in ["", ".", ":80", "a.example:x", "a.example:99999", "u@a.example", "a.example/", "[::1", "*.b.example"] {
        assert_refuses(&list(&["a.example"]), host);
    }
    assert!(!list(&[]).allows(Some(b"a.example"), Scheme::Http));
}

#[test]
fn what_is_not_a_host_cannot_be_listed() {
    for text in [
        "",
        ".",
        "*",
        "*.",
        "a.*.example",
        "*.*.example",
        "https://a.example",
        "a.example/path",
        "a.example:x",
        "::1",
        "[::1",
        "*.[::1]",
        "a b",
    ] {
        let error = HostPolicy::parse_list(&["a.example", text]).expect_err(text);
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

#[test]
fn the_host_of_an_absolute_target_counts() {
    let head =
        |text: &str| Head::parse(format!("{text}\r\nX-Forwarded-Host: a.example\r\n\r\n").as_bytes()).expect("a head");
    let policy = list(&["a.example"]);
    assert!(policy.allows_head(&head("GET / HTTP/1.1\r\nHost: a.example"), Scheme::Http));
    assert!(policy.allows_head(&head("GET http://a.example/ HTTP/1.1\r\nHost: evil.example"), Scheme::Http));
    assert!(!policy.allows_head(&head("GET http://evil.example/ HTTP/1.1\r\nHost: a.example"), Scheme::Http));
    assert!(!policy.allows_head(&head("GET / HTTP/1.1\r\nHost: evil.example"), Scheme::Http));
    assert!(!policy.allows_head(&head("GET / HTTP/1.1\r\nHost:"), Scheme::Http));
    assert!(!policy.allows_head(&head("GET / HTTP/1.0"), Scheme::Http));
}
