//! The server is where the Sentinels say.

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

#[test]
fn the_next_server_is_found_after_a_failover() {
    let Some(mut server) = Server::start(&[]) else { return };
    let Some(replica) = Server::start(&["--replicaof 127.0.0.1", &server.port.to_string()]) else { return };
    let mut looking = Ears::new(&server.url());
    while !looking.ask(&["INFO", "replication"]).expect("facts").contains("state=online") {}
    drop(looking);
    let Some(sentinel) = sentinel(&server) else { return };
    let mut looking = Ears::new(&server.url());
    while !looking.ask(&["CLIENT", "LIST"]).expect("a list").contains("name=sentinel") {}
    drop(looking);
    // The first of the Sentinels is not there.
    let url = format!("redis+sentinel://main@127.0.0.1:1,127.0.0.1:{}/0", sentinel.port);
    let mut ears = Ears::on(&url, "news");
    ears.publish("news", "before");
    // It knows the replica from the server, whom it asks every ten seconds and at first.
    let replicas = |ears: &mut Ears| ears.ask(&["INFO", "replication"]).expect("facts");
    assert!(replicas(&mut ears).contains(&format!("port={}", replica.port)));
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
    let mut ears = Ears::new(&format!("redis://127.0.0.1:{}", sentinel.port));
    let Event::Unusable(told) = ears.until(Event::is_trouble) else { panic!("{:?}", ears.heard) };
    assert!(told.contains("is a Sentinel"), "{told}");
}
