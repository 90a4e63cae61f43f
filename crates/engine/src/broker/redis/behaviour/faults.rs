//! Redis fails, or hosts do.

use std::collections::HashSet;
use std::io::{Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::super::super::Broker;
use super::super::super::hosts::Hosts;
use super::super::link::tests::server::Server;
use super::client::Client;
use super::node::{Event, LONG, Node};
use crate::topics::publication::Position;

fn placed(node: &mut Node, text: &str) -> Position {
    let event = node.until(|event| match event {
        Event::Placed { payload, .. } | Event::Unplaced(_, payload) => payload == text.as_bytes(),
        _ => false,
    });
    match event {
        Event::Placed { position, .. } => position,
        event => panic!("{event:?}"),
    }
}

fn unplaced(node: &mut Node, text: &str) {
    let event = node.until(|event| match event {
        Event::Placed { payload, .. } | Event::Unplaced(_, payload) => payload == text.as_bytes(),
        _ => false,
    });
    assert!(matches!(event, Event::Unplaced(..)), "{event:?}");
}

#[test]
fn a_redis_that_is_emptied_is_filled_again() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut one, mut other) = (Node::new(&server), Node::new(&server));
    let mut admin = Client::new(server.port);
    one.want("h5:t");
    one.redis.join("h5:t", one.fd(7), "{}");
    one.place("h5:t", "before");
    let before = placed(&mut one, "before");
    admin.say("FLUSHALL");
    one.place("h5:t", "after");
    let after = placed(&mut one, "after");
    assert!(after.epoch != before.epoch && after.offset == 1);
    one.until(|event| *event == Event::Emptied);
    one.redis.join("h5:t", one.fd(7), "{}");
    assert_eq!(one.members("h5:t"), [(one.fd(7), "{}".to_owned())]);
    other.until(|event| *event == Event::Emptied);
    for (node, host) in [(&one, one.host), (&other, other.host)] {
        assert!(!node.heard.contains(&Event::Fenced));
        assert_eq!(admin.say(&format!("GET p:lease:{host}")).text(), node.redis.core.lease.token.text());
    }
    // A new host begins above what they had.
    let floor: u64 = admin.say("GET p:floor").text().parse().expect("a number");
    assert!(floor >= one.redis.core.lease.tops().0);
}

#[test]
fn without_memory_messages_arrive_without_offsets() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut one, mut other) = (Node::new(&server), Node::new(&server));
    let mut admin = Client::new(server.port);
    one.want("h5:t");
    other.want("h5:t");
    one.place("h5:t", "a");
    let first = placed(&mut one, "a");
    admin.say("CONFIG SET maxmemory 1");
    one.place("h5:t", "b");
    unplaced(&mut one, "b");
    placed(&mut other, "a");
    unplaced(&mut other, "b");
    one.run(Duration::from_millis(10));
    assert!(one.heard.iter().any(|event| matches!(event, Event::Warning(text) if text.contains("OOM"))));
    assert_eq!(one.redis.take_dropped(), 0);
    let after = one.recover("h5:t", &[first], 0).position;
    assert!(after.epoch != first.epoch && after.offset == first.offset, "whoever resumes must learn of the gap");
    admin.say("CONFIG SET maxmemory 0");
    one.place("h5:t", "c");
    let last = placed(&mut one, "c");
    assert!(last.epoch != first.epoch && last.offset == 2);
    assert_eq!(placed(&mut other, "c"), last);
    assert_eq!(one.recover("h5:t", &[], 5).messages.len(), 2);
}

#[test]
fn a_topic_with_messages_that_have_no_place_begins_a_new_epoch_and_keeps_the_others() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut one, mut other) = (Node::new(&server), Node::new(&server));
    let mut admin = Client::new(server.port);
    for node in [&mut one, &mut other] {
        node.want("h5:t");
    }
    one.place("h5:t", "a");
    let first = placed(&mut one, "a");
    placed(&mut other, "a");
    admin.say("CLIENT KILL TYPE normal SKIPME yes");
    one.until(|event| *event == Event::Open(false));
    one.place("h5:t", "b");
    unplaced(&mut one, "b");
    one.until_all(&[Event::Open(true), Event::Renewed("h5:t".into())]);
    other.until_all(&[Event::Open(true), Event::Renewed("h5:t".into())]);
    other.place("h5:t", "c");
    let last = placed(&mut other, "c");
    assert!(last.epoch != first.epoch && last.offset == 2);
    assert_eq!(placed(&mut one, "c"), last);
    assert_eq!(one.recover("h5:t", &[first], 5).messages.len(), 2);
    let again = one.recover("h5:t", &[first], 5).position;
    one.run(Duration::from_millis(1500));
    assert_eq!(one.recover("h5:t", &[first], 5).position, again, "it is renewed once");
}

#[test]
fn offsets_that_go_back_are_not_told() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut one, mut other) = (Node::new(&server), Node::new(&server));
    let mut admin = Client::new(server.port);
    one.want("h5:t");
    other.want("h5:t");
    for text in ["a", "b", "c"] {
        one.place("h5:t", text);
    }
    let before = placed(&mut one, "c");
    placed(&mut other, "c");
    // As if an older state was loaded.
    admin.say("HSET p:m:{h5:t} offset 1");
    admin.say("DEL p:s:{h5:t}");
    one.place("h5:t", "d");
    unplaced(&mut one, "d");
    unplaced(&mut other, "d");
    one.until(|event| *event == Event::Renewed("h5:t".into()));
    one.place("h5:t", "e");
    let after = placed(&mut one, "e");
    assert!(after.epoch != before.epoch && after.offset == 1);
    assert_eq!(placed(&mut other, "e"), after);
    // An answer shows it, too.
    admin.say("HSET p:m:{h5:t} offset 0");
    one.recover("h5:t", &[], 5);
    one.until(|event| *event == Event::Renewed("h5:t".into()));
    one.place("h5:t", "f");
    assert_ne!(placed(&mut one, "f").epoch, after.epoch);
}

#[test]
fn an_old_state_of_redis_is_not_continued() {
    let Some(mut server) = Server::start(&[]) else { return };
    let mut one = Node::new(&server);
    one.want("h5:t");
    one.redis.join("h5:t", one.fd(1), "1");
    one.place("h5:t", "a");
    let before = placed(&mut one, "a");
    assert_eq!(one.members("h5:t").len(), 1);
    Client::new(server.port).say("SAVE");
    one.place("h5:t", "b");
    placed(&mut one, "b");
    let fd = one.fd(1);
    Broker::leave(&mut one.redis, "h5:t", fd);
    one.redis.join("h5:t", one.fd(2), "2");
    assert_eq!(one.members("h5:t").len(), 1);
    server.restart();
    one.until(|event| *event == Event::Open(false));
    one.until_all(&[Event::Emptied, Event::Open(true), Event::Missed]);
    // A client that comes back with a position of before has not missed nothing.
    let history = one.recover("h5:t", &[before], 0);
    assert!(history.position.epoch != before.epoch && history.messages.is_empty());
    assert_eq!(one.members("h5:t"), []);
    one.redis.join("h5:t", one.fd(2), "2");
    assert_eq!(one.members("h5:t").len(), 1);
    one.place("h5:t", "c");
    assert_eq!(placed(&mut one, "c"), Position { offset: 1, ..history.position });
}

#[test]
fn without_redis_messages_go_to_this_hosts_subscribers_at_once() {
    let Some(mut server) = Server::start(&[]) else { return };
    let mut one = Node::new(&server);
    one.want("h5:t");
    one.place("h5:t", "a");
    placed(&mut one, "a");
    server.kill();
    one.until(|event| *event == Event::Open(false));
    one.place("h5:t", "b");
    assert!(matches!(one.heard.last(), Some(Event::Unplaced(..))));
    unplaced(&mut one, "b");
    let ticket = one.ticket();
    let heard = &mut one.heard;
    one.redis.members(ticket, "h5:t", 0, 10, &mut |told| heard.push(Event::of(told)));
    assert!(one.redis.send(99, b"\x01\0\0\0x"));
    one.until(|event| *event == Event::Failed(ticket));
    one.run(Duration::from_millis(5500));
    assert_eq!(one.redis.take_dropped(), 1);
    server.restart();
    one.until_all(&[Event::Open(true), Event::Missed]);
    one.place("h5:t", "c");
    assert_eq!(placed(&mut one, "c").offset, 1);
    one.until(|event| matches!(event, Event::Held(_)));
    assert!(!one.heard.contains(&Event::Fenced));
}

#[test]
fn the_members_of_a_host_that_dies_are_lost_once() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut dead, mut one, mut other) = (Node::new(&server), Node::new(&server), Node::new(&server));
    let mut expected = HashSet::new();
    for number in 0..3000 {
        let (topic, fd) = (format!("h5:{}", number % 10), dead.fd(number));
        dead.redis.join(&topic, fd, "{}");
        expected.insert((topic, fd, "{}".to_owned()));
    }
    dead.members("h5:0");
    let own = one.fd(1);
    one.redis.join("h5:0", own, "1");
    let host = dead.host;
    drop(dead);
    // As if the time was over.
    Client::new(server.port).say(&format!("DEL p:lease:{host}"));
    let until = Instant::now() + LONG;
    while one.lost().len() + other.lost().len() < expected.len() {
        assert!(Instant::now() < until, "{} and {} are lost", one.lost().len(), other.lost().len());
        one.run(Duration::from_millis(20));
        other.run(Duration::from_millis(20));
    }
    assert!(one.lost().is_disjoint(&other.lost()));
    let lost: HashSet<_> = one.lost().union(&other.lost()).cloned().collect();
    assert!(lost == expected, "{} of {}", lost.len(), expected.len());
    assert_eq!(other.members("h5:0"), [(own, "1".to_owned())]);
}

#[test]
fn a_host_that_was_declared_dead_gets_another_number() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut frozen, mut one) = (Node::new(&server), Node::new(&server));
    let (host, fd) = (frozen.host, frozen.fd(5));
    frozen.redis.join("h5:t", fd, "{}");
    frozen.members("h5:t");
    // It stands still for longer than its lease.
    Client::new(server.port).say(&format!("DEL p:lease:{host}"));
    one.until(|event| *event == Event::Lost("h5:t".into(), fd, "{}".into()));
    // What it does before it knows changes nothing.
    frozen.redis.join("h5:t", fd, "{}");
    frozen.until(|event| *event == Event::Fenced);
    frozen.take_number();
    assert_ne!(frozen.host, host);
    assert_eq!(frozen.members("h5:t"), []);
    let fd = frozen.fd(6);
    frozen.redis.join("h5:t", fd, "{}");
    assert_eq!(frozen.members("h5:t"), [(fd, "{}".to_owned())]);
    assert!(one.redis.send(frozen.host, b"\x01\0\0\0x"));
    one.redis.flush();
    frozen.until(|event| *event == Event::Frame(one.host, b"\x01\0\0\0x".to_vec()));
}

#[test]
fn a_host_that_was_cut_off_with_nobody_noticing_goes_on() {
    let Some(server) = Server::start(&[]) else { return };
    let mut one = Node::new(&server);
    one.redis.join("h5:t", one.fd(1), "1");
    assert_eq!(one.members("h5:t").len(), 1);
    Client::new(server.port).say(&format!("DEL p:lease:{}", one.host));
    one.until(|event| *event == Event::Emptied);
    one.until(|event| matches!(event, Event::Held(_)));
    assert!(!one.heard.contains(&Event::Fenced));
}

#[test]
fn a_number_that_is_given_back_is_free_and_has_no_members() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut one, mut other) = (Node::new(&server), Node::new(&server));
    let (host, fd) = (one.host, one.fd(1));
    one.redis.join("h5:t", fd, "1");
    Hosts::leave(&mut one.redis);
    drop(one);
    let mut admin = Client::new(server.port);
    assert_eq!(admin.say(&format!("EXISTS p:lease:{host} p:i:{host}")).number(), 0);
    assert_eq!(other.members("h5:t"), []);
    assert!(other.lost().is_empty());
}

#[test]
fn the_file_keeps_the_number_over_a_restart() {
    let Some(server) = Server::start(&[]) else { return };
    let (_first, _second) = (Node::new(&server), Node::new(&server));
    let memory = rustix::fs::memfd_create("number", rustix::fs::MemfdFlags::CLOEXEC).expect("a file");
    let mut file = std::fs::File::from(memory);
    let start = |file: &std::fs::File| {
        let file: OwnedFd = file.try_clone().expect("a descriptor").into();
        let mut node = Node::begin_with(&server, Some(file));
        node.take_number();
        node
    };
    let mut killed = start(&file);
    let (host, fd) = (killed.host, killed.fd(3));
    assert_eq!(host, 3);
    killed.redis.join("h5:t", fd, "1");
    killed.members("h5:t");
    let Some(Event::Numbered(_, above)) =
        killed.heard.iter().find(|event| matches!(event, Event::Numbered(..))).cloned()
    else {
        panic!("it has a number")
    };
    drop(killed);
    let again = start(&file);
    assert_eq!(again.host, host);
    // The members of the process before are lost before the number is used, and counters go on above.
    assert_eq!(again.lost(), HashSet::from([("h5:t".to_owned(), fd, "1".to_owned())]));
    let place = |is_it: fn(&Event) -> bool| again.heard.iter().position(is_it).expect("it was told");
    assert!(place(|event| matches!(event, Event::Lost(..))) < place(|event| matches!(event, Event::Numbered(..))));
    assert!(again.heard.iter().any(|event| matches!(event, Event::Numbered(_, later) if *later >= above + 1000)));
    drop(again);
    file.rewind().expect("rewound");
    file.write_all(b"garbage").expect("written");
    assert_eq!(start(&file).host, 4);
}

#[test]
fn a_host_too_many_waits_for_a_number() {
    let Some(server) = Server::start(&[]) else { return };
    let mut admin = Client::new(server.port);
    for number in 1..=255 {
        admin.say(&format!("SET p:lease:{number} other"));
    }
    let mut node = Node::begin(&server);
    node.until(|event| *event == Event::Unusable("all 255 host numbers are taken".into()));
    admin.say("DEL p:lease:9");
    node.take_number();
    assert_eq!(node.host, 9);
}

#[test]
fn scripts_that_redis_has_forgotten_are_loaded_again() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut one, mut other) = (Node::new(&server), Node::new(&server));
    one.want("h5:t");
    one.redis.join("h5:t", one.fd(1), "1");
    assert_eq!(one.members("h5:t").len(), 1);
    Client::new(server.port).say("SCRIPT FLUSH");
    other.want("h5:t");
    one.place("h5:t", "not taken");
    one.redis.join("h5:t", one.fd(2), "2");
    unplaced(&mut one, "not taken");
    one.until(|event| *event == Event::Emptied);
    assert_eq!(one.redis.take_dropped(), 1);
    let renewed = Event::Renewed("h5:t".into());
    one.until(|event| *event == renewed);
    other.until(|event| *event == renewed);
    one.place("h5:t", "a");
    assert_eq!(placed(&mut one, "a").offset, 1);
}

#[test]
fn what_redis_does_not_allow_reaches_this_hosts_subscribers_and_the_others_hear_of_the_gap() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut one, mut other) = (Node::new(&server), Node::new(&server));
    let mut admin = Client::new(server.port);
    one.want("h5:t");
    other.want("h5:t");
    one.place("h5:t", "a");
    let first = placed(&mut one, "a");
    placed(&mut other, "a");
    admin.say("ACL SETUSER default -evalsha");
    for number in 0..20 {
        one.place("h5:t", &number.to_string());
    }
    for number in 0..20 {
        unplaced(&mut one, &number.to_string());
    }
    assert_eq!(one.redis.take_dropped(), 20);
    admin.say("ACL SETUSER default +evalsha");
    let renewed = Event::Renewed("h5:t".into());
    one.until(|event| *event == renewed);
    // Nobody publishes meanwhile.
    other.until(|event| *event == renewed);
    assert_ne!(other.recover("h5:t", &[first], 0).position.epoch, first.epoch);
    one.place("h5:t", "b");
    assert_eq!(placed(&mut one, "b").offset, 2);
    assert_eq!(placed(&mut other, "b").offset, 2);
}

#[test]
fn members_that_redis_refuses_are_put_there_later_and_not_again_and_again() {
    let Some(server) = Server::start(&[]) else { return };
    let mut one = Node::new(&server);
    let mut admin = Client::new(server.port);
    admin.say("CONFIG SET maxmemory 1");
    let commands = |admin: &mut Client| {
        let stats = admin.say("INFO stats").text().to_owned();
        let line = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).map(str::to_owned);
        line.expect("a count").trim().parse::<u64>().expect("a number")
    };
    let before = commands(&mut admin);
    let fd = one.fd(1);
    one.redis.join("h5:t", fd, "1");
    for _ in 0..2 {
        // As the hub does.
        one.until(|event| *event == Event::Emptied);
        one.redis.join("h5:t", fd, "1");
    }
    let count = commands(&mut admin) - before;
    // Those that the scripts call count, too.
    assert!(count < 2000, "{count} commands in three seconds");
    one.run(Duration::from_millis(100));
    admin.say("CONFIG SET maxmemory 0");
    one.until(|event| *event == Event::Emptied);
    one.redis.join("h5:t", fd, "1");
    assert_eq!(one.members("h5:t"), [(fd, "1".to_owned())]);
}

#[test]
fn a_broken_topic_keeps_nobody_busy_while_redis_cannot_be_written_to() {
    let Some(server) = Server::start(&[]) else { return };
    let mut one = Node::new(&server);
    let mut admin = Client::new(server.port);
    one.want("h5:t");
    one.place("h5:t", "a");
    placed(&mut one, "a");
    admin.say("REPLICAOF 127.0.0.1 1");
    one.place("h5:t", "b");
    unplaced(&mut one, "b");
    one.until(|event| matches!(event, Event::Unusable(_)));
    one.place("h5:t", "c");
    unplaced(&mut one, "c");
    one.run(Duration::from_millis(1100));
    let (begin, mut turns) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(1) {
        one.turn(Duration::from_millis(100));
        turns += 1;
    }
    assert!(turns < 100, "{turns} turns in a second");
    admin.say("REPLICAOF NO ONE");
    one.until(|event| *event == Event::Renewed("h5:t".into()));
}
