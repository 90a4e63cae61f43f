//! Connections that begin with a PROXY header.

use std::net::SocketAddr;
use std::time::Duration;

use wire::network::Networks;

use crate::reactor::tests::client::HANDSHAKE;
use crate::reactor::tests::simulation::Simulation;
use crate::settings::Settings;

const HEADER: &[u8] = b"PROXY TCP4 198.51.100.9 192.0.2.1 4711 443\r\n";
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);

/// The simulation's clients come from 192.0.2.7.
fn simulation(trusted: &str) -> Simulation {
    let proxies = Networks::parse_list(&[trusted]).expect("a network");
    Simulation::new(Settings {
        proxy_protocol: Some(proxies),
        handshake_timeout: HANDSHAKE_TIMEOUT,
        ..Settings::small()
    })
}

#[test]
fn the_client_is_the_one_that_the_header_names() {
    let client: SocketAddr = "198.51.100.9:4711".parse().expect("an address");
    for is_divided in [false, true] {
        let mut simulation = simulation("192.0.2.0/24");
        let who = simulation.connect();
        let bytes = [HEADER, HANDSHAKE].concat();
        for part in bytes.chunks(if is_divided { 1 } else { bytes.len() }) {
            simulation.client(who).write(part);
            simulation.run();
        }
        let (_, connection) = simulation.reactor.connections.iter().next().expect("a connection");
        assert_eq!(connection.source.address(), client);
        assert!(connection.is_open());
    }
}

#[test]
fn a_connection_of_the_proxys_own_has_its_address() {
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut simulation = simulation("192.0.2.0/24");
        let who = simulation.connect();
        simulation.client(who).write(&[header, HANDSHAKE].concat());
        simulation.run();
        let (_, connection) = simulation.reactor.connections.iter().next().expect("a connection");
        assert_eq!(connection.source.address().ip().to_string(), "192.0.2.7");
        assert!(connection.is_open());
    }
}

#[test]
fn strangers_and_other_beginnings_get_400() {
    for (trusted, bytes) in [
        ("203.0.113.0/24", [HEADER, HANDSHAKE].concat()),
        ("203.0.113.0/24", Vec::new()),
        ("192.0.2.0/24", HANDSHAKE.to_vec()),
        ("192.0.2.0/24", [b"PROXY TCP4 nonsense\r\n", HANDSHAKE].concat()),
        ("192.0.2.0/24", [HEADER, HEADER, HANDSHAKE].concat()),
    ] {
        let mut simulation = simulation(trusted);
        let who = simulation.connect();
        simulation.client(who).write(&bytes);
        simulation.run();
        simulation.client(who).read();
        assert_eq!(simulation.client(who).status(), Some(400), "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(simulation.stat("accepted"), 0);
    }
}

#[test]
fn the_header_counts_towards_the_time_for_the_handshake() {
    let mut simulation = simulation("192.0.2.0/24");
    let (silent, slow) = (simulation.connect(), simulation.connect());
    simulation.client(slow).write(&HEADER[..10]);
    simulation.run();
    simulation.pass(HANDSHAKE_TIMEOUT / 2);
    simulation.client(slow).write(&HEADER[10..20]);
    simulation.pass(HANDSHAKE_TIMEOUT / 2 - Duration::from_millis(1));
    simulation.client(slow).read();
    assert_eq!(simulation.client(slow).status(), None);
    simulation.pass(Duration::from_millis(17));
    for who in [silent, slow] {
        simulation.client(who).read();
    }
    assert_eq!(simulation.client(slow).status(), Some(400));
    assert!(simulation.client(silent).end.is_some());
}
