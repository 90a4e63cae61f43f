use super::*;

fn told(report: &Report) -> Vec<String> {
    let mut told = Vec::new();
    report.tell(&mut |heard| told.push(format!("{heard:?}")));
    told
}

#[test]
fn all_is_told_in_its_order() {
    let mut report = Report::default();
    report.connected("id");
    let frame = b"*3\r\n:1\r\n$2\r\nab\r\n*1\r\n_\r\n";
    report.reply(7, 10, &resp::decode(frame).expect("a frame"), frame);
    report.lost(8, 20);
    report.message(b"channel", b"payload");
    let frame = b"-ERR no\r\n";
    report.reply(9, 30, &resp::decode(frame).expect("a frame"), frame);
    report.subscribed(b"channel");
    report.resubscribed();
    report.unusable("why");
    report.disconnected("why not");
    report.warning("mind this");
    assert_eq!(
        told(&report),
        [
            format!("{:?}", Heard::Connected { run_id: "id" }),
            format!(
                "{:?}",
                Heard::Reply {
                    tag: 7,
                    reply: Ok(Reply::List(vec![
                        Reply::Integer(1),
                        Reply::Bytes(b"ab"),
                        Reply::List(vec![Reply::Nothing])
                    ]))
                }
            ),
            format!("{:?}", Heard::Lost { tag: 8 }),
            format!("{:?}", Heard::Message { channel: b"channel", payload: b"payload" }),
            format!("{:?}", Heard::Reply { tag: 9, reply: Err("ERR no") }),
            format!("{:?}", Heard::Subscribed(b"channel")),
            format!("{:?}", Heard::Resubscribed),
            format!("{:?}", Heard::Unusable("why")),
            format!("{:?}", Heard::Disconnected("why not")),
            format!("{:?}", Heard::Warning("mind this")),
        ]
    );
    assert_eq!(report.tell(&mut |_| {}), (3, 60));
    assert_eq!(report.messages(), 7 + 7 + OVERHEAD);
    report.clear();
    assert!(report.is_empty() && report.messages() == 0);
}

#[test]
fn what_is_no_utf_8_is_told_all_the_same() {
    let mut report = Report::default();
    let frame = b"-ERR \xff\r\n";
    report.reply(1, 1, &resp::decode(frame).expect("a frame"), frame);
    assert_eq!(told(&report), [format!("{:?}", Heard::Reply { tag: 1, reply: Err("ERR \u{fffd}") })]);
}
