//! A request's body: the same however it arrives, never beyond its limit, and the same again after it is written out.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use wire::body::BodyDecoder;
use wire::http::{BodyLength, Rejection};

const LIMIT: usize = 500;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    length: Option<u16>,
    pieces: Vec<Piece<'a>>,
    /// How many bytes arrive together, in turn.
    reads: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum Piece<'a> {
    Chunk(&'a [u8], Option<&'a str>),
    Last,
    Trailer(&'a str),
    Noise(&'a [u8]),
}

impl Piece<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Chunk(data, extension) => {
                let extension = extension.map(|text| format!(";{text}")).unwrap_or_default();
                [format!("{:x}{extension}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
            }
            Self::Last => b"0\r\n\r\n".to_vec(),
            Self::Trailer(line) => format!("0\r\n{line}\r\n\r\n").into_bytes(),
            Self::Noise(bytes) => bytes.to_vec(),
        }
    }
}

/// The content of a whole body, and the number of bytes it took; `None` if there is more to come.
fn decode(
    length: BodyLength,
    bytes: &[u8],
    mut reads: impl Iterator<Item = usize>,
) -> Result<Option<(Vec<u8>, usize)>, Rejection> {
    let mut decoder = BodyDecoder::new(length, LIMIT)?;
    let mut taken = 0;
    while taken < bytes.len() && !decoder.is_complete() {
        let end = bytes.len().min(taken + reads.next().unwrap_or(usize::MAX).min(bytes.len()));
        let count = decoder.decode(&bytes[taken..end])?;
        assert!(count == end - taken || decoder.is_complete(), "input that belongs to nothing");
        assert!(decoder.content().len() <= LIMIT);
        taken += count;
    }
    Ok(decoder.is_complete().then(|| (decoder.into_content(), taken)))
}

fuzz_target!(|input: Input<'_>| {
    let bytes = input.pieces.iter().flat_map(Piece::bytes).collect::<Vec<u8>>();
    let length = input.length.map_or(BodyLength::Chunked, |length| BodyLength::Length(length.into()));
    let at_once = decode(length, &bytes, std::iter::empty());
    let reads = input.reads.iter().map(|read| usize::from(*read).max(1)).chain(std::iter::repeat(1));
    assert_eq!(decode(length, &bytes, reads), at_once);
    match at_once {
        Ok(Some((content, _))) => {
            let again = [format!("{:x}\r\n", content.len()).as_bytes(), &content, b"\r\n0\r\n\r\n"].concat();
            let expected = if content.is_empty() { (content, 5) } else { (content, again.len()) };
            assert_eq!(decode(BodyLength::Chunked, &again, std::iter::repeat(1)), Ok(Some(expected)));
        }
        Ok(None) => {}
        Err(rejection) => assert!(matches!(rejection.status, 400 | 413 | 431), "{rejection:?}"),
    }
});
