//! permessage-deflate: we can do what is agreed, inflating stops at its limit, and inflating undoes deflating.
#![no_main]

use std::cell::RefCell;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use wire::deflate::{Deflater, Inflater, negotiate};
use wire::error::close_code;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    extensions: Vec<&'a str>,
    limit: u16,
    data: &'a [u8],
}

thread_local! {
    /// Kept from run to run, as from message to message in a server: errors must not spoil them.
    static STATES: RefCell<(Inflater, Deflater)> = RefCell::default();
}

fuzz_target!(|input: Input<'_>| STATES.with_borrow_mut(|(inflater, deflater)| {
    let limit = usize::from(input.limit);
    let mut out = Vec::new();
    match inflater.inflate(input.data, limit, &mut out) {
        Ok(()) => assert!(out.len() <= limit),
        Err(error) => {
            assert!(matches!(error.code, close_code::INVALID_DATA | close_code::TOO_BIG));
        }
    }
    assert!(out.capacity() <= limit + 1);

    let mut window_bits = 15;
    if let Ok(Some((parameters, response))) = negotiate(input.extensions.iter().copied()) {
        window_bits = parameters.server_max_window_bits;
        let again = negotiate([response.as_str()].into_iter());
        assert_eq!(again, Ok(Some((parameters, response.clone()))), "our answer, offered to us");
    }
    let mut compressed = Vec::new();
    deflater.deflate(input.data, window_bits, &mut compressed);
    out.clear();
    inflater.inflate(&compressed, input.data.len(), &mut out).expect("our own data");
    assert_eq!(out, input.data);
}));
