//! The hub: a thread of the master that accepts connections and passes them to workers, and passes commands on.
//!
//! Between it and each worker there is a [`Link`]; other programs connect to its control socket. It looks at a command only
//! to see whom it is for. It never waits for anyone: each worker has a bounded queue, and what does not fit is dropped and
//! counted. A program that sends faster than the workers take is not read for a while; but not for long, if a worker has
//! stopped taking anything.
//!
//! The supervisor asks with [`Hub`]'s methods, from any thread, and takes [`HubEvent`]s when [`Hub::fileno`] is readable.

mod handover;
mod routing;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use slab::Slab;

use crate::codec::Malformed;
use crate::command::Command;
use crate::link::{Link, Read};
use crate::message::{Answer, Leave, Message, Question, VERSION, content};
use crate::registry::{Fd, Registry, SLOTS, WORKERS, add, topic_bit};

/// Bytes that may wait for one worker.
const MOST_FOR_WORKER: usize = 32 * 1024 * 1024;
/// Programs are not read while so much waits for a worker that still takes some of it.
const MUCH_FOR_WORKER: usize = 4 * 1024 * 1024;
/// A worker that has taken nothing for so long holds no program up.
const STALLED: Duration = Duration::from_millis(200);
/// A worker that has not taken a socket for so long gets no other.
const SLOW_TO_TAKE: Duration = Duration::from_millis(50);
/// When to look again at what nobody tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Connections accepted from one listening socket before it is something else's turn.
const ACCEPTED_AT_ONCE: usize = 64;
/// Connections that may wait for a worker that takes them.
const MOST_HOMELESS: usize = 1024;
/// A program for which so much waits, or that asks so much at a time, is not listened to until that is less.
const MUCH_FOR_PROGRAM: usize = 1024 * 1024;
const MOST_ASKED: usize = 4096;
/// Programs that may be connected at a time.
const MOST_PROGRAMS: usize = 1024;
/// Questions of one worker that may wait for their answers.
const MOST_QUESTIONS: usize = 65_536;
/// Time for a program's first word, and for the rest of a frame.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a command beside its payload and the ids that it excludes.
const MOST_FIELDS: usize = 1024;
/// Log entries that may wait for the supervisor.
const MOST_ENTRIES: usize = 100;
/// Between two complaints about programs.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);
/// How long accepting pauses after a failure.
const RETRY: Duration = Duration::from_millis(100);
/// Counters of ids that are leased at a time, and when more are.
const LEASE: u64 = 1 << 22;

/// What the supervisor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubEvent {
    /// The worker of this slot takes connections.
    Ready(u8),
    /// It has been asked to leave, and is about to.
    Leaving(u8),
    /// It wants all workers replaced.
    Reload(u8),
    /// It wants the server to stop.
    Shutdown(u8),
    /// To be logged as a warning.
    Warning(String),
}

enum Request {
    Listen(OwnedFd),
    Add { slot: u8, worker_id: u8, stream: OwnedFd },
    Leave { slot: u8, why: Leave },
    Ended { slot: u8 },
    StopAccepting,
    Close,
}

/// What the hub's thread and its callers share.
struct Desk {
    registry: Registry,
    requests: Mutex<VecDeque<Request>>,
    events: Mutex<VecDeque<HubEvent>>,
    /// Slots that are taken.
    slots: Mutex<[bool; SLOTS]>,
    /// Where the search for a free one goes on, so that one is not used again at once.
    next_slot: AtomicU64,
    /// A byte here wakes the thread; one there wakes the supervisor.
    wake_thread: UnixStream,
    wake_supervisor: UnixStream,
    is_closed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    fn tell(&self, event: HubEvent) {
        let mut events = lock(&self.events);
        let is_entry = matches!(event, HubEvent::Warning(_));
        if is_entry && events.len() >= MOST_ENTRIES {
            return;
        }
        events.push_back(event);
        drop(events);
        // If there is no room for a byte, there is one already.
        let _ = (&self.wake_supervisor).write(&[0]);
    }
}

/// See the file's head.
pub struct Hub {
    desk: Arc<Desk>,
    woken: UnixStream,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The one that has the thread.
    process: u32,
}

impl Hub {
    /// Begins its thread.
    ///
    /// `control` is a listening Unix socket for other programs. `lease` is a file that tells up to which counter ids have
    /// been given out, ever: without it only the clock does.
    ///
    /// # Errors
    /// There is no memory for the registry, no thread, or the lease cannot be written.
    pub fn new(
        max_connections: usize,
        send_queue_size: usize,
        control: Option<OwnedFd>,
        lease: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let registry = Registry::shared(max_connections)?;
        let lease = lease.map(File::from);
        let leased = lease.as_ref().map_or(Ok(0), read_lease)?;
        let is_plausible = registry.begin_above(leased);
        let (thread_end, wake_thread) = pair()?;
        let (woken, wake_supervisor) = pair()?;
        let desk = Arc::new(Desk {
            registry,
            requests: Mutex::default(),
            events: Mutex::default(),
            slots: Mutex::new([false; SLOTS]),
            next_slot: AtomicU64::new(0),
            wake_thread,
            wake_supervisor,
            is_closed: AtomicBool::new(false),
        });
        let routing = Routing {
            desk: Arc::clone(&desk),
            woken: thread_end,
            send_queue_size,
            // Nobody has more ids to exclude than there are rows.
            most_beside_payload: MOST_FIELDS + 8 * desk.registry.rows(),
            control,
            lease,
            listeners: Vec::new(),
            peers: Slab::new(),
            workers: [None; SLOTS],
            current: [None; WORKERS],
            questions: HashMap::new(),
            last_number: 0,
            accept_at: None,
            admit_at: None,
            misbehaved: 0,
            complained_at: None,
            last_chosen: 0,
            homeless: VecDeque::new(),
            now: Instant::now(),
        };
        routing.extend_lease()?;
        if let Some(control) = &routing.control {
            rustix::io::ioctl_fionbio(control, true)?;
        }
        if !is_plausible {
            desk.tell(HubEvent::Warning(format!(
                "the lease of connection ids is not plausible, and ignored: {leased}"
            )));
        }
        let run = move || {
            let desk = Arc::clone(&routing.desk);
            if std::panic::catch_unwind(AssertUnwindSafe(|| routing.run())).is_err() {
                desk.tell(HubEvent::Warning(
                    "the hub has failed, which is a fault of Hubbub's; the server stops".into(),
                ));
                desk.tell(HubEvent::Shutdown(0));
            }
        };
        let thread = std::thread::Builder::new().name("hubbub-hub".into()).spawn(run)?;
        Ok(Self { desk, woken, thread: Mutex::new(Some(thread)), process: std::process::id() })
    }

    /// The descriptor of the registry's memory, for workers to inherit.
    pub fn memory(&self) -> RawFd {
        self.desk.registry.memory().map_or(-1, |memory| memory.as_raw_fd())
    }

    /// The descriptor that is readable when there are events.
    pub fn fileno(&self) -> RawFd {
        self.woken.as_raw_fd()
    }

    /// Takes the events that have come.
    pub fn events(&self) -> Vec<HubEvent> {
        while matches!((&self.woken).read(&mut [0; 256]), Ok(256)) {}
        lock(&self.desk.events).drain(..).collect()
    }

    /// Accepts connections from a socket that listens.
    pub fn listen(&self, listener: OwnedFd) {
        self.ask(Request::Listen(listener));
    }

    /// Makes place for a worker process. Returns its slot and its end of the link.
    ///
    /// # Errors
    /// All slots are taken, or there is no descriptor left.
    pub fn add_worker(&self, worker_id: u8) -> io::Result<(u8, OwnedFd)> {
        let (stream, workers_end) = UnixStream::pair()?;
        let slot = {
            let mut slots = lock(&self.desk.slots);
            let begin = self.desk.next_slot.load(Ordering::Relaxed) as usize;
            let free = (begin..begin + SLOTS).map(|slot| slot % SLOTS).find(|slot| !slots[*slot]);
            let slot = free.ok_or_else(|| io::Error::other("there are too many worker processes"))?;
            slots[slot] = true;
            self.desk.next_slot.store(slot as u64 + 1, Ordering::Relaxed);
            slot as u8
        };
        self.ask(Request::Add { slot, worker_id, stream: stream.into() });
        Ok((slot, workers_end.into()))
    }

    /// Passes no more connections to a worker, and tells it to leave.
    pub fn leave(&self, slot: u8, why: Leave) {
        self.ask(Request::Leave { slot, why });
    }

    /// A worker's process is gone for certain: what it has left is cleared, and its slot is free.
    pub fn ended(&self, slot: u8) {
        self.ask(Request::Ended { slot });
    }

    /// Counts that a worker was replaced after it had died.
    pub fn restarted(&self, worker_id: u8) {
        if let Some(count) = self.desk.registry.header().restarts.get(usize::from(worker_id)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives up the listening sockets.
    pub fn stop_accepting(&self) {
        self.ask(Request::StopAccepting);
    }

    /// Ends the thread. Nothing else may be asked for after that.
    pub fn close(&self) {
        let Some(thread) = lock(&self.thread).take() else { return };
        if std::process::id() == self.process {
            self.ask(Request::Close);
            let _ = thread.join();
        } else {
            // A forked child has the handle, but not the thread.
            std::mem::forget(thread);
        }
    }

    fn ask(&self, request: Request) {
        if !self.desk.is_closed.load(Ordering::Acquire) {
            lock(&self.desk.requests).push_back(request);
            let _ = (&self.desk.wake_thread).write(&[0]);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.close();
    }
}

fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (one, other) = UnixStream::pair()?;
    one.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    Ok((one, other))
}

/// The counter that a lease file tells; one that is empty or damaged tells nothing.
fn read_lease(file: &File) -> io::Result<u64> {
    let mut text = String::new();
    match { file }.take(64).read_to_string(&mut text) {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(error),
        _ => Ok(text.trim().parse().unwrap_or(0)),
    }
}

// ---- the thread --------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It takes no connections yet.
    Starting,
    Ready,
    /// It takes none any more.
    Leaving,
}

struct WorkerPeer {
    slot: u8,
    worker_id: u8,
    stage: Stage,
    /// Sockets that were passed to it and not taken back.
    handed: u64,
    /// Those that it has not taken yet, in their order, and since when it has taken none.
    untaken: VecDeque<Handed>,
    taken_at: Instant,
    /// The number of the first of them: how many were taken when that was last looked at.
    taken: u64,
    /// Commands dropped since it is behind.
    dropped: u64,
}

struct Program {
    has_greeted: bool,
    /// Since when its next word is under way.
    awaited_since: Instant,
    /// It has said more, which waits until it has read the answers.
    is_interrupted: bool,
}

/// An accepted connection, and what has been read from it.
#[derive(Clone)]
struct Handed {
    socket: Arc<OwnedFd>,
    input: Vec<u8>,
}

impl WorkerPeer {
    /// Sees which sockets it has taken meanwhile.
    fn see_taken(&mut self, registry: &Registry, now: Instant) {
        let taken = registry.slot(self.slot).sockets_taken.load(Ordering::Acquire);
        if taken != self.taken || self.untaken.is_empty() {
            self.taken_at = now;
        }
        while self.taken < taken {
            self.untaken.pop_front();
            self.taken += 1;
        }
    }

    /// Takes a socket back; it will not be the worker's any more.
    fn take_back(&mut self, registry: &Registry) -> Option<Handed> {
        let handed = self.untaken.pop_front()?;
        let (cell, next) = (&registry.slot(self.slot).sockets_taken, self.taken + 1);
        let is_ours = cell.compare_exchange(self.taken, next, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        self.taken = next;
        self.handed -= u64::from(is_ours);
        is_ours.then_some(handed)
    }

    fn is_slow_to_take(&self, now: Instant) -> bool {
        !self.untaken.is_empty() && now.duration_since(self.taken_at) > SLOW_TO_TAKE
    }
}

enum Kind {
    Worker(WorkerPeer),
    Program(Program),
}

struct Peer {
    link: Link,
    kind: Kind,
    /// When it last took something of what waits for it.
    progress_at: Instant,
    /// Questions of it that wait for their answers.
    asking: usize,
    serial: u64,
}

impl Peer {
    /// Whether it is a program whose first word, or the rest of one, is awaited.
    fn owes_something(&self) -> bool {
        let is_awaited = |program: &Program| !program.has_greeted || !self.link.input.is_empty();
        matches!(&self.kind, Kind::Program(program) if is_awaited(program) && !program.is_interrupted)
    }

    /// Whether it is a program that is not listened to until it has read its answers.
    fn is_held_up(&self) -> bool {
        matches!(self.kind, Kind::Program(_)) && (self.link.unsent() > MUCH_FOR_PROGRAM || self.asking >= MOST_ASKED)
    }
}

/// A question that workers are asked on somebody's behalf.
struct Asked {
    asker: usize,
    serial: u64,
    number: u64,
    /// The slots that have not answered, a bit each.
    waiting: u128,
    /// Of those that have: the sum, or 1 for "done".
    sum: u64,
    is_count: bool,
}

/// Why a peer is let go.
enum Cut {
    /// It is gone.
    Gone,
    /// It does not speak our language, or breaks its rules.
    Misbehaved,
}

impl From<Malformed> for Cut {
    fn from(_: Malformed) -> Self {
        Self::Misbehaved
    }
}

struct Routing {
    desk: Arc<Desk>,
    woken: UnixStream,
    send_queue_size: usize,
    most_beside_payload: usize,
    control: Option<OwnedFd>,
    lease: Option<File>,
    listeners: Vec<OwnedFd>,
    peers: Slab<Peer>,
    /// Keys of peers by slot.
    workers: [Option<usize>; SLOTS],
    /// The slot that does a worker id's work.
    current: [Option<u8>; WORKERS],
    questions: HashMap<u64, Asked>,
    last_number: u64,
    /// Accepting has failed, and is tried again then.
    accept_at: Option<Instant>,
    /// The same for programs.
    admit_at: Option<Instant>,
    /// Programs that were cut off and not complained of yet, and when some last were.
    misbehaved: u64,
    complained_at: Option<Instant>,
    /// The slot of the worker that got the last connection.
    last_chosen: usize,
    /// Connections whose worker is gone, or leaves, while no other takes them.
    homeless: VecDeque<Handed>,
    now: Instant,
}

impl Routing {
    fn run(mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    self.desk.tell(HubEvent::Warning(format!("the hub cannot wait for its peers: {error}")));
                    std::thread::sleep(RETRY);
                    continue;
                }
            };
            self.now = Instant::now();
            if ready.woken && !self.carry_out_requests() {
                break;
            }
            for (key, flags) in ready.peers {
                if let Err(cut) = self.serve(key, flags) {
                    self.cut_off(key, &cut);
                }
            }
            if ready.control {
                self.admit_programs();
            }
            if ready.listeners {
                self.accept();
            }
            self.move_untaken();
            self.flush();
            self.resume();
            self.flush();
            self.cut_off_the_silent();
            self.complain();
        }
        self.desk.is_closed.store(true, Ordering::Release);
        // What is known for certain needs no margin: the next start goes on right there.
        let last = self.desk.registry.last();
        let _ = self.write_lease(last);
        if let Some(file) = &self.lease {
            // A forked child may hold it too, and with it the lock.
            let _ = rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock);
        }
    }

    fn wait(&mut self) -> io::Result<Ready> {
        let reads_programs = !self.is_congested();
        let accepts = !self.listeners.is_empty() && self.accept_at.is_none_or(|at| Instant::now() >= at);
        let accepts = accepts && self.choose().is_some();
        let admits = self.peers.len() < MOST_PROGRAMS + SLOTS && self.admit_at.is_none_or(|at| Instant::now() >= at);
        let mut polled = Vec::with_capacity(self.peers.len() + self.listeners.len() + 2);
        polled.push(PollFd::new(&self.woken, PollFlags::IN));
        if let Some(control) = self.control.as_ref().filter(|_| admits) {
            polled.push(PollFd::new(control, PollFlags::IN));
        }
        let listeners_begin = polled.len();
        if accepts {
            polled.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        }
        let peers_begin = polled.len();
        for (_, peer) in &self.peers {
            let mut flags = PollFlags::empty();
            if (reads_programs && !peer.is_held_up()) || matches!(peer.kind, Kind::Worker(_)) {
                flags |= PollFlags::IN;
            }
            if peer.link.unsent() > 0 && !peer.link.is_stuck {
                flags |= PollFlags::OUT;
            }
            polled.push(PollFd::from_borrowed_fd(peer.link.stream(), flags));
        }
        let is_stuck = self.peers.iter().any(|(_, peer)| peer.link.is_stuck);
        let wait = if !reads_programs || is_stuck || self.has_untaken() || !accepts && self.has_waiting_room() {
            Some(LOOK_AGAIN)
        } else {
            let is_awaited = |peer: &Peer| peer.owes_something() || peer.is_held_up();
            let is_awaited = self.misbehaved > 0 || self.peers.iter().any(|(_, peer)| is_awaited(peer));
            (is_awaited || self.admit_at.is_some()).then_some(COMPLAINT_INTERVAL)
        };
        let wait = wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) });
        match poll(&mut polled, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |polled: &PollFd<'_>| !polled.revents().is_empty();
        let mut ready = Ready {
            woken: is_ready(&polled[0]),
            control: polled[1..listeners_begin].iter().any(is_ready),
            listeners: polled[listeners_begin..peers_begin].iter().any(is_ready),
            peers: Vec::new(),
        };
        for ((key, _), polled) in self.peers.iter().zip(&polled[peers_begin..]) {
            if is_ready(polled) {
                ready.peers.push((key, polled.revents()));
            }
        }
        Ok(ready)
    }

    /// Whether connections wait in the kernel for a worker that takes them, which nobody will tell of.
    fn has_waiting_room(&self) -> bool {
        let is_ready = |peer: &Peer| matches!(&peer.kind, Kind::Worker(worker) if worker.stage == Stage::Ready);
        !self.listeners.is_empty() && self.peers.iter().any(|(_, peer)| is_ready(peer))
    }

    /// Whether programs have to wait until a worker has taken some of what waits for it.
    fn is_congested(&self) -> bool {
        self.peers.iter().any(|(_, peer)| match &peer.kind {
            Kind::Worker(_) => {
                peer.link.unsent() > MUCH_FOR_WORKER && self.now.duration_since(peer.progress_at) < STALLED
            }
            Kind::Program(_) => false,
        })
    }

    // ---- requests of the supervisor ----------------------------------------------------------------------------------------

    /// False: the hub is to end.
    fn carry_out_requests(&mut self) -> bool {
        while matches!((&self.woken).read(&mut [0; 256]), Ok(256)) {}
        let requests = std::mem::take(&mut *lock(&self.desk.requests));
        for request in requests {
            match request {
                Request::Listen(listener) => {
                    if rustix::io::ioctl_fionbio(&listener, true).is_ok() {
                        self.listeners.push(listener);
                    }
                }
                Request::Add { slot, worker_id, stream } => self.add_worker(slot, worker_id, stream),
                Request::Leave { slot, why } => self.tell_to_leave(slot, why),
                Request::Ended { slot } => self.clear(slot),
                Request::StopAccepting => {
                    for listener in self.listeners.drain(..) {
                        // A forked child may hold it too, and the kernel would go on taking connections for nobody.
                        let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
                    }
                }
                Request::Close => return false,
            }
        }
        true
    }

    fn add_worker(&mut self, slot: u8, worker_id: u8, stream: OwnedFd) {
        let Ok(link) = Link::new(stream) else { return };
        self.desk.registry.revive(slot, worker_id);
        let worker = WorkerPeer {
            slot,
            worker_id,
            stage: Stage::Starting,
            handed: 0,
            untaken: VecDeque::new(),
            taken_at: self.now,
            taken: 0,
            dropped: 0,
        };
        self.workers[usize::from(slot)] = Some(self.add_peer(link, Kind::Worker(worker)));
    }

    fn add_peer(&mut self, link: Link, kind: Kind) -> usize {
        self.last_number += 1;
        self.peers.insert(Peer { link, kind, progress_at: self.now, asking: 0, serial: self.last_number })
    }

    fn tell_to_leave(&mut self, slot: u8, why: Leave) {
        if let Some((peer, worker)) = self.worker(slot) {
            worker.stage = Stage::Leaving;
            peer.send(&Message::Leave(why));
        }
    }

    fn worker(&mut self, slot: u8) -> Option<(&mut Link, &mut WorkerPeer)> {
        let peer = self.peers.get_mut(self.workers[usize::from(slot)]?)?;
        match &mut peer.kind {
            Kind::Worker(worker) => Some((&mut peer.link, worker)),
            Kind::Program(_) => None,
        }
    }

    /// A worker's process is gone.
    fn clear(&mut self, slot: u8) {
        // What it had sent while it lived still counts.
        while let Some(key) = self.workers[usize::from(slot)] {
            match self.serve(key, PollFlags::IN) {
                Ok(true) => {}
                Ok(false) => self.cut_off(key, &Cut::Gone),
                Err(cut) => self.cut_off(key, &cut),
            }
        }
        self.desk.registry.clear(slot);
        lock(&self.desk.slots)[usize::from(slot)] = false;
        for (_, peer) in &mut self.peers {
            if matches!(peer.kind, Kind::Worker(_)) {
                peer.link.send(&Message::SenderGone);
            }
        }
    }

    // ---- peers -------------------------------------------------------------------------------------------------------------

    fn admit_programs(&mut self) {
        let Some(control) = &self.control else { return };
        let mut admitted = Vec::new();
        self.admit_at = None;
        while self.peers.len() + admitted.len() < MOST_PROGRAMS + SLOTS {
            match rustix::net::accept_with(control, SocketFlags::CLOEXEC) {
                Ok(stream) if is_ours(stream.as_fd()) => admitted.extend(Link::new(stream)),
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    let error = io::Error::from(error);
                    self.desk.tell(HubEvent::Warning(format!("no more programs are let in for now: {error}")));
                    self.admit_at = Some(self.now + COMPLAINT_INTERVAL);
                    break;
                }
            }
        }
        for link in admitted {
            let program = Program { has_greeted: false, awaited_since: self.now, is_interrupted: false };
            self.add_peer(link, Kind::Program(program));
        }
    }

    /// Reads once from a peer and deals with what has come. False: nothing has.
    fn serve(&mut self, key: usize, flags: PollFlags) -> Result<bool, Cut> {
        let Some(peer) = self.peers.get_mut(key) else { return Ok(false) };
        if flags.contains(PollFlags::OUT) {
            peer.link.blocked = false;
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return Ok(false);
        }
        if peer.is_held_up() {
            // It is not read, so this can only be its end.
            return Err(Cut::Gone);
        }
        let read = match &mut peer.kind {
            Kind::Worker(_) => peer.link.read(),
            Kind::Program(program) => {
                if program.has_greeted && peer.link.input.is_empty() {
                    program.awaited_since = self.now;
                }
                peer.link.read_bytes()
            }
        };
        match read {
            Ok(Read::Some) => self.deal_with_input(key).map(|()| true),
            Ok(Read::Nothing) => Ok(false),
            Ok(Read::End) | Err(_) => Err(Cut::Gone),
        }
    }

    /// Deals with what has come from a peer, until its answers wait to be read.
    fn deal_with_input(&mut self, key: usize) -> Result<(), Cut> {
        let Some(peer) = self.peers.get_mut(key) else { return Ok(()) };
        let longest = match &peer.kind {
            Kind::Worker(_) => usize::MAX,
            Kind::Program(_) => self.send_queue_size + self.most_beside_payload,
        };
        let mut input = std::mem::take(&mut peer.link.input);
        let mut has_come = false;
        let result = loop {
            if self.peers.get(key).is_some_and(Peer::is_held_up) {
                break Ok(true);
            }
            match input.next_frame(longest) {
                Ok(None) => break Ok(false),
                Ok(Some(frame)) => {
                    has_come = true;
                    if let Err(cut) = self.deal_with(key, input.frame(frame)) {
                        break Err(cut);
                    }
                }
                Err(malformed) => break Err(malformed.into()),
            }
        };
        if let Some(peer) = self.peers.get_mut(key) {
            peer.link.input = input;
            if let Kind::Program(program) = &mut peer.kind {
                program.is_interrupted = matches!(result, Ok(true));
                if has_come {
                    program.awaited_since = self.now;
                }
            }
        }
        result.map(|_| ())
    }

    /// Goes on with programs that have read their answers.
    fn resume(&mut self) {
        let is_due =
            |peer: &Peer| matches!(&peer.kind, Kind::Program(program) if program.is_interrupted) && !peer.is_held_up();
        let due: Vec<usize> = self.peers.iter().filter(|(_, peer)| is_due(peer)).map(|(key, _)| key).collect();
        for key in due {
            if let Err(cut) = self.deal_with_input(key) {
                self.cut_off(key, &cut);
            }
        }
    }

    fn deal_with(&mut self, key: usize, frame: &[u8]) -> Result<(), Cut> {
        let message = Message::decode(content(frame))?;
        let peer = self.peers.get_mut(key).ok_or(Cut::Gone)?;
        match &mut peer.kind {
            Kind::Worker(worker) => {
                let slot = worker.slot;
                self.hear_worker(key, slot, message, frame)
            }
            Kind::Program(program) if !program.has_greeted => {
                let Message::Hello { .. } = message else { return Err(Cut::Misbehaved) };
                program.has_greeted = true;
                let welcome = Message::Welcome { version: VERSION, send_queue_size: self.send_queue_size as u64 };
                peer.link.send(&welcome);
                Ok(())
            }
            Kind::Program(_) => self.hear_program(key, message, frame),
        }
    }

    fn hear_worker(&mut self, key: usize, slot: u8, message: Message<'_>, frame: &[u8]) -> Result<(), Cut> {
        match message {
            Message::Command(command) => {
                self.route(Some(slot), &command, frame);
                if let Command::Subscribe { .. } = command {
                    add(&self.desk.registry.slot(slot).subscribes_routed, 1);
                }
            }
            Message::Ask(number, Question::Subscribers(topic)) => self.ask_subscribers(key, number, topic)?,
            Message::Answer(number, answer) => self.answered(slot, number, &answer),
            Message::Sockets(inputs) => {
                let sockets = self.peers[key].link.take_sockets();
                for (socket, input) in sockets.into_iter().zip(inputs) {
                    // It leaves, and nothing has been asked on this one yet.
                    self.find_home(Handed { socket: Arc::new(socket), input: input.to_vec() });
                }
            }
            Message::Ready => {
                if let Some((_, worker)) = self.worker(slot)
                    && worker.stage == Stage::Starting
                {
                    worker.stage = Stage::Ready;
                    let worker_id = usize::from(worker.worker_id);
                    self.current[worker_id % WORKERS] = Some(slot);
                }
                let _ = self.extend_lease();
                self.desk.tell(HubEvent::Ready(slot));
            }
            Message::Leaving => {
                self.tell_to_leave(slot, Leave::Terminate);
                self.desk.tell(HubEvent::Leaving(slot));
            }
            Message::Reload => self.desk.tell(HubEvent::Reload(slot)),
            Message::Shutdown => self.desk.tell(HubEvent::Shutdown(slot)),
            _ => return Err(Cut::Misbehaved),
        }
        Ok(())
    }

    fn hear_program(&mut self, key: usize, message: Message<'_>, frame: &[u8]) -> Result<(), Cut> {
        match message {
            Message::Command(command) if command.is_allowed(self.send_queue_size) => {
                self.route(None, &command, frame);
                Ok(())
            }
            Message::Ask(number, question) => {
                let registry = &self.desk.registry;
                let answer = match question {
                    Question::Do(command) if command.is_allowed(self.send_queue_size) => {
                        return self.ask_owner(key, number, command);
                    }
                    Question::Do(_) => return Err(Cut::Misbehaved),
                    Question::Subscribers(topic) => return self.ask_subscribers(key, number, topic),
                    Question::Stats => Answer::Stats(registry.stats().into()),
                    Question::Connections => Answer::Connections(registry.open_ids()),
                    Question::Info(fd) => Answer::Info(registry.info(fd).map(|info| (registry.worker_of(fd), info))),
                    Question::Flush => Answer::Done(true),
                };
                self.reply(key, number, answer)
            }
            _ => Err(Cut::Misbehaved),
        }
    }

    /// Answers a peer.
    fn reply(&mut self, key: usize, number: u64, answer: Answer) -> Result<(), Cut> {
        let Some(peer) = self.peers.get_mut(key) else { return Ok(()) };
        let limit = match peer.kind {
            Kind::Worker(_) => MOST_FOR_WORKER,
            // It is not listened to while much waits, so this is not much more.
            Kind::Program(_) => usize::MAX,
        };
        if peer.link.send_within(&Message::Answer(number, answer), limit) { Ok(()) } else { Err(Cut::Misbehaved) }
    }

    fn cut_off(&mut self, key: usize, cut: &Cut) {
        let Some(peer) = self.peers.try_remove(key) else { return };
        match peer.kind {
            Kind::Worker(mut worker) => {
                let slot = usize::from(worker.slot);
                self.workers[slot] = None;
                self.desk.registry.bury(worker.slot);
                let current = &mut self.current[usize::from(worker.worker_id) % WORKERS];
                if *current == Some(worker.slot) {
                    *current = None;
                }
                let unanswered: Vec<u64> = self.questions.keys().copied().collect();
                for number in unanswered {
                    self.answered(worker.slot, number, &Answer::Count(0));
                }
                worker.see_taken(&Arc::clone(&self.desk).registry, self.now);
                while let Some(handed) = worker.take_back(&Arc::clone(&self.desk).registry) {
                    self.find_home(handed);
                }
            }
            Kind::Program(_) => self.misbehaved += u64::from(matches!(cut, Cut::Misbehaved)),
        }
        self.questions.retain(|_, asked| asked.asker != key);
    }

    fn cut_off_the_silent(&mut self) {
        let is_overdue = |peer: &Peer| match &peer.kind {
            Kind::Worker(_) => false,
            Kind::Program(program) => {
                let has_waited_since = |at: Instant| self.now.duration_since(at) > PATIENCE;
                peer.owes_something() && has_waited_since(program.awaited_since)
                    || peer.link.unsent() > MUCH_FOR_PROGRAM && has_waited_since(peer.progress_at)
            }
        };
        let overdue: Vec<usize> = self.peers.iter().filter(|(_, peer)| is_overdue(peer)).map(|(key, _)| key).collect();
        for key in overdue {
            self.cut_off(key, &Cut::Misbehaved);
        }
    }

    /// Tells of programs that misbehave, now and then.
    fn complain(&mut self) {
        if self.misbehaved == 0 || self.complained_at.is_some_and(|at| self.now.duration_since(at) < COMPLAINT_INTERVAL)
        {
            return;
        }
        let programs = match std::mem::take(&mut self.misbehaved) {
            1 => "1 program on the control socket misbehaved, and is cut off".into(),
            count => format!("{count} programs on the control socket misbehaved, and are cut off"),
        };
        self.desk.tell(HubEvent::Warning(programs));
        self.complained_at = Some(self.now);
    }

    fn flush(&mut self) {
        let mut gone = Vec::new();
        for (key, peer) in &mut self.peers {
            let unsent = peer.link.unsent();
            if unsent == 0 {
                peer.progress_at = self.now;
                continue;
            }
            if peer.link.flush().is_err() {
                gone.push(key);
            }
            if peer.link.unsent() < unsent {
                peer.progress_at = self.now;
            }
            let Kind::Worker(worker) = &mut peer.kind else { continue };
            if worker.dropped > 0 && peer.link.unsent() < MOST_FOR_WORKER / 2 {
                let (worker_id, dropped) = (worker.worker_id, std::mem::take(&mut worker.dropped));
                self.desk.registry.slot(worker.slot).is_behind.store(0, Ordering::Release);
                let text = format!("worker {worker_id} has caught up; {dropped} commands for it were dropped");
                self.desk.tell(HubEvent::Warning(text));
            }
        }
        for key in gone {
            // What it had sent before can still be read, and then its end.
            if let Some(peer) = self.peers.get_mut(key) {
                peer.link.discard();
            }
        }
    }

    // ---- the lease of ids --------------------------------------------------------------------------------------------------

    /// Sees to it that enough counters are leased, on disk before in memory.
    fn extend_lease(&self) -> io::Result<()> {
        let registry = &self.desk.registry;
        if registry.last_of_living() + LEASE / 2 < registry.leased() {
            return Ok(());
        }
        let last = registry.last();
        self.write_lease(last + LEASE)?;
        registry.lease(last + LEASE);
        Ok(())
    }

    fn write_lease(&self, counter: u64) -> io::Result<()> {
        match &self.lease {
            Some(file) => file.write_all_at(format!("{counter:020}\n").as_bytes(), 0),
            None => Ok(()),
        }
    }
}

struct Ready {
    woken: bool,
    control: bool,
    listeners: bool,
    peers: Vec<(usize, PollFlags)>,
}

/// Whether the process at the other end is the same user's, or root's.
#[cfg(target_os = "linux")]
fn is_ours(stream: BorrowedFd<'_>) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(stream).map(|peer| peer.uid);
    peer.is_ok_and(|uid| uid == rustix::process::geteuid() || uid.is_root())
}

/// The socket's directory and mode let nobody else in.
#[cfg(not(target_os = "linux"))]
fn is_ours(_: BorrowedFd<'_>) -> bool {
    true
}
