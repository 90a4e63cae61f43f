//! The envelope of a message: JSON text that tells the message's position beside its data.

use std::io::Write;

use crate::topics::publication::{Content, Position, Publication};

/// Bytes of the names, the punctuation, and the longest epoch and offset.
const MAX_FRAME: usize = 80;

/// The message in its envelope; `None` if it is binary, for which JSON has no form.
pub(crate) fn envelope(topic: &str, position: Position, publication: Publication<'_>) -> Option<Vec<u8>> {
    if publication.content == Content::Binary {
        return None;
    }
    let mut out = Vec::with_capacity(MAX_FRAME + topic.len() + publication.payload.len());
    out.extend_from_slice(br#"{"topic":"#);
    write_string(&mut out, topic.as_bytes());
    // Writing to a `Vec` does not fail.
    let _ = write!(out, r#","epoch":"{}","offset":{},"data":"#, position.epoch_text(), position.offset);
    match publication.content {
        Content::Text => write_string(&mut out, publication.payload),
        Content::Json | Content::Binary => out.extend_from_slice(publication.payload),
    }
    out.push(b'}');
    Some(out)
}

/// The most bytes that a message has in its envelope.
pub fn enveloped_len(topic: &str, publication: &Publication<'_>) -> usize {
    let data = match publication.content {
        Content::Text => string_len(publication.payload),
        Content::Json | Content::Binary => publication.payload.len(),
    };
    MAX_FRAME + string_len(topic.as_bytes()) + data
}

/// The length of what [`write_string`] writes.
fn string_len(text: &[u8]) -> usize {
    let escaped = |byte: &u8| match byte {
        b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0c | b'\r' => 2,
        ..b' ' => 6,
        _ => 1,
    };
    2 + text.iter().map(escaped).sum::<usize>()
}

/// Writes UTF-8 as a string of JSON. Only what must be is escaped (RFC 8259 §7): quotation marks, backslashes and
/// control characters.
fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut rest = text;
    while let Some(place) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' ')) {
        out.extend_from_slice(&rest[..place]);
        match rest[place] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(br"\b"),
            b'\t' => out.extend_from_slice(br"\t"),
            b'\n' => out.extend_from_slice(br"\n"),
            0x0c => out.extend_from_slice(br"\f"),
            b'\r' => out.extend_from_slice(br"\r"),
            control => {
                let _ = write!(out, r"\u{control:04x}");
            }
        }
        rest = &rest[place + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::topics::publication::MAX_OFFSET;

    fn text_of(content: Content, topic: &str, payload: &str) -> String {
        let publication = Publication { content, payload: payload.as_bytes(), key: Some("not shown") };
        let bytes = envelope(topic, Position { epoch: 0x1f, offset: 12 }, publication).expect("an envelope");
        let longest =
            envelope(topic, Position { epoch: u64::MAX, offset: MAX_OFFSET }, publication).expect("an envelope");
        let limit = enveloped_len(topic, &publication);
        assert!((longest.len()..longest.len() + 10).contains(&limit), "{} and {limit}", longest.len());
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn it_is_compact_and_in_this_order() {
        let text = text_of(Content::Text, "room:1", "a \"b\" \\ \n\u{1f}\u{7f}ü");
        assert_eq!(
            text,
            r#"{"topic":"room:1","epoch":"1f","offset":12,"data":"a \"b\" \\ \n\u001f"#.to_owned() + "\u{7f}ü\"}"
        );
        let text = text_of(Content::Json, "room:1", r#"{"a":[1,null]}"#);
        assert_eq!(text, r#"{"topic":"room:1","epoch":"1f","offset":12,"data":{"a":[1,null]}}"#);
    }

    #[test]
    fn bytes_have_none() {
        let publication = Publication { content: Content::Binary, payload: b"x", key: None };
        assert_eq!(envelope("room:1", Position { epoch: 1, offset: 1 }, publication), None);
    }

    proptest! {
        #[test]
        fn it_is_json_with_the_same_values(
            topic: String, epoch in 1_u64.., offset: u64, text: String, is_json: bool,
        ) {
            let payload = if is_json { serde_json::to_string(&text).expect("JSON") } else { text.clone() };
            let content = if is_json { Content::Json } else { Content::Text };
            let position = Position { epoch, offset };
            let publication = Publication { content, payload: payload.as_bytes(), key: None };
            let bytes = envelope(&topic, position, publication).expect("an envelope");
            let value: Value = serde_json::from_slice(&bytes).expect("JSON");
            let expected = json!({ "topic": topic, "epoch": position.epoch_text(), "offset": offset, "data": text });
            prop_assert_eq!(value, expected);
            prop_assert_eq!(Position::parse_epoch(&position.epoch_text()), Some(epoch));
        }

        #[test]
        fn strings_are_escaped_as_serde_does(text: String) {
            let mut out = Vec::new();
            write_string(&mut out, text.as_bytes());
            prop_assert_eq!(out, serde_json::to_vec(&text).expect("JSON"));
        }
    }
}
