//! Messages on the links and the control socket: what is encoded decodes to the same, and no input can do harm.

use std::net::SocketAddr;
use std::time::Duration;

use engine::{
    Answer, COUNTS, Command, Content, DataOpcode, Fd, Fin, Format, History, Info, Joined, Leave, Message, OldMessage,
    Page, Position, Publication, Question, Stats, VERSION, WorkerStats,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Values for the fields of any message.
#[derive(Clone, Debug)]
struct Values {
    fd: Fd,
    number: u64,
    opcode: DataOpcode,
    flag: bool,
    small: u8,
    code: u16,
    text: String,
    payload: Vec<u8>,
    ids: Vec<Fd>,
    client: SocketAddr,
}

prop_compose! {
    fn values()(
        fd in any::<Fd>(),
        number in any::<u64>(),
        opcode in prop_oneof![
            Just(DataOpcode::Continuation),
            Just(DataOpcode::Text),
            Just(DataOpcode::Binary),
        ],
        flag in any::<bool>(),
        small in any::<u8>(),
        code in any::<u16>(),
        text in ".{0,60}",
        payload in vec(any::<u8>(), 0..300),
        ids in vec(any::<Fd>(), 0..5),
        client in any::<SocketAddr>(),
    ) -> Values {
        // Flow labels and scopes are useful only to the kernel.
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        Values { fd, number, opcode, flag, small, code, text, payload, ids, client }
    }
}

fn commands(values: &Values) -> Vec<Command<'_>> {
    let Values { fd, opcode, flag, small: from, code, ref text, ref payload, ref ids, .. } = *values;
    let (fin, format) = if flag { (Fin::Last, Format::Text) } else { (Fin::More, Format::Binary) };
    let content = if flag { Content::Json } else { Content::Binary };
    let publication = Publication { content, payload, key: flag.then_some(text) };
    vec![
        Command::Push { fd, opcode, fin, payload },
        Command::Overflow { fd, length: values.number },
        Command::Ping { fd, payload },
        Command::Disconnect { fd, code, reason: text },
        Command::Subscribe { fd, topic: text, info: flag.then_some(text) },
        Command::Unsubscribe { fd, topic: text },
        Command::Publish { topic: text, publication, exclude: ids.into() },
        Command::Deliver {
            topic: text,
            position: Position { epoch: fd, offset: !fd },
            publication,
            exclude: ids.into(),
        },
        Command::Broadcast { opcode, payload, exclude: ids.into() },
        Command::PipeMessage { from, to: !from, format, payload },
    ]
}

fn messages(values: &Values) -> Vec<Message<'_>> {
    let Values { fd, number, opcode, flag, small: worker_id, code, ref text, ref payload, ref ids, client } = *values;
    let info = Info {
        fd,
        client,
        // 16 characters are at most 64 bytes.
        path: format!("/{}", text.chars().take(15).filter(|it| *it != '\0').collect::<String>()),
        topics: 6,
        latency: flag.then_some(Duration::from_micros(u64::from(code))),
        opened_at: number,
        last_received_at: !number,
        messages_in: 1,
        messages_out: 2,
        bytes_in: 3,
        bytes_out: 4,
        queued_bytes: 5,
    };
    let worker = WorkerStats { worker_id, started_at: number, counts: [number; COUNTS.len()] };
    let stats = Stats { started_at: fd, totals: [fd; COUNTS.len()], workers: vec![worker; ids.len()] };
    let fin = if flag { Fin::Last } else { Fin::More };
    let position = Position { epoch: number, offset: fd };
    let key = flag.then_some(text.as_str().into());
    let old = OldMessage { offset: fd, unix: number, content: Content::Text, key, payload: payload.as_slice().into() };
    let questions = [
        Question::Do(Command::Push { fd, opcode, fin, payload }),
        Question::Do(Command::Disconnect { fd, code, reason: text }),
        Question::Do(Command::PipeMessage { from: worker_id, to: !worker_id, format: Format::Binary, payload }),
        Question::Subscribers(text),
        Question::Topics { prefix: text, after: text, limit: code.into() },
        Question::Members { topic: text, after: fd, limit: code.into() },
        Question::History { topic: text, after: flag.then_some(position), before: fd, limit: 7, newest_first: flag },
        Question::Missed { topic: text, since: vec![position; ids.len()], last: 7, max_bytes: number },
        Question::Forget(text),
        Question::Presence { topic: text, after: fd, limit: 7 },
        Question::Join {
            fd,
            topic: text,
            since: flag.then_some(position),
            last: 7,
            floor: Some(position),
            info: flag.then_some(text),
        },
        Question::Stats,
        Question::Connections,
        Question::Info(fd),
        Question::Flush,
        Question::Drain(Duration::from_millis(1500)),
    ];
    let answers = [
        Answer::Done(flag),
        Answer::Count(fd),
        Answer::Topics(Page { entries: vec![(text.clone(), fd); ids.len()], goes_on: flag }),
        Answer::Members(Page { entries: ids.clone(), goes_on: flag }),
        Answer::History(History { position, messages: vec![old; ids.len()], goes_on: flag }.into()),
        Answer::Presence(Page { entries: vec![(fd, text.clone()); ids.len()], goes_on: flag }),
        Answer::Joined(Joined { recovered: flag, count: number, position }),
        Answer::Stats(stats.into()),
        Answer::Connections(ids.clone()),
        Answer::Info(flag.then_some((worker_id, info))),
        Answer::Refused,
        Answer::NoWorker(worker_id),
        Answer::Silent(payload.clone()),
    ];
    let mut messages = vec![
        Message::Sockets(vec![payload, b""]),
        Message::Leave(Leave::Stop),
        Message::Leave(Leave::Replace),
        Message::Leave(Leave::Terminate),
        Message::Drain(Duration::from_millis(code.into())),
        Message::SenderGone,
        Message::Dropped,
        Message::Wake,
        Message::Ready,
        Message::Leaving,
        Message::FewIds,
        Message::Reload,
        Message::Shutdown,
        Message::Watch(fd),
        Message::Unwatch(fd),
        Message::Gone(fd),
        Message::AwaitRoom { fd, host: 0, slot: 3, length: 1 << 33 },
        Message::Room { fd, host: 0, slot: 3 },
        Message::Hello { version: code.into() },
        Message::Joined { fd, number, topic: text, info: text },
        Message::Left { fd, number, topic: text },
        Message::Lost { number, fd, topic: text, info: text },
        Message::JoinTold { fd, number },
        Message::LeaveTold { fd, number },
        Message::Welcome { version: VERSION, send_queue_size: number, topics: vec![(text, flag); ids.len()] },
        Message::Welcome { version: VERSION + 1, send_queue_size: number, topics: Vec::new() },
    ];
    messages.extend(commands(values).into_iter().map(Message::Command));
    messages.extend(questions.map(|question| Message::Ask(number, Duration::from_millis(code.into()), question)));
    messages.extend(answers.map(|answer| Message::Answer(number, answer)));
    messages
}

/// The content of a message's only frame.
fn content(message: &Message<'_>) -> Vec<u8> {
    let mut frame = b"before".to_vec();
    message.encode(&mut frame);
    let frame = frame.strip_prefix(b"before").expect("a frame is appended");
    let (length, content) = frame.split_first_chunk().expect("a frame begins with its length");
    assert_eq!(u32::from_le_bytes(*length) as usize, content.len());
    content.to_vec()
}

proptest! {
    #[test]
    fn every_message_comes_back_as_it_was(values in values()) {
        for message in messages(&values) {
            let content = content(&message);
            prop_assert_eq!(Message::decode(&content), Ok(message));
        }
    }

    #[test]
    fn what_is_damaged_is_malformed_or_another_message(
        values in values(),
        length in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        for message in messages(&values) {
            let mut content = content(&message);
            content.truncate(length.index(content.len()) + 1);
            let place = place.index(content.len());
            content[place] = byte;
            check(&content)?;
        }
    }

    #[test]
    fn bytes_of_any_kind_are_malformed_or_a_message(bytes in vec(any::<u8>(), 0..300)) {
        check(&bytes)?;
    }
}

/// Anything that can be decoded is a message that can be sent.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(message) = Message::decode(bytes) {
        let content = content(&message);
        prop_assert_eq!(Message::decode(&content), Ok(message));
    }
    Ok(())
}

/// Replaced characters would be longer than what they stand for, so that the path would not be the same when it is sent
/// on.
#[test]
fn a_path_that_is_not_utf_8_is_malformed() {
    let info = Info {
        fd: 1,
        client: ([127, 0, 0, 1], 80).into(),
        path: format!("/{}", "x".repeat(63)),
        topics: 0,
        latency: None,
        opened_at: 0,
        last_received_at: 0,
        messages_in: 0,
        messages_out: 0,
        bytes_in: 0,
        bytes_out: 0,
        queued_bytes: 0,
    };
    let mut content = content(&Message::Answer(1, Answer::Info(Some((0, info)))));
    assert!(Message::decode(&content).is_ok());
    let place = content.iter().rposition(|byte| *byte == b'x').expect("the end of the path");
    content[place] = 0xFF;
    assert!(Message::decode(&content).is_err());
}
