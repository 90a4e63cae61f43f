//! PROXY headers: a decision stays the same when more arrives, and what was read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::proxy::{Header, parse, write};

fuzz_target!(|input: &[u8]| {
    let at_once = parse(input);
    let by_byte = (0..=input.len()).map(|end| parse(&input[..end])).find(|decision| *decision != Ok(None));
    assert_eq!(by_byte.unwrap_or(Ok(None)), at_once);
    if let Ok(Some(Header { length, client })) = at_once {
        assert!(length <= input.len());
        let mut again = Vec::new();
        write(client, &mut again);
        assert_eq!(parse(&again), Ok(Some(Header { length: again.len(), client })));
    }
});
