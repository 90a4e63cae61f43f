//! Other ways to Redis than plain TCP to one server.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::server::{Server, free_port};
use super::*;

#[test]
fn a_unix_socket() {
    let Some(server) = Server::start(&["--unixsocket", "{dir}/redis.sock", "--requirepass", "a/b"]) else { return };
    let path = server.directory.join("redis.sock");
    let mut ears = Ears::on(&format!("redis+unix://:a%2Fb@{}?db=1", path.display()), "news");
    ears.publish("news", "hello");
}

#[test]
fn a_unix_socket_that_is_not_there() {
    let mut ears = Ears::new("redis+unix:///no/such/redis.sock");
    let Event::Disconnected(told) = ears.until(Event::is_trouble) else { panic!("{:?}", ears.heard) };
    assert!(told.starts_with("cannot connect to Redis at /no/such/redis.sock: No such file"), "{told}");
}

/// A server with a certificate for localhost of an authority of its own.
fn server_with_tls() -> Option<Server> {
    let directory = std::env::temp_dir().join(format!("hubbub-redis-tls-{}-{}", std::process::id(), free_port()));
    fs::create_dir_all(&directory).expect("a directory");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(["localhost".to_owned()]).expect("a name").signed_by(&key, &authority);
    fs::write(directory.join("ca.pem"), authority.pem()).expect("written");
    fs::write(directory.join("cert.pem"), certificate.expect("a certificate").pem()).expect("written");
    fs::write(directory.join("key.pem"), key.serialize_pem()).expect("written");
    let tls_port = free_port().to_string();
    let options = [
        "--tls-port",
        &tls_port,
        "--tls-cert-file {dir}/cert.pem --tls-key-file {dir}/key.pem --tls-ca-cert-file {dir}/ca.pem",
        "--tls-auth-clients no",
    ];
    let mut server = Server::start_in(directory, free_port(), &options)?;
    server.tls_port = tls_port.parse().expect("a port");
    Some(server)
}

#[test]
fn tls_with_a_certificate_of_an_authority_in_a_file() {
    const COUNT: u64 = 10_000;
    /// Messages on their way. Redis 7 ends a connection with TLS, for a "bad length", when more than 64 KiB of output wait
    /// while OpenSSL expects that a shorter piece is written again.
    const AHEAD: u64 = 50;
    let Some(server) = server_with_tls() else { return };
    let (port, file) = (server.tls_port, server.directory.join("ca.pem"));
    let mut ears = Ears::on(&format!("rediss://localhost:{port}?ca_certs={}", file.display()), "news");
    let payload = "x".repeat(1000);
    let (mut sent, mut replies, mut messages) = (0, 0, 0);
    while (replies, messages) != (COUNT, COUNT) {
        while sent < COUNT.min(messages + AHEAD) {
            assert!(ears.link.command(sent, PATIENT, &[b"PUBLISH", b"news", payload.as_bytes()]));
            sent += 1;
        }
        ears.link.flush();
        ears.until(|event| {
            match event {
                Event::Reply(tag, Ok(_)) if *tag == replies => replies += 1,
                Event::Message(_, arrived) if *arrived == payload => messages += 1,
                event => panic!("{event:?}"),
            }
            true
        });
    }
}

#[test]
fn tls_with_a_certificate_that_is_not_trusted() {
    let Some(server) = server_with_tls() else { return };
    let port = server.tls_port;
    let file = server.directory.join("ca.pem");
    for (url, why) in [
        (format!("rediss://localhost:{port}"), "UnknownIssuer"),
        (format!("rediss://127.0.0.1:{port}?ca_certs={}", file.display()), "not valid for name"),
        (
            format!("rediss://localhost:{port}?ca_certs={}", server.directory.join("key.pem").display()),
            "no certificate",
        ),
        (format!("rediss://127.0.0.1:{}?ca_certs={}", server.port, file.display()), ""),
    ] {
        let mut ears = Ears::new(&url);
        let event = ears.until(Event::is_trouble);
        assert!(format!("{event:?}").contains(why), "{url}: {event:?}");
        assert_eq!(ears.heard.len(), 1);
    }
}

#[test]
fn what_is_no_redis_at_all() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let mut ears = Ears::new(&format!("redis://127.0.0.1:{port}"));
    let (mut stream, _) = listener.accept().expect("accepted");
    std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("written");
    let event = ears.until(Event::is_trouble);
    assert_eq!(event, Event::Disconnected("Redis has sent a frame of unknown kind".into()));
}
