//! Input to the control socket: malformed, or a message that is the same after it has been encoded again.
#![no_main]

use engine::{Command, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::decode(bytes) {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        let (length, content) = frame.split_first_chunk().expect("a frame begins with its length");
        assert_eq!(u32::from_le_bytes(*length) as usize, content.len());
        assert_eq!(Message::decode(content), Ok(message));
    }
    if let Ok(command) = Command::decode(bytes) {
        let mut again = Vec::new();
        command.encode(&mut again);
        assert_eq!(Command::decode(&again).as_ref(), Ok(&command));
        // Whatever the command says, it is only checked, not carried out.
        command.is_allowed(1000);
    }
});
