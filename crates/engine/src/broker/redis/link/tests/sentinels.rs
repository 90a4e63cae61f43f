//! The server is where the Sentinels say.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use super::server::free_port;
use super::*;

/// A Sentinel that looks after a server.
fn sentinel(server: &Server) -> Option<Server> {
    let directory = std::env::temp_dir().join(format!("hubbub-sentinel-{}-{}", std::process::id(), free_port()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let settings = [
        format!("sentinel monitor main 127.0.0.1 {} 1", server.port),
        "sentinel down-after-milliseconds main 500".into(),
        "sentinel failover-timeout main 2000".into(),
    ];
    std::fs::write(directory.join("sentinel.conf"), settings.join("\n")).expect("written");
    Server::start_in(directory, free_port(), &["{dir}/sentinel.conf", "--sentinel"])
}

/// Waits until the Sentinel has heard from the replica that it is connected to the server: only then would the Sentinel
/// choose it.
fn wait_until_the_replica_can_be_chosen(sentinel: &Server) {
    let until = Instant::now() + LONG;
    loop {
        let mut stream = TcpStream::connect(("127.0.0.1", sentinel.port)).expect("a connection");
        stream.write_all(b"SENTINEL REPLICAS main\r\n").expect("written");
        stream.shutdown(Shutdown::Write).expect("a half-closed connection");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        if answer.contains("master-link-status\r\n$2\r\nok\r\n") {
            return;
        }
        assert!(Instant::now() < until, "the Sentinel does not know the replica: {answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_next_server_is_found_after_a_failover() {
    let Some(mut server) = Server::start(&[]) else { return };
    let Some(replica) = Server::start(&["--replicaof 127.0.0.1", &server.port.to_string()]) else { return };
    let mut looking = Ears::new(&server.url());
    while !looking.ask(&["INFO", "replication"]).expect("facts").contains("state=online") {}
    drop(looking);
    let Some(sentinel) = sentinel(&server) else { return };
    // The first of the Sentinels is not there.
    let url = format!("redis+sentinel://main@127.0.0.1:1,127.0.0.1:{}/0", sentinel.port);
    let mut ears = Ears::on(&url, "news");
    ears.publish("news", "before");
    wait_until_the_replica_can_be_chosen(&sentinel);
    server.kill();
    ears.until_renewed();
    ears.publish("news", "after");
    let facts = ears.ask(&["INFO", "server"]).expect("facts");
    assert!(facts.contains(&format!("tcp_port:{}", replica.port)), "{facts}");
}

#[test]
fn a_name_that_the_sentinels_do_not_know_is_told_of() {
    let Some(server) = Server::start(&[]) else { return };
    let Some(sentinel) = sentinel(&server) else { return };
    let mut ears = Ears::new(&format!("redis+sentinel://other@127.0.0.1:{}/0", sentinel.port));
    let Event::Unusable(told) = ears.until(Event::is_trouble) else { panic!("{:?}", ears.heard) };
    assert!(told.ends_with("(Sentinel) does not know servers of that name"), "{told}");
    // A second one, which is not there, does not hide what the first one has said.
    let mut ears = Ears::new(&format!("redis+sentinel://other@127.0.0.1:{},127.0.0.1:1/0", sentinel.port));
    let Event::Disconnected(told) = ears.until(Event::is_trouble) else { panic!("{:?}", ears.heard) };
    assert!(told.contains("does not know servers of that name; cannot connect to Redis at 127.0.0.1:1:"), "{told}");
    let mut ears = Ears::new(&format!("redis://127.0.0.1:{}", sentinel.port));
    let Event::Unusable(told) = ears.until(Event::is_trouble) else { panic!("{:?}", ears.heard) };
    assert!(told.contains("is a Sentinel"), "{told}");
}
