//! Topics with memory over several hosts.

use std::time::Duration;

use super::super::super::Broker;
use super::super::super::hosts::Hosts;
use super::super::link::tests::server::Server;
use super::client::Client;
use super::node::{Event, MOMENT, Node};
use crate::topics::history::Range;
use crate::topics::publication::{MAX_OFFSET, Position};

/// The positions and texts of a topic's messages that were heard.
fn placed(node: &Node, of: &str) -> Vec<(Position, String)> {
    let placed = node.heard.iter().filter_map(|event| match event {
        Event::Placed { topic, position, payload, .. } if topic == of => {
            Some((*position, String::from_utf8_lossy(payload).into_owned()))
        }
        _ => None,
    });
    placed.collect()
}

fn is_text(event: &Event, text: &str) -> bool {
    matches!(event, Event::Placed { payload, .. } if payload == text.as_bytes())
}

#[test]
fn all_hosts_hear_one_order() {
    let Some(server) = Server::start(&[]) else { return };
    let mut nodes: Vec<_> = (0..3).map(|_| Node::new(&server)).collect();
    nodes.iter_mut().for_each(|node| node.want("h5:t"));
    for number in 0..50 {
        for (place, node) in nodes.iter_mut().enumerate() {
            node.place("h5:t", &format!("{place}-{number}"));
            node.redis.flush();
        }
    }
    for node in &mut nodes {
        for _ in 0..150 {
            node.until(|event| matches!(event, Event::Placed { .. }));
        }
    }
    let all: Vec<_> = nodes.iter().map(|node| placed(node, "h5:t")).collect();
    assert!(all[0] == all[1] && all[1] == all[2]);
    let offsets: Vec<_> = all[0].iter().map(|(position, _)| position.offset).collect();
    assert_eq!(offsets, (1..=150).collect::<Vec<_>>());
    assert_eq!(nodes[1].redis.position("h5:t", MOMENT), all[0].last().map(|(position, _)| *position));
    assert_eq!(nodes[1].redis.position("h5:other", MOMENT), None);
    nodes[1].redis.unwant("h5:t");
    assert_eq!(nodes[1].redis.position("h5:t", MOMENT), None);
}

#[test]
fn an_answer_comes_among_the_messages_where_it_belongs() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut from, mut to) = (Node::new(&server), Node::new(&server));
    for round in 0..30 {
        let topic = format!("h9999:{round}");
        // The topic is wanted and asked for at once, while messages are published all the time.
        to.redis.want(&topic);
        let ticket = to.ticket();
        let heard = &mut to.heard;
        to.redis.recover(ticket, &topic, &[], 1000, 1_000_000, MOMENT, &mut |told| heard.push(Event::of(told)));
        to.redis.flush();
        for number in 1..=200 {
            from.place(&topic, &number.to_string());
            if number % 20 == 0 {
                from.turn(Duration::ZERO);
                to.turn(Duration::ZERO);
            }
        }
        from.redis.flush();
        let begin = to.seen;
        let Event::Read(_, history) =
            to.until(|event| matches!(event, Event::Read(of, _) | Event::Failed(of) if *of == ticket))
        else {
            panic!("it was not answered")
        };
        let answered = to.seen;
        let top = history.position.offset;
        assert_eq!(history.messages.len() as u64, top);
        let offset = |event: &Event| match event {
            Event::Placed { topic: of, position, .. } if *of == topic => Some(position.offset),
            _ => None,
        };
        assert!(to.heard[begin..answered].iter().filter_map(offset).all(|offset| offset <= top));
        if top < 200 {
            to.until(|event| offset(event) == Some(200));
        }
        let later: Vec<_> = to.heard[answered..].iter().filter_map(offset).collect();
        assert_eq!(later, (top + 1..=200).collect::<Vec<_>>());
        to.redis.unwant(&topic);
    }
}

#[test]
fn a_question_that_cannot_be_answered_fails_in_time() {
    let Some(server) = Server::start(&[]) else { return };
    let mut node = Node::new(&server);
    let mut admin = Client::new(server.port);
    admin.say("SET p:m:{h5:t} text");
    let answer = node.ask(|broker, ticket, tell| broker.forget(ticket, "h5:t", tell));
    assert!(matches!(answer, Event::Failed(_)), "{answer:?}");
    let answer = node.ask(|broker, ticket, tell| broker.recover(ticket, "h5:t", &[], 1, 1, MOMENT, tell));
    assert!(matches!(answer, Event::Failed(_)), "{answer:?}");
    admin.say("DEL p:m:{h5:t}");
    assert_eq!(node.recover("h5:t", &[], 1).messages, []);
}

#[test]
fn messages_expire() {
    let Some(server) = Server::start(&[]) else { return };
    let mut node = Node::new(&server);
    node.want("one:t");
    for text in ["a", "b", "c"] {
        node.place("one:t", text);
    }
    node.until(|event| is_text(event, "c"));
    std::thread::sleep(Duration::from_millis(1100));
    node.place("one:t", "d");
    let history = node.recover("one:t", &[], 10);
    let offsets: Vec<_> = history.messages.iter().map(|message| message.offset).collect();
    assert_eq!((offsets, history.position.offset, history.goes_on), (vec![4], 4, false));
    let mut admin = Client::new(server.port);
    assert_eq!(admin.say("XLEN p:s:{one:t}").number(), 1);
    let left = |admin: &mut Client, key: &str| admin.say(&format!("PTTL {key}")).number();
    assert!((1..=2000).contains(&left(&mut admin, "p:s:{one:t}")));
    assert!((3_500_000..=3_600_000).contains(&left(&mut admin, "p:m:{one:t}")));
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(admin.say("EXISTS p:s:{one:t}").number(), 0);
    let later = node.recover("one:t", &[Position { offset: 1, ..history.position }], 10);
    assert_eq!((later.position, later.messages), (history.position, vec![]));
}

#[test]
fn after_the_last_offset_a_new_epoch_begins() {
    let Some(server) = Server::start(&[]) else { return };
    let mut node = Node::new(&server);
    node.want("h5:t");
    node.place("h5:t", "first");
    let Event::Placed { position, .. } = node.until(|event| is_text(event, "first")) else { unreachable!() };
    let mut admin = Client::new(server.port);
    admin.say(&format!("HSET p:m:{{h5:t}} offset {}", MAX_OFFSET - 2));
    for text in ["a", "b", "c"] {
        node.place("h5:t", text);
    }
    node.until(|event| is_text(event, "c"));
    let all = placed(&node, "h5:t");
    let offsets: Vec<_> = all.iter().map(|(position, _)| position.offset).collect();
    assert_eq!(offsets, [1, MAX_OFFSET - 1, MAX_OFFSET, 1]);
    assert!(all[2].0.epoch == position.epoch && all[3].0.epoch != position.epoch);
    let range = Range { after: 0, before: 0, limit: 10, newest_first: false, max_bytes: 1000 };
    let answer = node.ask(|broker, ticket, tell| broker.read(ticket, "h5:t", None, range, MOMENT, tell));
    let Event::Read(_, history) = answer else { panic!("{answer:?}") };
    assert_eq!(history.messages.len(), 1);
}

#[test]
fn an_answer_is_bounded() {
    let Some(server) = Server::start(&[]) else { return };
    let mut node = Node::new(&server);
    let large = "x".repeat(600_000);
    for _ in 0..12 {
        node.place("h50:t", &large);
    }
    let answer = node.ask(|broker, ticket, tell| {
        broker.recover(ticket, "h50:t", &[], 12, usize::MAX, MOMENT, tell);
    });
    let Event::Read(_, history) = answer else { panic!("{answer:?}") };
    assert_eq!((history.messages.len(), history.goes_on), (6, true));
    assert_eq!(history.messages.last().map(|message| message.offset), Some(12));
    // Many small ones, too.
    for _ in 0..2000 {
        node.place("h9999:t", "");
    }
    assert_eq!(node.recover("h9999:t", &[], 5000).messages.len(), 2000);
}
