//! The sending half, checked by a receiving half: messages arrive as the same events, whatever their fragments and
//! however the network splits them, and a message that may not be sent is refused.

mod peer;

use peer::{Connection, Got, masked};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use wire::deflate::{Deflater, Parameters};
use wire::frame::{DataOpcode, Fin, Opcode, server_frame_len};
use wire::receiver::Receiver;
use wire::sender::{Compressor, Control, SendError, Sender};

const LIMIT: usize = 1 << 20;
const PLAIN: usize = usize::MAX;

/// A caller's request to a sender.
#[derive(Clone, Debug)]
enum Ask {
    Message(DataOpcode, Vec<u8>),
    Fragment(DataOpcode, Fin, Vec<u8>),
    Control(Control, Vec<u8>),
    Close(Option<u16>, String),
}

/// One connection's two halves, and the bytes that it has sent.
struct Side {
    sender: Sender,
    receiver: Receiver,
    deflater: Deflater,
    threshold: usize,
    sent: Vec<u8>,
}

impl Side {
    fn new(compression: Option<Parameters>, threshold: usize) -> Self {
        let (sender, receiver) = (Sender::new(compression), Receiver::new(compression));
        Self { sender, receiver, deflater: Deflater::new(), threshold, sent: Vec::new() }
    }

    fn ask(&mut self, ask: &Ask) -> Result<(), SendError> {
        let compressor = Compressor { deflater: &mut self.deflater, threshold: self.threshold };
        match ask {
            Ask::Message(opcode, payload) => self.sender.message(*opcode, payload, compressor, &mut self.sent),
            Ask::Fragment(opcode, fin, payload) => {
                let checked = self.sender.check_fragment(*opcode, *fin, payload);
                let done = self.sender.fragment(*opcode, *fin, payload, &mut self.sent);
                assert_eq!(checked, done);
                done
            }
            Ask::Control(control, payload) => self.sender.control(*control, payload, &mut self.sent),
            Ask::Close(code, reason) => self.sender.close(&mut self.receiver, *code, reason, &mut self.sent),
        }
    }
}

/// The expected result of each call, computed independently of the sender, from the whole text of each message.
#[derive(Default)]
struct Model {
    /// The opcode of the message in fragments, and what has been sent of it.
    message: Option<(DataOpcode, Vec<u8>)>,
    is_closed: bool,
    events: Vec<Got>,
}

impl Model {
    fn ask(&mut self, ask: &Ask) -> Result<(), SendError> {
        if self.is_closed {
            return Err(SendError::Closed);
        }
        match ask {
            Ask::Message(DataOpcode::Continuation, _) => return Err(SendError::NothingToContinue),
            Ask::Message(..) if self.message.is_some() => return Err(SendError::Unfinished),
            Ask::Message(opcode, payload) => self.events.push(event(*opcode, payload)),
            Ask::Fragment(opcode, fin, payload) => {
                let (opcode, mut whole) = match (&self.message, opcode) {
                    (Some(message), DataOpcode::Continuation) => message.clone(),
                    (Some(_), _) => return Err(SendError::Unfinished),
                    (None, DataOpcode::Continuation) => return Err(SendError::NothingToContinue),
                    (None, opcode) => (*opcode, Vec::new()),
                };
                whole.extend_from_slice(payload);
                if opcode == DataOpcode::Text
                    && let Err(error) = std::str::from_utf8(&whole)
                    && (*fin == Fin::Last || error.error_len().is_some())
                {
                    return Err(SendError::NotUtf8);
                }
                if *fin == Fin::Last {
                    self.events.push(event(opcode, &whole));
                    self.message = None;
                } else {
                    self.message = Some((opcode, whole));
                }
            }
            Ask::Control(_, payload) if payload.len() > 125 => return Err(SendError::ControlTooLong),
            Ask::Control(Control::Ping, payload) => self.events.push(Got::Ping(payload.clone())),
            Ask::Control(Control::Pong, payload) => self.events.push(Got::Pong(payload.clone())),
            Ask::Close(Some(1004..=1006 | 1015..=2999), _) => return Err(SendError::CloseCode),
            Ask::Close(code, reason) => {
                let reason = if code.is_some() { reason.clone() } else { String::new() };
                self.events.push(Got::Close(*code, reason));
                self.is_closed = true;
            }
        }
        Ok(())
    }
}

fn event(opcode: DataOpcode, payload: &[u8]) -> Got {
    match opcode {
        DataOpcode::Text => Got::Text(String::from_utf8(payload.to_vec()).expect("text")),
        _ => Got::Binary(payload.to_vec()),
    }
}

/// The same frames as a client would send them: with their payloads masked.
fn as_client(mut sent: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !sent.is_empty() {
        let length = server_frame_len(sent).expect("a whole header");
        let (frame, rest) = sent.split_at(length);
        let header_len = match frame[1] {
            127 => 10,
            126 => 4,
            _ => 2,
        };
        let opcode = Opcode::from_bits(frame[0] & 0b1111).expect("an opcode");
        bytes.extend(masked(frame[0] & 0x80 != 0, frame[0] & 0x40 != 0, opcode, &frame[header_len..]));
        sent = rest;
    }
    bytes
}

/// What the other side has heard when `sent` has arrived in pieces of these sizes, again and again.
fn heard(sent: &[u8], compression: Option<Parameters>, sizes: &[usize]) -> Vec<Got> {
    let mut other = Connection::new(compression, LIMIT);
    let bytes = as_client(sent);
    let mut rest = &bytes[..];
    let mut events = Vec::new();
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(size.min(rest.len()));
        events.extend(other.receive(piece));
        rest = after;
    }
    events
}

fn opcode() -> impl Strategy<Value = DataOpcode> {
    select(&[DataOpcode::Continuation, DataOpcode::Text, DataOpcode::Binary][..])
}

fn control() -> impl Strategy<Value = Ask> {
    let control = select(&[Control::Ping, Control::Pong][..]);
    (control, vec(any::<u8>(), 0..130)).prop_map(|(control, payload)| Ask::Control(control, payload))
}

/// One message in fragments, cut anywhere, also within characters, with control frames between them.
fn fragments() -> impl Strategy<Value = Vec<Ask>> {
    let content = prop_oneof![
        ".{0,80}".prop_map(|text| (DataOpcode::Text, text.into_bytes())),
        vec(any::<u8>(), 0..300).prop_map(|bytes| (DataOpcode::Binary, bytes)),
    ];
    (content, vec((any::<Index>(), proptest::option::of(control())), 0..5)).prop_map(|((opcode, payload), cuts)| {
        let mut cuts: Vec<(usize, Option<Ask>)> =
            cuts.into_iter().map(|(at, control)| (at.index(payload.len() + 1), control)).collect();
        cuts.sort_by_key(|(at, _)| *at);
        let (mut asks, mut start, mut opcode) = (Vec::new(), 0, opcode);
        for (at, control) in cuts {
            asks.push(Ask::Fragment(opcode, Fin::More, payload[start..at].to_vec()));
            asks.extend(control);
            (start, opcode) = (at, DataOpcode::Continuation);
        }
        asks.push(Ask::Fragment(opcode, Fin::Last, payload[start..].to_vec()));
        asks
    })
}

/// Any call, allowed or not. Only whole text messages are always UTF-8, because the caller has to check them.
fn anything() -> impl Strategy<Value = Ask> {
    let text = prop_oneof![
        ".{0,9}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..5),
        Just(vec![0xf0, 0x9f]),
        Just(vec![0x98, 0x80])
    ];
    prop_oneof![
        2 => ".{0,300}".prop_map(|text| Ask::Message(DataOpcode::Text, text.into_bytes())),
        1 => vec(0u8..3, 0..2000).prop_map(|bytes| Ask::Message(DataOpcode::Binary, bytes)),
        1 => Just(Ask::Message(DataOpcode::Continuation, b"more".to_vec())),
        6 => (opcode(), select(&[Fin::More, Fin::Last][..]), text)
            .prop_map(|(opcode, fin, bytes)| Ask::Fragment(opcode, fin, bytes)),
        2 => control(),
        1 => (select(&[None, Some(1000), Some(1004), Some(1006), Some(2000), Some(4999)][..]), "[a-zé]{0,60}")
            .prop_map(|(code, reason)| Ask::Close(code, reason)),
    ]
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let part = prop_oneof![fragments(), anything().prop_map(|ask| vec![ask])];
    vec(part, 0..12).prop_map(|parts| parts.concat())
}

fn compression() -> impl Strategy<Value = Option<Parameters>> {
    proptest::option::of((9u8..=15).prop_map(|server_max_window_bits| Parameters { server_max_window_bits }))
}

proptest! {
    #[test]
    fn what_is_sent_arrives_and_what_may_not_be_sent_is_refused(
        asks in asks(),
        compression in compression(),
        threshold in select(&[0, 64, PLAIN][..]),
        sizes in vec(prop_oneof![1usize..8, 1usize..400], 1..10),
    ) {
        let (mut side, mut model) = (Side::new(compression, threshold), Model::default());
        for ask in &asks {
            let before = side.sent.len();
            let outcome = side.ask(ask);
            prop_assert_eq!(outcome, model.ask(ask), "{:?}", ask);
            prop_assert_eq!(outcome.is_err(), side.sent.len() == before, "{:?}", ask);
            prop_assert_eq!(side.sender.is_closed(), model.is_closed);
            prop_assert_eq!(side.sender.is_mid_message(), model.message.is_some() && !model.is_closed);
            prop_assert_eq!(side.sender.is_ready(), model.message.is_none() && !model.is_closed);
        }
        prop_assert_eq!(side.receiver.is_open(), !model.is_closed);
        prop_assert_eq!(heard(&side.sent, compression, &sizes), model.events);
    }
}

#[test]
fn a_sender_is_small() {
    assert!(size_of::<Sender>() <= 8, "{} bytes", size_of::<Sender>());
}

#[test]
fn a_character_may_be_cut_anywhere() {
    let text = "aé€😀z".as_bytes();
    for first in 0..=text.len() {
        for second in first..=text.len() {
            let mut side = Side::new(None, PLAIN);
            let parts = [(DataOpcode::Text, &text[..first]), (DataOpcode::Continuation, &text[first..second])];
            for (opcode, part) in parts {
                assert_eq!(side.ask(&Ask::Fragment(opcode, Fin::More, part.to_vec())), Ok(()));
            }
            let last = Ask::Fragment(DataOpcode::Continuation, Fin::Last, text[second..].to_vec());
            assert_eq!(side.ask(&last), Ok(()));
            assert_eq!(heard(&side.sent, None, &[usize::MAX]), [event(DataOpcode::Text, text)]);
        }
    }
}

#[test]
fn a_refused_fragment_can_be_replaced() {
    let mut side = Side::new(None, PLAIN);
    let more = |bytes: &[u8]| Ask::Fragment(DataOpcode::Continuation, Fin::More, bytes.to_vec());
    assert_eq!(side.ask(&Ask::Fragment(DataOpcode::Text, Fin::More, b"\xe2\x82".to_vec())), Ok(()));
    assert_eq!(side.ask(&more(b"x")), Err(SendError::NotUtf8));
    let end = Ask::Fragment(DataOpcode::Continuation, Fin::Last, Vec::new());
    assert_eq!(side.ask(&end), Err(SendError::NotUtf8));
    assert_eq!(side.ask(&more(b"\xac")), Ok(()));
    assert_eq!(side.ask(&end), Ok(()));
    assert_eq!(heard(&side.sent, None, &[1]), [Got::Text("€".to_owned())]);
}

#[test]
fn messages_are_compressed_from_the_threshold_on_if_that_makes_them_shorter() {
    let compression = Some(Parameters { server_max_window_bits: 15 });
    let sent = |payload: &[u8]| {
        let mut side = Side::new(compression, 100);
        assert_eq!(side.ask(&Ask::Message(DataOpcode::Binary, payload.to_vec())), Ok(()));
        side.sent
    };
    assert!(sent(&[7; 100]).len() < 20);
    assert_eq!(sent(&[7; 99]).len(), 2 + 99);
    let noise: Vec<u8> = (0..=255).collect();
    assert_eq!(sent(&noise).len(), 4 + 256);
    assert_eq!(sent(&noise)[0], 0x82);
}

#[test]
fn close_may_be_sent_in_the_middle_of_a_message_and_is_the_last_thing() {
    let mut side = Side::new(None, PLAIN);
    assert_eq!(side.ask(&Ask::Fragment(DataOpcode::Binary, Fin::More, b"half".to_vec())), Ok(()));
    assert_eq!(side.ask(&Ask::Close(Some(1001), "bye".to_owned())), Ok(()));
    assert!(!side.receiver.is_open());
    let sent = side.sent.len();
    for late in [
        Ask::Fragment(DataOpcode::Continuation, Fin::Last, b"other half".to_vec()),
        Ask::Message(DataOpcode::Text, b"late".to_vec()),
        Ask::Control(Control::Pong, Vec::new()),
        Ask::Close(None, String::new()),
    ] {
        assert_eq!(side.ask(&late), Err(SendError::Closed));
    }
    assert_eq!(side.sent.len(), sent);
    assert_eq!(heard(&side.sent, None, &[3]), [Got::Close(Some(1001), "bye".to_owned())]);
}

#[test]
fn what_is_no_websocket_sends_nothing() {
    let (mut sender, mut out) = (Sender::closed(), Vec::new());
    let compressor = Compressor { deflater: &mut Deflater::new(), threshold: PLAIN };
    assert_eq!(sender.message(DataOpcode::Text, b"hello", compressor, &mut out), Err(SendError::Closed));
    assert_eq!(sender.fragment(DataOpcode::Text, Fin::More, b"hello", &mut out), Err(SendError::Closed));
    assert_eq!(sender.control(Control::Ping, b"", &mut out), Err(SendError::Closed));
    assert_eq!(sender.close(&mut Receiver::new(None), None, "", &mut out), Err(SendError::Closed));
    assert_eq!(out, []);
}
