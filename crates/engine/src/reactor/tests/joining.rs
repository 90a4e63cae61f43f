//! Topics with memory: in a server of one process, which has the broker itself, and in a worker whose hub is played.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::language::command::Command;
use crate::language::history::{History, OldMessage};
use crate::language::message::{Answer, FrameBuffer, Joined, Message, Question, content};
use crate::reactor::event::MemberEvent;
use crate::reactor::tests::application::{Seen, Who};
use crate::reactor::tests::simulation::Simulation;
use crate::registry::Fd;
use crate::settings::Settings;
use crate::topics::options::{TopicOptions, TopicRules};
use crate::topics::publication::{Content, Position, Publication};

const SECONDS: u64 = 60;

fn options(pattern: &str) -> TopicOptions {
    TopicOptions {
        pattern: pattern.into(),
        history: 0,
        seconds: Duration::from_secs(SECONDS),
        presence: false,
        envelope: false,
        lagging: None,
        ttl: None,
    }
}

fn simulation() -> Simulation {
    let rules = vec![
        TopicOptions { history: 10, presence: true, ..options("room:*") },
        TopicOptions { history: 1000, ..options("log") },
    ];
    Simulation::new(Settings { topics: TopicRules::new(rules), send_queue_size: 5000, ..Settings::roomy() })
}

fn publish(simulation: &mut Simulation, topic: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        simulation.reactor.publish(topic, Publication::text(&number.to_string()), &[]);
    }
}

/// Joins, and returns the outcome.
fn join(simulation: &mut Simulation, fd: Fd, topic: &str, since: Option<Position>, last: u32) -> Joined {
    simulation.application.seen.clear();
    simulation.reactor.join_topic(9, fd, topic, since, last, None);
    simulation.run();
    let mut answers = simulation.application.seen.iter().filter_map(|seen| match seen {
        Seen::Answered(9, Answer::Joined(joined)) => Some(*joined),
        _ => None,
    });
    let joined = answers.next().expect("an answer");
    assert_eq!(answers.next(), None);
    joined
}

fn got(simulation: &mut Simulation, who: Who) -> Vec<u64> {
    simulation.run();
    simulation.client(who).read();
    simulation.client(who).texts().iter().map(|text| text.parse().expect("a number")).collect()
}

fn numbers(numbers: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    numbers.collect()
}

#[test]
fn old_messages_come_before_live_ones_and_none_twice() {
    let mut simulation = simulation();
    let (who, fd) = simulation.open();
    publish(&mut simulation, "room:1", 1..=5);
    let joined = join(&mut simulation, fd, "room:1", None, 3);
    assert_eq!((joined.recovered, joined.count, joined.position.offset), (false, 3, 5));
    publish(&mut simulation, "room:1", 6..=7);
    assert_eq!(got(&mut simulation, who), numbers(3..=7));
    // It is subscribed: another join sends nothing again.
    let again = join(&mut simulation, fd, "room:1", Some(Position { offset: 2, ..joined.position }), 10);
    assert_eq!((again.recovered, again.count, again.position.offset), (false, 0, 7));
    publish(&mut simulation, "room:1", 8..=8);
    assert_eq!(got(&mut simulation, who), numbers(3..=8));
}

#[test]
fn what_was_missed_is_recovered_if_all_of_it_is_there() {
    let mut simulation = simulation();
    publish(&mut simulation, "room:1", 1..=5);
    let (_, fd) = simulation.open();
    let position = join(&mut simulation, fd, "room:1", None, 0).position;
    assert_eq!(position.offset, 5);
    publish(&mut simulation, "room:1", 6..=15);
    for (offset, is_recovered) in [(5, true), (14, true), (15, true), (4, false), (16, false)] {
        let (who, fd) = simulation.open();
        let joined = join(&mut simulation, fd, "room:1", Some(Position { offset, ..position }), 2);
        assert_eq!((joined.recovered, joined.position.offset), (is_recovered, 15), "{offset}");
        // If not everything is there, only those are sent that were asked for in that case.
        let first = if is_recovered { offset + 1 } else { 14 };
        let expected: Vec<u64> = (first..16).collect();
        assert_eq!(joined.count as usize, expected.len());
        assert_eq!(got(&mut simulation, who), expected, "{offset}");
    }
    let (who, fd) = simulation.open();
    let other = Position { epoch: position.epoch ^ 1, offset: 14 };
    let joined = join(&mut simulation, fd, "room:1", Some(other), 0);
    assert_eq!(joined, Joined { recovered: false, count: 0, position: Position { offset: 15, ..position } });
    assert_eq!(got(&mut simulation, who), Vec::<u64>::new());
}

#[test]
fn an_empty_topic_has_a_position_to_come_back_to() {
    let mut simulation = simulation();
    let (_, fd) = simulation.open();
    let position = join(&mut simulation, fd, "room:1", None, 10).position;
    assert_eq!(position.offset, 0);
    simulation.reactor.unsubscribe(fd, "room:1");
    publish(&mut simulation, "room:1", 1..=3);
    let (who, fd) = simulation.open();
    assert!(join(&mut simulation, fd, "room:1", Some(position), 0).recovered);
    assert_eq!(got(&mut simulation, who), numbers(1..=3));
}

#[test]
fn what_does_not_fit_into_the_outbox_is_not_sent_in_part() {
    let mut simulation = simulation();
    let (_, fd) = simulation.open();
    let position = join(&mut simulation, fd, "log", None, 0).position;
    publish(&mut simulation, "log", 1001..=1900);
    simulation.run();
    // With what they take in an outbox, 71 of them fit.
    let (who, fd) = simulation.open();
    let joined = join(&mut simulation, fd, "log", Some(position), 5);
    assert_eq!((joined.recovered, joined.count), (false, 5));
    assert_eq!(got(&mut simulation, who), numbers(1896..=1900));
    let (who, fd) = simulation.open();
    let joined = join(&mut simulation, fd, "log", Some(Position { offset: 830, ..position }), 0);
    assert_eq!((joined.recovered, joined.count), (true, 70));
    assert_eq!(got(&mut simulation, who), numbers(1831..=1900));
    // Of the last ones, as many are sent as fit.
    let (who, fd) = simulation.open();
    let joined = join(&mut simulation, fd, "log", None, 900);
    assert_eq!((joined.recovered, joined.count), (false, 71));
    assert_eq!(got(&mut simulation, who), numbers(1901 - joined.count..=1900));
}

#[test]
fn a_connection_that_is_not_open_joins_nothing() {
    let mut simulation = simulation();
    assert_eq!(join(&mut simulation, 77, "room:1", None, 10), Joined::default());
    let (_, fd) = simulation.open();
    simulation.reactor.disconnect(fd, 1000, "");
    assert_eq!(join(&mut simulation, fd, "room:1", None, 10), Joined::default());
    assert!(simulation.reactor.memberships_are_empty());
}

#[test]
fn a_topic_without_history_is_only_subscribed_to() {
    let mut simulation = simulation();
    let (who, fd) = simulation.open();
    publish(&mut simulation, "news", 1..=3);
    assert_eq!(join(&mut simulation, fd, "news", None, 10), Joined::default());
    publish(&mut simulation, "news", 4..=4);
    assert_eq!(got(&mut simulation, who), [4]);
}

#[test]
fn history_expires_in_its_time() {
    let mut simulation = simulation();
    let (_, fd) = simulation.open();
    publish(&mut simulation, "room:1", 1..=2);
    simulation.pass(Duration::from_secs(SECONDS / 2));
    publish(&mut simulation, "room:1", 3..=3);
    simulation.pass(Duration::from_secs(SECONDS / 2) + Duration::from_millis(1));
    let (who, other) = simulation.open();
    let joined = join(&mut simulation, other, "room:1", None, 10);
    assert_eq!(got(&mut simulation, who), [3]);
    // With a subscriber, the topic keeps its position.
    simulation.pass(Duration::from_secs(10 * SECONDS));
    publish(&mut simulation, "room:1", 4..=4);
    let position = join(&mut simulation, fd, "room:1", None, 0).position;
    assert_eq!(position, Position { offset: 4, ..joined.position });
    // Without, nothing is left.
    simulation.reactor.unsubscribe(fd, "room:1");
    simulation.reactor.unsubscribe(other, "room:1");
    simulation.pass(Duration::from_secs(2 * SECONDS));
    let position = join(&mut simulation, fd, "room:1", None, 0).position;
    assert_eq!(position.offset, 0);
    assert_ne!(position.epoch, joined.position.epoch);
}

fn member_events(simulation: &mut Simulation) -> Vec<(MemberEvent, Fd, String)> {
    simulation.run();
    let events = simulation.application.seen.drain(..).filter_map(|seen| match seen {
        Seen::Member(event, topic, fd, info) if topic == "room:1" => Some((event, fd, info)),
        _ => None,
    });
    events.collect()
}

#[test]
fn members_are_told_when_they_join_and_leave() {
    use MemberEvent::{Joined, Left};
    let mut simulation = simulation();
    let ((_, one), (who, two)) = (simulation.open(), simulation.open());
    simulation.reactor.subscribe(one, "room:1", Some("1"));
    simulation.reactor.subscribe(one, "news", Some("1"));
    simulation.reactor.subscribe(two, "room:1", None);
    assert_eq!(member_events(&mut simulation), [(Joined, one, "1".into()), (Joined, two, "null".into())]);
    // Only what is known changes.
    simulation.reactor.subscribe(one, "room:1", Some("2"));
    simulation.reactor.subscribe(one, "room:1", None);
    assert_eq!(member_events(&mut simulation), []);
    simulation.reactor.ask(3, &Question::Presence { topic: "room:1", after: 0, limit: 10 });
    simulation.run();
    let Some(Seen::Answered(3, Answer::Presence(page))) = simulation.application.seen.pop() else { panic!() };
    assert_eq!(page.entries, [(one, "2".into()), (two, "null".into())]);
    simulation.reactor.unsubscribe(one, "room:1");
    simulation.reactor.unsubscribe(one, "room:1");
    simulation.client(who).leave();
    assert_eq!(member_events(&mut simulation), [(Left, one, "2".into()), (Left, two, "null".into())]);
    assert!(simulation.reactor.memberships_are_empty());
}

/// The hub at the other end of a worker's link.
struct PlayedHub {
    stream: UnixStream,
    input: FrameBuffer,
}

impl PlayedHub {
    fn of(simulation: &mut Simulation) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        ours.set_nonblocking(true).expect("a flag");
        simulation.reactor.join(theirs.into()).expect("joined");
        Self { stream: ours, input: FrameBuffer::default() }
    }

    fn send(&mut self, simulation: &mut Simulation, message: &Message<'_>) {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.stream.write_all(&frame).expect("written");
        simulation.run();
    }

    fn deliver(&mut self, simulation: &mut Simulation, offset: u64) {
        let text = offset.to_string();
        let (position, publication) = (Position { epoch: 7, offset }, Publication::text(&text));
        let exclude = Cow::Borrowed(&[][..]);
        let command = Command::Deliver { topic: "room:1", position, publication, exclude };
        self.send(simulation, &Message::Command(command));
    }

    /// The number of the question about missed messages that the worker has asked, and its positions.
    fn question(&mut self) -> Option<(u64, Vec<Position>)> {
        while let Ok(count) = self.stream.read(self.input.room()) {
            self.input.filled(count);
        }
        let mut asked = None;
        while let Some(frame) = self.input.next_frame(usize::MAX).expect("frames") {
            let message = Message::decode(content(self.input.frame(frame))).expect("a message");
            if let Message::Ask(number, _, Question::Missed { since, .. }) = message {
                assert!(asked.replace((number, since)).is_none(), "it asks twice");
            }
        }
        asked
    }

    fn answer(&mut self, simulation: &mut Simulation, number: u64, offsets: std::ops::RangeInclusive<u64>) {
        self.answer_of(simulation, 7, number, offsets);
    }

    fn answer_of(
        &mut self,
        simulation: &mut Simulation,
        epoch: u64,
        number: u64,
        offsets: std::ops::RangeInclusive<u64>,
    ) {
        let position = Position { epoch, offset: *offsets.end() };
        let messages = offsets.map(|offset| OldMessage {
            offset,
            unix: 0,
            content: Content::Text,
            key: None,
            payload: offset.to_string().as_bytes().into(),
        });
        let history = History { position, messages: messages.collect(), goes_on: false };
        self.send(simulation, &Message::Answer(number, Answer::History(history.into())));
    }
}

#[test]
fn what_a_worker_has_missed_is_filled_in_or_its_subscribers_are_told() {
    for (first, is_complete) in [(3, true), (4, true), (5, false)] {
        let mut simulation = simulation();
        let mut hub = PlayedHub::of(&mut simulation);
        let (who, fd) = simulation.open();
        simulation.reactor.subscribe(fd, "room:1", None);
        for offset in 1..=3 {
            hub.deliver(&mut simulation, offset);
        }
        assert!(hub.question().is_none());
        // Some were dropped. Until they are there, nothing later is delivered.
        hub.deliver(&mut simulation, 6);
        hub.deliver(&mut simulation, 7);
        let (number, since) = hub.question().expect("a question");
        assert!(since.contains(&Position { epoch: 7, offset: 3 }), "{since:?}");
        assert_eq!(got(&mut simulation, who), numbers(1..=3));
        hub.answer(&mut simulation, number, first..=7);
        hub.deliver(&mut simulation, 8);
        simulation.client(who).read();
        if is_complete {
            assert_eq!(got(&mut simulation, who), numbers(1..=8));
        } else {
            assert_eq!(simulation.client(who).close_code(), Some(1013));
        }
        assert!(hub.question().is_none());
    }
}

#[test]
fn after_messages_were_dropped_a_worker_asks_without_waiting_for_the_next() {
    let mut simulation = simulation();
    let mut hub = PlayedHub::of(&mut simulation);
    let (who, fd) = simulation.open();
    simulation.reactor.subscribe(fd, "room:1", None);
    hub.deliver(&mut simulation, 1);
    hub.send(&mut simulation, &Message::Dropped);
    let (number, _) = hub.question().expect("a question");
    hub.answer(&mut simulation, number, 1..=3);
    assert_eq!(got(&mut simulation, who), numbers(1..=3));
    hub.deliver(&mut simulation, 4);
    assert_eq!(got(&mut simulation, who), numbers(1..=4));
}

#[test]
fn an_answer_to_a_join_fills_the_gap_that_it_shows() {
    let mut simulation = simulation();
    let mut hub = PlayedHub::of(&mut simulation);
    let (who, fd) = simulation.open();
    let (_, newcomer) = simulation.open();
    simulation.reactor.subscribe(fd, "room:1", None);
    hub.deliver(&mut simulation, 1);
    simulation.reactor.join_topic(1, newcomer, "room:1", None, 0, None);
    simulation.run();
    let (number, _) = hub.question().expect("a question");
    hub.answer(&mut simulation, number, 1..=3);
    hub.deliver(&mut simulation, 4);
    assert_eq!(got(&mut simulation, who), numbers(1..=4));
}

#[test]
fn what_is_missed_right_after_the_first_join_is_noticed() {
    let mut simulation = simulation();
    let mut hub = PlayedHub::of(&mut simulation);
    let (who, fd) = simulation.open();
    simulation.reactor.join_topic(1, fd, "room:1", None, 0, None);
    simulation.run();
    let (number, _) = hub.question().expect("a question");
    hub.answer(&mut simulation, number, 1..=3);
    hub.deliver(&mut simulation, 6);
    let (number, since) = hub.question().expect("a question");
    assert!(since.contains(&Position { epoch: 7, offset: 3 }), "{since:?}");
    hub.answer(&mut simulation, number, 4..=6);
    assert_eq!(got(&mut simulation, who), numbers(4..=6));
}

#[test]
fn if_the_history_was_lost_with_messages_subscribers_are_told_before_the_next_one() {
    let mut simulation = simulation();
    let mut hub = PlayedHub::of(&mut simulation);
    let (who, fd) = simulation.open();
    simulation.reactor.subscribe(fd, "room:1", None);
    hub.deliver(&mut simulation, 1);
    hub.send(&mut simulation, &Message::Dropped);
    let (number, _) = hub.question().expect("a question");
    // The new epoch has no message yet.
    hub.answer_of(&mut simulation, 8, number, std::ops::RangeInclusive::new(1, 0));
    simulation.client(who).read();
    assert_eq!(simulation.client(who).close_code(), Some(1013));
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again_and_a_join_that_waits_too_long_ends() {
    let mut simulation = simulation();
    let mut hub = PlayedHub::of(&mut simulation);
    let (who, fd) = simulation.open();
    simulation.reactor.join_topic(5, fd, "room:1", None, 2, None);
    simulation.run();
    let (first, _) = hub.question().expect("a question");
    // The hub was too busy.
    hub.send(&mut simulation, &Message::Answer(first, Answer::Refused));
    assert!(hub.question().is_none());
    simulation.pass(Duration::from_millis(100));
    let (second, _) = hub.question().expect("the question again");
    hub.answer(&mut simulation, second, 1..=2);
    assert_eq!(got(&mut simulation, who), numbers(1..=2));
    let (_, other) = simulation.open();
    simulation.reactor.join_topic(6, other, "room:1", None, 2, None);
    simulation.pass(Duration::from_secs(6));
    assert!(simulation.application.seen.contains(&Seen::Answered(6, Answer::SilentHost(0))));
}

#[test]
fn a_join_learns_that_the_broker_does_not_answer() {
    let mut simulation = simulation();
    let mut hub = PlayedHub::of(&mut simulation);
    let (_, fd) = simulation.open();
    simulation.reactor.join_topic(5, fd, "room:1", None, 2, None);
    simulation.run();
    // As the hub answers while Redis is away.
    for _ in 0..60 {
        if let Some((number, _)) = hub.question() {
            hub.send(&mut simulation, &Message::Answer(number, Answer::SilentHost(0)));
        }
        simulation.pass(Duration::from_millis(100));
    }
    assert!(simulation.application.seen.contains(&Seen::Answered(5, Answer::SilentHost(0))));
}
