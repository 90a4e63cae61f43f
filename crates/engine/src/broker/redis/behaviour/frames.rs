//! Frames between hosts, and their order.

use proptest::prelude::*;

use super::super::super::Broker;
use super::super::super::hosts::Hosts;
use super::super::link::tests::server::Server;
use super::client::Client;
use super::node::{Event, MOMENT, Node};
use crate::topics::publication::{Content, Publication};

/// A whole frame with this number.
fn frame(number: u32) -> Vec<u8> {
    [4u32.to_le_bytes(), number.to_le_bytes()].concat()
}

/// The number of the frame, or the message, that this is.
fn number(event: &Event) -> Option<u32> {
    let bytes = match event {
        Event::Frame(_, frame) => &frame[4..],
        Event::Placed { payload, .. } => payload,
        _ => return None,
    };
    Some(u32::from_le_bytes(*bytes.first_chunk()?))
}

#[derive(Clone, Copy, Debug)]
enum Way {
    ToFirst,
    ToSecond,
    ToAll,
    Topic(bool),
    Place(bool),
    Flush,
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        3 => Just(Way::ToFirst),
        3 => Just(Way::ToSecond),
        1 => Just(Way::ToAll),
        2 => any::<bool>().prop_map(Way::Topic),
        2 => any::<bool>().prop_map(Way::Place),
        1 => Just(Way::Flush),
    ]
}

#[test]
fn whatever_one_host_sends_arrives_in_order_at_each_other() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut from, first, second) = (Node::new(&server), Node::new(&server), Node::new(&server));
    let hosts = [first.host, second.host];
    let mut ears = [first, second];
    let topics = ["h5:a", "plain"];
    for ear in &mut ears {
        topics.iter().for_each(|topic| ear.want(topic));
        ear.want("h5:b");
    }
    let mut last = 0u32;
    let ways = prop::collection::vec(way(), 1..200);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(30));
    let ears = std::cell::RefCell::new(&mut ears);
    let (from, last) = (std::cell::RefCell::new(&mut from), std::cell::RefCell::new(&mut last));
    runner
        .run(&ways, |ways| {
            let (mut ears, mut from, mut last) = (ears.borrow_mut(), from.borrow_mut(), last.borrow_mut());
            let mut expected = [Vec::new(), Vec::new()];
            ears.iter_mut().for_each(|ear| ear.forget_heard());
            for way in ways.into_iter().chain([Way::ToAll, Way::Flush]) {
                **last += 1;
                let frame = frame(**last);
                let mut note = |places: &[usize]| places.iter().for_each(|place| expected[*place].push(**last));
                match way {
                    Way::ToFirst => {
                        assert!(from.redis.send(hosts[0], &frame));
                        note(&[0]);
                    }
                    Way::ToSecond => {
                        assert!(from.redis.send(hosts[1], &frame));
                        note(&[1]);
                    }
                    Way::ToAll => {
                        assert!(from.redis.send_to_all(&frame));
                        note(&[0, 1]);
                    }
                    Way::Topic(which) => {
                        assert!(Hosts::publish(&mut from.redis, topics[usize::from(which)], &frame));
                        note(&[0, 1]);
                    }
                    Way::Place(which) => {
                        let topic = if which { "h5:a" } else { "h5:b" };
                        let payload = last.to_le_bytes();
                        let publication = Publication { content: Content::Binary, payload: &payload, key: None };
                        let tell = &mut |told: super::super::super::Told<'_>| panic!("{:?}", Event::of(told));
                        Broker::publish(&mut from.redis, topic, publication, &[], MOMENT, tell);
                        note(&[0, 1]);
                    }
                    Way::Flush => from.redis.flush(),
                }
            }
            for (ear, expected) in ears.iter_mut().zip(expected) {
                // The last frame but the flush is one for all.
                let end = **last - 1;
                ear.until(|event| number(event) == Some(end));
                let got: Vec<_> = ear.heard.iter().filter_map(number).collect();
                prop_assert_eq!(got, expected);
            }
            Ok(())
        })
        .expect("order");
}

#[test]
fn a_host_does_not_hear_itself_and_hears_that_another_is_absent() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut from, mut to) = (Node::new(&server), Node::new(&server));
    from.want("plain");
    to.want("plain");
    assert!(from.redis.send_to_all(&frame(1)) && Hosts::publish(&mut from.redis, "plain", &frame(2)));
    from.place("h5:none wants it", "x");
    assert!(from.redis.send(99, &frame(3)) && from.redis.send(99, &frame(4)));
    assert!(from.redis.send(to.host, &frame(5)));
    from.until(|event| *event == Event::Absent(99));
    assert_eq!(from.redis.take_dropped(), 2);
    assert_eq!(from.redis.take_dropped(), 0);
    to.until(|event| number(event) == Some(5));
    assert_eq!(to.heard.iter().filter_map(number).collect::<Vec<_>>(), [1, 2, 5]);
    assert!(from.heard.iter().all(|event| number(event).is_none()), "{:?}", from.heard);
    to.redis.unwant("plain");
    assert!(to.heard.contains(&Event::Frame(from.host, frame(5))));
}

#[test]
fn garbage_on_the_channels_is_counted_and_ignored() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut from, mut to) = (Node::new(&server), Node::new(&server));
    to.want("plain");
    let mut stranger = Client::new(server.port);
    let answers = to.redis.core.names.answers.clone();
    let (own, topic) = (to.redis.core.names.host(to.host), to.redis.core.names.topic("plain"));
    for channel in ["p:all", &own, &topic, &answers] {
        for garbage in
            [&b""[..], b"\xff", b"hello", &[1; 11], &[0; 100], b"\x01........\x05\x02", b"\x01........\x05\x04"]
        {
            stranger.ask(&[b"PUBLISH", channel.as_bytes(), garbage]);
        }
    }
    assert!(from.redis.send(to.host, &frame(1)));
    from.redis.flush();
    to.until(|event| number(event) == Some(1));
    let warnings = to.heard.iter().filter(|event| matches!(event, Event::Warning(_))).count();
    assert_eq!(warnings, 1, "{:?}", to.heard);
}

#[test]
fn what_does_not_fit_is_refused_and_counted() {
    let Some(server) = Server::start(&[]) else { return };
    let mut node = Node::new(&server);
    let large = [&(40_000_000u32 - 4).to_le_bytes()[..], &[7; 40_000_000 - 4]].concat();
    let sent: Vec<_> = (0..3).map(|_| node.redis.send(99, &large)).collect();
    assert_eq!(sent, [true, false, false]);
    assert!(!node.redis.has_room());
    assert_eq!(node.redis.take_dropped(), 2);
    node.until(|event| matches!(event, Event::Absent(99)));
    assert!(node.redis.has_room() && node.redis.send(99, &frame(1)));
}
