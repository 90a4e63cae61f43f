use super::*;

fn parsed(url: &str) -> RedisAddress {
    RedisAddress::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
}

fn at(name: &str, port: u16) -> Host {
    Host { name: name.into(), port }
}

fn login(username: &str, password: &str) -> Option<Login> {
    Some(Login { username: username.into(), password: password.into() })
}

#[test]
fn hosts_ports_and_databases() {
    for (url, place, database) in [
        ("redis://localhost", at("localhost", 6379), 0),
        ("redis://localhost/", at("localhost", 6379), 0),
        ("redis://10.0.0.1:7000/15", at("10.0.0.1", 7000), 15),
        ("redis://[::1]", at("::1", 6379), 0),
        ("rediss://[2001:db8::1]:7000/1", at("2001:db8::1", 7000), 1),
        ("redis://redis.example.com?db=3", at("redis.example.com", 6379), 3),
    ] {
        let address = parsed(url);
        assert_eq!((address.place, address.database), (Place::Host(place), database), "{url}");
        assert_eq!(address.trust.is_some(), url.starts_with("rediss"));
        assert_eq!(address.login, None);
    }
}

#[test]
fn users_and_passwords() {
    for (url, expected) in [
        ("redis://:secret@host", login("default", "secret")),
        ("redis://me:secret@host:1/2", login("me", "secret")),
        ("redis://me:a%40b%3Ac%2Fd%25@host", login("me", "a@b:c/d%")),
        ("redis://me:a:b@host", login("me", "a:b")),
        ("redis://me:a@b@host", login("me", "a@b")),
        ("redis://host?username=me&password=s%26t", login("me", "s&t")),
        ("redis://host?password=secret", login("default", "secret")),
        ("redis+unix://me:secret@/run/redis.sock", login("me", "secret")),
        ("redis+sentinel://me:secret@main@host", login("me", "secret")),
        ("redis+sentinel://main@host?username=me&password=secret", login("me", "secret")),
    ] {
        assert_eq!(parsed(url).login, expected, "{url}");
    }
}

#[test]
fn sockets() {
    let address = parsed("redis+unix:///run/my%20redis/redis.sock?db=2");
    assert_eq!((address.place, address.database), (Place::Socket("/run/my redis/redis.sock".into()), 2));
}

#[test]
fn sentinels() {
    let address = parsed("redis+sentinel://main@one:1,[::2],three:3/4?sentinel_password=pass");
    let sentinels = vec![at("one", 1), at("::2", 26379), at("three", 3)];
    assert_eq!(address.place, Place::Sentinels { name: "main".into(), sentinels });
    assert_eq!((address.database, address.login), (4, None));
    assert_eq!(address.sentinel_login, login("default", "pass"));
}

#[test]
fn authorities() {
    assert_eq!(parsed("rediss://host").trust, Some(Trust::System));
    assert_eq!(parsed("rediss://host/1?ca_certs=/etc/ca.pem").trust, Some(Trust::File("/etc/ca.pem".into())));
}

#[test]
fn what_is_wrong_is_told_on_one_line_without_a_secret() {
    for (url, told) in [
        ("", "begins with redis://"),
        ("localhost:6379", "begins with redis://"),
        ("http://me:secret@host", "begins with redis://"),
        ("redis://", "host is missing"),
        ("redis://me:secret@", "host is missing"),
        ("redis://me:secret@host:port", "a port is"),
        ("redis://me:secret@host:0", "a port is"),
        ("redis://me:secret@host:65536", "a port is"),
        ("redis://me:secret@host:+1", "a port is"),
        ("redis://me:secret@::1", "brackets"),
        ("redis://me:secret@[::1", "']'"),
        ("redis://me:secret@[secret]", "no IPv6 address"),
        ("redis://me:secret@[::1]6379", "a port is"),
        ("redis://me:secret@host/one", "a database is"),
        ("redis://me:secret@host/-1", "a database is"),
        ("redis://me:secret@host/1000001", "a database is"),
        ("redis://me:secret@host/1?db=1", "twice"),
        ("redis://me:secret%@host", "password has a '%'"),
        ("redis://me:%ff@host", "password is not UTF-8"),
        ("redis://me:secret@host?password=secret", "twice"),
        ("redis://host?password=secret&password=secret", "twice"),
        ("redis://host?secret", "has no '='"),
        ("redis://host?secret=1", "the parameters"),
        ("redis://host?username=secret", "without password"),
        ("redis://me:se cret@host", "spaces"),
        ("redis://me:secret\n@host", "spaces"),
        ("redis://me:secret@host#1", "'#'"),
        ("redis://me:secret@host?ca_certs=/x", "rediss:// only"),
        ("redis://me:secret@host?sentinel_password=secret", "redis+sentinel:// only"),
        ("redis+unix://me:secret@run", "the path of a socket"),
        ("redis+unix://run/redis.sock", "has no host"),
        ("redis+sentinel://host/0", "needs the name"),
        ("redis+sentinel://@host", "needs the name"),
        ("redis+sentinel://main@", "host is missing"),
        ("redis+sentinel://main@one,,two", "host is missing"),
        ("redis+sentinel://main@one?sentinel_username=me", "without sentinel_password"),
    ] {
        let error = RedisAddress::parse(url).expect_err(url);
        assert!(error.starts_with("broker: ") && error.contains(told), "{url}: {error}");
        assert!(!error.contains("secret") && !error.contains('\n'), "{url}: {error}");
    }
}

#[test]
fn no_password_is_in_what_is_logged() {
    for url in ["redis://me:secret@host", "redis+sentinel://main@host?password=secret&sentinel_password=secret"] {
        let address = parsed(url);
        assert!(!format!("{address:?} {address}").contains("secret"));
    }
}
