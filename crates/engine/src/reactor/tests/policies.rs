//! Topics with options: the form of their messages, and what happens to those that wait.

use std::io::Write;
use std::time::Duration;

use wire::frame::{DataOpcode, Fin};

use crate::reactor::Sending;
use crate::reactor::tests::application::{Seen, Who};
use crate::reactor::tests::client::{HANDSHAKE_WITH_DEFLATE, Received};
use crate::reactor::tests::random::Random;
use crate::reactor::tests::simulation::{CLOSE_TIMEOUT, Simulation};
use crate::registry::Fd;
use crate::settings::{Settings, SlowConsumer};
use crate::system::table::Key;
use crate::topics::gathered::Fanout;
use crate::topics::options::{Lagging, TopicOptions, TopicRules};
use crate::topics::publication::{Content, Position, Publication};

const QUEUE: usize = 50_000;
const TTL: Duration = Duration::from_secs(2);

fn options(pattern: &str) -> TopicOptions {
    TopicOptions {
        pattern: pattern.into(),
        history: 0,
        seconds: Duration::ZERO,
        presence: false,
        envelope: false,
        lagging: None,
        ttl: None,
    }
}

/// The topics of these tests.
fn rules() -> TopicRules {
    TopicRules::new(vec![
        TopicOptions { lagging: Some(Lagging::Latest), ..options("price") },
        TopicOptions { lagging: Some(Lagging::Latest), ttl: Some(TTL), ..options("brief price") },
        TopicOptions { lagging: Some(Lagging::Close), ..options("vital") },
        TopicOptions { lagging: Some(Lagging::Drop), ..options("extra") },
        TopicOptions { ttl: Some(TTL), ..options("brief") },
        TopicOptions { envelope: true, ..options("room") },
    ])
}

fn simulation(settings: Settings) -> Simulation {
    Simulation::new(Settings { topics: rules(), compression: true, compression_threshold: 300, ..settings })
}

/// Subscribes a client, and begins to send it a message that its socket does not take.
fn stall(simulation: &mut Simulation, fd: Fd, topics: &[&str]) {
    for topic in topics {
        simulation.reactor.subscribe(fd, topic, None);
    }
    // Compression makes it no shorter.
    let mut random = Random::new(fd);
    let noise: Vec<u8> = (0..20_000).map(|_| random.below(256) as u8).collect();
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Binary, Fin::Last, &noise), Ok(true));
    simulation.run();
    assert!(queued(simulation, fd) > 0);
}

fn open_with_deflate(simulation: &mut Simulation) -> (Who, Fd) {
    let who = simulation.connect();
    simulation.client(who).write(HANDSHAKE_WITH_DEFLATE);
    simulation.run();
    simulation.client(who).read();
    (who, simulation.application.fd(who).expect("accepted"))
}

/// A client that is subscribed to these topics, and does not read.
fn stalled(topics: &[&str], slow_consumer: SlowConsumer) -> (Simulation, Who, Fd) {
    let mut simulation = simulation(Settings { send_queue_size: QUEUE, slow_consumer, ..Settings::roomy() });
    let (who, fd) = simulation.open();
    stall(&mut simulation, fd, topics);
    (simulation, who, fd)
}

fn queued(simulation: &Simulation, fd: Fd) -> usize {
    simulation.reactor.shared().info(fd).expect("open").queued_bytes as usize
}

fn publish(simulation: &mut Simulation, topic: &str, key: Option<&str>, text: &str) {
    let publication = Publication { key, ..Publication::text(text) };
    simulation.reactor.publish(topic, publication, &[]);
}

/// The texts that a client gets once it reads.
fn texts(simulation: &mut Simulation, who: Who) -> Vec<String> {
    for _ in 0..40 {
        simulation.client(who).read();
        simulation.run();
    }
    let received = simulation.client(who).received.drain(..);
    let texts = received.filter_map(|received| match received {
        Received::Text(text) => Some(text),
        _ => None,
    });
    texts.collect()
}

fn stats(simulation: &Simulation, names: [&str; 4]) -> [u64; 4] {
    names.map(|name| simulation.stat(name))
}

/// Dropped, expired and replaced messages, and closed connections.
fn losses(simulation: &Simulation) -> [u64; 4] {
    stats(simulation, ["messages_dropped", "messages_expired", "messages_replaced", "slow_consumers_closed"])
}

// ---- the latest -----------------------------------------------------------------------------------------------------

#[test]
fn a_reader_that_lags_gets_the_latest_of_each_key() {
    let (mut simulation, who, fd) = stalled(&["price", "plain"], SlowConsumer::Close);
    let (quick, quick_fd) = simulation.open();
    simulation.reactor.subscribe(quick_fd, "price", None);
    for round in 0..3 {
        for key in [Some("a"), Some("b"), None] {
            publish(&mut simulation, "price", key, &format!("{key:?} {round}"));
        }
        publish(&mut simulation, "plain", None, &format!("plain {round}"));
        simulation.run();
        simulation.client(quick).read();
    }
    assert_eq!(simulation.client(quick).received.len(), 9);
    assert_eq!(
        texts(&mut simulation, who),
        ["Some(\"a\") 2", "Some(\"b\") 2", "None 2", "plain 0", "plain 1", "plain 2"]
    );
    assert_eq!(losses(&simulation), [0, 0, 6, 0]);
    assert_eq!(queued(&simulation, fd), 0);
    // What has been sent can no longer be replaced.
    publish(&mut simulation, "price", None, "None 3");
    simulation.run();
    assert_eq!(texts(&mut simulation, who), ["None 3"]);
    assert_eq!(losses(&simulation), [0, 0, 6, 0]);
}

#[test]
fn any_number_of_updates_fits_into_an_outbox() {
    let (mut simulation, who, fd) = stalled(&["price"], SlowConsumer::Close);
    for round in 0..2_000 {
        let key = (round % 20).to_string();
        publish(&mut simulation, "price", Some(&key), &format!("{round:0500}"));
        if round % 50 == 0 {
            simulation.run();
            assert!(queued(&simulation, fd) < 20_000 + 20 * 504);
        }
    }
    let expected: Vec<String> = (1_980..2_000).map(|round| format!("{round:0500}")).collect();
    assert_eq!(texts(&mut simulation, who), expected);
    assert_eq!(losses(&simulation), [0, 0, 1_980, 0]);
}

#[test]
fn a_key_for_which_there_is_no_room_is_dropped_but_a_known_one_is_replaced() {
    let (mut simulation, who, _) = stalled(&["price"], SlowConsumer::Close);
    for key in 0..60 {
        publish(&mut simulation, "price", Some(&key.to_string()), &format!("{key:01000}"));
    }
    simulation.run();
    let [dropped, ..] = losses(&simulation);
    assert!((10..40).contains(&dropped), "{dropped}");
    publish(&mut simulation, "price", Some("0"), &format!("new {:0996}", 0));
    // This one would be much larger than what it replaces.
    publish(&mut simulation, "price", Some("1"), &"1".repeat(20_000));
    let texts = texts(&mut simulation, who);
    assert_eq!(texts.len() as u64, 60 - dropped);
    assert!(texts[0].starts_with("new") && texts[1].ends_with("01"));
    assert_eq!(losses(&simulation), [dropped + 1, 0, 1, 0]);
}

#[test]
fn a_message_that_has_begun_is_not_replaced() {
    let mut simulation = simulation(Settings::roomy());
    let (who, fd) = simulation.open();
    simulation.reactor.subscribe(fd, "price", None);
    for round in 0..4 {
        publish(&mut simulation, "price", None, &format!("{round}{}", "x".repeat(60_000)));
        simulation.run();
        assert!(queued(&simulation, fd) > 0);
    }
    let begins: Vec<char> = texts(&mut simulation, who).iter().filter_map(|text| text.chars().next()).collect();
    assert_eq!(begins, ['0', '3']);
    assert_eq!(losses(&simulation), [0, 0, 2, 0]);
}

#[test]
fn the_latest_is_compressed_for_those_who_inflate() {
    let mut simulation = simulation(Settings { send_queue_size: QUEUE, ..Settings::roomy() });
    let clients: Vec<(Who, Fd)> = (0..3).map(|_| open_with_deflate(&mut simulation)).collect();
    for (_, fd) in &clients {
        stall(&mut simulation, *fd, &["price"]);
    }
    for round in 0..3 {
        publish(&mut simulation, "price", Some("short"), &round.to_string());
        publish(&mut simulation, "price", Some("long"), &round.to_string().repeat(10_000));
        simulation.run();
    }
    for (who, fd) in clients {
        assert!(queued(&simulation, fd) < 20_000);
        assert_eq!(texts(&mut simulation, who), ["2".to_owned(), "2".repeat(10_000)]);
    }
    assert_eq!(losses(&simulation), [0, 0, 12, 0]);
}

#[test]
fn a_fan_out_in_slices_keeps_the_policy() {
    let mut simulation = simulation(Settings { send_queue_size: QUEUE, ..Settings::roomy() });
    let clients: Vec<(Who, Fd)> = (0..5).map(|_| simulation.open()).collect();
    for (_, fd) in &clients {
        stall(&mut simulation, *fd, &["price", "brief"]);
    }
    simulation.reactor.backlog.max_at_once = 0;
    simulation.reactor.turn_time = Duration::ZERO;
    for round in 0..3 {
        publish(&mut simulation, "price", None, &round.to_string());
        publish(&mut simulation, "brief", None, "brief");
    }
    assert!(!simulation.reactor.backlog.is_empty());
    // Time passes before they are delivered.
    simulation.time.pass(TTL + Duration::from_millis(1));
    simulation.run();
    assert_eq!(losses(&simulation), [0, 15, 10, 0]);
    for (who, _) in clients {
        assert_eq!(texts(&mut simulation, who), ["2"]);
    }
}

#[test]
fn messages_that_wait_for_the_end_of_another_keep_their_policy() {
    let mut simulation = simulation(Settings::roomy());
    let (who, fd) = simulation.open();
    for topic in ["price", "brief", "plain"] {
        simulation.reactor.subscribe(fd, topic, None);
    }
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Text, Fin::More, b"begin "), Ok(true));
    for round in 0..3 {
        publish(&mut simulation, "price", None, &format!("price {round}"));
        publish(&mut simulation, "brief", None, &format!("brief {round}"));
        publish(&mut simulation, "plain", None, &format!("plain {round}"));
        simulation.pass(TTL / 2);
    }
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Continuation, Fin::Last, b"end"), Ok(true));
    simulation.run();
    assert_eq!(
        texts(&mut simulation, who),
        ["begin end", "price 2", "plain 0", "brief 1", "plain 1", "brief 2", "plain 2"]
    );
    assert_eq!(losses(&simulation), [0, 1, 2, 0]);
    assert_eq!(simulation.reactor.tools.pool.shared(), 0);
}

// ---- the time to live -----------------------------------------------------------------------------------------------

#[test]
fn a_message_that_has_waited_too_long_is_left_out() {
    let (mut simulation, who, _) = stalled(&["brief", "brief price", "plain"], SlowConsumer::Close);
    publish(&mut simulation, "brief", None, "early");
    publish(&mut simulation, "brief price", None, "replaced");
    publish(&mut simulation, "plain", None, "plain");
    simulation.pass(TTL);
    publish(&mut simulation, "brief price", None, "in time");
    publish(&mut simulation, "brief", None, "in time too");
    simulation.pass(TTL);
    assert_eq!(texts(&mut simulation, who), ["in time", "plain", "in time too"]);
    assert_eq!(losses(&simulation), [0, 1, 1, 0]);
}

#[test]
fn a_message_that_can_be_sent_does_not_expire() {
    let mut simulation = simulation(Settings::roomy());
    let (who, fd) = simulation.open();
    simulation.reactor.subscribe(fd, "brief", None);
    // A publish that is made outside of a turn, long after the last one.
    simulation.time.pass(10 * TTL);
    publish(&mut simulation, "brief", None, "one");
    publish(&mut simulation, "brief", None, "two");
    simulation.run();
    assert_eq!(texts(&mut simulation, who), ["one", "two"]);
    assert_eq!(losses(&simulation), [0; 4]);
}

#[test]
fn a_message_that_has_begun_does_not_expire() {
    let mut simulation = simulation(Settings::roomy());
    let (who, fd) = simulation.open();
    simulation.reactor.subscribe(fd, "brief", None);
    for number in 0..2 {
        publish(&mut simulation, "brief", None, &number.to_string().repeat(60_000));
        simulation.run();
    }
    simulation.pass(10 * TTL);
    assert_eq!(texts(&mut simulation, who), ["0".repeat(60_000)]);
    assert_eq!(losses(&simulation), [0, 1, 0, 0]);
}

#[test]
fn what_has_expired_makes_room() {
    for slow_consumer in [SlowConsumer::Close, SlowConsumer::Drop] {
        let (mut simulation, who, fd) = stalled(&["brief", "plain"], slow_consumer);
        for number in 0..5 {
            publish(&mut simulation, "brief", None, &number.to_string().repeat(4_000));
            simulation.run();
        }
        let before = queued(&simulation, fd);
        simulation.pass(TTL + Duration::from_millis(1));
        assert_eq!(queued(&simulation, fd), before, "nothing happens to an outbox that nobody needs");
        assert_eq!(simulation.reactor.push(fd, DataOpcode::Text, Fin::Last, &[b'x'; 30_000]), Ok(true));
        assert!(queued(&simulation, fd) < before + 30_000 - 20_000);
        assert_eq!(losses(&simulation), [0, 5, 0, 0]);
        assert_eq!(texts(&mut simulation, who), ["x".repeat(30_000)]);
    }
}

#[test]
fn memory_of_what_has_expired_is_returned_before_connections_are_closed() {
    let settings = Settings { send_queue_size: 1 << 20, max_memory: 300_000, ..Settings::roomy() };
    let mut simulation = simulation(settings);
    let (slow, slow_fd) = simulation.open();
    let (other, other_fd) = simulation.open();
    stall(&mut simulation, slow_fd, &["brief"]);
    stall(&mut simulation, other_fd, &[]);
    for number in 0..25 {
        publish(&mut simulation, "brief", None, &number.to_string().repeat(5_000));
    }
    simulation.pass(TTL + Duration::from_millis(1));
    assert!(simulation.reactor.held() > 200_000);
    assert_eq!(simulation.reactor.push(other_fd, DataOpcode::Text, Fin::Last, &[b'x'; 150_000]), Ok(true));
    simulation.run();
    assert_eq!(simulation.stat("memory_closed"), 0);
    assert_eq!(losses(&simulation), [0, 25, 0, 0]);
    assert_eq!(texts(&mut simulation, slow), [""; 0]);
    assert_eq!(texts(&mut simulation, other), ["x".repeat(150_000)]);
    assert_eq!(simulation.reactor.held(), 0);
}

/// A client whose socket is full up to the end of a frame, and whose outbox is more than half full of messages that
/// expire.
fn blocked() -> (Simulation, Who, Fd) {
    let mut simulation = simulation(Settings { send_queue_size: QUEUE, ..Settings::roomy() });
    let (who, fd) = simulation.open();
    simulation.reactor.subscribe(fd, "brief", None);
    let key = simulation.reactor.open_key(fd).expect("open");
    let socket = simulation.reactor.connections[key].socket.as_mut().expect("a socket");
    let pong = [0x8a, 0];
    while socket.write(&pong).is_ok() {}
    for number in 0..6 {
        publish(&mut simulation, "brief", None, &number.to_string().repeat(5_000));
    }
    simulation.run();
    assert!(queued(&simulation, fd) > QUEUE / 2);
    (simulation, who, fd)
}

#[test]
fn an_outbox_that_becomes_empty_because_everything_has_expired_is_drained() {
    let (mut simulation, who, fd) = blocked();
    simulation.pass(TTL + Duration::from_millis(1));
    assert!(!simulation.application.seen.contains(&Seen::Drain(fd)));
    // What can no longer be sent is left out when the socket accepts more.
    assert_eq!(texts(&mut simulation, who), [""; 0]);
    assert!(simulation.application.seen.contains(&Seen::Drain(fd)));
    assert_eq!((queued(&simulation, fd), simulation.reactor.held()), (0, 0));
    assert_eq!(losses(&simulation), [0, 6, 0, 0]);
}

#[test]
fn an_outbox_that_is_filled_again_at_once_is_drained_later() {
    let (mut simulation, who, fd) = blocked();
    simulation.pass(TTL + Duration::from_millis(1));
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Text, Fin::Last, &[b'x'; 40_000]), Ok(true));
    simulation.run();
    assert_eq!(losses(&simulation), [0, 6, 0, 0]);
    assert!(!simulation.application.seen.contains(&Seen::Drain(fd)), "it is as full as before");
    assert_eq!(texts(&mut simulation, who), ["x".repeat(40_000)]);
    assert!(simulation.application.seen.contains(&Seen::Drain(fd)));
}

#[test]
fn a_caller_that_waits_for_room_is_told_when_messages_expire() {
    let (mut simulation, _, fd) = blocked();
    let sending = simulation.reactor.send(fd, DataOpcode::Text, b"patient");
    assert_eq!(sending, Ok(Sending::Waits));
    simulation.pass(TTL + Duration::from_millis(1));
    // Something needs the room.
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Text, Fin::Last, &[b'x'; 22_000]), Ok(true));
    simulation.run();
    assert!(simulation.application.seen.contains(&Seen::Room(fd)));
    assert_eq!(simulation.reactor.send(fd, DataOpcode::Text, b"patient"), Ok(Sending::Done));
}

#[test]
fn messages_that_expire_are_no_progress_of_their_reader() {
    let mut simulation = simulation(Settings::roomy());
    let (_, fd) = simulation.open();
    stall(&mut simulation, fd, &["brief"]);
    publish(&mut simulation, "brief", None, &"x".repeat(500_000));
    simulation.run();
    simulation.reactor.disconnect(fd, 4000, "");
    simulation.run();
    // The half second lets the time of the period end after that of the message.
    simulation.pass(TTL + Duration::from_millis(500));
    let key = simulation.reactor.shared().ended_key(fd).expect("closing");
    // As if the socket had been found to accept more.
    simulation.turn();
    simulation.reactor.write_out(key, usize::MAX);
    assert_eq!(losses(&simulation), [0, 1, 0, 0]);
    simulation.pass(CLOSE_TIMEOUT);
    assert!(simulation.reactor.is_empty(), "it is cut off");
}

// ---- full outboxes --------------------------------------------------------------------------------------------------

#[test]
fn a_topic_decides_what_happens_to_a_full_outbox() {
    let cases = [
        ("vital", SlowConsumer::Drop, true),
        ("vital", SlowConsumer::Close, true),
        ("extra", SlowConsumer::Close, false),
        ("price", SlowConsumer::Close, false),
        ("brief", SlowConsumer::Close, true),
        ("brief", SlowConsumer::Drop, false),
        ("plain", SlowConsumer::Close, true),
    ];
    for (topic, slow_consumer, is_closed) in cases {
        let (mut simulation, who, fd) = stalled(&[topic], slow_consumer);
        for number in 0..10 {
            publish(&mut simulation, topic, Some(&number.to_string()), &number.to_string().repeat(5_000));
        }
        simulation.run();
        assert_eq!(simulation.reactor.shared().registry.exists(fd), !is_closed, "{topic}");
        let [dropped, _, _, closed] = losses(&simulation);
        assert_eq!((dropped > 0, closed), (!is_closed, is_closed.into()), "{topic}");
        let count = texts(&mut simulation, who).len() as u64;
        assert_eq!(count, if is_closed { 0 } else { 10 - dropped }, "{topic}");
    }
}

#[test]
fn messages_deferred_in_a_full_outbox_follow_the_topic() {
    let (mut simulation, _, fd) = stalled(&["extra", "vital"], SlowConsumer::Close);
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Text, Fin::More, b"begun"), Ok(true));
    for number in 0..10 {
        publish(&mut simulation, "extra", None, &number.to_string().repeat(5_000));
    }
    simulation.run();
    assert!(simulation.reactor.shared().registry.exists(fd));
    assert!(simulation.stat("messages_dropped") > 0);
    publish(&mut simulation, "vital", None, &"x".repeat(5_000));
    simulation.run();
    assert!(!simulation.reactor.shared().registry.exists(fd));
}

// ---- the envelope ---------------------------------------------------------------------------------------------------

#[test]
fn a_message_comes_in_an_envelope_with_its_position() {
    let mut simulation = simulation(Settings::roomy());
    let (who, fd) = simulation.open();
    for topic in ["room", "price"] {
        simulation.reactor.subscribe(fd, topic, None);
    }
    let position = |offset| Some(Position { epoch: 0xab, offset });
    let json = Publication { content: Content::Json, payload: b"[1,2]", key: None };
    let binary = Publication { content: Content::Binary, payload: b"[1,2]", key: None };
    for (topic, publication, position) in [
        ("room", Publication::text("a \"b\""), position(1)),
        ("room", json, position(2)),
        ("room", binary, position(3)),
        ("room", Publication::text("lost its place"), None),
        ("price", Publication::text("bare"), position(4)),
    ] {
        simulation.reactor.gather(Some(topic), publication, position, &[]);
    }
    simulation.run();
    let expected = [
        r#"{"topic":"room","epoch":"ab","offset":1,"data":"a \"b\""}"#,
        r#"{"topic":"room","epoch":"ab","offset":2,"data":[1,2]}"#,
        r#"{"topic":"room","epoch":"","offset":0,"data":"lost its place"}"#,
        "bare",
    ];
    assert_eq!(texts(&mut simulation, who), expected);
    assert_eq!(losses(&simulation), [1, 0, 0, 0]);
}

// ---- old messages ---------------------------------------------------------------------------------------------------

fn old(count: u64, text: &str) -> Vec<(Position, String)> {
    (1..=count).map(|offset| (Position { epoch: 1, offset }, format!("{text}{offset}"))).collect()
}

fn borrowed(messages: &[(Position, String)]) -> Vec<(Position, Publication<'_>)> {
    messages.iter().map(|(position, text)| (*position, Publication::text(text))).collect()
}

/// Whether the outbox of a connection has room for the messages from this number on.
fn has_room(simulation: &Simulation, key: Key, first: usize, messages: &Fanout) -> bool {
    simulation.reactor.connections[key].cost() + messages.cost_from(first)
        <= simulation.reactor.settings.send_queue_size
}

#[test]
fn old_messages_come_after_what_was_published_and_are_encoded_once() {
    let mut simulation = simulation(Settings::roomy());
    let long = "x".repeat(1_000);
    let messages = old(20, &long);
    let mut prepared = simulation.reactor.fanout_of("price", borrowed(&messages));
    let clients: Vec<(Who, Fd)> =
        (0..4).map(|number| if number < 2 { simulation.open() } else { open_with_deflate(&mut simulation) }).collect();
    for (_, fd) in &clients {
        stall(&mut simulation, *fd, &["plain"]);
    }
    publish(&mut simulation, "plain", None, "published before");
    for (place, (_, fd)) in clients.iter().enumerate() {
        let key = simulation.reactor.open_key(*fd).expect("open");
        assert!(has_room(&simulation, key, place, &prepared));
        let before = simulation.reactor.connections[key].cost();
        assert_eq!(simulation.reactor.deliver_from(key, place, &mut prepared), 20 - place);
        let most = prepared.cost_from(place) + 100;
        assert!(simulation.reactor.connections[key].cost() - before <= most);
    }
    simulation.reactor.end_fanout(prepared);
    simulation.run();
    assert!((20_000..20_200).contains(&simulation.reactor.tools.pool.shared()));
    publish(&mut simulation, "plain", None, "published after");
    for (place, (who, _)) in clients.into_iter().enumerate() {
        let old = messages[place..].iter().map(|(_, text)| text.as_str());
        let expected: Vec<&str> = ["published before"].into_iter().chain(old).chain(["published after"]).collect();
        assert_eq!(texts(&mut simulation, who), expected);
    }
    assert_eq!(simulation.reactor.held(), 0);
    assert_eq!(losses(&simulation), [0; 4]);
}

#[test]
fn old_messages_are_neither_replaced_nor_left_out() {
    let (mut simulation, who, fd) = stalled(&["brief price"], SlowConsumer::Close);
    let key = simulation.reactor.open_key(fd).expect("open");
    let messages = old(3, "old ");
    let mut prepared = simulation.reactor.fanout_of("brief price", borrowed(&messages));
    assert_eq!(simulation.reactor.deliver_from(key, 0, &mut prepared), 3);
    simulation.reactor.end_fanout(prepared);
    for text in ["new 1", "new 2"] {
        publish(&mut simulation, "brief price", None, text);
    }
    simulation.pass(TTL);
    assert_eq!(texts(&mut simulation, who), ["old 1", "old 2", "old 3", "new 2"]);
    assert_eq!(losses(&simulation), [0, 0, 1, 0]);
}

#[test]
fn old_messages_have_the_envelope_of_their_topic_and_wait_for_a_message_under_way() {
    let mut simulation = simulation(Settings::roomy());
    let (who, fd) = simulation.open();
    let key = simulation.reactor.open_key(fd).expect("open");
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Text, Fin::More, b"begin "), Ok(true));
    let texts_of_old = old(4, "old ");
    let mut messages = borrowed(&texts_of_old);
    // Published before the topic had an envelope.
    messages[1].1.content = Content::Binary;
    let mut prepared = simulation.reactor.fanout_of("room", messages);
    assert_eq!(prepared.len(), 4);
    for (place, count) in [(4, 0), (2, 2), (1, 2), (0, 3)] {
        assert_eq!(prepared.cost_from(place) == 0, count == 0);
        assert_eq!(simulation.reactor.deliver_from(key, place, &mut prepared), count);
    }
    simulation.reactor.end_fanout(prepared);
    assert_eq!(simulation.reactor.push(fd, DataOpcode::Continuation, Fin::Last, b"end"), Ok(true));
    simulation.run();
    let offsets = [3, 4, 3, 4, 1, 3, 4];
    let old =
        offsets.map(|offset| format!(r#"{{"topic":"room","epoch":"1","offset":{offset},"data":"old {offset}"}}"#));
    let expected: Vec<String> = ["begin end".to_owned()].into_iter().chain(old).collect();
    assert_eq!(texts(&mut simulation, who), expected);
    assert_eq!(losses(&simulation), [2, 0, 0, 0]);
}

#[test]
fn old_messages_that_do_not_fit_follow_the_topic() {
    let (mut simulation, who, fd) = stalled(&[], SlowConsumer::Close);
    let key = simulation.reactor.open_key(fd).expect("open");
    let messages = old(10, &"x".repeat(5_000));
    let mut prepared = simulation.reactor.fanout_of("extra", borrowed(&messages));
    assert!(!has_room(&simulation, key, 0, &prepared));
    let count = simulation.reactor.deliver_from(key, 0, &mut prepared);
    assert!((1..10).contains(&count));
    assert_eq!(texts(&mut simulation, who).len(), count);
    let mut prepared_for_others = simulation.reactor.fanout_of("plain", borrowed(&messages));
    stall(&mut simulation, fd, &[]);
    let count = simulation.reactor.deliver_from(key, 0, &mut prepared_for_others);
    assert!((1..10).contains(&count));
    assert_eq!(simulation.stat("slow_consumers_closed"), 1);
}
