//! A reactor that waits for a descriptor which is not its own, as it does in the place of an event loop's selector.

mod support;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use engine::{Ownership, Reactor, Registry};
use support::{PATIENCE, settings};

/// A reactor that waits for a stream too, and the other end of the stream.
fn reactor_with_guest() -> (Reactor, UnixStream, UnixStream) {
    let registry = Registry::private(100).expect("memory");
    let mut reactor = Reactor::new(settings(), registry, 1).expect("a reactor");
    let (near, far) = UnixStream::pair().expect("streams");
    reactor.wait_also_for(near.as_raw_fd()).expect("registered");
    (reactor, near, far)
}

fn turn(reactor: &mut Reactor) {
    reactor.begin().expect("begun");
    while reactor.next(|_| ()).is_some() {}
    while reactor.go_on().expect("gone on") {}
    reactor.finish();
}

#[test]
fn the_guest_ends_the_wait_and_is_no_work_for_a_turn() {
    let (mut reactor, _near, mut far) = reactor_with_guest();
    assert!(!reactor.await_readiness(Some(Duration::ZERO)).expect("waited"));
    assert!(!reactor.take_guest());
    far.write_all(b"x").expect("written");
    let begin = Instant::now();
    assert!(!reactor.await_readiness(Some(PATIENCE)).expect("waited"));
    assert!(begin.elapsed() < PATIENCE);
    assert!(reactor.take_guest());
    assert!(!reactor.take_guest());
}

#[test]
fn a_guest_that_a_turn_has_seen_ends_the_next_wait() {
    let (mut reactor, _near, mut far) = reactor_with_guest();
    far.write_all(b"x").expect("written");
    turn(&mut reactor);
    let begin = Instant::now();
    assert!(!reactor.await_readiness(Some(PATIENCE)).expect("waited"));
    assert!(begin.elapsed() < PATIENCE);
    assert!(reactor.take_guest());
}

#[test]
fn what_a_wait_has_found_is_kept_for_the_turn() {
    let (mut reactor, _near, _far) = reactor_with_guest();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("non-blocking");
    reactor.listen(listener.into(), Ownership::Ours).expect("listens");
    let _client = std::net::TcpStream::connect(address).expect("connected");
    assert!(reactor.await_readiness(Some(PATIENCE)).expect("waited"));
    assert!(reactor.await_readiness(Some(PATIENCE)).expect("found before"));
    assert_eq!(reactor.len(), 0);
    turn(&mut reactor);
    assert_eq!(reactor.len(), 1);
}
