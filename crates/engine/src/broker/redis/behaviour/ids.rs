//! Ids of several hosts that are killed, frozen, and cut off, by clocks that are wrong by years: none twice.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::lease::{Change, Lease, Now, Token, Wish};
use super::super::link::tests::server::Server;
use super::super::scripts::Script;
use super::client::{Client, Value};

/// Counters leased at once.
const LENGTH: u64 = 5000;
const HOSTS: usize = 5;
const YEAR: u64 = 365 * 86_400_000;

/// One host, as its hub and its broker see it.
struct Host {
    lease: Lease,
    boots: u64,
    /// What has the hub been told.
    number: Option<u8>,
    last: u64,
    leased: u64,
    until: u64,
}

impl Host {
    fn new(boots: u64, former: Option<(u8, Token)>, world: &World) -> Self {
        let mut lease = Lease::new(Token::new(u128::from(boots) + 1), former, 0);
        lease.connected(world.now());
        Self { lease, boots, number: None, last: 0, leased: 0, until: 0 }
    }

    fn changed(&mut self, change: Change, world: &World) {
        match change {
            Change::Claimed(number) => {
                let mut changes = Vec::new();
                self.lease.heard(number, &mut |change| changes.push(change));
                changes.into_iter().for_each(|change| self.changed(change, world));
            }
            Change::Numbered { host, above } => {
                (self.number, self.last, self.leased) = (Some(host), above, 0);
                self.lease.want(above + LENGTH, world.now());
            }
            Change::Held(until) => self.until = until,
            Change::Leased(up_to) => self.leased = up_to,
            Change::Unclaimed(_) | Change::Fenced => (self.number, self.until, self.leased) = (None, 0, 0),
            Change::Emptied | Change::NoneLeft => {}
        }
    }
}

/// Time, Redis, and all ids.
struct World {
    started: Instant,
    /// Milliseconds.
    time: u64,
    /// What is added to the Unix time that Redis tells.
    skew: i64,
    boots: u64,
    client: Client,
    /// For each number, when its lease ends, and the ranges of counters that were given out.
    leases: HashMap<u8, u64>,
    given: HashMap<u8, Vec<(u64, u64)>>,
    count: u64,
}

impl World {
    fn now(&self) -> Now {
        Now { at: self.started + Duration::from_millis(self.time), boot: self.time }
    }

    fn pass(&mut self, time: u64) {
        self.time += time;
        let gone: Vec<u8> =
            self.leases.iter().filter(|(_, until)| **until <= self.time).map(|(host, _)| *host).collect();
        for host in gone {
            self.leases.remove(&host);
            self.client.say(&format!("DEL p:lease:{host}"));
        }
    }

    /// Does what a host wishes, or loses the replies.
    fn serve(&mut self, host: &mut Host, loses: bool) {
        while let Some(wish) = host.lease.next(self.now()) {
            let reply = self.carry_out(host, wish);
            if loses {
                host.lease.failed(wish, self.now());
                return;
            }
            let mut changes = Vec::new();
            let now = self.now();
            match wish {
                Wish::Claim => {
                    let mut numbers = reply.numbers();
                    numbers[3] = numbers[3].saturating_add_signed(self.skew);
                    let reply = numbers.try_into().expect("four");
                    changes.extend(host.lease.claimed(reply, self.time, now));
                }
                Wish::Renew(number) => {
                    let reply = reply.numbers().try_into().expect("two");
                    host.lease.renewed(number, reply, self.time, now, &mut |change| changes.push(change));
                }
                Wish::Clear(number) => {
                    let state = reply.list()[0].number();
                    host.lease.cleared(number, state, now, &mut |change| changes.push(change));
                }
                Wish::Raise(number, up_to) => {
                    let is_done = reply == Value::Number(1);
                    host.lease.raised(number, up_to, is_done, now, &mut |change| changes.push(change));
                }
            }
            changes.into_iter().for_each(|change| host.changed(change, self));
        }
    }

    fn carry_out(&mut self, host: &Host, wish: Wish) -> Value {
        let token = host.lease.token.text();
        let (script, more) = match wish {
            Wish::Claim => {
                let (former, its_token) = host.lease.former();
                (Script::Claim, vec!["15000".into(), "0".into(), former.to_string(), its_token.to_owned()])
            }
            Wish::Renew(number) => {
                let (own, highest) = host.lease.tops();
                (Script::Renew, vec!["15000".into(), number.to_string(), own.to_string(), highest.to_string()])
            }
            Wish::Clear(number) => (Script::Clear, vec![number.to_string(), "10".into()]),
            Wish::Raise(number, up_to) => (Script::Raise, vec![number.to_string(), up_to.to_string()]),
        };
        let arguments: Vec<_> = [b"p", token.as_bytes()].into_iter().chain(more.iter().map(String::as_bytes)).collect();
        let reply = self.client.call(script, &[], &arguments);
        let held = match wish {
            Wish::Claim => Some(reply.numbers()[0]).filter(|number| *number != 0),
            Wish::Renew(number) => Some(u64::from(number)).filter(|_| reply.numbers()[0] != 0),
            _ => None,
        };
        if let Some(number) = held {
            self.leases.insert(number as u8, self.time + 15_000);
        }
        reply
    }

    /// The host gives out ids, as far as it may.
    fn give(&mut self, host: &mut Host, count: u64) {
        let Some(number) = host.number.filter(|_| self.time < host.until) else { return };
        let up_to = (host.last + count).min(host.leased);
        if up_to > host.last {
            self.given.entry(number).or_default().push((host.last + 1, up_to));
            self.count += up_to - host.last;
            host.last = up_to;
        }
        if host.last + LENGTH / 2 > host.leased {
            host.lease.want(host.last + LENGTH, self.now());
        }
    }

    fn assert_none_twice(&mut self) {
        for (host, ranges) in &mut self.given {
            ranges.sort_unstable();
            for pair in ranges.windows(2) {
                assert!(pair[0].1 < pair[1].0, "host {host} has given out {:?} and {:?}", pair[0], pair[1]);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// All hosts run, and give out ids.
    Run(u64),
    /// One host does nothing for a while; the others run.
    Freeze(usize, u64),
    /// One host is started anew; it may have forgotten its number.
    Kill(usize, bool),
    /// Redis's clock is wrong by so many years.
    Skew(i64),
    /// Replies for one host are lost.
    Lose(usize),
    /// Redis loses its data.
    Empty,
}

fn step() -> impl Strategy<Value = Step> {
    let host = 0..HOSTS;
    prop_oneof![
        8 => (1..4000u64).prop_map(Step::Run),
        3 => (host.clone(), 1000..40_000u64).prop_map(|(host, time)| Step::Freeze(host, time)),
        3 => (host.clone(), any::<bool>()).prop_map(|(host, forgets)| Step::Kill(host, forgets)),
        1 => (-3..10i64).prop_map(Step::Skew),
        1 => host.prop_map(Step::Lose),
        1 => Just(Step::Empty),
    ]
}

fn walk(client: Client, steps: &[Step]) -> u64 {
    let mut world = World {
        started: Instant::now(),
        time: 0,
        skew: 0,
        boots: 0,
        client,
        leases: HashMap::new(),
        given: HashMap::new(),
        count: 0,
    };
    world.client.say("FLUSHALL");
    let mut hosts: Vec<_> = (0..HOSTS as u64).map(|boots| Host::new(boots, None, &world)).collect();
    world.boots = HOSTS as u64;
    let run = |world: &mut World, hosts: &mut [Host], frozen: Option<usize>| {
        for (place, host) in hosts.iter_mut().enumerate().filter(|(place, _)| Some(*place) != frozen) {
            world.serve(host, false);
            world.give(host, 400 + 37 * place as u64);
        }
    };
    for step in steps {
        match *step {
            Step::Run(time) => {
                world.pass(time);
                run(&mut world, &mut hosts, None);
            }
            Step::Freeze(frozen, time) => {
                for _ in 0..time / 1000 {
                    world.pass(1000);
                    run(&mut world, &mut hosts, Some(frozen));
                }
                // It wakes up, and goes on before it hears anything.
                world.give(&mut hosts[frozen], 1000);
            }
            Step::Kill(killed, forgets) => {
                world.boots += 1;
                let number = hosts[killed].number.filter(|_| !forgets);
                let former = number.map(|number| (number, Token::new(u128::from(hosts[killed].boots) + 1)));
                hosts[killed] = Host::new(world.boots, former, &world);
            }
            Step::Skew(years) => world.skew = years * YEAR as i64,
            Step::Lose(host) => {
                let at = hosts[host].lease.due().map_or(0, |at| (at - world.started).as_millis() as u64);
                world.pass(at.saturating_sub(world.time));
                world.serve(&mut hosts[host], true);
            }
            Step::Empty => {
                // A host that is there has heard of all counters before, and tells after.
                world.pass(3000);
                run(&mut world, &mut hosts, None);
                let Some(survivor) = hosts.iter().position(|host| host.number.is_some()) else { continue };
                world.pass(3000);
                world.serve(&mut hosts[survivor], false);
                world.client.say("FLUSHALL");
                world.leases.clear();
                world.pass(3000);
                world.serve(&mut hosts[survivor], false);
            }
        }
    }
    world.assert_none_twice();
    world.count
}

#[test]
fn no_id_is_given_out_twice() {
    let Some(server) = Server::start(&[]) else { return };
    let count = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(40));
    runner
        .run(&prop::collection::vec(step(), 1..60), |steps| {
            let client = Client::new(server.port);
            count.set(count.get() + walk(client, &steps));
            Ok(())
        })
        .expect("no id twice");
    let count = count.get();
    assert!(count >= 1_000_000, "{count} ids were given out");
}
