//! Redis fails, or does not want us.

use super::*;

#[test]
fn a_server_that_is_restarted_is_found_again() {
    let Some(mut server) = Server::start(&[]) else { return };
    let mut ears = Ears::on(&server.url(), "news");
    let Some(Event::Connected(first)) = ears.heard.iter().find(|event| matches!(event, Event::Connected(_))).cloned()
    else {
        panic!("it is connected")
    };
    server.kill();
    ears.until(Event::is_trouble);
    server.restart();
    let (mut second, mut is_renewed) = (None, false);
    ears.until(|event| {
        match event {
            Event::Connected(run_id) => second = Some(run_id.clone()),
            Event::Resubscribed => is_renewed = true,
            _ => {}
        }
        second.is_some() && is_renewed
    });
    assert_ne!(second, Some(first));
    assert_eq!(ears.ask(&["PUBLISH", "news", "again"]), Ok("1".into()));
    ears.until(|event| *event == Event::Message("news".into(), "again".into()));
    let again = ears.heard.iter().filter(|event| **event == Event::Subscribed("news".into()));
    assert_eq!(again.count(), 2);
}
