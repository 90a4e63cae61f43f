use super::*;

fn asked(interest: &mut Interest) -> String {
    let mut output = Vec::new();
    interest.ask(&mut output, usize::MAX);
    let text = String::from_utf8(output).expect("names are letters here");
    text.split("\r\n").filter(|line| !line.starts_with(['*', '$'])).collect::<Vec<_>>().join(" ").trim().to_owned()
}

#[test]
fn a_channel_is_asked_for_once() {
    let mut interest = Interest::default();
    interest.change(b"a", true);
    interest.change(b"a", true);
    assert_eq!(asked(&mut interest), "SUBSCRIBE a");
    interest.change(b"a", true);
    assert_eq!(asked(&mut interest), "");
    assert!(interest.awaits_confirmation());
    assert_eq!(interest.confirm(b"a"), Confirmed::Subscribed);
    assert!(!interest.awaits_confirmation());
}

#[test]
fn what_is_changed_back_is_not_asked_for() {
    let mut interest = Interest::default();
    interest.change(b"a", true);
    interest.change(b"a", false);
    interest.change(b"b", false);
    assert_eq!(asked(&mut interest), "");
    assert!(interest.channels.len() <= 1);
    interest.change(b"a", true);
    assert_eq!(asked(&mut interest), "SUBSCRIBE a");
    interest.change(b"a", false);
    assert_eq!(asked(&mut interest), "UNSUBSCRIBE a");
    interest.change(b"a", true);
    assert_eq!(asked(&mut interest), "SUBSCRIBE a");
    assert_eq!(interest.confirm(b"a"), Confirmed::Nothing);
    assert_eq!(interest.confirm(b"a"), Confirmed::Subscribed);
    assert_eq!(interest.confirm(b"a"), Confirmed::Unexpected);
}

#[test]
fn a_channel_that_is_over_is_forgotten() {
    let mut interest = Interest::default();
    for number in 0..1000 {
        let name = number.to_string();
        interest.change(name.as_bytes(), true);
        asked(&mut interest);
        if number % 2 == 0 {
            interest.confirm(name.as_bytes());
        }
        interest.change(name.as_bytes(), false);
        asked(&mut interest);
        interest.confirm(name.as_bytes());
        interest.change(name.as_bytes(), true);
        interest.change(name.as_bytes(), false);
        asked(&mut interest);
    }
    assert_eq!(interest.channels.len(), 0);
    assert!(!interest.awaits_confirmation());
}

#[test]
fn a_new_connection_is_asked_for_all_that_are_wanted() {
    let mut interest = Interest::default();
    for name in [b"a", b"b", b"c"] {
        interest.change(name, true);
    }
    asked(&mut interest);
    interest.confirm(b"a");
    interest.change(b"b", false);
    interest.begin();
    assert!(!interest.is_renewed());
    let commands = asked(&mut interest);
    assert!(commands == "SUBSCRIBE a c" || commands == "SUBSCRIBE c a", "{commands}");
    assert_eq!(interest.confirm(b"a"), Confirmed::Subscribed);
    assert!(!interest.is_renewed());
    // What nobody wants any longer need not be confirmed.
    interest.change(b"c", false);
    assert!(interest.is_renewed());
}

#[test]
fn commands_are_of_limited_length() {
    let mut interest = Interest::default();
    for number in 0..10_000 {
        interest.change(format!("channel {number}").as_bytes(), true);
    }
    let mut output = Vec::new();
    interest.ask(&mut output, 1);
    assert!(output.starts_with(b"*513\r\n"));
    let once = output.len();
    interest.ask(&mut output, once);
    assert_eq!(output.len(), once);
    interest.ask(&mut output, once + 1);
    assert!(output.len() > once && !interest.has_asked_all());
}
