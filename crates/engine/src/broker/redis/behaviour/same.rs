//! One suite over both brokers: what is asked of topics with memory is answered alike.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::super::memory::Memory;
use super::super::super::{Broker, Tell, Ticket};
use super::super::link::tests::server::Server;
use super::node::{Event, MOMENT, Node, rules};
use crate::language::history::History;
use crate::settings::Settings;
use crate::topics::history::Range;
use crate::topics::publication::{Content, Position, Publication};

#[derive(Clone, Debug)]
enum Op {
    Publish {
        length: usize,
        key: Option<String>,
    },
    /// Epochs: 0 is the topic's current one, 1 an earlier one, others are no epochs of the topic.
    Read {
        after: Option<(u8, u64)>,
        above: u64,
        below: u64,
        limit: usize,
        newest_first: bool,
        max_bytes: usize,
    },
    Recover {
        since: Vec<(u8, u64)>,
        last: usize,
        max_bytes: usize,
    },
    Forget,
    Join {
        member: u64,
        info: u8,
    },
    Leave(u64),
    Members {
        after: u64,
        limit: usize,
    },
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![10 => 0..30u64, 1 => Just(u64::MAX), 1 => Just((1 << 53) - 1)]
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = prop_oneof![3 => Just(1_000_000usize), 2 => 0..60usize, 1 => Just(usize::MAX)];
    let limit = prop_oneof![3 => 0..40usize, 1 => Just(u32::MAX as usize)];
    let place = || (0..3u8, offset());
    prop_oneof![
        12 => (0..20usize, prop::option::weighted(0.3, "[ab]?")).prop_map(|(length, key)| Op::Publish { length, key }),
        5 => (prop::option::of(place()), offset(), offset(), limit.clone(), any::<bool>(), bytes.clone()).prop_map(
            |(after, above, below, limit, newest_first, max_bytes)| {
                Op::Read { after, above, below, limit, newest_first, max_bytes }
            }
        ),
        5 => (prop::collection::vec(place(), 0..5), limit.clone(), bytes)
            .prop_map(|(since, last, max_bytes)| Op::Recover { since, last, max_bytes }),
        1 => Just(Op::Forget),
        3 => (0..8u64, 0..3u8).prop_map(|(member, info)| Op::Join { member, info }),
        2 => (0..8u64).prop_map(Op::Leave),
        3 => (prop_oneof![0..9u64, Just(u64::MAX)], limit).prop_map(|(after, limit)| Op::Members { after, limit }),
    ]
}

/// What a broker has said, with the places of epochs in the order in which they appeared instead of the epochs.
#[derive(Debug, PartialEq)]
enum Said {
    Nothing,
    Placed { epoch: usize, offset: u64, payload: Vec<u8>, key: Option<String> },
    Read { epoch: usize, offset: u64, messages: Vec<(u64, Content, Option<String>, Vec<u8>)>, goes_on: bool },
    Forgotten,
    Members(Vec<(u64, String)>, bool),
    Other(Event),
}

#[derive(Default)]
struct Epochs {
    places: HashMap<u64, usize>,
    all: Vec<u64>,
}

impl Epochs {
    fn place(&mut self, epoch: u64) -> usize {
        *self.places.entry(epoch).or_insert_with(|| {
            self.all.push(epoch);
            self.all.len()
        })
    }

    fn position(&self, (epoch, offset): (u8, u64)) -> Position {
        let epoch = match epoch {
            0 => self.all.last(),
            1 => self.all.first(),
            _ => None,
        };
        Position { epoch: epoch.copied().unwrap_or(77), offset }
    }
}

/// Asks a broker for something.
type Ask<'a> = dyn FnMut(&mut dyn Broker, Ticket, Tell<'_>) + 'a;

/// A broker, and how to have it tell.
struct Asked<'a> {
    epochs: Epochs,
    topic: String,
    host: u64,
    run: &'a mut dyn FnMut(&mut Ask<'_>, bool) -> Option<Event>,
}

impl Asked<'_> {
    fn carry_out(&mut self, op: &Op) -> Said {
        let fd = |member: u64| if member > 100 { member } else { self.host << 45 | member };
        let (topic, run) = (&*self.topic, &mut self.run);
        let event = match op {
            Op::Publish { length, key } => {
                let payload = vec![b'x'; *length];
                let publication = Publication { content: Content::Json, payload: &payload, key: key.as_deref() };
                run(&mut |broker, _, tell| broker.publish(topic, publication, &[1, 2], MOMENT, tell), true)
            }
            Op::Read { after, above, below, limit, newest_first, max_bytes } => {
                let after = after.map(|after| self.epochs.position(after));
                let range = Range {
                    after: *above,
                    before: *below,
                    limit: *limit,
                    newest_first: *newest_first,
                    max_bytes: *max_bytes,
                };
                run(&mut |broker, ticket, tell| broker.read(ticket, topic, after, range, MOMENT, tell), true)
            }
            Op::Recover { since, last, max_bytes } => {
                let since: Vec<_> = since.iter().map(|since| self.epochs.position(*since)).collect();
                let ask = &mut |broker: &mut dyn Broker, ticket, tell: Tell<'_>| {
                    broker.recover(ticket, topic, &since, *last, *max_bytes, MOMENT, tell);
                };
                run(ask, true)
            }
            Op::Forget => run(&mut |broker, ticket, tell| broker.forget(ticket, topic, tell), true),
            Op::Join { member, info } => {
                run(&mut |broker, _, _| broker.join(topic, fd(*member), &info.to_string()), false)
            }
            Op::Leave(member) => run(&mut |broker, _, _| broker.leave(topic, fd(*member)), false),
            Op::Members { after, limit } => {
                run(&mut |broker, ticket, tell| broker.members(ticket, topic, fd(*after), *limit, tell), true)
            }
        };
        match event {
            None => Said::Nothing,
            Some(Event::Placed { position, payload, key, exclude, .. }) => {
                assert_eq!(exclude, [1, 2]);
                Said::Placed { epoch: self.epochs.place(position.epoch), offset: position.offset, payload, key }
            }
            Some(Event::Read(_, History { position, messages, goes_on })) => {
                let messages = messages.into_iter().map(|message| {
                    (message.offset, message.content, message.key.map(Into::into), message.payload.into())
                });
                let epoch = self.epochs.place(position.epoch);
                Said::Read { epoch, offset: position.offset, messages: messages.collect(), goes_on }
            }
            Some(Event::Forgotten(_)) => Said::Forgotten,
            Some(Event::Members(_, page)) => Said::Members(page.entries, page.goes_on),
            Some(other) => Said::Other(other),
        }
    }
}

#[test]
fn redis_answers_as_memory_does() {
    let Some(server) = Server::start(&[]) else { return };
    let node = std::cell::RefCell::new(Node::new(&server));
    let count = std::cell::Cell::new(0);
    let kind = prop_oneof![Just("h5"), Just("latest"), Just("order"), Just("h50")];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(150));
    runner
        .run(&(kind, prop::collection::vec(op(), 1..60)), |(kind, ops)| {
            let mut node = node.borrow_mut();
            count.set(count.get() + 1);
            let topic = format!("{kind}:{}", count.get());
            node.want(&topic);
            let host = node.host.into();
            let mut settings = Settings::small();
            settings.topics = rules();
            let mut memory = Memory::for_settings(&settings);
            let mut ask_memory = |ask: &mut Ask<'_>, _| {
                let mut told = None;
                ask(&mut *memory, Ticket::default(), &mut |event| told = Some(Event::of(event)));
                told
            };
            let mut ask_redis = |ask: &mut Ask<'_>, is_answered: bool| {
                let ticket = node.ticket();
                node.forget_heard();
                let mut told = Vec::new();
                ask(&mut node.redis, ticket, &mut |event| told.push(Event::of(event)));
                node.heard.extend(told);
                is_answered.then(|| node.until(|event| !matches!(event, Event::Held(_))))
            };
            let mut one = Asked { epochs: Epochs::default(), topic: topic.clone(), host, run: &mut ask_memory };
            let mut other = Asked { epochs: Epochs::default(), topic: topic.clone(), host, run: &mut ask_redis };
            for op in &ops {
                prop_assert_eq!(one.carry_out(op), other.carry_out(op), "{:?}", op);
            }
            super::super::super::hosts::Hosts::unwant(&mut node.redis, &topic);
            Ok(())
        })
        .expect("the same");
}
