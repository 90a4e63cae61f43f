//! A reactor, its clients, its application and its event loop in one thread. Time passes only in [`Simulation::pass`],
//! which wakes the reactor as an event loop would: when it has work, and at the deadlines it has asked for.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::reactor::Reactor;
use crate::reactor::event::Token;
use crate::reactor::tests::application::{Application, Who};
use crate::reactor::tests::client::{Client, HANDSHAKE};
use crate::reactor::tests::invariants;
use crate::registry::{Fd, Registry};
use crate::settings::Settings;
use crate::system::clock::TimeSource;
use crate::system::clock::simulated::SimulatedTime;

/// Roughly the number of bytes that the kernel buffers for a client that does not read.
const SEND_BUFFER: usize = 16 * 1024;
/// More turns than any test needs. An event loop that runs this many without time passing is spinning.
const MAX_TURNS: usize = 20_000;
/// The time that a closing peer has, in most tests.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(4);
/// For answers without headers of the application's.
pub(super) const NO_HEADERS: &[(&str, &str)] = &[];
/// How long the kernel may take.
const PATIENCE: Duration = Duration::from_secs(20);

impl Settings {
    /// Room for long messages and much output.
    pub(super) fn roomy() -> Self {
        Self {
            close_timeout: CLOSE_TIMEOUT,
            max_message_size: 1 << 20,
            send_queue_size: 4 << 20,
            max_memory: 1 << 30,
            ..Self::small()
        }
    }
}

pub(super) struct Simulation {
    pub(super) time: SimulatedTime,
    pub(super) reactor: Reactor,
    pub(super) application: Application,
    clients: Vec<Client>,
    /// When the event loop's timer fires, since the beginning.
    timer: Option<Duration>,
    pub(super) turns: usize,
    /// Whether the invariants are not checked, which would take long for thousands of connections.
    pub(super) skips_invariants: bool,
}

impl Simulation {
    pub(super) fn new(settings: Settings) -> Self {
        let time = SimulatedTime::new();
        let registry = Registry::private(settings.max_connections).expect("memory");
        let source = TimeSource::Simulated(time.clone());
        let reactor = Reactor::with_time(source, settings, registry, 0).expect("a reactor");
        Self {
            time,
            reactor,
            application: Application::new(),
            clients: Vec::new(),
            timer: None,
            turns: 0,
            skips_invariants: false,
        }
    }

    // ---- clients ----------------------------------------------------------------------------------------------------

    /// A client on a pair of Unix sockets, where whatever one end does shows at the other end at once.
    pub(super) fn connect(&mut self) -> Who {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, SEND_BUFFER / 2).expect("an option");
        self.adopt(OwnedFd::from(ours).into(), OwnedFd::from(theirs).into())
    }

    /// A client on TCP, which knows resets.
    pub(super) fn connect_by_tcp(&mut self) -> Who {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let theirs = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let (ours, _) = listener.accept().expect("accepted");
        rustix::net::sockopt::set_socket_send_buffer_size(ours.as_fd(), SEND_BUFFER / 2).expect("an option");
        self.adopt(ours, theirs)
    }

    fn adopt(&mut self, ours: TcpStream, theirs: TcpStream) -> Who {
        ours.set_nonblocking(true).expect("a flag");
        theirs.set_nonblocking(true).expect("a flag");
        let who = self.clients.len();
        self.clients.push(Client::new(theirs));
        let peer = SocketAddr::from(([192, 0, 2, 7], who as u16));
        self.reactor.adopt(mio::net::TcpStream::from_std(ours), peer, Vec::new());
        who
    }

    /// A client that has been accepted, and its connection.
    pub(super) fn open(&mut self) -> (Who, Fd) {
        let who = self.connect();
        self.upgrade(who)
    }

    /// The same on TCP.
    pub(super) fn open_by_tcp(&mut self) -> (Who, Fd) {
        let who = self.connect_by_tcp();
        self.upgrade(who)
    }

    fn upgrade(&mut self, who: Who) -> (Who, Fd) {
        self.client(who).write(HANDSHAKE);
        self.run();
        self.run_until(|simulation| simulation.application.fd(who).is_some());
        self.client(who).read();
        (who, self.application.fd(who).expect("accepted"))
    }

    /// A client whose handshake waits for the application's answer.
    pub(super) fn ask_for_handshake(&mut self) -> (Who, Token) {
        self.application.accepts = false;
        let who = self.connect();
        self.client(who).write(HANDSHAKE);
        self.run();
        let (_, token) = self.application.handshakes.pop().expect("a handshake");
        (who, token)
    }

    /// A client whose request waits for the application's answer.
    pub(super) fn ask_for_page(&mut self) -> (Who, Token) {
        let who = self.connect();
        self.client(who).write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
        self.run();
        let (_, token) = self.application.requests.pop().expect("a request");
        (who, token)
    }

    pub(super) fn client(&mut self, who: Who) -> &mut Client {
        &mut self.clients[who]
    }

    // ---- the event loop ---------------------------------------------------------------------------------------------

    /// Runs one turn.
    pub(super) fn turn(&mut self) {
        self.turns += 1;
        self.reactor.begin().expect("begun");
        loop {
            while self.application.handle_next(&mut self.reactor) {}
            if !self.reactor.go_on().expect("went on") {
                break;
            }
        }
        self.reactor.finish();
        self.timer = self.reactor.next_deadline().map(|wait| self.now() + wait);
        if !self.skips_invariants {
            invariants::hold(&self.reactor);
        }
    }

    /// Runs turns until there is nothing left to do at this moment.
    pub(super) fn run(&mut self) {
        let most = self.turns + MAX_TURNS;
        while self.turn_is_due() {
            assert!(self.turns < most, "the event loop spins");
            self.turn();
        }
        if !self.skips_invariants {
            invariants::hold_at_rest(&self.reactor);
        }
    }

    /// Runs turns until something is so. On TCP, unlike on Unix sockets, the kernel may take a moment to deliver.
    pub(super) fn run_until(&mut self, is_so: impl Fn(&mut Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            assert!(begin.elapsed() < PATIENCE, "it does not come to that");
            std::thread::yield_now();
            self.run();
        }
    }

    /// Whether an event loop would run a turn now.
    fn turn_is_due(&self) -> bool {
        let is_timer_due = self.timer.is_some_and(|at| at <= self.now());
        is_timer_due || self.reactor.has_work() || self.reactor.has_earlier_deadline() || self.is_readable()
    }

    fn is_readable(&self) -> bool {
        // SAFETY: the reactor keeps its descriptor open, and outlives this borrow.
        let poll = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.reactor.fileno()) };
        let mut polled = [rustix::event::PollFd::from_borrowed_fd(poll, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut polled, Some(&rustix::event::Timespec::default())).expect("polled") > 0
    }

    fn now(&self) -> Duration {
        self.time.elapsed()
    }

    /// Lets time pass, running whatever turns are due.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now() + time;
        self.run();
        while let Some(at) = self.timer.filter(|at| *at <= end) {
            self.time.pass(at.saturating_sub(self.now()));
            self.run();
        }
        self.time.pass(end.saturating_sub(self.now()));
        self.run();
    }

    // ---- looking ----------------------------------------------------------------------------------------------------

    /// A count of this worker, by its name in `stats`.
    pub(super) fn stat(&self, name: &str) -> u64 {
        let place = crate::registry::COUNTS.iter().position(|each| *each == name).expect("a count");
        self.reactor.shared().registry.stats().totals[place]
    }
}
