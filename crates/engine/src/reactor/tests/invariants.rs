//! Checks of what must be true of a reactor after each turn.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use rustc_hash::FxHashSet;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::connection::exchange::MAX_UNTAKEN;
use crate::connection::flow::{Finish, Outgoing};
use crate::connection::identity::{Identity, Life};
use crate::connection::{Connection, Stage, Standing, Wait};
use crate::reactor::{READ_BUDGET, Reactor};
use crate::registry::{COUNTS, Fd};
use crate::system::table::Key;
use crate::system::timers::Timer;

/// Bytes that a few allocations may take in addition to their contents.
const SLACK: usize = 4096;

/// Holds after every turn.
pub(super) fn hold(reactor: &Reactor) {
    every_connection_has_a_deadline(reactor);
    rows_are_the_open_connections(reactor);
    counts_add_up(reactor);
    memory_is_accounted_for(reactor);
    input_is_bounded(reactor);
    subscriptions_agree(reactor);
    ended_connections_are_waited_for(reactor);
    what_is_kept_for_speed_agrees(reactor);
}

/// Checks what must be true when the event loop has nothing to do at this moment.
pub(super) fn hold_at_rest(reactor: &Reactor) {
    for connection in reactor.connections.values() {
        nothing_is_overlooked(connection);
        let held = connection.output_memory() + connection.input_memory();
        assert_eq!(connection.held, held, "the memory of a connection is counted as it is");
    }
}

fn every_connection_has_a_deadline(reactor: &Reactor) {
    let timers: FxHashSet<Timer> = reactor.wheel.entries().chain(reactor.due.iter().copied()).collect();
    for (key, connection) in reactor.connections.iter() {
        let may_wait_forever = match connection.wait {
            Wait::Nothing => matches!(connection.stage, Stage::Asked(_) | Stage::Gone),
            Wait::Ping => reactor.settings.ping_interval.is_none(),
            Wait::Pong => reactor.settings.ping_timeout.is_none(),
            Wait::Head
            | Wait::Body
            | Wait::Part
            | Wait::KeepAlive
            | Wait::Continuation
            | Wait::Taking
            | Wait::Close => false,
        };
        let limit = connection.wait.limit(&reactor.settings);
        assert_eq!(limit.is_none(), may_wait_forever, "{:?}", connection.wait);
        let Some(limit) = limit else { continue };
        let at = connection.timer_at;
        assert!(at <= connection.since + limit, "{:?}: the timer comes too late", connection.wait);
        let timer = Timer { key, serial: connection.serial, at };
        assert!(timers.contains(&timer), "{:?}: the wheel has no entry", connection.wait);
    }
}

fn open(reactor: &Reactor) -> impl Iterator<Item = (Key, &Connection, (Fd, usize))> {
    let connections = reactor.connections.iter();
    connections.filter_map(|(key, connection)| Some((key, connection, connection.identity.open()?)))
}

fn rows_are_the_open_connections(reactor: &Reactor) {
    let registry = &reactor.shared.registry;
    let mut rows = registry.open_ids();
    let mut fds: Vec<Fd> = open(reactor).map(|(.., (fd, _))| fd).collect();
    rows.sort_unstable();
    fds.sort_unstable();
    assert_eq!(rows, fds, "each open connection has a row, and nothing else does");
    for (key, connection, (fd, row)) in open(reactor) {
        assert_eq!(reactor.open_key(fd), Some(key));
        let queued = registry.row(row).queued_bytes.load(Ordering::Relaxed);
        assert_eq!(queued, connection.unsent() as u64, "the queued bytes of a connection");
        let topics = connection.subscriptions.len();
        let has_room = [topics, topics + 1].map(|most| registry.may_have_room_for_topic(fd, most));
        assert_eq!(has_room, [Some(false), Some(true)], "the number of topics of a connection");
    }
    let keys = (0..registry.rows()).filter(|row| reactor.keys.get(*row).is_some()).count();
    assert_eq!(keys, fds.len(), "each key names an open connection");
}

/// A count of this worker, by its name in `stats`.
fn count(reactor: &Reactor, name: &str) -> usize {
    let counts = reactor.shared.registry.counts_of(reactor.shared.slot);
    let place = COUNTS.iter().position(|each| *each == name).expect("a count");
    counts[place] as usize
}

fn counts_add_up(reactor: &Reactor) {
    let open = open(reactor).count();
    assert_eq!(count(reactor, "connections"), open);
    assert_eq!(count(reactor, "accepted") - count(reactor, "closed"), open, "accepted less closed are open");
    let unforgotten = reactor.connections.values().filter(|it| it.identity.fd().is_some());
    let unsent: usize = unforgotten.map(Connection::unsent).sum();
    assert_eq!(count(reactor, "queued_bytes"), unsent, "the queued bytes of all connections");
    let having = |is_counted: fn(&Connection) -> bool| reactor.connections.values().filter(|it| is_counted(it)).count();
    assert_eq!(reactor.resting, having(|it| it.wait == Wait::KeepAlive), "resting connections");
    assert_eq!(reactor.outliving, having(|it| it.standing == Standing::Outlived), "outliving handlers");
    assert_eq!(count(reactor, "outliving"), reactor.outliving());
}

fn memory_is_accounted_for(reactor: &Reactor) {
    let own: usize = reactor.connections.values().map(|connection| connection.held).sum();
    let shared = reactor.tools.pool.shared();
    assert_eq!(reactor.held(), own + shared, "the running total is the sum");
    assert_eq!(count(reactor, "held_bytes"), reactor.held(), "`held_bytes` is the running total");
}

fn input_is_bounded(reactor: &Reactor) {
    let settings = &reactor.settings;
    let read = READ_BUDGET.max(settings.max_header_size);
    for connection in reactor.connections.values() {
        let most = match connection.stage {
            Stage::Header | Stage::Head { .. } => read,
            // What is decoded at once may come on top of what waits, and a buffer that grows may be twice as large.
            Stage::Asked(_) | Stage::Unread(_) => read + 2 * (MAX_UNTAKEN + read),
            // A buffer that grows may have twice as much memory.
            Stage::Body(_) => read + 2 * settings.max_body_size + settings.max_header_size,
            // The lane takes one more message than its limits, and one may be unfinished.
            Stage::WebSocket(_) => read + 4 * settings.max_message_size + settings.receive_queue * 64,
            Stage::Finishing(_) | Stage::Gone => read + 2 * settings.max_message_size,
        };
        assert!(connection.input_memory() <= most + SLACK, "{} bytes of input", connection.input_memory());
    }
}

fn subscriptions_agree(reactor: &Reactor) {
    let subscribed = || reactor.connections.values().filter(|it| !it.subscriptions.is_empty());
    let ended = subscribed().filter(|it| !it.is_open()).count();
    assert!(ended <= reactor.unsubscribing.len(), "an ended connection stays subscribed");
    let of_connections: usize = subscribed().map(|it| it.subscriptions.len()).sum();
    assert_eq!(reactor.topics.count_subscriptions(), of_connections, "both sides of the subscriptions agree");
}

fn what_is_kept_for_speed_agrees(reactor: &Reactor) {
    for (_, connection, (fd, _)) in open(reactor) {
        assert_eq!(connection.awaited, reactor.awaited_room.is_awaited(fd), "somebody waits for room, or nobody");
        let limit = reactor.settings.max_message_size_of(connection.endpoint);
        assert_eq!(connection.max_message_size, limit, "the limit is that of the endpoint");
    }
}

fn ended_connections_are_waited_for(reactor: &Reactor) {
    for (key, connection) in reactor.connections.iter() {
        assert!(!connection.is_over(), "a connection that is over is still there");
        assert_eq!(
            connection.socket.is_none(),
            matches!(connection.stage, Stage::Gone),
            "only a gone one has no socket"
        );
        if let Some(fd) = connection.identity.fd().filter(|_| !connection.is_open()) {
            assert_eq!(reactor.shared.ended_key(fd), Some(key));
        }
    }
}

/// Everything that the kernel has for a connection has been read, and all that it could take has been written, unless
/// something forbids it.
fn nothing_is_overlooked(connection: &Connection) {
    let is_ended = matches!(connection.identity, Identity::Named { life: Life::Ended(_), .. });
    assert!(!is_ended || !connection.lane.is_free(), "`close` is due");
    assert!(connection.lane.busy || connection.lane.is_empty(), "a message could go to its handler");
    let Some(socket) = &connection.socket else { return };
    let mut polled = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN | PollFlags::OUT)];
    rustix::event::poll(&mut polled, Some(&Timespec::default())).expect("polled");
    let found = polled[0].revents();
    if !connection.outbox.is_empty() {
        assert_eq!(connection.outgoing, Outgoing::Blocked, "output waits although the socket is not known to be full");
        assert!(!found.contains(PollFlags::OUT), "the socket accepts more, which nobody has noticed");
    }
    let may_leave_input = match connection.stage {
        Stage::Asked(_) => !connection.reads_on(),
        Stage::Gone => true,
        Stage::Head { .. } => connection.is_answering(),
        Stage::WebSocket(_) => connection.paused_at.is_some(),
        // The end of the peer's stream has been read, or nothing that follows matters.
        Stage::Finishing(finish) => finish == Finish::Close,
        Stage::Header | Stage::Body(_) | Stage::Unread(_) => false,
    };
    assert!(may_leave_input || !found.contains(PollFlags::IN), "input waits in {:?}", connection.wait);
}
