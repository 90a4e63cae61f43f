//! The frame codec against RFC 6455 §5.2 and the examples of §5.7.

use wire::error::{Error, close_code};
use wire::frame::{
    DataOpcode, Fin, FirstByte, Header, Opcode, decode, encode, encode_close, encode_header, server_frame_len,
};

fn decoded(bytes: &[u8]) -> Header {
    decode(bytes).expect("a valid header").expect("a whole header")
}

#[track_caller]
fn assert_protocol_error(bytes: &[u8]) {
    match decode(bytes) {
        Err(Error { code: close_code::PROTOCOL_ERROR, .. }) => {}
        other => panic!("{bytes:02x?}: {other:?}"),
    }
}

#[test]
fn the_masked_hello_of_the_rfc() {
    let header = decoded(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let expected = Header { fin: true, rsv1: false, opcode: Opcode::Text, mask, payload_len: 5, header_len: 6 };
    assert_eq!(header, expected);
}

#[test]
fn the_server_frames_of_the_rfc() {
    let mut out = Vec::new();
    encode(&mut out, FirstByte::whole(Opcode::Text), b"Hello");
    assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);

    out.clear();
    encode(&mut out, FirstByte::fragment(DataOpcode::Text, Fin::More), b"Hel");
    encode(&mut out, FirstByte::fragment(DataOpcode::Continuation, Fin::Last), b"lo");
    assert_eq!(out, [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f]);

    out.clear();
    encode(&mut out, FirstByte::whole(Opcode::Ping), b"Hello");
    assert_eq!(out, [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);

    out.clear();
    encode_header(&mut out, FirstByte::whole(Opcode::Binary), 256);
    assert_eq!(out, [0x82, 0x7e, 0x01, 0x00]);

    out.clear();
    encode_header(&mut out, FirstByte::whole(Opcode::Binary), 65_536);
    assert_eq!(out, [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn lengths_are_encoded_in_their_shortest_form_and_read_back() {
    for (length, header_len) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10), (1 << 40, 10)] {
        let mut server = Vec::new();
        encode_header(&mut server, FirstByte::whole(Opcode::Binary), length);
        assert_eq!(server.len(), header_len, "length {length}");
        assert_eq!(server_frame_len(&server), Some(header_len + length));

        let mut client = server;
        client[1] |= 0x80;
        client.extend_from_slice(&[1, 2, 3, 4]);
        let header = decoded(&client);
        assert_eq!((header.payload_len, header.header_len), (length as u64, header_len + 4));
        assert_eq!(header.mask, [1, 2, 3, 4]);
    }
}

#[test]
fn a_header_cut_anywhere_wants_more() {
    for whole in [
        &[0x82, 0x85, 1, 2, 3, 4][..],
        &[0x82, 0xfe, 0x01, 0x00, 1, 2, 3, 4],
        &[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4],
    ] {
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), Ok(None), "{end} bytes of {whole:02x?}");
        }
        assert_eq!(decoded(whole).header_len, whole.len());
    }
}

#[test]
fn a_server_frame_whose_header_is_cut_has_no_length_yet() {
    for whole in [&[0x82, 0x05][..], &[0x82, 126, 1, 0], &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]] {
        for end in 0..whole.len() {
            assert_eq!(server_frame_len(&whole[..end]), None);
        }
    }
}

#[test]
fn reserved_bits_and_opcodes_fail_at_the_first_byte() {
    for bits in [0x10, 0x20, 0x30] {
        assert_protocol_error(&[0x81 | bits]);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_protocol_error(&[0x80 | opcode]);
    }
}

#[test]
fn a_fragmented_or_long_control_frame_fails() {
    for opcode in [8, 9, 10] {
        assert_protocol_error(&[opcode]);
        assert_protocol_error(&[0x80 | opcode, 0x80 | 126]);
        assert_protocol_error(&[0x80 | opcode, 0x80 | 127]);
        assert_eq!(decode(&[0x80 | opcode, 0x80 | 125]), Ok(None));
    }
}

#[test]
fn an_unmasked_frame_fails() {
    assert_protocol_error(&[0x81, 0x05]);
}

#[test]
fn a_length_not_in_its_shortest_form_fails() {
    assert_protocol_error(&[0x82, 0xfe, 0, 125]);
    assert_protocol_error(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    assert_eq!(decode(&[0x82, 0xfe, 0, 126]), Ok(None));
}

#[test]
fn a_length_with_its_top_bit_set_fails() {
    assert_protocol_error(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(decode(&[0x82, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0]), Ok(None));
}

#[test]
fn close_frames() {
    let mut out = Vec::new();
    encode_close(&mut out, None, "");
    assert_eq!(out, [0x88, 0]);

    out.clear();
    encode_close(&mut out, Some(1000), "bye");
    assert_eq!(out, [0x88, 5, 0x03, 0xe8, b'b', b'y', b'e']);
}

#[test]
fn a_long_close_reason_is_cut_between_two_characters() {
    let mut out = Vec::new();
    encode_close(&mut out, Some(1000), &"ä".repeat(62));
    assert_eq!(out.len(), 2 + 2 + 122);
    assert_eq!(out[4..], *"ä".repeat(61).as_bytes());

    out.clear();
    encode_close(&mut out, Some(1000), &"a".repeat(123));
    assert_eq!(out.len(), 2 + 125);
}
