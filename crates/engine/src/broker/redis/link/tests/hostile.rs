//! Something else than Redis, which begins as Redis would.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::*;

const GREETING: &[u8] = b"%1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n*1\r\n$6\r\nmaster\r\n$11\r\nrun_id:abc\n\r\n";

/// Serves what `after_greeting` says, first after the greeting: on the connection for commands, or on the other.
fn serve(on_commands: bool, after_greeting: &'static [u8]) -> Ears {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("its number").port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut heard = [0; 1024];
            let count = stream.read(&mut heard).unwrap_or(0);
            let is_for_commands = heard[..count].windows(15).any(|word| word == b"hubbub-commands");
            let strange = if is_for_commands == on_commands { after_greeting } else { b"" };
            let _ = stream.write_all(&[GREETING, strange].concat());
            kept.push(stream);
        }
    });
    let mut ears = Ears::new(&format!("redis://127.0.0.1:{port}"));
    ears.link.subscribe(b"news");
    ears.link.flush();
    ears
}

fn told(on_commands: bool, after_greeting: &'static [u8]) -> Event {
    serve(on_commands, after_greeting).until(Event::is_trouble)
}

fn sent(what: &str) -> Event {
    Event::Disconnected(format!("Redis has sent {what}"))
}

#[test]
fn strange_replies_end_the_connection() {
    assert_eq!(told(true, b":1\r\n"), sent("a reply to no command"));
    assert_eq!(told(true, b"$1000000000\r\n"), sent("a text of no or of excessive length"));
    let push = b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nx\r\n";
    assert_eq!(told(true, push), sent("a message where there are only replies"));
    assert_eq!(
        told(true, b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"),
        sent("lists that are nested too deep")
    );
}

#[test]
fn strange_messages_end_the_connection() {
    let strange = sent("something else than messages");
    assert_eq!(told(false, b":1\r\n"), strange);
    assert_eq!(told(false, b">1\r\n$7\r\nmessage\r\n"), strange);
    assert_eq!(told(false, b">3\r\n$7\r\nmessage\r\n:1\r\n:1\r\n"), strange);
    assert_eq!(told(false, b">0\r\n"), strange);
    assert_eq!(told(false, b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n"), strange);
    assert_eq!(told(false, b">3\r\n$9\r\nsubscribe\r\n$5\r\nother\r\n:1\r\n"), strange);
    assert_eq!(told(false, b"-LOADING\r\n"), Event::Disconnected("Redis cannot be used any longer: LOADING".into()));
    let refused = "Redis refuses a subscription: NOPERM no";
    assert_eq!(told(false, b"-NOPERM no\r\n"), Event::Unusable(refused.into()));
}

#[test]
fn messages_of_other_channels_are_passed_on() {
    let mut ears = serve(false, b">3\r\n$7\r\nmessage\r\n$5\r\nother\r\n$2\r\n\xff\x00\r\n");
    ears.until(|event| *event == Event::Message("other".into(), "\u{fffd}\0".into()));
}

#[test]
fn a_server_that_says_nothing_after_the_greeting_is_left() {
    let mut ears = serve(false, b"");
    let event = ears.until(Event::is_trouble);
    assert_eq!(event, Event::Disconnected("Redis has not confirmed a subscription for 4 s".into()));
}

#[test]
fn a_server_of_the_old_protocol_is_told_of() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let mut ears = Ears::new(&format!("redis://127.0.0.1:{port}"));
    for _ in 0..2 {
        let (mut stream, _) = listener.accept().expect("accepted");
        let _ = stream.write_all(b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n");
    }
    let Event::Unusable(told) = ears.until(Event::is_trouble) else { panic!("{:?}", ears.heard) };
    assert!(told.contains("is too old: Redis 6 or later, or Valkey, is required"), "{told}");
}
