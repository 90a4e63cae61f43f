use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::topics::options::TopicOptions;

/// Kept for 10 ms, and for 50 ms.
const RULES: [(&str, usize, u64); 3] = [("a*", 5, 10), ("b*", 100, 50), ("c", 0, 10)];
const TOPICS: [&str; 5] = ["a1", "a2", "b1", "b2", "c"];

fn rules() -> TopicRules {
    let options = RULES.map(|(pattern, history, milliseconds)| TopicOptions {
        pattern: pattern.into(),
        history,
        seconds: Duration::from_millis(milliseconds),
        presence: false,
        envelope: true,
        lagging: None,
        ttl: None,
    });
    TopicRules::new(options.into())
}

fn at(now: u64) -> Moment {
    Moment { now, unix: now + 1_000_000 }
}

fn everything(position: Position) -> Range {
    Range { after: 0, before: position.offset + 1, limit: usize::MAX, newest_first: false, max_bytes: usize::MAX }
}

fn texts(histories: &mut Histories, topic: &str, now: u64) -> Vec<(u64, String)> {
    let (_, selection) = histories.read(topic, at(now), everything).expect("an order");
    selection.map(|kept| (kept.offset, String::from_utf8_lossy(kept.payload).into_owned())).collect()
}

#[test]
fn offsets_go_on_after_messages_are_dropped() {
    let mut histories = Histories::new(rules(), 1 << 20);
    for number in 1..=7 {
        let position = histories.append("a1", &Publication::text(&number.to_string()), at(0)).expect("an order");
        assert_eq!(position.offset, number);
    }
    let expected: Vec<(u64, String)> = (3..=7).map(|number| (number, number.to_string())).collect();
    assert_eq!(texts(&mut histories, "a1", 10), expected);
    assert_eq!(texts(&mut histories, "a1", 11), []);
    assert_eq!(histories.append("a1", &Publication::text("8"), at(12)).map(|position| position.offset), Some(8));
}

#[test]
fn keys_are_kept_where_they_matter() {
    for (lagging, expected) in [(Some(Lagging::Latest), Some("k")), (Some(Lagging::Drop), None), (None, None)] {
        let options: Vec<TopicOptions> =
            rules().all().iter().map(|options| TopicOptions { lagging, ..options.clone() }).collect();
        let mut histories = Histories::new(TopicRules::new(options), 1 << 20);
        histories.append("b1", &Publication { key: Some("k"), ..Publication::text("1") }, at(0));
        let (_, mut selection) = histories.read("b1", at(0), everything).expect("an order");
        assert_eq!(selection.next().and_then(|kept| kept.key), expected);
    }
}

#[test]
fn a_topic_without_order_has_nothing() {
    let mut histories = Histories::new(rules(), 1 << 20);
    assert_eq!(histories.append("other", &Publication::text(""), at(0)), None);
    assert!(histories.read("other", at(0), everything).is_none());
    assert!(histories.names.is_empty());
}

#[test]
fn after_the_largest_offset_a_new_epoch_begins() {
    let mut histories = Histories::new(rules(), 1 << 20);
    let first = histories.append("b1", &Publication::text("1"), at(0)).expect("an order");
    histories.logs[0].top = MAX_OFFSET - 1;
    let last = histories.append("b1", &Publication::text("2"), at(0)).expect("an order");
    assert_eq!(last, Position { epoch: first.epoch, offset: MAX_OFFSET });
    let next = histories.append("b1", &Publication::text("3"), at(0)).expect("an order");
    assert_eq!(next.offset, 1);
    assert_ne!(next.epoch, first.epoch);
    assert_eq!(texts(&mut histories, "b1", 0), [(1, "3".into())]);
}

#[test]
fn what_expires_leaves_nothing_behind() {
    let mut histories = Histories::new(rules(), 64 << 20);
    for number in 0..100_000 {
        histories.append(&format!("a{number}"), &Publication::text("x"), at(number / 1000)).expect("an order");
    }
    let before = histories.bytes;
    assert!(before > 100_000 * 100);
    assert_eq!(histories.next_expiry(), Some(11));
    let mut now = 0;
    while let Some(next) = histories.next_expiry() {
        now = now.max(next);
        histories.expire(now, |_| false);
    }
    assert_eq!((histories.bytes, histories.names.len(), histories.logs.len()), (0, 0, 0));
    assert!(histories.names.capacity() < 1000 && histories.logs.capacity() < 1000);
}

#[test]
fn a_topic_that_is_wanted_keeps_its_position() {
    let mut histories = Histories::new(rules(), 1 << 20);
    let position = histories.append("a1", &Publication::text("1"), at(0)).expect("an order");
    histories.expire(11, |_| true);
    assert_eq!(texts(&mut histories, "a1", 11), []);
    let next = histories.append("a1", &Publication::text("2"), at(12)).expect("an order");
    assert_eq!(next, Position { epoch: position.epoch, offset: 2 });
}

#[test]
fn memory_stays_within_its_bound() {
    let mut histories = Histories::new(rules(), 20_000);
    let text = "x".repeat(1000);
    for number in 0..50 {
        histories.append(&format!("b{}", number % 5), &Publication::text(&text), at(number)).expect("an order");
        assert!(histories.bytes <= 20_000);
    }
    assert!(histories.take_evicted() > 0);
    // The newest are there, and lack nothing in between.
    assert_eq!(texts(&mut histories, "b4", 50).last().map(|(offset, _)| *offset), Some(10));
    // One that does not fit is not kept, but has an offset.
    let long = "x".repeat(30_000);
    let position = histories.append("b4", &Publication::text(&long), at(51)).expect("an order");
    assert_eq!(position.offset, 11);
    assert_eq!(texts(&mut histories, "b4", 51), []);
}

#[test]
fn topics_without_messages_go_before_messages() {
    let mut histories = Histories::new(rules(), 20_000);
    // These are kept after their time, because somebody might be subscribed.
    for number in 0..50 {
        histories.append(&format!("a{number}"), &Publication::text(""), at(0)).expect("an order");
    }
    let text = "x".repeat(100);
    for _ in 0..50 {
        histories.append("b1", &Publication::text(&text), at(11)).expect("an order");
    }
    histories.expire(12, |_| true);
    histories.take_evicted();
    // As many as clients like to ask for.
    for number in 0..10_000 {
        histories.read(&format!("b{number} made up"), at(12 + number / 1000), everything);
        assert!(histories.bytes <= 20_000);
    }
    assert_eq!(texts(&mut histories, "b1", 60).len(), 50);
    assert_eq!(histories.take_evicted(), 0);
}

#[test]
fn memory_per_topic() {
    let mut histories = Histories::new(rules(), 1 << 20);
    histories.read("b1", at(0), everything);
    assert!(histories.bytes < 300, "{}", histories.bytes);
    for _ in 0..100 {
        histories.append("b1", &Publication::text(&"x".repeat(100)), at(0));
    }
    assert!(histories.bytes < 20_000, "{}", histories.bytes);
}

#[derive(Clone, Debug)]
enum Op {
    Append(usize, usize),
    Read(usize, u64, u64, usize, bool, usize),
    Forget(usize),
    Expire(bool),
    Pass(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let topic = || 0..TOPICS.len();
    let read = (topic(), 0..20u64, 0..20u64, 0..10usize, any::<bool>(), 0..300usize);
    let op = prop_oneof![
        10 => (topic(), 0..100usize).prop_map(|(topic, length)| Op::Append(topic, length)),
        5 => read.prop_map(|(topic, after, before, limit, newest, bytes)| {
            Op::Read(topic, after, before, limit, newest, bytes)
        }),
        1 => topic().prop_map(Op::Forget),
        2 => any::<bool>().prop_map(Op::Expire),
        4 => (0..20u64).prop_map(Op::Pass),
    ];
    proptest::collection::vec(op, 1..200)
}

/// What a topic is, in plain terms.
#[derive(Default)]
struct Plain {
    epoch: Option<u64>,
    top: u64,
    used_at: u64,
    /// Offset, time and payload.
    messages: Vec<(u64, u64, Vec<u8>)>,
}

proptest! {
    #[test]
    fn it_is_what_a_plain_model_is(ops in ops()) {
        let mut histories = Histories::new(rules(), 1 << 20);
        let mut model: HashMap<usize, Plain> = HashMap::new();
        let mut now = 0;
        let rule = |topic: usize| RULES[match TOPICS[topic].as_bytes()[0] { b'a' => 0, b'b' => 1, _ => 2 }];
        for op in ops {
            match op {
                Op::Append(topic, length) => {
                    let payload = vec![b'x'; length];
                    let publication = Publication { content: Content::Text, payload: &payload, key: None };
                    let position = histories.append(TOPICS[topic], &publication, at(now)).expect("an order");
                    let plain = model.entry(topic).or_default();
                    plain.top += 1;
                    plain.used_at = now;
                    prop_assert_eq!(position.offset, plain.top);
                    prop_assert_eq!(*plain.epoch.get_or_insert(position.epoch), position.epoch);
                    plain.messages.push((plain.top, now, payload));
                    let most = rule(topic).1;
                    let surplus = plain.messages.len().saturating_sub(most);
                    plain.messages.drain(..surplus);
                }
                Op::Read(topic, after, before, limit, newest_first, max_bytes) => {
                    let range = Range { after, before, limit, newest_first, max_bytes };
                    let (position, selection) = histories.read(TOPICS[topic], at(now), |_| range).expect("an order");
                    let plain = model.entry(topic).or_default();
                    plain.used_at = now;
                    prop_assert_eq!(position.offset, plain.top);
                    prop_assert_eq!(*plain.epoch.get_or_insert(position.epoch), position.epoch);
                    let is_wanted = |offset: u64| offset > after && (before == 0 || offset < before);
                    let alive = plain.messages.iter().filter(|(_, at, _)| at + rule(topic).2 >= now);
                    let mut wanted: Vec<_> = alive.filter(|(offset, _, _)| is_wanted(*offset)).collect();
                    if newest_first {
                        wanted.reverse();
                    }
                    let goes_on = selection.goes_on;
                    let got: Vec<(u64, u64, Vec<u8>)> =
                        selection.map(|kept| (kept.offset, kept.unix - 1_000_000, kept.payload.to_vec())).collect();
                    let mut bytes = 0;
                    let fitting = wanted.iter().take(limit).take_while(|(_, _, payload)| {
                        let is_first = bytes == 0;
                        bytes += payload.len().max(1);
                        is_first || bytes <= max_bytes
                    });
                    let expected: Vec<(u64, u64, Vec<u8>)> = fitting.map(|message| (*message).clone()).collect();
                    prop_assert_eq!(goes_on, expected.len() < wanted.len());
                    prop_assert_eq!(got, expected);
                }
                Op::Forget(topic) => {
                    histories.forget(TOPICS[topic]);
                    if let Some(plain) = model.get_mut(&topic) {
                        *plain = Plain { used_at: plain.used_at, ..Plain::default() };
                    }
                }
                Op::Expire(wanted) => {
                    histories.expire(now, |_| wanted);
                    for (topic, plain) in &mut model {
                        if plain.used_at + rule(*topic).2 < now {
                            plain.messages.clear();
                            plain.used_at = now;
                            if !wanted {
                                *plain = Plain::default();
                            }
                        }
                    }
                }
                Op::Pass(time) => now += time,
            }
            let bytes: usize = histories.logs.iter().map(|(_, log)| log.cost() + log.entries.iter().map(Entry::cost).sum::<usize>()).sum();
            prop_assert_eq!(histories.bytes, bytes);
        }
    }
}
