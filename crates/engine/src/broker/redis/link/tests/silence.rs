//! Nothing arrives, and nothing says why.

use super::proxy::Proxy;
use super::*;

/// One of the two connections dies silently. Both are made again, and work.
fn one_dies(for_commands: bool) {
    let Some(server) = Server::start(&[]) else { return };
    let proxy = Proxy::new(server.port);
    let mut ears = Ears::on(&proxy.url(), "news");
    ears.publish("news", "before");
    let begin = Instant::now();
    proxy.swallow(for_commands);
    let event = ears.until(Event::is_trouble);
    let took = begin.elapsed();
    let told = "Redis has passed nothing on for 4 s, not even our own message";
    assert_eq!(event, Event::Disconnected(told.into()));
    assert!(took > Duration::from_secs(3), "{took:?}");
    ears.until_renewed();
    ears.publish("news", "after");
}

#[test]
fn the_connection_for_commands_dies() {
    one_dies(true);
}

#[test]
fn the_connection_for_messages_dies() {
    one_dies(false);
}

#[test]
fn commands_that_arrive_late_on_a_lost_connection_are_not_executed() {
    let Some(server) = Server::start(&[]) else { return };
    let proxy = Proxy::new(server.port);
    let mut ears = Ears::on(&proxy.url(), "news");
    assert_eq!(ears.ask(&["RPUSH", "list", "first"]), Ok("1".into()));
    proxy.hold(true);
    ears.command(1, &["RPUSH", "list", "late"]);
    ears.until(|event| matches!(event, Event::Lost(1)));
    assert_eq!(ears.ask(&["RPUSH", "list", "next"]), Ok("2".into()));
    proxy.release(true);
    assert_eq!(ears.ask(&["LRANGE", "list", "0", "-1"]), Ok("[first next]".into()));
}

#[test]
fn a_lost_connection_for_messages_is_no_listener_any_longer() {
    let Some(server) = Server::start(&[]) else { return };
    let proxy = Proxy::new(server.port);
    let mut ears = Ears::on(&proxy.url(), "news");
    proxy.hold(false);
    ears.until(Event::is_trouble);
    ears.until_renewed();
    ears.publish("news", "after");
    proxy.release(false);
}

#[test]
fn redis_pauses() {
    let Some(server) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "news");
    assert_eq!(ears.ask(&["CLIENT", "PAUSE", "5000", "ALL"]), Ok("OK".into()));
    ears.until(Event::is_trouble);
    ears.until_renewed();
    ears.publish("news", "after");
}

#[test]
fn silence_alone_is_no_failure() {
    let Some(server) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "news");
    assert_eq!(ears.within(Duration::from_millis(5500), &mut |_| true), None);
}

#[test]
fn messages_wait_in_redis_while_nobody_hears() {
    const COUNT: usize = 20_000;
    let Some(server) = Server::start(&[]) else { return };
    let mut ears = Ears::with(&server.url(), 500_000);
    ears.link.subscribe(b"news");
    ears.link.flush();
    ears.until(|event| matches!(event, Event::Subscribed(_)));
    let mut publisher = Ears::new(&server.url());
    for number in 0..COUNT {
        let payload = format!("{number:01000}");
        assert!(publisher.link.command(number as u64, PATIENT, &[b"PUBLISH", b"news", payload.as_bytes()]));
    }
    publisher.link.flush();
    publisher.until(|event| *event == Event::Reply(COUNT as u64 - 1, Ok("1".into())));
    // Longer than a connection that says nothing may live.
    std::thread::sleep(Duration::from_millis(4500));
    ears.hear();
    let first = ears.heard.iter().filter(|event| matches!(event, Event::Message(..))).count();
    assert!((400..700).contains(&first), "{first}");
    let mut next = 0;
    ears.seen = 0;
    ears.until(|event| {
        if let Event::Message(_, payload) = event {
            assert_eq!(payload.parse(), Ok(next));
            next += 1;
        }
        next == COUNT
    });
    assert!(!ears.heard.iter().any(Event::is_trouble));
}

#[test]
fn what_is_queued_is_sent_at_the_end() {
    let Some(server) = Server::start(&[]) else { return };
    let mut other = Ears::new(&server.url());
    let mut ears = Ears::on(&server.url(), "news");
    for tag in 0..10_000 {
        assert!(ears.link.command(tag, PATIENT, &[b"INCR", b"count"]));
    }
    drop(ears);
    // Redis may still have to read some of it.
    let until = Instant::now() + LONG;
    while other.ask(&["GET", "count"]) != Ok("10000".into()) {
        assert!(Instant::now() < until, "some of what was queued is lost");
    }
}

#[test]
fn a_link_without_redis_ends_at_once() {
    let mut ears = Ears::new("redis://127.0.0.1:1");
    ears.command(1, &["PING"]);
    ears.until(Event::is_trouble);
    let begin = Instant::now();
    drop(ears);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

/// As a forked child would hold the sockets.
#[cfg(target_os = "linux")]
#[test]
fn connections_end_although_somebody_else_holds_their_sockets() {
    use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

    let Some(server) = Server::start(&[]) else { return };
    let mut other = Ears::on(&server.url(), "other");
    let ears = Ears::on(&server.url(), "news");
    let is_to_server = |fd: BorrowedFd<'_>| {
        let peer = rustix::net::getpeername(fd).ok().flatten();
        let peer = peer.and_then(|peer| std::net::SocketAddr::try_from(peer).ok());
        peer.is_some_and(|peer| peer.port() == server.port)
    };
    let mut held: Vec<OwnedFd> = Vec::new();
    // All of them before the copies are made, which would be found, too.
    let entries: Vec<_> = std::fs::read_dir("/proc/self/fd").expect("descriptors").flatten().collect();
    for entry in entries {
        let number = entry.file_name().to_string_lossy().parse().expect("a number");
        let Ok(process) = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        else {
            return;
        };
        // A copy: others close descriptors while this looks at them.
        let copy = rustix::process::pidfd_getfd(process, number, rustix::process::PidfdGetfdFlags::empty());
        held.extend(copy.ok().filter(|copy| is_to_server(copy.as_fd())));
    }
    assert_eq!(held.len(), 4);
    let clients = |other: &mut Ears| other.ask(&["CLIENT", "LIST"]).expect("a list").matches(" name=hubbub-").count();
    assert_eq!(clients(&mut other), 4);
    drop(ears);
    while clients(&mut other) > 2 {}
}
