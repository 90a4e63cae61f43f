//! Bodies that are accepted and bodies that are refused, however the network splits them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use wire::body::{BodyDecoder, MAX_CHUNK_LINE, MAX_EXTRAS};
use wire::http::BodyLength;

const LIMIT: usize = 1000;

/// The result for a body: its content and the number of bytes it took; `None` if there is more to come.
type Outcome = Result<Option<(Vec<u8>, usize)>, u16>;

fn decode<'a>(length: BodyLength, parts: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = BodyDecoder::new(length, LIMIT).map_err(|rejection| rejection.status)?;
    let mut taken = 0;
    for part in parts {
        taken += decoder.decode(part).map_err(|rejection| rejection.status)?;
        if decoder.is_complete() {
            break;
        }
    }
    Ok(decoder.is_complete().then(|| (decoder.into_content(), taken)))
}

fn chunked(bytes: impl AsRef<[u8]>) -> Outcome {
    decode(BodyLength::Chunked, [bytes.as_ref()])
}

/// Asserts that `bytes` are a whole body with this content.
#[track_caller]
fn assert_content(bytes: &str, content: &str) {
    let behind = format!("{bytes}GET / HTTP/1.1\r\n");
    assert_eq!(chunked(behind), Ok(Some((content.into(), bytes.len()))), "{bytes:?}");
}

#[track_caller]
fn assert_refused(bytes: impl AsRef<[u8]>, status: u16) {
    let bytes = bytes.as_ref();
    assert_eq!(chunked(bytes), Err(status), "{}", bytes.escape_ascii());
}

#[test]
fn a_body_of_known_length_ends_there() {
    let outcome = decode(BodyLength::Length(5), [&b"HelloGET /"[..]]);
    assert_eq!(outcome, Ok(Some((b"Hello".to_vec(), 5))));
    assert_eq!(decode(BodyLength::Length(5), [&b"Hell"[..]]), Ok(None));
}

#[test]
fn without_a_body_nothing_is_taken() {
    for length in [BodyLength::None, BodyLength::Length(0)] {
        let decoder = BodyDecoder::new(length, 0).expect("a decoder");
        assert!(decoder.is_complete());
    }
}

#[test]
fn a_length_above_the_limit_is_413() {
    assert_eq!(decode(BodyLength::Length(LIMIT as u64), []), Ok(None));
    assert_eq!(decode(BodyLength::Length(LIMIT as u64 + 1), []), Err(413));
    assert_eq!(decode(BodyLength::Length(u64::MAX), []), Err(413));
}

#[test]
fn chunks_are_joined() {
    assert_content("0\r\n\r\n", "");
    assert_content("5\r\nHello\r\n0\r\n\r\n", "Hello");
    assert_content("5\r\nHello\r\nA\r\n, \r\nworld!\r\n000\r\n\r\n", "Hello, \r\nworld!");
    assert_content("00000000000000a\r\n0123456789\r\n0\r\n\r\n", "0123456789");
}

#[test]
fn a_body_without_its_last_chunk_goes_on() {
    for bytes in ["", "5", "5\r\n", "5\r\nHello", "5\r\nHello\r\n", "5\r\nHello\r\n0\r\n", "0\r\nA: b\r\n"] {
        assert_eq!(chunked(bytes), Ok(None), "{bytes:?}");
    }
}

#[test]
fn odd_sizes_are_refused() {
    for size in ["", " ", "+5", "-5", "0x5", "5h", " 5", "5 ", "\t5", "5\t", "5,5", "5.", "g", "5\0", "\u{0665}"] {
        assert_refused(format!("{size}\r\nHello\r\n0\r\n\r\n"), 400);
    }
    assert_refused("00000000000000005\r\nHello\r\n0\r\n\r\n", 400);
    assert_refused("10000000000000005\r\nHello\r\n0\r\n\r\n", 400);
}

#[test]
fn odd_line_ends_are_refused() {
    for body in [
        "5\nHello\r\n0\r\n\r\n",
        "5\r\r\nHello\r\n0\r\n\r\n",
        "5\r\nHello\n0\r\n\r\n",
        "5\r\nHello\r0\r\n\r\n",
        "5\r\nHello0\r\n\r\n",
        "5\r\nHello\r\r\n0\r\n\r\n",
        "5\r\nHello\r\n\r\n0\r\n\r\n",
        "5\r\nHello, world\r\n0\r\n\r\n",
        "0\n\r\n",
        "0\r\n\n",
        "0\r\n\r\r\n",
    ] {
        assert_refused(body, 400);
    }
}

#[test]
fn extensions_are_checked_and_dropped() {
    for extensions in [";a", ";a=b", ";a;b=c;d", ";a=\"b c\\\"\\\\;\t\u{e9}\"", ";a=\"\";b"] {
        assert_content(&format!("5{extensions}\r\nHello\r\n0{extensions}\r\n\r\n"), "Hello");
    }
    for extensions in [
        ";",
        ";;a",
        ";a;",
        ";=b",
        ";a=",
        ";a=b=c",
        "; a",
        " ;a",
        ";a =b",
        ";a= b",
        ";a ",
        ";a\r",
        ";a=\"b",
        ";a=\"b\"c",
        ";a=\"\\\"",
        ";a=\"b\rc\"",
        ";a=\0",
        ";(",
        "g",
    ] {
        assert_refused(format!("5{extensions}\r\nHello\r\n0\r\n\r\n"), 400);
    }
}

#[test]
fn a_line_with_a_size_has_a_limit() {
    let line = |length: usize| format!("5;{}\r\nHello\r\n0\r\n\r\n", "a".repeat(length - "5;\r\n".len()));
    assert_content(&line(MAX_CHUNK_LINE), "Hello");
    assert_refused(line(MAX_CHUNK_LINE + 1), 400);
    assert_refused("5".repeat(MAX_CHUNK_LINE + 1), 400);
}

#[test]
fn trailers_are_checked_and_dropped() {
    assert_content("0\r\nA: b\r\nContent-Length: 5\r\n\r\n", "");
    for trailer in ["A", "A : b", " A: b", "A: b\r\n c", ": b", "\u{e9}: b", "A: \0", "A: b\rc"] {
        assert_refused(format!("0\r\n{trailer}\r\n\r\n"), 400);
    }
    assert_refused("0\r\nA: b\n\r\n", 400);
}

#[test]
fn extensions_and_trailers_have_a_limit_together() {
    let trailers = |length: usize| format!("0;a\r\nA:{}\r\n\r\n", "b".repeat(length - ";aA:".len()));
    assert_content(&trailers(MAX_EXTRAS), "");
    assert_refused(trailers(MAX_EXTRAS + 1), 431);
    assert_refused(format!("0\r\n{}", "A".repeat(MAX_EXTRAS + 3)), 431);
    let chunk = format!("1;{}\r\nx\r\n", "a".repeat(100));
    assert_refused(chunk.repeat(MAX_EXTRAS / 101 + 1), 431);
}

#[test]
fn chunks_above_the_limit_are_413_before_they_are_there() {
    assert_content(&format!("3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(LIMIT)), &"x".repeat(LIMIT));
    assert_refused("3e9\r\n", 413);
    assert_refused("ffffffffffffffff\r\n", 413);
    assert_refused(format!("3e8\r\n{}\r\n1\r\n", "x".repeat(LIMIT)), 413);
}

/// Something that a body may contain, right or wrong.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => vec(any::<u8>(), 1..40).prop_map(|data| {
            [format!("{:x}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat()
        }),
        2 => "[0-9a-f]{1,3}(;[a-z]{1,5}(=[a-z\"]{0,5})?)?\r\n".prop_map(String::into_bytes),
        2 => Just(b"0\r\n\r\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => "[A-Z]{0,5}:? ?[a-z]{0,5}\r\n".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..5),
    ]
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        pieces in vec(piece(), 0..8),
        cuts in vec(any::<Index>(), 0..8),
        length in prop_oneof![Just(BodyLength::Chunked), (0..200u64).prop_map(BodyLength::Length)],
    ) {
        let bytes = pieces.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let at_once = decode(length, [&bytes[..]]);
        prop_assert_eq!(decode(length, cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]])), at_once.clone());
        prop_assert_eq!(decode(length, bytes.chunks(1)), at_once);
    }
}
