//! Patterns of request paths.

use wire::path::{Path, Pattern, Value};

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect(text)
}

/// The parameters of a path as text, or `None` if the pattern does not match it.
fn parameters(text: &str, path: &str) -> Option<Vec<(String, String)>> {
    let (pattern, path) = (pattern(text), Path::decode(path)?);
    let show = |value: Value| match value {
        Value::Text(text) => text,
        Value::Number(number) => format!("number {number}"),
    };
    let values = pattern.parameters(&path).into_iter().map(|(name, value)| (name.to_owned(), show(value))).collect();
    pattern.matches(&path).then_some(values)
}

fn value(pattern: &str, path: &str) -> Option<String> {
    parameters(pattern, path).and_then(|values| values.into_iter().next()).map(|(_, value)| value)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_text_matches_itself_percent_decoded() {
    for (text, path) in
        [("/", "/"), ("/chat", "/chat"), ("/chat", "/ch%61t"), ("/chat/", "/chat/"), ("/é x", "/%C3%A9%20x")]
    {
        assert_eq!(parameters(text, path), Some(vec![]), "{text} {path}");
    }
    for (text, path) in [("/chat", "/chat/"), ("/chat/", "/chat"), ("/chat", "/Chat"), ("/chat", "//chat"), ("/", "//")]
    {
        assert_eq!(parameters(text, path), None, "{text} {path}");
    }
}

#[test]
fn a_parameter_is_one_segment_that_is_not_empty() {
    assert_eq!(value("/chat/{room}", "/chat/a%20b%25"), some("a b%"));
    assert_eq!(value("/chat/{room}", "/chat/%zz"), some("%zz"));
    assert_eq!(value("/{room}/chat", "/a/chat"), some("a"));
    for path in ["/chat", "/chat/", "/chat/a/", "/chat/a/b", "/chat//a", "/chat/a%2Fb", "/chat/%2F"] {
        assert_eq!(value("/chat/{room}", path), None, "{path}");
    }
}

#[test]
fn a_number_is_ascii_digits_that_fit_into_64_bits() {
    assert_eq!(value("/users/{id:int}", "/users/0"), some("number 0"));
    assert_eq!(value("/users/{id:int}", "/users/%34%32"), some("number 42"));
    assert_eq!(value("/users/{id:int}", &format!("/users/{}", u64::MAX)), some(&format!("number {}", u64::MAX)));
    let many = "/users/".to_owned() + &"0".repeat(9999) + "1";
    for path in [
        "/users/",
        "/users/-1",
        "/users/+1",
        "/users/1_0",
        "/users/%D9%A1",
        "/users/1.5",
        "/users/0x1",
        "/users/%201",
        "/users/18446744073709551616",
        many.as_str(),
    ] {
        assert_eq!(value("/users/{id:int}", path), None, "{}", &path[..path.len().min(40)]);
    }
}

#[test]
fn the_rest_of_a_path_may_have_slashes_and_be_empty() {
    for (path, rest) in
        [("/files/a", "a"), ("/files/a/b/", "a/b/"), ("/files/a%2Fb", "a/b"), ("/files/", ""), ("/files//a", "/a")]
    {
        assert_eq!(value("/files/{name:path}", path), some(rest), "{path}");
    }
    assert_eq!(value("/files/{name:path}", "/files"), None);
    assert_eq!(value("/{all:path}", "/"), some(""));
    let both = parameters("/{user:int}/{name:path}", "/7/a/b");
    let expected = [("user", "number 7"), ("name", "a/b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(both, Some(expected.to_vec()));
}

#[test]
fn nothing_matches_dot_segments_or_what_is_not_utf_8() {
    for path in ["/..", "/.", "/a/../b", "/%2e%2E/b", "/a%2F..%2Fb", "/a/.", "/%ff", "/a/%C3", "/%ED%A0%80"] {
        assert_eq!(value("/{all:path}", path), None, "{path}");
    }
    assert_eq!(value("/{all:path}", "/...%2f.a"), some(".../.a"));
    assert!(Path::decode("*").is_none());
}

#[test]
fn a_pattern_that_makes_no_sense_is_refused_with_the_reason() {
    for (text, reason) in [
        ("", "does not begin with /"),
        ("chat", "does not begin with /"),
        ("/a//b", "empty segment"),
        ("//", "empty segment"),
        ("/a/../b", "\"..\""),
        ("/a?b", "?, #, %"),
        ("/%41", "?, #, %"),
        ("/a\n", "?, #, %"),
        ("/{a", "braces"),
        ("/a}", "braces"),
        ("/{a}.json", "braces"),
        ("/{a}{b}", "braces"),
        ("/{{a}}", "braces"),
        ("/{}", "not an identifier: \"\""),
        ("/{:int}", "not an identifier: \"\""),
        ("/{1a}", "not an identifier: \"1a\""),
        ("/{a b}", "not an identifier"),
        ("/{a:uuid}", "unknown kind \"uuid\"; known kinds are int and path"),
        ("/{a:}", "unknown kind \"\""),
        ("/{a:int:int}", "unknown kind \"int:int\""),
        ("/{a}/{a:int}", "two parameters called \"a\""),
        ("/{a:path}/b", "goes on after {a:path}"),
    ] {
        let error = Pattern::parse(text).expect_err(text).to_string();
        assert!(error.contains(reason), "{error}");
        assert!(error.contains(&format!("{text:?}")), "{error}");
    }
}

#[test]
fn a_pattern_covers_those_that_match_nothing_else() {
    for (one, other) in [
        ("/a", "/a"),
        ("/{x}", "/a"),
        ("/{x}", "/{y}"),
        ("/{x}", "/{y:int}"),
        ("/{x:int}", "/{y:int}"),
        ("/{x:int}", "/007"),
        ("/{x:path}", "/"),
        ("/{x:path}", "/a/b"),
        ("/{x:path}", "/{y}/{z:int}"),
        ("/{x:path}", "/{y:path}"),
        ("/a/{x:path}", "/a/"),
        ("/{x}/{y:path}", "/a/{y:path}"),
    ] {
        assert!(pattern(one).covers(&pattern(other)), "{one} {other}");
    }
    for (one, other) in [
        ("/a", "/b"),
        ("/a", "/{x}"),
        ("/{x:int}", "/{y}"),
        ("/{x:int}", "/a"),
        ("/{x}", "/"),
        ("/{x}", "/a/b"),
        ("/{x}", "/{y:path}"),
        ("/a/{x:path}", "/a"),
        ("/a/{x:path}", "/{y:path}"),
        ("/{x}/{y}", "/{y:path}"),
    ] {
        assert!(!pattern(one).covers(&pattern(other)), "{one} {other}");
    }
}
