use super::super::input::Input;
use super::*;

fn identity(run_id: &str, client: Option<u64>) -> Identity {
    Identity { run_id: run_id.into(), client }
}

/// Greets a server whose process is "now" and which calls the connection number 7. `last`: its reply to what it is asked
/// at the end, if it is asked. Returns the result, and what it was asked.
fn greet(former: Option<Identity>, last: &str) -> (Result<Option<Welcome>, Failure>, String) {
    let address = RedisAddress::parse("redis://localhost").expect("an address");
    let mut asked = Vec::new();
    let mut greeting = Greeting::server("localhost".into(), &address, "hubbub-commands", former, &mut asked);
    asked.clear();
    let hello = "%2\r\n$2\r\nid\r\n:7\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n";
    let replies = [hello, "*1\r\n$6\r\nmaster\r\n", "$10\r\nrun_id:now\r\n", last].concat();
    let mut input = Input::default();
    input.room()[..replies.len()].copy_from_slice(replies.as_bytes());
    input.filled(replies.len());
    let mut result = Ok(None);
    while let (Ok(None), Some(frame)) = (&result, input.next().expect("frames")) {
        result = greeting.take(&frame, &mut asked);
    }
    (result, String::from_utf8(asked).expect("a text"))
}

fn ready(refusal: Option<&str>) -> Result<Option<Welcome>, Failure> {
    let refusal = refusal.map(str::to_owned);
    Ok(Some(Welcome::Ready(Ready { identity: identity("now", Some(7)), refusal })))
}

#[test]
fn the_connection_before_is_ended() {
    let former = || Some(identity("now", Some(5)));
    let kill = "*4\r\n$6\r\nCLIENT\r\n$4\r\nKILL\r\n$2\r\nID\r\n$1\r\n5\r\n";
    assert_eq!(greet(former(), ""), (Ok(None), kill.into()), "nothing else is sent before the reply");
    assert_eq!(greet(former(), ":1\r\n"), (ready(None), kill.into()));
    assert_eq!(greet(former(), ":0\r\n"), (ready(None), kill.into()), "it has ended already");
    assert_eq!(greet(former(), "-NOPERM no\r\n"), (ready(Some("NOPERM no")), kill.into()));
    let lost = Failure::Lost("Redis at localhost is not ready: LOADING wait".into());
    assert_eq!(greet(former(), "-LOADING wait\r\n"), (Err(lost), kill.into()));
}

#[test]
fn nobody_elses_connection_is_ended() {
    assert_eq!(greet(None, ""), (ready(None), String::new()), "it is the first");
    assert_eq!(greet(Some(identity("before", Some(5))), ""), (ready(None), String::new()), "Redis was started again");
    assert_eq!(greet(Some(identity("now", None)), ""), (ready(None), String::new()), "its number is not known");
    assert_eq!(greet(Some(identity("now", Some(7))), ""), (ready(None), String::new()), "it is this one");
}
