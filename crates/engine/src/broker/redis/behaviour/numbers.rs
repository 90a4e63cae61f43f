//! The scripts of host numbers, and of members.

use super::super::link::tests::server::Server;
use super::super::scripts::Script;
use super::client::{Client, Value};

const LEASE: u64 = 15_000;
/// One host in `number * 2^45`.
const HOST: u64 = 1 << 45;

fn claim(client: &mut Client, token: &str, quiet: u64, old: (u8, &str)) -> Vec<u64> {
    let (lease, quiet, number) = (LEASE.to_string(), quiet.to_string(), old.0.to_string());
    let arguments = ["p", token, &lease, &quiet, &number, old.1].map(str::as_bytes);
    client.call(Script::Claim, &[], &arguments).numbers()
}

fn number(client: &mut Client, token: &str) -> u64 {
    claim(client, token, 60_000, (0, ""))[0]
}

fn renew(client: &mut Client, token: &str, number: u64, own: u64, highest: u64) -> Vec<u64> {
    let texts = [LEASE, number, own, highest].map(|number| number.to_string());
    let arguments = ["p", token, &texts[0], &texts[1], &texts[2], &texts[3]].map(str::as_bytes);
    client.call(Script::Renew, &[], &arguments).numbers()
}

fn raise(client: &mut Client, token: &str, number: u64, up_to: u64) -> u64 {
    let arguments = ["p", token, &number.to_string(), &up_to.to_string()].map(|text| text.to_owned().into_bytes());
    client.call(Script::Raise, &[], &arguments.each_ref().map(|argument| &argument[..])).number()
}

fn join(client: &mut Client, token: &str, topic: &str, fd: u64, info: &str) -> u64 {
    let keys = [
        format!("p:q:{{{topic}}}"),
        format!("p:p:{{{topic}}}"),
        format!("p:i:{}", fd / HOST),
        format!("p:lease:{}", fd / HOST),
    ];
    let fd = fd.to_string();
    let arguments = [token, &fd, info, topic].map(str::as_bytes);
    client.call(Script::Join, &keys.each_ref().map(|key| &**key), &arguments).number()
}

fn leave(client: &mut Client, topic: &str, fd: u64) {
    let keys = [format!("p:q:{{{topic}}}"), format!("p:p:{{{topic}}}"), format!("p:i:{}", fd / HOST)];
    let texts = [fd, fd / HOST * HOST, (fd / HOST + 1) * HOST - 1].map(|number| number.to_string());
    let arguments = [&*texts[0], &texts[1], &texts[2], topic].map(str::as_bytes);
    client.call(Script::Leave, &keys.each_ref().map(|key| &**key), &arguments);
}

/// Runs `clear.lua` or `sweep.lua` once: the state, and the members that are removed.
fn remove(
    client: &mut Client,
    script: Script,
    token: &str,
    number: u64,
    most: u64,
) -> (u64, Vec<(String, u64, String)>) {
    let arguments = ["p", token, &number.to_string(), &most.to_string()].map(|text| text.to_owned().into_bytes());
    let reply = client.call(script, &[], &arguments.each_ref().map(|argument| &argument[..]));
    let [Value::Number(state), Value::List(removed)] = reply.list() else { panic!("{reply:?}") };
    let members = removed
        .chunks(3)
        .map(|member| (member[0].text().into(), member[1].text().parse().expect("an id"), member[2].text().into()));
    (*state as u64, members.collect())
}

fn gone(client: &mut Client) -> Vec<u64> {
    client.call(Script::Look, &[], &[b"p", b"t"]).numbers()
}

#[test]
fn a_number_is_one_hosts_until_all_are_taken() {
    let Some(server) = Server::start(&[]) else { return };
    let mut client = Client::new(server.port);
    let numbers: Vec<_> = (0..300).map(|host| number(&mut client, &format!("t{host}"))).collect();
    assert_eq!(numbers[..255], (1..=255).collect::<Vec<_>>());
    assert!(numbers[255..].iter().all(|number| *number == 0));
    // A claim whose reply was lost is claimed again.
    assert_eq!(number(&mut client, "t77"), 78);
    // A number that is given back is not another host's for a while.
    let leave = |client: &mut Client, token: &[u8], number: &[u8]| {
        client.call(Script::Release, &[], &[b"p", token, number, b"10"]).number()
    };
    assert_eq!(leave(&mut client, b"t8", b"10"), 0, "not its own");
    assert_eq!(leave(&mut client, b"t9", b"10"), 1);
    assert_eq!(number(&mut client, "other"), 0);
    assert_eq!(claim(&mut client, "other", 0, (0, ""))[0], 10);
}

#[test]
fn two_claimants_at_once_get_two_numbers() {
    let Some(server) = Server::start(&[]) else { return };
    let port = server.port;
    let claimants: Vec<_> = (0..8)
        .map(|claimant| {
            std::thread::spawn(move || {
                let mut client = Client::new(port);
                (0..10).map(|host| number(&mut client, &format!("t{claimant}-{host}"))).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut numbers: Vec<_> = claimants.into_iter().flat_map(|claimant| claimant.join().expect("done")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=80).collect::<Vec<_>>());
}

#[test]
fn a_host_gets_its_old_number_unless_it_is_anothers() {
    let Some(server) = Server::start(&[]) else { return };
    let mut client = Client::new(server.port);
    assert_eq!(claim(&mut client, "a", 60_000, (7, "before"))[0], 7, "nobody has it");
    assert_eq!(claim(&mut client, "b", 60_000, (7, "before"))[0], 1, "another has it");
    assert_eq!(claim(&mut client, "c", 60_000, (7, "a"))[0], 7, "it had it itself");
    assert_eq!(renew(&mut client, "a", 7, 0, 0)[0], 0, "the process before notices");
    assert_eq!(renew(&mut client, "c", 7, 0, 0)[0], 1);
    client.say("DEL p:lease:7");
    assert_eq!(claim(&mut client, "d", 60_000, (7, "other"))[0], 7, "nobody has it any longer");
}

#[test]
fn the_number_that_was_not_used_for_longest_is_taken_and_not_one_that_is_listened_for() {
    let Some(server) = Server::start(&[]) else { return };
    let mut client = Client::new(server.port);
    let now = client.say("TIME").list()[0].text().parse::<u64>().expect("a number") * 1000;
    for number in 1..=255u64 {
        client.say(&format!("HSET p:used {number} {}", now - 100_000 - (number * 7) % 255));
    }
    // 255 - 7 * 109 % 255 is 1: number 109 comes last, and 182 (7 * 182 % 255 = 254) first.
    assert_eq!(number(&mut client, "a"), 182);
    client.say("HSET p:used 4 1000 5 2000 6 3000");
    let mut ear = Client::new(server.port);
    ear.say("SUBSCRIBE p:h:4");
    assert_eq!(number(&mut client, "b"), 5, "somebody listens for 4");
    // The clock was set back.
    client.say(&format!("HSET p:used 6 {}", now + 30_000));
    assert_ne!(number(&mut client, "c"), 6);
    client.say(&format!("HSET p:used 6 {}", now + 90_000_000));
    drop(ear);
    let numbers: Vec<_> = (0..252).map(|host| number(&mut client, &format!("d{host}"))).collect();
    assert!(numbers.contains(&6));
}

#[test]
fn counters_go_on_above_all_that_were_given_out() {
    let Some(server) = Server::start(&[]) else { return };
    let mut client = Client::new(server.port);
    assert_eq!(claim(&mut client, "a", 0, (0, ""))[..3], [1, 0, 0]);
    assert_eq!(raise(&mut client, "a", 1, 500), 1);
    assert_eq!(raise(&mut client, "a", 1, 400), 1);
    assert_eq!(raise(&mut client, "b", 1, 900), 0, "not its own");
    assert_eq!(claim(&mut client, "c", 0, (1, "a"))[..3], [1, 500, 0]);
    assert_eq!(number(&mut client, "b"), 2);
    assert_eq!(renew(&mut client, "b", 2, 100, 0), [1, 500]);
    client.say("FLUSHALL");
    // The host that is left knows what the others had.
    assert_eq!(renew(&mut client, "b", 2, 100, 500), [2, 100]);
    let again = claim(&mut client, "d", 0, (0, ""));
    assert_eq!(again[..3], [1, 0, 500]);
}

#[test]
fn members_are_removed_once_and_their_host_notices() {
    let Some(server) = Server::start(&[]) else { return };
    let mut client = Client::new(server.port);
    assert_eq!((number(&mut client, "a"), number(&mut client, "b")), (1, 2));
    let own: Vec<_> = (0..25).map(|count| HOST + count).collect();
    for fd in &own {
        assert_eq!(join(&mut client, "a", &format!("t{}", fd % 3), *fd, "1"), 1);
    }
    assert_eq!(join(&mut client, "b", "t0", 2 * HOST, "2"), 1);
    assert_eq!(join(&mut client, "x", "t0", HOST + 99, "1"), 0, "it is fenced");
    assert_eq!(gone(&mut client), [0; 0]);
    assert_eq!(remove(&mut client, Script::Sweep, "b", 1, 10), (0, vec![]), "the host is there");
    client.say("DEL p:lease:1");
    assert_eq!(gone(&mut client), [1]);
    let mut lost = Vec::new();
    loop {
        let (state, removed) = remove(&mut client, Script::Sweep, "b", 1, 10);
        assert!(removed.len() <= 10);
        lost.extend(removed);
        if state == 1 {
            break;
        }
    }
    lost.sort_unstable_by_key(|(_, fd, _)| *fd);
    let expected: Vec<_> = own.iter().map(|fd| (format!("t{}", fd % 3), *fd, "1".to_owned())).collect();
    assert_eq!(lost, expected);
    assert_eq!(gone(&mut client), [0; 0]);
    assert_eq!(client.say("ZRANGE p:q:{t0} 0 -1"), Value::List(vec![Value::Bytes((2 * HOST).to_string().into())]));
    assert_eq!(client.say("EXISTS p:p:{t1} p:q:{t1} p:i:1").number(), 0);
    // The host wakes up, and its number is not its own any longer.
    assert_eq!(renew(&mut client, "a", 1, 0, 0)[0], 0);
    // Another takes the number, and gives it up without having had members: nobody has to be told.
    assert_eq!(claim(&mut client, "c", 0, (1, ""))[0], 1);
    client.say("DEL p:lease:1");
    assert_eq!(renew(&mut client, "c", 1, 0, 0)[0], 2);
}

#[test]
fn a_member_that_leaves_leaves_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    let mut client = Client::new(server.port);
    assert_eq!(claim(&mut client, "a", 0, (255, ""))[0], 255);
    // The highest id that there can be.
    let last = (1 << 53) - 1;
    for fd in [last, last - 1] {
        join(&mut client, "a", "t", fd, "null");
        join(&mut client, "a", "t", fd, "{}");
    }
    leave(&mut client, "t", last);
    assert_eq!(client.say("HGETALL p:p:{t}").list().len(), 2);
    assert_eq!(client.say("SMEMBERS p:i:255").list().len(), 1);
    leave(&mut client, "t", last - 1);
    leave(&mut client, "t", last - 1);
    assert_eq!(client.say("EXISTS p:p:{t} p:q:{t} p:i:255").number(), 0);
}

#[test]
fn members_of_an_earlier_holder_are_removed_by_the_next_one() {
    let Some(server) = Server::start(&[]) else { return };
    let mut client = Client::new(server.port);
    claim(&mut client, "a", 0, (9, ""));
    join(&mut client, "a", "t", 9 * HOST + 5, "1");
    assert_eq!(claim(&mut client, "b", 0, (9, "a"))[0], 9);
    assert_eq!(remove(&mut client, Script::Clear, "a", 9, 10).0, 0);
    assert_eq!(remove(&mut client, Script::Clear, "b", 9, 10), (1, vec![("t".into(), 9 * HOST + 5, "1".into())]));
    client.say("DEL p:lease:9");
    assert_eq!(renew(&mut client, "b", 9, 0, 0)[0], 2, "what a host removes itself does not fence it");
}

#[test]
fn without_memory_leases_go_on_and_members_are_removed() {
    let Some(server) = Server::start(&[]) else { return };
    let mut client = Client::new(server.port);
    assert_eq!((number(&mut client, "a"), number(&mut client, "b")), (1, 2));
    join(&mut client, "b", "t", 2 * HOST, "1");
    client.say("DEL p:lease:2");
    client.say("CONFIG SET maxmemory 1");
    assert_eq!(renew(&mut client, "a", 1, 0, 0)[0], 1);
    assert_eq!(remove(&mut client, Script::Sweep, "a", 2, 10).1.len(), 1);
    client.say("CONFIG SET maxmemory 0");
    assert_eq!(renew(&mut client, "b", 2, 0, 0)[0], 0, "the mark is there");
}

#[test]
fn a_number_whose_counters_are_used_up_is_passed_over() {
    let Some(server) = Server::start(&[]) else { return };
    let mut client = Client::new(server.port);
    for (number, top) in [(1, "281474976710655"), (2, "274877906943"), (3, "270582939649"), (5, "1e300"), (6, "none")] {
        client.say(&format!("SET p:top:{number} {top}"));
    }
    assert_eq!(number(&mut client, "a"), 4);
    assert_eq!(claim(&mut client, "b", 60_000, (2, "b"))[..2], [6, 0]);
}
