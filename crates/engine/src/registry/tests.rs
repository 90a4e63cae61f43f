//! The table as seen by one process and by several.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use super::counts::COMMANDS_DROPPED;
use super::memory::anonymous_file;
use super::{COUNTER, Ids, Interest, NoId, Registry, add};

fn client() -> SocketAddr {
    "192.0.2.7:443".parse().expect("an address")
}

#[test]
fn a_row_is_seen_from_claim_to_release() {
    let registry = Registry::private(10).expect("memory");
    let fd = Ids::new(0, &registry).next(&registry).expect("an id");
    assert!(!registry.exists(fd));
    assert!(registry.open_ids().is_empty());
    registry.claim(fd, client(), "/chat", 5);
    assert!(registry.exists(fd));
    assert_eq!(registry.open_ids(), [fd]);
    assert_eq!(registry.info(fd).expect("info").client, client());
    assert_eq!(registry.info(fd).expect("info").opened_at, 5);
    registry.release(fd);
    assert!(!registry.exists(fd));
    assert_eq!(registry.info(fd), None);
}

#[test]
fn ids_skip_taken_rows_and_never_come_again() {
    let registry = Registry::private(4).expect("memory");
    let ids = Ids::new(0, &registry);
    let held = ids.next(&registry).expect("an id");
    registry.claim(held, client(), "/chat", 0);
    let mut last = held;
    for _ in 0..100 {
        let fd = ids.next(&registry).expect("an id");
        assert!(fd > last && fd < 1 << 53);
        assert_ne!(registry.index(fd), registry.index(held));
        registry.release(fd);
        last = fd;
    }
}

#[test]
fn a_full_table_gives_no_id() {
    let registry = Registry::private(2).expect("memory");
    let ids = counting(&registry, 0);
    let mut last = 0;
    for _ in 0..registry.rows() {
        last = ids.next(&registry).expect("an id");
        registry.claim(last, client(), "/chat", 0);
    }
    for _ in 0..100 {
        assert_eq!(ids.next(&registry), Err(NoId::NoFreeRow));
    }
    // The failed attempts have used up no ids: the next id is at most one round of the rows away.
    registry.release(last);
    let next = ids.next(&registry).expect("an id");
    assert!(next > last && next <= last + registry.rows() as u64);
}

#[test]
fn thousands_of_taken_rows_side_by_side_cost_few_attempts_and_no_more_ids_than_there_are_rows() {
    let registry = Registry::private(20_000).expect("memory");
    let rows = registry.rows() as u64;
    let ids = counting(&registry, 0);
    for _ in 0..20_000 {
        registry.claim(ids.next(&registry).expect("an id"), client(), "/chat", 0);
    }
    // Other connections open and close, and pass them again and again.
    let mut last = registry.last();
    let begin = last;
    for _ in 0..rows {
        let fd = ids.next(&registry).expect("an id");
        assert!(fd > last && fd <= last + rows);
        registry.release(fd);
        last = fd;
    }
    assert!(last - begin < 10 * rows, "{} ids", last - begin);
}

#[test]
fn at_the_edge_of_the_counter_ids_end_and_none_comes_again() {
    let registry = Registry::private(100).expect("memory");
    let ids = counting(&registry, COUNTER - 5);
    let given: Vec<u64> = std::iter::from_fn(|| {
        let fd = ids.next(&registry).ok()?;
        registry.release(fd);
        Some(fd)
    })
    .take(100)
    .collect();
    assert_eq!(given, Vec::from_iter(COUNTER - 4..=COUNTER));
    assert_eq!(ids.next(&registry), Err(NoId::Exhausted));
    assert!(ids.are_exhausted(&registry));
    // A process that continues after this one gets no id either.
    assert_eq!(counting(&registry, 0).next(&registry), Err(NoId::Exhausted));
}

#[test]
fn a_server_begins_above_its_lease_and_the_clock_or_not_at_all() {
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let (before_2026, in_2026, in_2036, in_2100) = (at(0), at(1_780_000_000), at(2_100_000_000), at(4_102_444_800));
    let begins = |leased, now| {
        let registry = Registry::shared(10).expect("memory");
        let warning = registry.begin_above(leased, now)?;
        Ok::<_, String>((registry.last(), warning.is_some()))
    };
    let clock = |seconds: u64| (seconds - 1_767_225_600) * 500;
    let (of_2026, of_2036) = (clock(1_780_000_000), clock(2_100_000_000));
    assert_eq!(begins(None, before_2026), Ok((0, false)));
    assert_eq!(begins(None, in_2026), Ok((of_2026, false)));
    // The clock alone counts if the lease says less: the file may be an old one.
    assert_eq!(begins(Some(1), in_2026), Ok((of_2026, false)));
    assert_eq!(begins(Some(of_2026 + 7), in_2026), Ok((of_2026 + 7, false)));
    // The clock was ten years ahead, or is now behind.
    assert_eq!(begins(Some(of_2036), in_2026), Ok((of_2036, true)));
    assert_eq!(begins(Some(of_2026), before_2026), Ok((of_2026, false)));
    assert_eq!(begins(Some(COUNTER - 1), in_2036), Ok((COUNTER - 1, true)));
    // The clock is so far ahead that only the lease helps.
    assert_eq!(begins(Some(of_2026), in_2100), Ok((of_2026, true)));
    for (leased, now, words) in [
        (None, in_2100, "the system's clock says 2100"),
        (Some(COUNTER), in_2026, "all connection ids have been given out"),
        (Some(COUNTER), in_2100, "all connection ids have been given out"),
        (Some(u64::MAX), in_2026, "all connection ids have been given out"),
    ] {
        let refusal = begins(leased, now).expect_err("it cannot begin");
        assert!(refusal.contains(words), "{refusal}");
    }
}

/// Gives out ids as a separate process would, after this counter.
fn counting(registry: &Registry, last: u64) -> Ids {
    Ids::counting(0, registry, Box::leak(Box::new(AtomicU64::new(last))))
}

#[test]
fn without_a_lease_there_is_no_id() {
    let registry = Registry::shared(10).expect("memory");
    registry.revive(1, 0);
    let ids = Ids::new(1, &registry);
    assert_eq!(ids.next(&registry), Err(NoId::Unleased));
    registry.lease(registry.last() + 3);
    assert!(ids.next(&registry).is_ok());
}

#[test]
fn two_openings_of_the_same_memory_see_the_same() {
    let registry = Registry::shared(10).expect("memory");
    registry.lease(COUNTER);
    registry.revive(5, 2);
    let memory = registry.memory().expect("it is shared").try_clone_to_owned().expect("a descriptor");
    let other = Registry::open(memory).expect("the same version");
    let fd = Ids::new(5, &other).next(&other).expect("an id");
    other.claim(fd, client(), "/chat", 7);
    assert!(registry.exists(fd));
    assert_eq!(registry.worker_of(fd), 2);
    assert!(Registry::open(anonymous_file().expect("a file")).is_err());
}

#[test]
fn what_a_dead_process_leaves_is_cleared_and_its_counts_are_kept() {
    let registry = Registry::shared(10).expect("memory");
    registry.lease(COUNTER);
    registry.revive(5, 2);
    let ids = Ids::new(5, &registry);
    assert!(registry.take_place(5, 10));
    let fd = ids.next(&registry).expect("an id");
    registry.claim(fd, client(), "/chat", 7);
    registry.row(registry.index(fd)).messages_in.store(3, Ordering::Relaxed);
    add(&registry.slot(5).totals.accepted, 1);
    let half_written = ids.next(&registry).expect("an id");
    registry.set_interest(5, 77, Interest::Wanted);
    registry.bury(5);
    assert!(!registry.exists(fd));
    registry.clear(5);
    assert_eq!(registry.row(registry.index(half_written)).id.load(Ordering::Relaxed), 0);
    assert!(!registry.has_interest(5, 77));
    let [connections, accepted, _, closed, messages_in, ..] = registry.stats().totals;
    assert_eq!([connections, accepted, closed, messages_in], [0, 1, 1, 3]);
    registry.revive(5, 2);
    assert!(!registry.exists(fd));
    assert!(Ids::new(5, &registry).next(&registry).expect("an id") > half_written);
}

#[test]
fn what_a_process_has_counted_is_told_all_along_from_its_death_to_its_clearing() {
    let registry = Registry::shared(10).expect("memory");
    registry.revive(5, 2);
    assert!(registry.take_place(5, 10));
    add(&registry.slot(5).totals.accepted, 1);
    add(&registry.slot(5).commands_dropped, 7);
    registry.bury(5);
    let dead = registry.stats();
    let [connections, accepted, _, closed, ..] = dead.totals;
    assert_eq!([connections, accepted, closed, dead.totals[COMMANDS_DROPPED]], [0, 1, 1, 7]);
    registry.clear(5);
    assert_eq!(registry.stats().totals, dead.totals);
}

#[test]
fn traffic_that_was_told_is_never_told_to_be_less() {
    let registry = Registry::shared(10).expect("memory");
    registry.lease(COUNTER);
    registry.revive(5, 2);
    let fd = Ids::new(5, &registry).next(&registry).expect("an id");
    registry.claim(fd, client(), "/chat", 7);
    registry.row(registry.index(fd)).bytes_in.store(100, Ordering::Relaxed);
    let before = registry.stats().totals;
    // The connection has ended, but its traffic is not yet counted with that of closed connections.
    registry.release(fd);
    assert_eq!(registry.stats().totals, before);
    add(&registry.slot(5).totals.bytes_in, 100);
    assert_eq!(registry.stats().totals, before);
}

#[test]
fn the_last_place_is_taken_once() {
    let registry = Registry::shared(10).expect("memory");
    registry.revive(1, 0);
    registry.revive(2, 1);
    assert!(registry.take_place(1, 2) && registry.take_place(2, 2));
    assert!(!registry.take_place(1, 2));
    registry.give_place_back(2);
    assert!(registry.take_place(1, 2));
    assert_eq!(registry.connections(), 2);
}

#[test]
fn interest_holds_while_a_subscription_is_on_its_way() {
    let registry = Registry::shared(10).expect("memory");
    registry.revive(1, 0);
    assert!(!registry.has_interest(1, 9));
    add(&registry.slot(1).subscribes_passed, 1);
    assert!(registry.has_interest(1, 9));
    registry.set_interest(1, 10, Interest::Wanted);
    add(&registry.slot(1).subscribes_done, 1);
    assert!(!registry.has_interest(1, 9) && registry.has_interest(1, 10));
}
