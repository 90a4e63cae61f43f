//! Properties that hold for any input, above all: the result is the same however the network splits it.

mod peer;

use peer::{Connection, Got, masked};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use wire::deflate::{Deflater, Inflater, Parameters};
use wire::frame::Opcode;
use wire::http::{Head, find_head_end};
use wire::mask::unmask;

const LIMIT: usize = 2048;
const COMPRESSION: Option<Parameters> = Some(Parameters { server_max_window_bits: 15 });

/// Bytes for the wire, with the events that they should produce.
#[derive(Clone, Default, Debug)]
struct Script {
    bytes: Vec<u8>,
    events: Vec<Got>,
}

/// A message in fragments, with pings between them, or a single control frame.
fn piece() -> impl Strategy<Value = Script> {
    prop_oneof![
        4 => (".{0,300}", any::<bool>(), vec(any::<Index>(), 0..4), vec(any::<u8>(), 0..126))
            .prop_map(|(text, compressed, cuts, ping)| {
                let event = Got::Text(text.clone());
                message(Opcode::Text, text.as_bytes(), compressed, &cuts, &ping, event)
            }),
        4 => (vec(any::<u8>(), 0..LIMIT), any::<bool>(), vec(any::<Index>(), 0..4))
            .prop_map(|(data, compressed, cuts)| {
                message(Opcode::Binary, &data, compressed, &cuts, b"", Got::Binary(data.clone()))
            }),
        1 => vec(any::<u8>(), 0..126).prop_map(|payload| Script {
            bytes: masked(true, false, Opcode::Pong, &payload),
            events: vec![Got::Pong(payload)],
        }),
    ]
}

fn message(opcode: Opcode, data: &[u8], compressed: bool, cuts: &[Index], ping: &[u8], event: Got) -> Script {
    let mut payload = data.to_vec();
    if compressed {
        payload.clear();
        Deflater::new().deflate(data, 15, &mut payload);
    }
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
    cuts.sort_unstable();
    let mut script = Script::default();
    let mut start = 0;
    for (index, end) in cuts.iter().copied().chain([payload.len()]).enumerate() {
        let (opcode, rsv1) = if index == 0 { (opcode, compressed) } else { (Opcode::Continuation, false) };
        let fin = index == cuts.len();
        script.bytes.extend(masked(fin, rsv1, opcode, &payload[start..end]));
        if !fin {
            script.bytes.extend(masked(true, false, Opcode::Ping, ping));
            script.events.push(Got::Ping(ping.to_vec()));
        }
        start = end;
    }
    script.events.push(event);
    script
}

fn script() -> impl Strategy<Value = Script> {
    vec(piece(), 0..6).prop_map(|pieces| Script {
        bytes: pieces.iter().flat_map(|piece| piece.bytes.clone()).collect(),
        events: pieces.into_iter().flat_map(|piece| piece.events).collect(),
    })
}

/// Changes made to a script's bytes: where, and to what.
fn damage() -> impl Strategy<Value = Vec<(Index, u8)>> {
    vec((any::<Index>(), any::<u8>()), 1..4)
}

/// What happens when `bytes` arrive in pieces of these sizes, again and again.
fn receive_in_pieces(bytes: &[u8], sizes: &[usize]) -> Vec<Got> {
    let mut connection = Connection::new(COMPRESSION, LIMIT);
    let mut rest = bytes;
    let mut events = Vec::new();
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        events.extend(connection.receive(piece));
        rest = behind;
    }
    events
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1usize..8, 1usize..400], 1..10)
}

proptest! {
    #[test]
    fn any_split_of_a_script_gives_its_events(script in script(), sizes in sizes()) {
        prop_assert_eq!(receive_in_pieces(&script.bytes, &sizes), script.events);
    }

    #[test]
    fn any_split_of_broken_bytes_gives_the_same_events_and_error(
        script in script(),
        damage in damage(),
        sizes in sizes(),
    ) {
        let mut bytes = script.bytes;
        for (at, value) in damage.iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        let at_once = receive_in_pieces(&bytes, &[usize::MAX]);
        prop_assert_eq!(receive_in_pieces(&bytes, &sizes), at_once);
    }

    #[test]
    fn any_split_of_noise_gives_the_same_events_and_error(
        bytes in vec(any::<u8>(), 0..200),
        sizes in sizes(),
    ) {
        let at_once = receive_in_pieces(&bytes, &[usize::MAX]);
        prop_assert_eq!(receive_in_pieces(&bytes, &sizes), at_once);
    }

    #[test]
    fn unmasking_agrees_with_its_definition(
        data in vec(any::<u8>(), 0..300),
        key: [u8; 4],
        offset: u16,
    ) {
        let offset = usize::from(offset);
        let expected: Vec<u8> =
            data.iter().enumerate().map(|(i, byte)| byte ^ key[(i + offset) % 4]).collect();
        let mut unmasked = data;
        unmask(&mut unmasked, key, offset);
        prop_assert_eq!(unmasked, expected);
    }

    #[test]
    fn what_is_deflated_inflates_to_itself(
        data in prop_oneof![vec(any::<u8>(), 0..5000), vec(0u8..3, 0..50_000)],
        window_bits in 9u8..=15,
    ) {
        let (mut compressed, mut inflated) = (Vec::new(), Vec::new());
        Deflater::new().deflate(&data, window_bits, &mut compressed);
        prop_assert_eq!(Inflater::new().inflate(&compressed, data.len(), &mut inflated), Ok(()));
        prop_assert_eq!(inflated, data);
    }

    #[test]
    fn inflating_noise_never_passes_the_limit(
        noise in vec(any::<u8>(), 0..500),
        limit in 0usize..10_000,
    ) {
        let mut out = Vec::new();
        let outcome = Inflater::new().inflate(&noise, limit, &mut out);
        prop_assert!(out.capacity() <= limit + 1);
        prop_assert!(outcome.is_err() || out.len() <= limit);
    }

    #[test]
    fn a_head_is_found_at_the_same_place_byte_by_byte(head in "([a\r\n]{0,3}|\r\n){0,20}") {
        let bytes = head.as_bytes();
        let at_once = find_head_end(bytes, &mut 0);
        let mut scanned = 0;
        let by_byte = (0..=bytes.len()).find_map(|end| find_head_end(&bytes[..end], &mut scanned));
        prop_assert_eq!(by_byte, at_once);
    }

    #[test]
    fn a_head_that_is_taken_is_read_the_same_when_written_again(
        head in "(GET|OPTIONS) [/*a-z?%:]{1,9} HTTP/1\\.[01]\r\nHost: [a-z:0-9]{0,9}\r\n\
                 ([A-Za-z-]{1,5}:[ \t]{0,2}[ -~]{0,9}\r\n){0,5}\r\n"
    ) {
        if let Ok(parsed) = Head::parse(head.as_bytes()) {
            let mut again = format!(
                "{} {} HTTP/1.{}\r\n", parsed.method(), parsed.target(), parsed.minor_version()
            );
            for (name, value) in parsed.headers() {
                again.push_str(&format!("{name}: {}\r\n", String::from_utf8_lossy(value)));
            }
            again.push_str("\r\n");
            let reparsed = Head::parse(again.as_bytes()).expect("a head that was taken before");
            prop_assert!(reparsed.headers().eq(parsed.headers()));
            prop_assert_eq!(reparsed.path_and_query(), parsed.path_and_query());
        }
    }
}
