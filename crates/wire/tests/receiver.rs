//! One connection, fed with bytes: messages, control frames, limits, the closing handshake.

mod peer;

use peer::{Connection, Got, masked};
use wire::deflate::{Deflater, Inflater, Parameters};
use wire::error::close_code;
use wire::event::Event;
use wire::frame::Opcode::{self, Binary, Close, Continuation, Ping, Pong, Text};
use wire::receiver::Receiver;
use wire::sender::Sender;

const LIMIT: usize = 1024;
const COMPRESSED: Option<Parameters> = Some(Parameters { server_max_window_bits: 15 });

fn close(connection: &mut Connection, code: u16) -> Vec<u8> {
    let mut out = Vec::new();
    assert_eq!(Sender::new(None).close(&mut connection.receiver, Some(code), "", &mut out), Ok(()));
    out
}

/// What happens when `frames` arrive at once on a new connection.
fn receive(compression: Option<Parameters>, frames: &[Vec<u8>]) -> Vec<Got> {
    Connection::new(compression, LIMIT).receive(&frames.concat())
}

/// The same, byte by byte.
fn trickle(compression: Option<Parameters>, frames: &[Vec<u8>]) -> Vec<Got> {
    let mut connection = Connection::new(compression, LIMIT);
    frames.concat().chunks(1).flat_map(|byte| connection.receive(byte)).collect()
}

#[track_caller]
fn assert_received(compression: Option<Parameters>, frames: &[Vec<u8>], expected: &[Got]) {
    assert_eq!(receive(compression, frames), expected);
    assert_eq!(trickle(compression, frames), expected, "byte by byte");
}

#[track_caller]
fn assert_fails(frames: &[Vec<u8>], code: u16) {
    assert_received(None, frames, &[Got::Failure(code)]);
}

fn text(text: &str) -> Got {
    Got::Text(text.to_owned())
}

/// The header of a client's frame that claims `length` bytes, none of which follow.
fn claim(fin: bool, opcode: Opcode, length: u64) -> Vec<u8> {
    let first = opcode as u8 | if fin { 0x80 } else { 0 };
    let mut header = vec![first, 0xff];
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(&[1, 2, 3, 4]);
    header
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Deflater::new().deflate(data, 15, &mut out);
    out
}

#[test]
fn a_connection_is_small() {
    assert!(size_of::<Receiver>() <= 96, "{} bytes", size_of::<Receiver>());
}

#[test]
fn messages_arrive() {
    let long = "ä".repeat(LIMIT / 2);
    let frames = [
        masked(true, false, Text, b"Hello"),
        masked(true, false, Text, b""),
        masked(true, false, Binary, &[0, 255, 254]),
        masked(true, false, Text, long.as_bytes()),
    ];
    let expected = [text("Hello"), text(""), Got::Binary(vec![0, 255, 254]), text(&long)];
    assert_received(None, &frames, &expected);
}

#[test]
fn fragments_are_joined_with_control_frames_between() {
    let frames = [
        masked(false, false, Text, b"He"),
        masked(true, false, Ping, b"between"),
        masked(false, false, Continuation, b""),
        masked(true, false, Pong, b""),
        masked(true, false, Continuation, b"llo"),
        masked(true, false, Text, b"next"),
    ];
    let expected = [Got::Ping(b"between".to_vec()), Got::Pong(vec![]), text("Hello"), text("next")];
    assert_received(None, &frames, &expected);
}

#[test]
fn a_character_may_be_split_between_fragments() {
    let bytes = "€𝄞".as_bytes();
    for split in 0..=bytes.len() {
        let frames = [masked(false, false, Text, &bytes[..split]), masked(true, false, Continuation, &bytes[split..])];
        assert_received(None, &frames, &[text("€𝄞")]);
    }
}

#[test]
fn a_whole_message_is_handed_out_without_a_copy() {
    let mut receiver = Receiver::new(None);
    let mut inflater = Inflater::new();
    let mut input = masked(true, false, Text, b"Hello");
    let payload_at = input.as_ptr().wrapping_add(6);
    let (taken, event) = receiver.receive(&mut input, LIMIT, &mut inflater);
    let Ok(Some(Event::Text(text))) = event else { panic!("{event:?}") };
    assert_eq!((taken, text.as_ptr()), (11, payload_at));
    assert_eq!(receiver.buffered(), 0);
}

#[test]
fn the_buffer_of_a_gathered_message_is_freed_by_the_next_call() {
    let mut connection = Connection::new(None, LIMIT);
    connection.receive(&masked(false, false, Binary, &[7; 100]));
    assert_eq!(connection.receiver.buffered(), 100);

    let mut last = masked(true, false, Continuation, &[7; 100]);
    let (_, event) = connection.receiver.receive(&mut last, LIMIT, &mut connection.inflater);
    assert_eq!(event, Ok(Some(Event::Binary(&[7; 200]))));
    assert_eq!(connection.receive(&[]), []);
    assert_eq!(connection.receiver.buffered(), 0);
}

#[test]
fn the_buffer_of_a_gathered_message_can_be_freed_at_once() {
    let mut connection = Connection::new(None, LIMIT);
    connection.receive(&masked(false, false, Binary, &[7; 100]));
    connection.receiver.free_handed_out();
    assert_eq!(connection.receiver.buffered(), 100);
    let mut last = masked(true, false, Continuation, &[7; 100]);
    let (_, event) = connection.receiver.receive(&mut last, LIMIT, &mut connection.inflater);
    assert_eq!(event, Ok(Some(Event::Binary(&[7; 200]))));
    connection.receiver.free_handed_out();
    assert_eq!(connection.receiver.buffered(), 0);
}

#[test]
fn only_what_comes_of_an_unfinished_message_is_progress() {
    let mut connection = Connection::new(None, LIMIT);
    connection.receive(&masked(true, false, Binary, &[7; 10]));
    assert!(!connection.receiver.is_mid_message());
    connection.receive(&masked(false, false, Binary, &[7; 10]));
    assert!(connection.receiver.is_mid_message());
    let before = connection.receiver.progress();
    connection.receive(&masked(true, false, Ping, b"still here"));
    assert_eq!(connection.receiver.progress(), before);
    let mut rest = masked(true, false, Continuation, &[7; 10]);
    let last = rest.split_off(8);
    connection.receive(&rest);
    let begun = connection.receiver.progress();
    assert_ne!(begun, before);
    connection.receive(&last[..1]);
    assert_ne!(connection.receiver.progress(), begun);
    connection.receive(&last[1..]);
    assert!(!connection.receiver.is_mid_message());
}

#[test]
fn while_no_message_is_unfinished_every_frame_is_progress() {
    let mut connection = Connection::new(None, LIMIT);
    let mut before = connection.receiver.progress();
    for frame in [masked(true, false, Text, b"whole"), masked(true, false, Ping, b""), masked(true, false, Pong, b"")] {
        connection.receive(&frame);
        assert_ne!(connection.receiver.progress(), before);
        before = connection.receiver.progress();
    }
}

#[test]
fn what_is_left_is_only_a_partial_header_or_control_frame() {
    let mut connection = Connection::new(None, LIMIT);
    let ping = masked(true, false, Ping, &[1; 125]);
    assert_eq!(connection.receive(&ping[..130]), []);
    assert_eq!(connection.unread.len(), 130);
    assert_eq!(connection.receive(&ping[130..]), [Got::Ping(vec![1; 125])]);

    assert_eq!(connection.receive(&masked(true, false, Binary, &[0; 500])[..300]), []);
    assert_eq!(connection.unread.len(), 0);
    assert!(connection.receiver.is_mid_frame());
}

#[test]
fn between_fragments_the_peer_is_not_in_the_middle_of_a_frame() {
    let mut connection = Connection::new(None, LIMIT);
    connection.receive(&masked(false, false, Text, b"He"));
    assert!(!connection.receiver.is_mid_frame());
}

#[test]
fn frames_in_the_wrong_order_fail() {
    assert_fails(&[masked(true, false, Continuation, b"")], 1002);
    assert_fails(&[masked(false, false, Continuation, b"")], 1002);
    assert_fails(&[masked(false, false, Text, b"a"), masked(true, false, Text, b"b")], 1002);
    assert_fails(&[masked(false, false, Text, b"a"), masked(true, false, Binary, b"b")], 1002);
}

#[test]
fn after_an_error_nothing_is_read() {
    let frames = [masked(true, false, Continuation, b""), masked(true, false, Text, b"Hello")];
    let mut connection = Connection::new(None, LIMIT);
    assert_eq!(connection.receive(&frames.concat()), [Got::Failure(1002)]);
    assert_eq!(connection.receive(&frames.concat()), []);
    assert!(connection.unread.is_empty());
    assert!(!connection.receiver.is_open() && !connection.receiver.close_received());
    close(&mut connection, close_code::PROTOCOL_ERROR);
}

#[test]
fn text_that_is_not_utf8_fails() {
    for bytes in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\x80", b"\xe2\x82"] {
        assert_fails(&[masked(true, false, Text, bytes)], 1007);
        assert_fails(&[masked(false, false, Text, bytes), masked(true, false, Continuation, b"")], 1007);
    }
}

#[test]
fn text_fails_in_the_middle_of_a_frame() {
    let frame = masked(true, false, Text, b"Hello \xed\xa0 and more to come");
    let mut connection = Connection::new(None, LIMIT);
    assert_eq!(connection.receive(&frame[..6 + 7]), []);
    assert_eq!(connection.receive(&frame[6 + 7..6 + 8]), [Got::Failure(1007)]);
}

#[test]
fn a_message_may_have_the_largest_size_and_not_a_byte_more() {
    let most = vec![b'a'; LIMIT];
    let whole = Got::Binary(most.clone());
    assert_received(None, &[masked(true, false, Binary, &most)], std::slice::from_ref(&whole));
    assert_received(
        None,
        &[masked(false, false, Binary, &most[..1000]), masked(true, false, Continuation, &most[1000..])],
        &[whole],
    );

    assert_fails(&[masked(true, false, Binary, &[0; LIMIT + 1])], 1009);
    assert_fails(
        &[masked(false, false, Binary, &[0; 1000]), masked(true, false, Continuation, &[0; LIMIT - 999])],
        1009,
    );
}

#[test]
fn a_message_too_big_fails_at_the_header() {
    let mut connection = Connection::new(None, LIMIT);
    assert_eq!(connection.receive(&masked(true, false, Binary, &[0; LIMIT + 1])[..8]), [Got::Failure(1009)]);
    assert_eq!(connection.receiver.buffered(), 0);
}

#[test]
fn a_claim_allocates_nothing() {
    let mut receiver = Receiver::new(None);
    let mut inflater = Inflater::new();
    let mut header = claim(true, Binary, 1 << 62);
    assert_eq!(receiver.receive(&mut header, usize::MAX, &mut inflater), (14, Ok(None)));
    assert_eq!(receiver.buffered(), 0);
    for total in 1..=1000 {
        assert_eq!(receiver.receive(&mut [0], usize::MAX, &mut inflater), (1, Ok(None)));
        assert!(receiver.buffered() <= 2 * total, "{} bytes for {total}", receiver.buffered());
    }
}

#[test]
fn the_buffer_does_not_reach_beyond_the_frame() {
    let mut connection = Connection::new(None, LIMIT);
    let frame = masked(true, false, Binary, &[0; 1000]);
    connection.receive(&frame[..600]);
    connection.receive(&frame[600..900]);
    assert_eq!(connection.receiver.buffered(), 1000);
}

#[test]
fn compressed_messages_arrive() {
    let message = "Hello, hello, hello, hello";
    let compressed = deflated(message.as_bytes());
    let frames = [
        masked(true, true, Text, &compressed),
        masked(true, false, Text, b"not compressed"),
        masked(false, true, Binary, &compressed[..3]),
        masked(true, false, Ping, b""),
        masked(false, false, Continuation, &compressed[3..4]),
        masked(true, false, Continuation, &compressed[4..]),
    ];
    let binary = Got::Binary(message.as_bytes().to_vec());
    assert_received(COMPRESSED, &frames, &[text(message), text("not compressed"), Got::Ping(vec![]), binary]);
}

#[test]
fn the_limit_holds_for_what_is_inflated() {
    let most = deflated(&[b'a'; LIMIT]);
    assert_received(COMPRESSED, &[masked(true, true, Text, &most)], &[text(&"a".repeat(LIMIT))]);

    let frames = [masked(true, true, Text, &deflated(&[b'a'; LIMIT + 1]))];
    assert_received(COMPRESSED, &frames, &[Got::Failure(1009)]);
}

#[test]
fn compressed_bytes_are_bounded_too() {
    let mut connection = Connection::new(COMPRESSED, LIMIT);
    let empty_blocks = [0x00, 0x00, 0x00, 0xff, 0xff].repeat(20);
    let mut events = connection.receive(&masked(false, true, Binary, &empty_blocks));
    for _ in 0..20 {
        assert!(connection.receiver.buffered() <= 2 * LIMIT);
        events.extend(connection.receive(&masked(false, false, Continuation, &empty_blocks)));
    }
    assert_eq!(events, [Got::Failure(1009)]);
}

#[test]
fn what_cannot_be_inflated_or_is_not_text_fails() {
    for payload in [&b"\xff\xff\xff"[..], &deflated(b"\xff")] {
        assert_received(COMPRESSED, &[masked(true, true, Text, payload)], &[Got::Failure(1007)]);
    }
}

#[test]
fn rsv1_is_for_the_first_frame_of_a_message_and_only_if_agreed() {
    assert_fails(&[masked(true, true, Text, b"\x00")], 1002);
    for opcode in [Close, Ping, Pong] {
        assert_received(COMPRESSED, &[masked(true, true, opcode, b"")], &[Got::Failure(1002)]);
    }
    let frames = [masked(false, true, Text, b"\x00"), masked(true, true, Continuation, b"\x00")];
    assert_received(COMPRESSED, &frames, &[Got::Failure(1002)]);
}

#[test]
fn a_close_says_code_and_reason() {
    for (payload, expected) in [
        (&b""[..], Got::Close(None, String::new())),
        (b"\x03\xe8", Got::Close(Some(1000), String::new())),
        (b"\x0f\xa0bye", Got::Close(Some(4000), "bye".to_owned())),
    ] {
        assert_received(None, &[masked(true, false, Close, payload)], &[expected]);
    }
}

#[test]
fn every_close_code_is_judged() {
    for code in 0..=u16::MAX {
        let events = receive(None, &[masked(true, false, Close, &code.to_be_bytes())]);
        let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let expected = if valid { Got::Close(Some(code), String::new()) } else { Got::Failure(1002) };
        assert_eq!(events, [expected], "code {code}");
    }
}

#[test]
fn a_faulty_close_fails() {
    assert_fails(&[masked(true, false, Close, b"\x03")], 1002);
    assert_fails(&[masked(true, false, Close, b"\x03\xe8\xff")], 1007);
}

#[test]
fn the_peer_closes_first() {
    let mut connection = Connection::new(None, LIMIT);
    assert!(connection.receiver.is_open());
    let frames = [masked(true, false, Close, b"\x03\xe8"), masked(true, false, Text, b"too late")];
    assert_eq!(connection.receive(&frames.concat()), [Got::Close(Some(1000), String::new())]);
    assert!(connection.receiver.close_received());
    assert!(!connection.receiver.is_open());

    assert_eq!(close(&mut connection, 1000), [0x88, 2, 0x03, 0xe8]);
    assert_eq!(connection.receive(b"anything"), []);
}

#[test]
fn after_our_close_all_but_the_peers_is_discarded() {
    let mut connection = Connection::new(COMPRESSED, LIMIT);
    let long = masked(true, false, Binary, &[0; 500]);
    connection.receive(&long[..300]);
    close(&mut connection, close_code::GOING_AWAY);
    assert_eq!(connection.receiver.buffered(), 0);

    let behind = [
        long[300..].to_vec(),
        masked(true, false, Ping, b"are you there?"),
        masked(false, true, Text, &[0xff; 5000]),
        masked(true, false, Continuation, b"\xff"),
        masked(true, false, Close, b"\x03\xe9"),
    ];
    let events: Vec<Got> = behind.concat().chunks(7).flat_map(|bytes| connection.receive(bytes)).collect();
    assert_eq!(events, [Got::Close(Some(1001), String::new())]);
    assert_eq!(connection.receiver.buffered(), 0);
    assert!(connection.receiver.close_received());
}

#[test]
fn after_our_close_a_broken_frame_still_fails() {
    let mut connection = Connection::new(None, LIMIT);
    close(&mut connection, close_code::NORMAL);
    assert_eq!(connection.receive(&[0x81, 0x05]), [Got::Failure(1002)]);
}
