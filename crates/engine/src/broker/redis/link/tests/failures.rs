//! Redis fails, or does not want us.

use rustix::process::Signal;

use super::server::free_port;
use super::*;

fn reason(event: &Event) -> &str {
    match event {
        Event::Disconnected(reason) | Event::Unusable(reason) => reason,
        event => panic!("{event:?}"),
    }
}

/// Waits for the reason why Redis cannot be used.
fn unusable(url: &str) -> String {
    let mut ears = Ears::new(url);
    let event = ears.until(Event::is_trouble);
    assert!(matches!(event, Event::Unusable(_)), "{event:?}");
    reason(&event).to_owned()
}

#[test]
fn a_server_that_is_restarted_is_found_again() {
    let Some(mut server) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "news");
    let is_connected = |event: &&Event| matches!(event, Event::Connected(_));
    let Some(Event::Connected(first)) = ears.heard.iter().find(is_connected).cloned() else {
        panic!("it is connected")
    };
    server.kill();
    ears.until(Event::is_trouble);
    server.restart();
    assert_ne!(ears.until_renewed(), first);
    ears.publish("news", "again");
    let again = ears.heard.iter().filter(|event| **event == Event::Subscribed("news".into()));
    assert_eq!(again.count(), 2);
    let renewed = ears.heard.iter().filter(|event| **event == Event::Resubscribed);
    assert_eq!(renewed.count(), 1);
}

#[test]
fn a_server_that_is_not_there_is_told_of_once_and_found_when_it_comes() {
    let port = free_port();
    let mut ears = Ears::new(&format!("redis://127.0.0.1:{port}"));
    ears.command(1, &["INCR", "count"]);
    let event = ears.until(Event::is_trouble);
    let told = format!("cannot connect to Redis at 127.0.0.1:{port}: Connection refused");
    assert!(reason(&event).starts_with(&told), "{event:?}");
    assert_eq!(ears.within(Duration::from_secs(1), &mut |_| true), None);
    let directory = std::env::temp_dir().join(format!("hubbub-redis-{port}"));
    std::fs::create_dir_all(&directory).expect("a directory");
    let Some(_server) = Server::start_in(directory, port, &[]) else { return };
    assert_eq!(ears.until(|event| matches!(event, Event::Reply(..))), Event::Reply(1, Ok("1".into())));
}

#[test]
fn a_host_that_is_not_known_is_told_of() {
    let mut ears = Ears::new("redis://no-such-host.invalid");
    let event = ears.until(Event::is_trouble);
    assert!(reason(&event).starts_with("cannot find the host of Redis, no-such-host.invalid: "), "{event:?}");
}

#[test]
fn a_wrong_password_is_told_and_the_right_one_works() {
    let Some(server) = Server::start(&["--requirepass", "right"]) else { return };
    let port = server.port;
    let told = unusable(&format!("redis://:wrong@127.0.0.1:{port}"));
    assert!(told.contains("refuses the user or the password: WRONGPASS") && !told.contains("wrong"), "{told}");
    let told = unusable(&format!("redis://127.0.0.1:{port}"));
    assert!(told.contains("requires a password: NOAUTH"), "{told}");
    let mut ears = Ears::new(&format!("redis://:right@127.0.0.1:{port}/3"));
    ears.command(1, &["CLIENT", "INFO"]);
    let Event::Reply(_, Ok(info)) = ears.until(|event| matches!(event, Event::Reply(..))) else { panic!("no reply") };
    assert!(info.contains(" name=hubbub-commands ") && info.contains(" db=3 ") && info.contains(" resp=3"), "{info}");
}

#[test]
fn a_user_who_may_not_do_what_is_needed_is_told_of() {
    let users = ["--user", "some on >pass +@all &other:* ~*", "--user", "none on >pass +ping"];
    let Some(server) = Server::start(&users) else { return };
    let told = unusable(&format!("redis://none:pass@127.0.0.1:{}", server.port));
    assert!(told.contains("does not allow this user what Hubbub needs: NOPERM"), "{told}");
    let mut ears = Ears::new(&format!("redis://some:pass@127.0.0.1:{}", server.port));
    let event = ears.until(Event::is_trouble);
    assert!(reason(&event).contains("NOPERM") && matches!(event, Event::Unusable(_)), "{event:?}");
}

#[test]
fn a_database_that_is_not_there_is_told_of() {
    let Some(server) = Server::start(&["--databases", "2"]) else { return };
    let told = unusable(&format!("{}/2", server.url()));
    assert!(told.contains("has no database 2: ERR"), "{told}");
}

#[test]
fn a_replica_is_not_used() {
    let Some(server) = Server::start(&[]) else { return };
    let port = server.port.to_string();
    let Some(replica) = Server::start(&["--replicaof", "127.0.0.1", &port]) else { return };
    let told = unusable(&replica.url());
    assert!(told.contains("is a replica"), "{told}");
}

#[test]
fn a_server_that_becomes_a_replica_is_left() {
    let Some(server) = Server::start(&[]) else { return };
    let Some(other) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "news");
    assert_eq!(ears.ask(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]), Ok("OK".into()));
    let error = ears.ask(&["SET", "key", "value"]).expect_err("it cannot be written to");
    assert!(error.starts_with("READONLY "), "{error}");
    ears.until(|event| matches!(event, Event::Unusable(told) if told.contains("is a replica")));
}

#[test]
fn a_cluster_is_not_used() {
    let Some(server) = Server::start(&["--cluster-enabled", "yes"]) else { return };
    let told = unusable(&server.url());
    assert!(told.contains("is a part of a Redis Cluster"), "{told}");
}

#[test]
fn a_server_that_stands_still_is_noticed_and_found_again() {
    let Some(server) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "news");
    server.signal(Signal::STOP);
    let begin = Instant::now();
    let event = ears.until(Event::is_trouble);
    let took = begin.elapsed();
    server.signal(Signal::CONT);
    assert!(reason(&event).contains("has passed nothing on for 4 s"), "{event:?}");
    assert!(took > Duration::from_secs(1), "{took:?}");
    ears.until_renewed();
    ears.publish("news", "again");
}

#[test]
fn commands_are_lost_in_order_when_replies_are_missing() {
    let Some(server) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "news");
    server.signal(Signal::STOP);
    for tag in 0..1000 {
        ears.command(tag, &["INCR", "count"]);
    }
    let mut next = 0;
    ears.until(|event| {
        if let Event::Lost(tag) = event {
            assert_eq!(*tag, next);
            next += 1;
        }
        next == 1000
    });
    server.signal(Signal::CONT);
    ears.until(|event| matches!(event, Event::Connected(_)));
}

#[test]
fn a_user_who_may_not_end_connections_is_told_once_that_order_is_at_risk() {
    let Some(server) = Server::start(&["--user", "some on >pass +@all -client|kill &* ~*"]) else { return };
    let mut ears = Ears::on(&format!("redis://some:pass@127.0.0.1:{}", server.port), "news");
    let mut other = Ears::new(&server.url());
    for _ in 0..2 {
        assert_eq!(other.ask(&["CLIENT", "KILL", "USER", "some"]), Ok("2".into()));
        ears.until_renewed();
        ears.publish("news", "again");
    }
    let warnings: Vec<_> = ears.heard.iter().filter(|event| matches!(event, Event::Warning(_))).collect();
    let [Event::Warning(told)] = warnings[..] else { panic!("{warnings:?}") };
    assert!(told.contains("the user needs +client|kill: NOPERM "), "{told}");
}

#[test]
fn commands_are_not_sent_after_their_time() {
    let Some(mut server) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "news");
    server.kill();
    ears.until(Event::is_trouble);
    assert!(ears.link.command(1, PATIENT, &[b"INCR", b"count"]));
    assert!(ears.link.command(2, Duration::from_millis(50), &[b"INCR", b"count"]));
    assert!(ears.link.command(3, Duration::ZERO, &[b"INCR", b"count"]));
    ears.link.flush();
    let mut lost = Vec::new();
    ears.until(|event| {
        if let Event::Lost(tag) = event {
            lost.push(*tag);
        }
        lost.len() == 2
    });
    lost.sort_unstable();
    assert_eq!(lost, [2, 3]);
    server.restart();
    assert_eq!(ears.until(|event| matches!(event, Event::Reply(..))), Event::Reply(1, Ok("1".into())));
    assert_eq!(ears.ask(&["GET", "count"]), Ok("1".into()));
}

#[test]
fn a_queue_that_is_full_takes_nothing_until_there_is_room() {
    let port = free_port();
    let mut ears = Ears::with(&format!("redis://127.0.0.1:{port}"), 100_000);
    let value = [b'x'; 1000];
    let mut taken = 0;
    while ears.link.command(taken, Duration::from_millis(20), &[b"SET", b"key", &value]) {
        taken += 1;
    }
    assert_eq!(taken, 96, "of 1036 bytes each");
    assert!(ears.link.command(taken, Duration::from_millis(20), &[b"PING"]));
    assert!(!ears.link.command(taken, Duration::ZERO, &[&[0; 100_000]]));
    ears.link.flush();
    let mut lost = 0;
    ears.until(|event| {
        lost += i32::from(matches!(event, Event::Lost(_)));
        lost == 97
    });
    assert!(ears.link.command(0, Duration::from_millis(20), &[b"SET", b"key", &[b'x'; 90_000]]));
}

#[test]
fn a_subscriber_that_is_cut_off_by_redis_comes_back() {
    let limit = ["--client-output-buffer-limit", "pubsub 1mb 1mb 1"];
    let Some(server) = Server::start(&limit) else { return };
    let mut ears = Ears::with(&server.url(), 1_000_000);
    let mut publisher = Ears::new(&server.url());
    ears.link.subscribe(b"news");
    ears.link.flush();
    ears.until(|event| matches!(event, Event::Subscribed(_)));
    // Nobody hears, so the queue is full, and what fits into sockets is too.
    let payload = "x".repeat(100_000);
    for _ in 0..1000 {
        publisher.command(1, &["PUBLISH", "news", &payload]);
        publisher.until(|event| matches!(event, Event::Reply(1, _)));
        if publisher.heard.last() == Some(&Event::Reply(1, Ok("0".into()))) {
            break;
        }
    }
    assert_eq!(publisher.heard.last(), Some(&Event::Reply(1, Ok("0".into()))), "it was cut off");
    ears.until(|event| matches!(event, Event::Resubscribed));
    let troubles = ears.heard.iter().filter(|event| event.is_trouble()).count();
    assert_eq!(troubles, 1);
    let messages = ears.heard.iter().filter(|event| matches!(event, Event::Message(..))).count();
    assert!((1..1000).contains(&messages), "{messages}");
    assert_eq!(publisher.ask(&["PUBLISH", "news", "again"]), Ok("1".into()));
    ears.until(|event| *event == Event::Message("news".into(), "again".into()));
}

#[test]
fn a_hundred_thousand_channels_are_subscribed_again() {
    const COUNT: usize = 100_000;
    let Some(mut server) = Server::start(&[]) else { return };
    let mut ears = Ears::new(&server.url());
    for number in 0..COUNT {
        ears.link.subscribe(format!("test:t:{number}").as_bytes());
    }
    ears.link.flush();
    let wait = |ears: &mut Ears| {
        let mut count = 0;
        ears.until(|event| {
            count += usize::from(matches!(event, Event::Subscribed(_)));
            count == COUNT
        });
    };
    wait(&mut ears);
    server.restart();
    wait(&mut ears);
    ears.until(|event| *event == Event::Resubscribed);
    assert!(ears.heard.iter().filter(|event| event.is_trouble()).count() >= 1);
    assert_eq!(ears.ask(&["PUBLISH", "test:t:99999", "again"]), Ok("1".into()));
}
