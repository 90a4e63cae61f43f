use super::*;

const SECOND: Duration = Duration::from_secs(1);
const ALL: Condition = Condition {
    takes_commands: true,
    awaits_reply: false,
    takes_messages: true,
    awaits_confirmation: false,
    takes_probes: true,
};

#[test]
fn a_dead_connection_is_noticed_after_four_seconds_of_silence() {
    let begin = Instant::now();
    let mut pulse = Pulse::new(begin);
    assert_eq!(pulse.check(ALL, begin + SECOND), (Verdict::Fine, Some(begin + 2 * SECOND)));
    let now = begin + 2 * SECOND;
    assert_eq!(pulse.check(ALL, now).0, Verdict::SendProbe);
    pulse.probed(now);
    assert_eq!(pulse.check(ALL, now + SECOND), (Verdict::Fine, Some(begin + 4 * SECOND)));
    assert_eq!(pulse.check(ALL, begin + 4 * SECOND).0, Verdict::ProbeLost);
    pulse.heard(begin + 3 * SECOND);
    assert_eq!(pulse.check(ALL, begin + 4 * SECOND), (Verdict::Fine, Some(begin + 5 * SECOND)));
}

#[test]
fn replies_that_are_missing_are_noticed_too() {
    let begin = Instant::now();
    let mut pulse = Pulse::new(begin);
    let condition = Condition { awaits_reply: true, takes_messages: false, ..ALL };
    assert_eq!(pulse.check(condition, begin + 3 * SECOND), (Verdict::Fine, Some(begin + 4 * SECOND)));
    assert_eq!(pulse.check(condition, begin + 4 * SECOND).0, Verdict::NoReply);
    pulse.replied(begin + 3 * SECOND);
    assert_eq!(pulse.check(condition, begin + 4 * SECOND).0, Verdict::Fine);
    let condition = Condition { takes_commands: false, awaits_confirmation: true, takes_probes: false, ..ALL };
    assert_eq!(pulse.check(condition, begin + 4 * SECOND).0, Verdict::NoConfirmation);
}

#[test]
fn nothing_is_expected_of_what_is_not_there() {
    let begin = Instant::now();
    let pulse = Pulse::new(begin);
    for condition in [
        Condition { takes_commands: false, ..ALL },
        Condition { takes_messages: false, ..ALL },
        Condition { takes_probes: false, ..ALL },
    ] {
        assert_eq!(pulse.check(condition, begin + 100 * SECOND), (Verdict::Fine, None));
    }
}
