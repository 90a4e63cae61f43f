//! permessage-deflate: what is agreed (RFC 7692 §7.1), and the examples of §7.2.3.

use wire::deflate::{Deflater, Inflater, MalformedExtensions, Parameters, negotiate};
use wire::error::{Error, close_code};

const BASE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

#[track_caller]
fn accepted(headers: &[&str]) -> (u8, String) {
    let agreed = negotiate(headers.iter().copied()).expect("a well-formed header");
    let (Parameters { server_max_window_bits }, response) = agreed.expect("an acceptable offer");
    (server_max_window_bits, response)
}

#[track_caller]
fn assert_declined(header: &str) {
    assert_eq!(negotiate([header].into_iter()), Ok(None), "{header}");
}

#[track_caller]
fn inflated(compressed: &[u8], limit: usize) -> Result<Vec<u8>, u16> {
    let mut out = Vec::new();
    match Inflater::new().inflate(compressed, limit, &mut out) {
        Ok(()) => Ok(out),
        Err(Error { code, .. }) => Err(code),
    }
}

#[test]
fn a_bare_offer_is_accepted_without_context_takeover() {
    assert_eq!(accepted(&["permessage-deflate"]), (15, BASE.to_owned()));
}

#[test]
fn what_browsers_offer_is_accepted() {
    assert_eq!(accepted(&["permessage-deflate; client_max_window_bits"]), (15, BASE.to_owned()));
    assert_eq!(
        accepted(&["permessage-deflate; server_no_context_takeover; client_no_context_takeover"]),
        (15, BASE.to_owned())
    );
}

#[test]
fn a_window_that_the_client_asks_for_is_kept() {
    for bits in 9..=15 {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}");
        assert_eq!(accepted(&[&offer]), (bits, format!("{BASE}; server_max_window_bits={bits}")));
    }
}

#[test]
fn values_may_be_quoted_and_spaced() {
    let (bits, _) = accepted(&["permessage-deflate ;\tserver_max_window_bits = \"10\" "]);
    assert_eq!(bits, 10);
}

#[test]
fn every_client_window_is_accepted() {
    for bits in 8..=15 {
        let offer = format!("permessage-deflate; client_max_window_bits={bits}");
        assert_eq!(accepted(&[&offer]), (15, BASE.to_owned()));
    }
}

#[test]
fn the_first_acceptable_offer_is_taken() {
    let offers = "permessage-bzip2, permessage-deflate; server_max_window_bits=8, \
                  permessage-deflate; server_max_window_bits=10, permessage-deflate";
    assert_eq!(accepted(&[offers]).0, 10);
    assert_eq!(accepted(&["x-unknown", "", "permessage-deflate; server_max_window_bits=9"]).0, 9);
}

#[test]
fn offers_that_are_declined() {
    assert_declined("");
    assert_declined(", ,");
    assert_declined("permessage-deflat");
    assert_declined("permessage-deflate; unknown");
    assert_declined("permessage-deflate; server_max_window_bits");
    for value in ["8", "16", "7", "0", "09", "1e1", "abc", "+9", "256"] {
        assert_declined(&format!("permessage-deflate; server_max_window_bits={value}"));
    }
    for value in ["7", "16", "08", "x"] {
        assert_declined(&format!("permessage-deflate; client_max_window_bits={value}"));
    }
    assert_declined("permessage-deflate; server_no_context_takeover=1");
    assert_declined("permessage-deflate; client_no_context_takeover=true");
    assert_declined("permessage-deflate; client_max_window_bits; client_max_window_bits=10");
    assert_declined("permessage-deflate; server_no_context_takeover; server_no_context_takeover");
}

#[test]
fn what_breaks_the_grammar_is_malformed() {
    for header in [
        "permessage-deflate;",
        ";",
        "=",
        "permessage-deflate; =10",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate; server_max_window_bits=\"10",
        "permessage-deflate; server_max_window_bits=\"\"",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate, (comment)",
        "permessage-deflate, ä",
    ] {
        assert_eq!(negotiate([header].into_iter()), Err(MalformedExtensions), "{header}");
    }
}

#[test]
fn the_examples_of_the_rfc_inflate() {
    // §7.2.3.1: one block. §7.2.3.3: a block without compression. §7.2.3.4: BFINAL set. §7.2.3.5:
    // two blocks.
    for compressed in [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ] {
        assert_eq!(inflated(compressed, 5), Ok(b"Hello".to_vec()), "{compressed:02x?}");
    }
}

#[test]
fn a_hello_deflates_as_in_the_rfc() {
    let mut out = Vec::new();
    Deflater::new().deflate(b"Hello", 15, &mut out);
    assert_eq!(out, [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
}

#[test]
fn an_empty_message_is_one_zero_byte() {
    let mut out = Vec::new();
    Deflater::new().deflate(b"", 15, &mut out);
    assert_eq!(out, [0x00]);
    assert_eq!(inflated(&out, 0), Ok(Vec::new()));
}

#[test]
fn no_message_depends_on_the_one_before() {
    let mut deflater = Deflater::new();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    deflater.deflate(b"the same words again", 15, &mut first);
    deflater.deflate(b"the same words again", 15, &mut second);
    assert_eq!(first, second);
}

#[test]
fn what_is_in_the_output_already_stays() {
    let mut out = b"before ".to_vec();
    Deflater::new().deflate(b"Hello", 15, &mut out);
    assert_eq!(&out[..7], b"before ");

    let mut text = b"before ".to_vec();
    Inflater::new().inflate(&out[7..], 5, &mut text).expect("valid data");
    assert_eq!(text, b"before Hello");
}

#[test]
fn a_bomb_is_stopped_at_the_limit() {
    let mut bomb = Vec::new();
    Deflater::new().deflate(&vec![0; 1 << 20], 15, &mut bomb);
    assert!(bomb.len() < 8 * 1024);

    assert_eq!(inflated(&bomb, 1 << 20).map(|data| data.len()), Ok(1 << 20));
    for limit in [0, 1, 1000, 4095, 4096, 4097, (1 << 20) - 1] {
        let mut out = Vec::new();
        let error = Inflater::new().inflate(&bomb, limit, &mut out).expect_err("a refusal");
        assert_eq!(error.code, close_code::TOO_BIG);
        assert!(out.capacity() <= limit + 1, "{} bytes for a limit of {limit}", out.capacity());
    }
}

#[test]
fn an_inflater_works_on_after_an_error() {
    let mut inflater = Inflater::new();
    let mut out = Vec::new();
    let error = inflater.inflate(&[0xff, 0xff, 0xff], 100, &mut out).expect_err("a refusal");
    assert_eq!(error.code, close_code::INVALID_DATA);

    out.clear();
    inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 100, &mut out).expect("valid data");
    assert_eq!(out, b"Hello");
}

#[test]
#[should_panic(expected = "a window of 8 bits")]
fn a_window_that_was_never_negotiated_panics() {
    Deflater::new().deflate(b"", 8, &mut Vec::new());
}
