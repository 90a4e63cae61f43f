//! Requests whose bodies are taken as they arrive, and answers that are sent in parts.

use std::time::Duration;

use crate::connection::Wait;
use crate::endpoints::{Bodies, Endpoints};
use crate::reactor::answering::Part;
use crate::reactor::body::Taken;
use crate::reactor::event::Token;
use crate::reactor::shutdown::Requests;
use crate::reactor::tests::application::{Seen, Who};
use crate::reactor::tests::client::{End, HANDSHAKE};
use crate::reactor::tests::simulation::{CLOSE_TIMEOUT, NO_HEADERS, Simulation};
use crate::settings::Settings;

const LONG: Duration = Duration::from_secs(3600);

/// A server whose application takes bodies as they arrive.
fn streaming() -> Simulation {
    let endpoints = Endpoints { bodies: Bodies::Streamed, ..Endpoints::default() };
    Simulation::new(Settings { endpoints, max_body_size: usize::MAX, ..Settings::roomy() })
}

/// Sends a request; returns its token.
fn ask(simulation: &mut Simulation, who: Who, request: &str) -> Token {
    simulation.client(who).write(request.as_bytes());
    simulation.run();
    simulation.application.requests.pop().expect("a request").1
}

fn post(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: here\r\n{lines}\r\n\r\n")
}

fn begin(simulation: &mut Simulation, token: Token, length: Option<u64>) {
    assert!(simulation.reactor.begin_answer(token, 200, NO_HEADERS, length));
}

/// Everything that the client has received.
fn received(simulation: &mut Simulation, who: Who) -> String {
    loop {
        simulation.run();
        let before = simulation.client(who).answers().len();
        simulation.client(who).read();
        if simulation.client(who).answers().len() == before {
            return simulation.client(who).answers().to_owned();
        }
    }
}

/// The body of an answer.
fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a head").1
}

fn progress(simulation: &Simulation) -> usize {
    simulation.application.count(|seen| matches!(seen, Seen::Progress(_)))
}

fn content(content: &[u8], is_last: bool) -> Taken {
    Taken::Content { content: content.to_vec(), is_last }
}

// ---- answers --------------------------------------------------------------------------------------------------------

#[test]
fn an_answer_of_unknown_length_is_sent_in_chunks_and_keeps_the_connection() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, token) = simulation.ask_for_page();
    begin(&mut simulation, token, None);
    assert!(received(&mut simulation, who).contains("Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n"));
    for part in ["one", "", "two!"] {
        assert_eq!(simulation.reactor.send_part(token, part.as_bytes()), Part::Queued);
    }
    assert_eq!(simulation.reactor.end_answer(token, NO_HEADERS), Part::Queued);
    let answer = received(&mut simulation, who);
    assert_eq!(body_of(&answer), "3\r\none\r\n4\r\ntwo!\r\n0\r\n\r\n");
    // Nothing can be added, also not to the next request's answer.
    let next = ask(&mut simulation, who, "GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    assert_eq!(simulation.reactor.send_part(token, b"late"), Part::Gone);
    assert_eq!(simulation.reactor.end_answer(token, NO_HEADERS), Part::Gone);
    assert!(!simulation.reactor.begin_answer(token, 200, NO_HEADERS, None));
    assert!(!simulation.reactor.respond(token, 200, NO_HEADERS, b"late"));
    assert!(simulation.reactor.respond(next, 200, NO_HEADERS, b"next"));
    assert!(received(&mut simulation, who).ends_with("next"));
}

#[test]
fn an_answer_of_known_length_is_sent_as_it_is() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, token) = simulation.ask_for_page();
    begin(&mut simulation, token, Some(6));
    simulation.reactor.send_part(token, b"one");
    simulation.reactor.send_part(token, b"two");
    assert_eq!(simulation.reactor.end_answer(token, NO_HEADERS), Part::Queued);
    let answer = received(&mut simulation, who);
    assert!(answer.contains("Content-Length: 6\r\n"));
    assert_eq!(body_of(&answer), "onetwo");
}

#[test]
fn trailers_follow_the_chunks() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, token) = simulation.ask_for_page();
    begin(&mut simulation, token, None);
    simulation.reactor.send_part(token, b"x");
    let trailers = [(b"digest".to_vec(), b"1".to_vec()), (b"content-length".to_vec(), b"7".to_vec())];
    simulation.reactor.end_answer(token, &trailers);
    assert_eq!(body_of(&received(&mut simulation, who)), "1\r\nx\r\n0\r\ndigest: 1\r\n\r\n");
}

#[test]
fn early_hints_go_before_the_answer_to_a_client_that_knows_them() {
    for (version, hints) in [("1.1", 2), ("1.0", 0)] {
        let mut simulation = Simulation::new(Settings::roomy());
        let who = simulation.connect();
        let token = ask(&mut simulation, who, &format!("GET / HTTP/{version}\r\nHost: here\r\n\r\n"));
        for _ in 0..2 {
            simulation.reactor.send_early_hints(token, &[("link", "</a.css>; rel=preload"), ("content-length", "7")]);
        }
        let early = received(&mut simulation, who);
        assert_eq!(early, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n".repeat(hints));
        assert!(simulation.reactor.respond(token, 200, NO_HEADERS, b"done"));
        // Too late.
        simulation.reactor.send_early_hints(token, &[("link", "</b.css>; rel=preload")]);
        let answer = received(&mut simulation, who);
        assert!(answer.ends_with("done") && !answer.contains("b.css"));
    }
}

#[test]
fn an_application_that_sends_hints_for_ever_fills_no_memory() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (_, token) = simulation.ask_for_page();
    for _ in 0..1000 {
        simulation.reactor.send_early_hints(token, &[("link", "x".repeat(1000))]);
        simulation.run();
    }
    assert!(simulation.reactor.held() < 600_000, "{} bytes", simulation.reactor.held());
}

#[test]
fn without_chunks_the_end_of_the_connection_ends_the_answer() {
    let mut simulation = Simulation::new(Settings::roomy());
    let who = simulation.connect();
    let token = ask(&mut simulation, who, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    begin(&mut simulation, token, None);
    simulation.reactor.send_part(token, b"all of it");
    simulation.reactor.end_answer(token, NO_HEADERS);
    let answer = received(&mut simulation, who);
    assert!(answer.contains("Connection: close\r\n") && !answer.contains("chunked"));
    assert_eq!(body_of(&answer), "all of it");
    assert_eq!(simulation.client(who).end, Some(End::Closed));
}

#[test]
fn answers_without_a_body_drop_their_parts() {
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        let mut simulation = Simulation::new(Settings::roomy());
        let who = simulation.connect();
        let token = ask(&mut simulation, who, &format!("{method} / HTTP/1.1\r\nHost: here\r\n\r\n"));
        assert!(simulation.reactor.begin_answer(token, status, NO_HEADERS, Some(4)));
        assert_eq!(simulation.reactor.send_part(token, b"dropped"), Part::Queued);
        assert_eq!(simulation.reactor.end_answer(token, NO_HEADERS), Part::Queued);
        let answer = received(&mut simulation, who);
        assert_eq!(body_of(&answer), "", "{method} {status}");
        assert_eq!(answer.contains("Content-Length: 4"), status == 200);
        ask(&mut simulation, who, "GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    }
}

#[test]
fn a_body_of_another_length_than_announced_ends_the_connection() {
    for parts in [&["12345"][..], &["123", "45"], &["123"], &[]] {
        let mut simulation = Simulation::new(Settings::roomy());
        let (who, token) = simulation.ask_for_page();
        begin(&mut simulation, token, Some(4));
        let mut results: Vec<Part> =
            parts.iter().map(|part| simulation.reactor.send_part(token, part.as_bytes())).collect();
        if !results.contains(&Part::WrongLength) {
            results.push(simulation.reactor.end_answer(token, NO_HEADERS));
        }
        assert_eq!(results.last(), Some(&Part::WrongLength), "{parts:?}");
        assert!(body_of(&received(&mut simulation, who)).len() < 4, "the client sees that the body is not whole");
        assert_eq!(simulation.client(who).end, Some(End::Closed));
    }
}

#[test]
fn an_answer_that_is_cut_looks_unfinished() {
    for (version, end) in [("1.1", End::Closed), ("1.0", End::Reset)] {
        let mut simulation = Simulation::new(Settings::roomy());
        let who = simulation.connect_by_tcp();
        let token = ask(&mut simulation, who, &format!("GET / HTTP/{version}\r\nHost: here\r\n\r\n"));
        begin(&mut simulation, token, None);
        simulation.reactor.send_part(token, b"begun");
        simulation.run();
        simulation.reactor.cut_answer(token);
        simulation.run_until(|simulation| {
            simulation.client(who).read();
            simulation.client(who).end.is_some()
        });
        assert!(!simulation.client(who).answers().ends_with("0\r\n\r\n"));
        assert_eq!(simulation.client(who).end, Some(end), "HTTP/{version}");
    }
}

#[test]
fn parts_that_are_kept_are_framed_like_others() {
    for length in [None, Some(20_006)] {
        let mut simulation = Simulation::new(Settings::roomy());
        let (who, token) = simulation.ask_for_page();
        begin(&mut simulation, token, length);
        simulation.reactor.send_part(token, b"one");
        assert_eq!(simulation.reactor.send_kept_part(token, Box::new("")), Part::Queued);
        assert_eq!(simulation.reactor.send_kept_part(token, Box::new("k".repeat(20_000))), Part::Queued);
        simulation.reactor.send_part(token, b"two");
        if length.is_some() {
            assert_eq!(simulation.reactor.send_kept_part(token, Box::new("too much")), Part::WrongLength);
        } else {
            assert_eq!(simulation.reactor.end_answer(token, NO_HEADERS), Part::Queued);
            assert_eq!(simulation.reactor.send_kept_part(token, Box::new("late")), Part::Gone);
        }
        let (answer, kept) = (received(&mut simulation, who), "k".repeat(20_000));
        match length {
            None => assert!(body_of(&answer) == format!("3\r\none\r\n4e20\r\n{kept}\r\n3\r\ntwo\r\n0\r\n\r\n")),
            Some(_) => assert!(body_of(&answer) == format!("one{kept}two")),
        }
    }
}

#[test]
fn an_answer_that_is_kept_has_no_body_where_none_may_be() {
    for (request, status, has_body) in [("GET", 200, true), ("HEAD", 200, false), ("GET", 204, false)] {
        let mut simulation = Simulation::new(Settings::roomy());
        let (who, token) = simulation.ask_for_page();
        simulation.reactor.respond(token, 200, NO_HEADERS, b"");
        received(&mut simulation, who);
        let token = ask(&mut simulation, who, &format!("{request} / HTTP/1.1\r\nHost: here\r\n\r\n"));
        assert!(simulation.reactor.respond_kept(token, status, NO_HEADERS, Box::new("k".repeat(20_000))));
        assert_eq!(received(&mut simulation, who).ends_with('k'), has_body);
        // The connection is kept, and the next answer follows.
        let token = ask(&mut simulation, who, "GET / HTTP/1.1\r\nHost: here\r\n\r\n");
        assert!(simulation.reactor.respond(token, 200, NO_HEADERS, b"next"));
        assert!(received(&mut simulation, who).ends_with("\r\n\r\nnext"));
    }
}

#[test]
fn to_a_client_that_takes_everything_at_once_more_is_sent_at_a_time() {
    const PART: usize = 64 * 1024;
    for doubled in 0..=3 {
        let mut simulation = Simulation::new(Settings::roomy());
        let (_, token) = simulation.ask_for_page();
        begin(&mut simulation, token, None);
        simulation.run();
        for _ in 0..doubled {
            simulation.reactor.note_pace(token.key, usize::MAX, true);
        }
        // Nothing is written until so many parts are queued.
        let parts = (1..).find(|parts| {
            assert_eq!(simulation.reactor.send_part(token, &[b'x'; PART]), Part::Queued);
            simulation.reactor.connections[token.key].outbox.len() < parts * PART
        });
        assert_eq!(parts, Some(4 << doubled));
    }
}

#[test]
fn what_is_sent_at_a_time_is_bounded_and_short_again_when_the_client_does_not_take_all() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (_, token) = simulation.ask_for_page();
    begin(&mut simulation, token, None);
    for (unsent, takes_all, doubled) in [
        (100_000, true, 0),
        (300_000, true, 1),
        (300_000, true, 1),
        (600_000, true, 2),
        (10_000, false, 1),
        (10_000, false, 0),
        (10_000, false, 0),
    ] {
        simulation.reactor.note_pace(token.key, unsent, takes_all);
        assert_eq!(simulation.reactor.connections[token.key].doubled, doubled);
    }
    for _ in 0..10 {
        simulation.reactor.note_pace(token.key, usize::MAX, true);
    }
    assert_eq!(simulation.reactor.connections[token.key].doubled, 3);
}

#[test]
fn an_application_waits_for_a_client_that_reads_slowly() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, token) = simulation.ask_for_page();
    begin(&mut simulation, token, None);
    let mut sent = 0;
    while simulation.reactor.send_part(token, &[b'x'; 10_000]) == Part::Queued {
        sent += 10_000;
        simulation.run();
    }
    assert!(sent < 600_000, "{sent} bytes wait");
    assert_eq!(progress(&simulation), 0);
    while progress(&simulation) == 0 {
        assert!(simulation.client(who).read_some(4096) > 0);
        simulation.run();
    }
    assert_eq!(simulation.reactor.send_part(token, b"more"), Part::Queued);
    simulation.reactor.end_answer(token, NO_HEADERS);
    assert!(received(&mut simulation, who).ends_with("4\r\nmore\r\n0\r\n\r\n"));
}

#[test]
fn an_answer_may_pause_for_as_long_as_it_likes() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, token) = simulation.ask_for_page();
    begin(&mut simulation, token, None);
    for part in ["one", "two"] {
        simulation.pass(LONG);
        assert_eq!(simulation.reactor.send_part(token, part.as_bytes()), Part::Queued);
        assert!(received(&mut simulation, who).ends_with(&format!("{part}\r\n")));
    }
}

#[test]
fn the_application_learns_that_a_client_has_left_in_the_middle_of_an_answer() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, token) = simulation.ask_for_page();
    begin(&mut simulation, token, None);
    simulation.run();
    assert!(!simulation.reactor.has_left(token));
    simulation.client(who).leave();
    simulation.run();
    assert_eq!(simulation.application.seen.last(), Some(&Seen::Progress(token)));
    assert!(simulation.reactor.has_left(token));
    assert_eq!(simulation.reactor.send_part(token, b"x"), Part::Gone);
    simulation.reactor.cut_answer(token);
    simulation.reactor.done(token);
    simulation.pass(CLOSE_TIMEOUT);
    assert!(simulation.reactor.is_empty() && simulation.reactor.outliving() == 0);
}

#[test]
fn a_request_that_the_application_gives_up_leaves_nothing_behind() {
    let mut simulation = streaming();
    let gone = simulation.connect();
    let token = ask(&mut simulation, gone, "GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    simulation.client(gone).leave();
    simulation.run();
    assert!(!simulation.reactor.begin_answer(token, 200, NO_HEADERS, None));
    assert_eq!((simulation.reactor.len(), simulation.reactor.outliving()), (1, 1));
    simulation.reactor.done(token);
    // A client that is there sees that it gets no answer.
    let there = simulation.connect();
    let token = ask(&mut simulation, there, "GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    simulation.reactor.done(token);
    simulation.run();
    simulation.client(there).read();
    assert_eq!(simulation.client(there).end, Some(End::Closed));
    // The same for a handshake.
    simulation.application.accepts = false;
    let who = simulation.connect();
    simulation.client(who).write(HANDSHAKE);
    simulation.run();
    let (_, token) = simulation.application.handshakes.pop().expect("a handshake");
    simulation.client(who).leave();
    simulation.run();
    assert_eq!(simulation.application.seen.last(), Some(&Seen::Progress(token)));
    simulation.reactor.done(token);
    simulation.run();
    assert!(simulation.reactor.is_empty() && simulation.reactor.outliving() == 0);
}

#[test]
fn an_application_that_works_on_for_a_client_that_has_left_is_counted_until_it_is_done() {
    let mut simulation = Simulation::new(Settings::roomy());
    let who = simulation.connect_by_tcp();
    let token = ask(&mut simulation, who, "GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    begin(&mut simulation, token, None);
    simulation.reactor.send_part(token, &[b'x'; 60_000]);
    simulation.client(who).reset();
    simulation.run_until(|simulation| simulation.reactor.has_left(token));
    simulation.reactor.send_part(token, b"x");
    simulation.pass(LONG);
    assert_eq!(simulation.reactor.outliving(), 1);
    simulation.reactor.cut_answer(token);
    simulation.reactor.done(token);
    simulation.pass(LONG);
    assert_eq!(simulation.reactor.outliving(), 0);
    assert!(simulation.reactor.is_empty());
}

#[test]
fn the_last_answer_closes_the_connection_of_a_worker_that_leaves() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, token) = simulation.ask_for_page();
    begin(&mut simulation, token, None);
    simulation.reactor.stop_accepting(Requests::Answered);
    simulation.reactor.close_all(1001, "");
    simulation.run();
    assert_eq!(simulation.reactor.send_part(token, b"x"), Part::Queued);
    assert_eq!(simulation.reactor.end_answer(token, NO_HEADERS), Part::Queued);
    assert!(received(&mut simulation, who).ends_with("0\r\n\r\n"));
    assert_eq!(simulation.client(who).end, Some(End::Closed));
    simulation.pass(CLOSE_TIMEOUT);
    assert!(simulation.reactor.is_empty());
}

#[test]
fn an_answer_in_parts_that_is_cut_off_at_the_end_is_counted() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (_, token) = simulation.ask_for_page();
    begin(&mut simulation, token, None);
    simulation.run();
    assert_eq!(simulation.reactor.abort_all(), 1);
    assert!(simulation.reactor.has_left(token));
    simulation.reactor.done(token);
    simulation.run();
    assert!(simulation.reactor.is_empty() && simulation.reactor.outliving() == 0);
}

#[test]
fn the_application_may_ask_to_close_the_connection() {
    let mut simulation = Simulation::new(Settings::roomy());
    let (who, token) = simulation.ask_for_page();
    assert!(simulation.reactor.respond(token, 200, &[("connection", "Close")], b"bye"));
    assert!(received(&mut simulation, who).contains("Connection: close\r\n"));
    assert_eq!(simulation.client(who).end, Some(End::Closed));
}

// ---- bodies ---------------------------------------------------------------------------------------------------------

#[test]
fn a_body_is_taken_as_it_arrives() {
    let mut simulation = streaming();
    let who = simulation.connect();
    let token = ask(&mut simulation, who, &(post("Content-Length: 9") + "one"));
    assert_eq!(simulation.reactor.take_body(token), content(b"one", false));
    assert_eq!(simulation.reactor.take_body(token), Taken::Awaited);
    assert_eq!(progress(&simulation), 0);
    simulation.client(who).write(b"two");
    simulation.run();
    assert_eq!(simulation.application.seen.last(), Some(&Seen::Progress(token)));
    assert_eq!(simulation.reactor.take_body(token), content(b"two", false));
    simulation.client(who).write(b"end");
    simulation.run();
    assert_eq!(progress(&simulation), 1, "nobody waits");
    assert_eq!(simulation.reactor.take_body(token), content(b"end", true));
    assert_eq!(simulation.reactor.take_body(token), Taken::Nothing);
    assert!(simulation.reactor.respond(token, 200, NO_HEADERS, b"thanks"));
    assert!(received(&mut simulation, who).ends_with("thanks"));
}

#[test]
fn a_short_body_goes_along_with_the_head() {
    let mut simulation = streaming();
    let who = simulation.connect();
    let token = ask(&mut simulation, who, &(post("Transfer-Encoding: chunked") + "3\r\none\r\n0\r\n\r\n"));
    assert_eq!(simulation.application.seen, [Seen::Request(b"one".to_vec())]);
    assert_eq!(simulation.reactor.take_body(token), Taken::Nothing);
}

#[test]
fn a_body_that_nobody_takes_is_not_read() {
    let mut simulation = streaming();
    let who = simulation.connect();
    let length = 10_000_000;
    let token = ask(&mut simulation, who, &post(&format!("Content-Length: {length}")));
    simulation.client(who).write(&vec![b'x'; length]);
    simulation.pass(LONG);
    assert!(!simulation.client(who).has_written(), "the client is held up");
    let mut taken = 0;
    loop {
        match simulation.reactor.take_body(token) {
            Taken::Content { content, is_last } => {
                assert!(content.len() <= 256 * 1024, "{} bytes waited", content.len());
                taken += content.len();
                if is_last {
                    break;
                }
            }
            Taken::Awaited => {}
            Taken::Nothing => panic!("the body is not whole"),
        }
        simulation.client(who).flush(usize::MAX);
        simulation.run();
    }
    assert_eq!(taken, length);
}

#[test]
fn a_client_that_waits_is_asked_for_its_body_once_the_application_wants_it() {
    let mut simulation = streaming();
    let who = simulation.connect();
    let token = ask(&mut simulation, who, &post("Content-Length: 4\r\nExpect: 100-continue"));
    assert_eq!(received(&mut simulation, who), "");
    for _ in 0..2 {
        assert_eq!(simulation.reactor.take_body(token), Taken::Awaited);
    }
    assert_eq!(received(&mut simulation, who), "HTTP/1.1 100 Continue\r\n\r\n");
    simulation.client(who).write(b"body");
    simulation.run();
    assert_eq!(simulation.reactor.take_body(token), content(b"body", true));
    assert!(simulation.reactor.respond(token, 200, NO_HEADERS, b"ok"));
    assert!(received(&mut simulation, who).contains("Connection: keep-alive"));
}

#[test]
fn a_connection_whose_client_was_not_asked_for_its_body_is_closed() {
    let mut simulation = streaming();
    let who = simulation.connect();
    let token = ask(&mut simulation, who, &post("Content-Length: 4\r\nExpect: 100-continue"));
    assert!(simulation.reactor.respond(token, 403, NO_HEADERS, b"no"));
    let answer = received(&mut simulation, who);
    assert!(answer.contains("Connection: close") && !answer.contains("100 Continue"));
    assert_eq!(simulation.client(who).end, Some(End::Closed));
}

#[test]
fn what_is_unread_after_the_answer_is_discarded_and_the_next_request_is_read() {
    for in_parts in [false, true] {
        let mut simulation = streaming();
        let who = simulation.connect();
        let token = ask(&mut simulation, who, &(post("Content-Length: 100000") + "begun"));
        if in_parts {
            begin(&mut simulation, token, None);
            simulation.reactor.end_answer(token, NO_HEADERS);
        } else {
            assert!(simulation.reactor.respond(token, 200, NO_HEADERS, b"early"));
        }
        assert!(received(&mut simulation, who).contains("Connection: keep-alive"));
        simulation.client(who).write(&[b'x'; 99_995]);
        let next = ask(&mut simulation, who, "GET / HTTP/1.1\r\nHost: here\r\n\r\n");
        assert!(simulation.reactor.respond(next, 200, NO_HEADERS, b"next"));
        assert!(received(&mut simulation, who).ends_with("next"));
    }
}

#[test]
fn much_that_is_unread_after_the_answer_closes_the_connection() {
    for (framing, filler) in [("Content-Length: 5000000", ""), ("Transfer-Encoding: chunked", "4c4b40\r\n")] {
        let mut simulation = streaming();
        let who = simulation.connect();
        let token = ask(&mut simulation, who, &(post(framing) + filler));
        assert!(simulation.reactor.respond(token, 200, NO_HEADERS, b"early"));
        simulation.client(who).write(&[b'x'; 600_000]);
        for _ in 0..100 {
            simulation.client(who).flush(usize::MAX);
            simulation.run();
            simulation.client(who).read();
        }
        assert!(simulation.client(who).answers().ends_with("early"));
        assert_eq!(simulation.client(who).end, Some(End::Closed), "{framing}");
    }
}

#[test]
fn a_body_that_stays_unread_does_not_hold_the_connection_for_ever() {
    let mut simulation = streaming();
    let who = simulation.connect();
    let token = ask(&mut simulation, who, &(post("Content-Length: 1000") + "begun"));
    assert!(simulation.reactor.respond(token, 200, NO_HEADERS, b"early"));
    simulation.pass(LONG);
    assert!(simulation.reactor.is_empty());
}

#[test]
fn an_answer_begins_while_the_body_is_still_read() {
    let mut simulation = streaming();
    let who = simulation.connect();
    let token = ask(&mut simulation, who, &post("Transfer-Encoding: chunked"));
    begin(&mut simulation, token, None);
    for part in ["one", "two"] {
        assert_eq!(simulation.reactor.take_body(token), Taken::Awaited);
        simulation.client(who).write(format!("3\r\n{part}\r\n").as_bytes());
        simulation.run();
        assert_eq!(simulation.reactor.take_body(token), content(part.as_bytes(), false));
        assert_eq!(simulation.reactor.send_part(token, part.as_bytes()), Part::Queued);
        assert!(received(&mut simulation, who).ends_with(&format!("3\r\n{part}\r\n")));
    }
    simulation.client(who).write(b"0\r\n\r\n");
    simulation.run();
    assert_eq!(simulation.reactor.take_body(token), content(b"", true));
    assert_eq!(simulation.reactor.end_answer(token, NO_HEADERS), Part::Queued);
    ask(&mut simulation, who, "GET / HTTP/1.1\r\nHost: here\r\n\r\n");
}

#[test]
fn an_awaited_body_that_does_not_arrive_is_given_up() {
    let mut simulation = streaming();
    let limit = Wait::Body.limit(&Settings::roomy()).map(Duration::from_millis).expect("a limit");
    let who = simulation.connect();
    let token = ask(&mut simulation, who, &(post("Content-Length: 10") + "half"));
    assert_eq!(simulation.reactor.take_body(token), content(b"half", false));
    simulation.pass(LONG);
    assert!(!simulation.reactor.has_left(token), "the application takes its time");
    assert_eq!(simulation.reactor.take_body(token), Taken::Awaited);
    // Single bytes do not give the client new time, but the time that the application takes does not count.
    for _ in 0..3 {
        simulation.pass(limit / 4);
        simulation.client(who).write(b"x");
        simulation.run();
        assert!(!simulation.reactor.has_left(token));
        simulation.pass(LONG);
        assert_eq!(simulation.reactor.take_body(token), content(b"x", false));
        assert_eq!(simulation.reactor.take_body(token), Taken::Awaited);
    }
    simulation.pass(limit / 4 + Duration::from_millis(96));
    simulation.client(who).read();
    assert_eq!(simulation.client(who).status(), Some(408));
    assert_eq!(simulation.reactor.take_body(token), Taken::Nothing);
    assert_eq!(simulation.application.seen.last(), Some(&Seen::Refused(Some(408))));
    assert!(simulation.reactor.has_left(token));
    assert_eq!(simulation.reactor.outliving(), 1);
    simulation.reactor.done(token);
    assert_eq!(simulation.reactor.outliving(), 0);
}

#[test]
fn an_awaited_body_has_more_time_the_more_of_it_arrives() {
    let mut simulation = streaming();
    let limit = Wait::Body.limit(&Settings::roomy()).map(Duration::from_millis).expect("a limit");
    let who = simulation.connect();
    let token = ask(&mut simulation, who, &post("Content-Length: 1000000"));
    assert_eq!(simulation.reactor.take_body(token), Taken::Awaited);
    let part = vec![b'x'; 16 * 1024];
    for _ in 0..2 * limit.as_secs() {
        simulation.pass(Duration::from_millis(900));
        simulation.client(who).write(&part);
        simulation.run();
        assert!(matches!(simulation.reactor.take_body(token), Taken::Content { .. }));
        assert_eq!(simulation.reactor.take_body(token), Taken::Awaited);
    }
    // It has not saved up any time.
    simulation.pass(limit + Duration::from_millis(96));
    simulation.client(who).read();
    assert_eq!(simulation.client(who).status(), Some(408));
    simulation.reactor.done(token);
}

#[test]
fn a_client_that_gets_its_answer_already_may_send_now_and_then() {
    let mut simulation = streaming();
    let limit = Wait::Body.limit(&Settings::roomy()).map(Duration::from_millis).expect("a limit");
    let who = simulation.connect();
    let token = ask(&mut simulation, who, &post("Content-Length: 10"));
    begin(&mut simulation, token, None);
    received(&mut simulation, who);
    assert_eq!(simulation.reactor.take_body(token), Taken::Awaited);
    for _ in 0..6 {
        simulation.pass(limit / 2);
        simulation.client(who).write(b"x");
        simulation.run();
        assert_eq!(simulation.reactor.take_body(token), content(b"x", false));
        assert_eq!(simulation.reactor.take_body(token), Taken::Awaited);
    }
    simulation.pass(limit + Duration::from_millis(32));
    assert!(simulation.reactor.has_left(token));
    simulation.reactor.done(token);
}

#[test]
fn a_malformed_body_is_refused_or_cuts_the_answer() {
    for has_begun in [false, true] {
        let mut simulation = streaming();
        let who = simulation.connect();
        let token = ask(&mut simulation, who, &post("Transfer-Encoding: chunked"));
        if has_begun {
            begin(&mut simulation, token, None);
        }
        assert_eq!(simulation.reactor.take_body(token), Taken::Awaited);
        simulation.client(who).write(b"not a size\r\n");
        simulation.run();
        assert!(simulation.application.seen.contains(&Seen::Progress(token)));
        assert_eq!(simulation.reactor.take_body(token), Taken::Nothing);
        assert_eq!(simulation.reactor.send_part(token, b"x"), Part::Gone);
        simulation.reactor.done(token);
        let answer = received(&mut simulation, who);
        assert_eq!(simulation.client(who).status(), Some(if has_begun { 200 } else { 400 }));
        assert!(!answer.ends_with("0\r\n\r\n"));
        assert_eq!(simulation.client(who).end, Some(End::Closed));
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_body_is_noticed() {
    for half in [false, true] {
        let mut simulation = streaming();
        let who = simulation.connect();
        let token = ask(&mut simulation, who, &(post("Content-Length: 10") + "half"));
        if half {
            simulation.client(who).end_output();
        } else {
            simulation.client(who).leave();
        }
        simulation.run();
        assert_eq!(simulation.application.seen.last(), Some(&Seen::Progress(token)));
        assert!(simulation.reactor.has_left(token));
        assert_eq!(simulation.reactor.take_body(token), Taken::Nothing);
        assert!(simulation.reactor.is_empty());
        assert_eq!(simulation.reactor.outliving(), 1, "its handler");
        simulation.reactor.done(token);
        assert_eq!(simulation.reactor.outliving(), 0);
    }
}

#[test]
fn a_client_that_ends_its_stream_after_its_body_still_gets_a_whole_answer() {
    let mut simulation = streaming();
    let who = simulation.connect();
    let token = ask(&mut simulation, who, &post("Content-Length: 4"));
    assert_eq!(simulation.reactor.take_body(token), Taken::Awaited);
    simulation.client(who).write(b"body");
    simulation.client(who).end_output();
    simulation.run();
    assert_eq!(simulation.reactor.take_body(token), content(b"body", true));
    assert!(simulation.reactor.has_left(token), "it cannot be told from one that has left");
    assert!(!simulation.reactor.respond(token, 200, NO_HEADERS, b"late but whole"));
    assert!(received(&mut simulation, who).ends_with("late but whole"));
}

#[test]
fn requests_in_one_packet_are_answered_one_after_another() {
    let mut simulation = streaming();
    let who = simulation.connect();
    let requests = (post("Content-Length: 3") + "one").repeat(3);
    let mut token = ask(&mut simulation, who, &requests);
    for number in 0..3 {
        assert_eq!(simulation.application.count(|seen| *seen == Seen::Request(b"one".to_vec())), number + 1);
        assert!(simulation.reactor.respond(token, 200, NO_HEADERS, number.to_string().as_bytes()));
        assert!(received(&mut simulation, who).ends_with(&number.to_string()));
        if number < 2 {
            token = simulation.application.requests.pop().expect("the next").1;
        }
    }
}
