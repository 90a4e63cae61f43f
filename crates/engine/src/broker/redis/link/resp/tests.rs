use proptest::prelude::*;

use super::super::input::Input;
use super::*;

/// The lengths of the frames in an input that arrives in pieces, and how it ends.
fn frames(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, &'static str> {
    let (mut input, mut found) = (Input::default(), Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let room = input.room();
            let count = rest.len().min(room.len());
            room[..count].copy_from_slice(&rest[..count]);
            input.filled(count);
            rest = &rest[count..];
            while let Some(frame) = input.next()? {
                found.push(frame.bytes.to_vec());
            }
        }
    }
    Ok(found)
}

fn refusal(input: &[u8]) -> &'static str {
    frames(&[input]).expect_err("it is refused")
}

#[test]
fn commands_are_lists_of_texts() {
    let mut encoded = Vec::new();
    encode(&[b"SET", b"", b"a\r\nb"], &mut encoded);
    assert_eq!(encoded, b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n");
    let mut encoded = Vec::new();
    encode(&[&[b'x'; 1234]], &mut encoded);
    assert!(encoded.starts_with(b"*1\r\n$1234\r\nx"));
    let mut header = Vec::new();
    encode_header(b'$', usize::MAX, &mut header);
    assert_eq!(header, format!("${}\r\n", usize::MAX).as_bytes());
}

#[test]
fn each_frame_is_found_however_the_input_is_split() {
    let input: &[u8] = b"+OK\r\n:1\r\n$5\r\na\r\nbc\r\n*0\r\n*2\r\n*1\r\n_\r\n%1\r\n+a\r\n#t\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n\
        =7\r\ntxt:abc\r\n!5\r\nERR x\r\n-ERR y\r\n,1.5\r\n(123\r\n~1\r\n:1\r\n";
    let whole = frames(&[input]).expect("it is well-formed");
    assert_eq!((whole.len(), whole.concat().as_slice()), (12, input));
    for at in 0..input.len() {
        let (one, other) = input.split_at(at);
        assert_eq!(frames(&[one, other]).as_ref(), Ok(&whole), "split at {at}");
    }
    let single: Vec<_> = input.chunks(1).collect();
    assert_eq!(frames(&single), Ok(whole));
}

#[test]
fn a_frame_that_cannot_be_taken_is_refused_before_it_is_there() {
    assert_eq!(refusal(b"$67108865\r\n"), "a text of no or of excessive length");
    assert_eq!(refusal(b"$99999999999999999999\r\n"), "a text of no or of excessive length");
    assert_eq!(refusal(b"$-1\r\n"), "a text of no or of excessive length");
    assert_eq!(refusal(b"$?\r\n"), "a text of no or of excessive length");
    assert_eq!(refusal(b"*1000001\r\n"), "a list of excessive length");
    assert_eq!(refusal(b"*600000\r\n*600000\r\n"), "a list of excessive length");
    assert_eq!(refusal(b"%9223372036854775807\r\n"), "a list of no length");
    assert_eq!(refusal(b"*-1\r\n"), "a list of no length");
    assert_eq!(refusal(&b"*1\r\n".repeat(9)), "lists that are nested too deep");
    assert_eq!(refusal(&b"*1\r\n".repeat(1_000_000)), "lists that are nested too deep");
    assert_eq!(refusal(&vec![b'+'; 70_000]), "a line of excessive length");
    assert_eq!(refusal(b"$1\r\nabc\r\n"), "a text that is longer than it claims");
    assert_eq!(refusal(b"+a\nb\r\n"), "a line that ends wrongly");
    assert_eq!(refusal(b"+a\rb\r\n"), "a line that ends wrongly");
    assert_eq!(refusal(b"\r\n"), "a frame of no kind");
    assert_eq!(refusal(b"HTTP/1.1 400 Bad Request\r\n"), "a frame of unknown kind");
    assert_eq!(refusal(b"|1\r\n+a\r\n+b\r\n+c\r\n"), "a frame of unknown kind");
    assert_eq!(refusal(b":one\r\n"), "a malformed frame");
    assert_eq!(refusal(b"#x\r\n"), "a malformed frame");
}

#[test]
fn a_frame_as_large_as_it_may_be_is_taken() {
    const LENGTH: usize = MAX_FRAME - 20;
    let mut input = format!("${LENGTH}\r\n").into_bytes();
    input.resize(input.len() + LENGTH, b'x');
    input.extend_from_slice(b"\r\n");
    let pieces: Vec<_> = input.chunks(1_000_000).collect();
    assert_eq!(frames(&pieces).expect("it is taken").concat().len(), input.len());
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let text =
        |kind: &'static str, text: Vec<u8>| [format!("{kind}{}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat();
    let leaf = prop_oneof![
        any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(move |bytes| text("$", bytes)),
        "[a-z ]{0,20}".prop_map(|line| format!("+{line}\r\n").into_bytes()),
        "[a-z ]{0,20}".prop_map(|line| format!("-{line}\r\n").into_bytes()),
        Just(b"_\r\n".to_vec()),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        (prop::sample::select(vec!['*', '>']), prop::collection::vec(inner, 0..6))
            .prop_map(|(kind, parts)| [format!("{kind}{}\r\n", parts.len()).into_bytes(), parts.concat()].concat())
    })
}

proptest! {
    #[test]
    fn frames_are_what_was_written(written in prop::collection::vec(frame(), 1..10), size in 1usize..40) {
        let input = written.concat();
        let pieces: Vec<_> = input.chunks(size).collect();
        prop_assert_eq!(frames(&pieces), Ok(written));
    }

    #[test]
    fn nothing_that_arrives_makes_it_panic(
        input in prop::collection::vec(prop_oneof![
            any::<u8>(), prop::sample::select(b"$*:>+-_%=!\r\n0123456789".to_vec())
        ], 0..300),
        size in 1usize..40,
    ) {
        let pieces: Vec<_> = input.chunks(size).collect();
        let whole = frames(&[&input]);
        prop_assert_eq!(frames(&pieces).is_ok(), whole.is_ok());
    }

    #[test]
    fn one_wrong_byte_does_not_make_it_panic(mut input in frame(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let at = at.index(input.len());
        input[at] = byte;
        let _ = frames(&[&input]);
    }
}
