//! The hub's thread: waits for its peers, reads their messages, and writes what waits for them.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use slab::Slab;

use super::abroad::Abroad;
use super::asked_hosts::HostsQuestions;
use super::attendance::Attendance;
use super::desk::{Desk, HubEvent, Request, lock};
use super::lease::Lease;
use super::peer::{Cut, Handed, PAUSE_PROGRAM_AT, Peer, PeerKind, Program, WorkerPeer, WorkerStage};
use super::pulse::{Looks, Pulse};
use super::questions::Questions;
use super::turned_away::TurningAway;
use super::watchers::Watchers;
use crate::broker::Broker;
use crate::language::link::Link;
use crate::language::message::{Answer, Leave, Message};
use crate::registry::{SLOTS, WORKERS};
use crate::settings::Settings;
use crate::system::acceptor::Ownership;
use crate::system::sockets;
use crate::topics::options::TopicRules;

/// Bytes that may wait for one worker.
pub(super) const MAX_FOR_WORKER: usize = 32 * 1024 * 1024;
/// Programs are not read while this much waits for a worker that is still taking some of it.
pub(super) const CONGESTED_AT: usize = 4 * 1024 * 1024;
/// A worker that has taken nothing for this long does not hold programs up.
const STALLED: Duration = Duration::from_millis(200);
/// When to check again for things that are not reported.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The largest number of connected programs.
const MAX_PROGRAMS: usize = 1024;
/// Time for a program's first message, and for the rest of a frame.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a command in addition to its payload and the ids it excludes.
const MAX_FIELDS: usize = 1024;
/// Time between two complaints about programs.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);
/// How long the last clients that no worker took have for their answers when the hub ends.
const CLOSING: Duration = Duration::from_secs(2);
/// How long accepting pauses after a failure.
pub(super) const RETRY: Duration = Duration::from_millis(100);

pub(super) struct Routing {
    pub(super) desk: Arc<Desk>,
    pub(super) woken: UnixStream,
    pub(super) send_queue_size: usize,
    pub(super) looks: Looks,
    pub(super) most_beside_payload: usize,
    pub(super) control: Option<OwnedFd>,
    pub(super) lease: Lease,
    pub(super) listeners: Vec<(OwnedFd, Ownership)>,
    pub(super) peers: Slab<Peer>,
    /// Keys of peers by slot.
    pub(super) workers: [Option<usize>; SLOTS],
    /// The slot currently serving each worker id.
    pub(super) current: [Option<u8>; WORKERS],
    /// The number of workers that the server has, as far as they have been started.
    pub(super) worker_count: u8,
    pub(super) questions: Questions,
    pub(super) last_number: u64,
    /// Set when accepting has failed: the time of the next attempt.
    pub(super) accept_at: Option<Instant>,
    /// When a pause in accepting was last logged, and when it was last checked whether clients are waiting.
    pub(super) pause_told_at: Option<Instant>,
    pub(super) waiting_seen_at: Instant,
    /// Set when accepting programs has failed: the time of the next attempt.
    pub(super) admit_at: Option<Instant>,
    /// Programs that were cut off and not reported yet, and the time of the last report.
    pub(super) misbehaved: u64,
    pub(super) complained_at: Option<Instant>,
    /// The slot of the worker that got the most recent connection.
    pub(super) last_chosen: usize,
    /// Connections that no worker can take for now.
    pub(super) homeless: VecDeque<Handed>,
    pub(super) turning_away: TurningAway,
    /// Whether the server is stopping; and by when the hub ends, once that was requested.
    pub(super) is_stopping: bool,
    close_at: Option<Instant>,
    pub(super) now: Instant,
    pub(super) watchers: Watchers,
    pub(super) topics: TopicRules,
    /// Absent only while it is being asked.
    pub(super) broker: Option<Box<dyn Broker>>,
    pub(super) attendance: Attendance,
    /// A message that was put in order, as it is passed on. Kept for the next one.
    pub(super) placed: Vec<u8>,
    pub(super) started: Instant,
    /// `None` if there is no broker of several hosts.
    pub(super) abroad: Option<Abroad>,
    pub(super) hosts_questions: HostsQuestions,
}

impl Routing {
    pub(super) fn new(
        desk: Arc<Desk>,
        woken: UnixStream,
        settings: &Settings,
        control: Option<OwnedFd>,
        lease: Lease,
        broker: Box<dyn Broker>,
    ) -> Self {
        let now = Instant::now();
        Self {
            woken,
            send_queue_size: settings.send_queue_size,
            looks: Looks::new(settings.stuck_after, now),
            // A command cannot exclude more ids than there are rows.
            most_beside_payload: MAX_FIELDS + 8 * desk.registry.rows(),
            desk,
            control,
            lease,
            listeners: Vec::new(),
            peers: Slab::new(),
            workers: [None; SLOTS],
            current: [None; WORKERS],
            worker_count: 0,
            questions: Questions::default(),
            last_number: 0,
            accept_at: None,
            pause_told_at: None,
            waiting_seen_at: now,
            admit_at: None,
            misbehaved: 0,
            complained_at: None,
            last_chosen: 0,
            homeless: VecDeque::new(),
            turning_away: TurningAway::new(settings, now),
            is_stopping: false,
            close_at: None,
            now,
            watchers: Watchers::default(),
            topics: settings.topics.clone(),
            broker: Some(broker),
            abroad: settings.broker.as_ref().map(|broker| Abroad::new(broker, now)),
            hosts_questions: HostsQuestions::default(),
            attendance: Attendance::default(),
            placed: Vec::new(),
            started: now,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    self.desk.tell(HubEvent::Warning(format!("the hub cannot poll its peers: {error}")));
                    std::thread::sleep(RETRY);
                    continue;
                }
            };
            self.now = Instant::now();
            self.turning_away.go_on(&ready.parting, self.now);
            if ready.woken && !self.carry_out_requests() {
                self.close_at = Some(self.now + CLOSING);
            }
            for (key, flags) in ready.peers {
                if let Err(cut) = self.serve(key, flags) {
                    self.cut_off(key, &cut);
                }
            }
            if ready.control {
                self.admit_programs();
            }
            self.hear_hosts();
            self.see_who_serves();
            if ready.listeners {
                self.accept();
            }
            self.move_untaken();
            self.turn_away_the_waiting();
            self.see_who_waits_for_descriptors();
            self.give_up_questions();
            self.look_at_workers();
            self.expire_histories();
            self.tell_lost();
            self.flush();
            self.resume();
            self.flush();
            self.flush_hosts();
            self.cut_off_the_silent();
            self.complain();
            let is_done = self.homeless.is_empty() && !self.turning_away.is_busy();
            if self.close_at.is_some_and(|at| is_done || self.now >= at) {
                break;
            }
        }
        self.leave_hosts();
        self.desk.is_closed.store(true, Ordering::Release);
        self.lease.conclude(&self.desk.registry);
    }

    fn wait(&mut self) -> io::Result<Ready> {
        let reads_programs = !self.is_congested();
        let accepts = !self.listeners.is_empty() && self.accept_at.is_none_or(|at| Instant::now() >= at);
        let accepts = accepts && (self.choose(None).is_some() || self.takes_in());
        let admits = self.peers.len() < MAX_PROGRAMS + SLOTS && self.admit_at.is_none_or(|at| Instant::now() >= at);
        let for_hosts = self.next_for_hosts();
        let mut broker = self.broker.take();
        let mut polled = Vec::with_capacity(self.peers.len() + self.listeners.len() + 3);
        polled.push(PollFd::new(&self.woken, PollFlags::IN));
        // Whatever has arrived there is heard in any case.
        if let Some(hosts) = broker.as_mut().and_then(|broker| broker.hosts()) {
            polled.push(PollFd::from_borrowed_fd(hosts.fileno(), PollFlags::IN));
        }
        let control_begin = polled.len();
        if let Some(control) = self.control.as_ref().filter(|_| admits) {
            polled.push(PollFd::new(control, PollFlags::IN));
        }
        let listeners_begin = polled.len();
        if accepts {
            polled.extend(self.listeners.iter().map(|(listener, _)| PollFd::new(listener, PollFlags::IN)));
        }
        let peers_begin = polled.len();
        for (_, peer) in &self.peers {
            let mut flags = PollFlags::empty();
            if (reads_programs && !peer.is_held_up()) || matches!(peer.kind, PeerKind::Worker(_)) {
                flags |= PollFlags::IN;
            }
            if peer.link.unsent() > 0 && !peer.link.is_stuck {
                flags |= PollFlags::OUT;
            }
            polled.push(PollFd::from_borrowed_fd(peer.link.stream(), flags));
        }
        let parting_begin = polled.len();
        polled.extend(self.turning_away.polled());
        let is_stuck = self.peers.iter().any(|(_, peer)| peer.link.is_stuck);
        let wait = if !reads_programs || is_stuck || self.has_untaken() || !accepts && self.has_waiting_room() {
            Some(LOOK_AGAIN)
        } else {
            let is_awaited = |peer: &Peer| peer.owes_something() || peer.is_held_up();
            let is_awaited = self.misbehaved > 0 || self.peers.iter().any(|(_, peer)| is_awaited(peer));
            (is_awaited || self.admit_at.is_some()).then_some(COMPLAINT_INTERVAL)
        };
        let has_workers = self.workers.iter().any(Option::is_some);
        let look = self.looks.next().filter(|_| has_workers);
        let parting = self.turning_away.next_deadline().into_iter().chain(self.close_at);
        let expiry = self.next_expiry().into_iter().chain(for_hosts);
        let deadline = self.questions.next_deadline().into_iter().chain(look).chain(parting).chain(expiry).min();
        let deadline = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let wait = wait.into_iter().chain(deadline).min();
        let wait = wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) });
        let outcome = poll(&mut polled, wait.as_ref());
        let is_ready = |polled: &PollFd<'_>| !polled.revents().is_empty();
        let mut ready = Ready {
            woken: is_ready(&polled[0]),
            control: polled[control_begin..listeners_begin].iter().any(is_ready),
            listeners: polled[listeners_begin..peers_begin].iter().any(is_ready),
            peers: Vec::new(),
            parting: polled[parting_begin..].iter().map(is_ready).collect(),
        };
        for ((key, _), polled) in self.peers.iter().zip(&polled[peers_begin..parting_begin]) {
            if is_ready(polled) {
                ready.peers.push((key, polled.revents()));
            }
        }
        drop(polled);
        self.broker = broker;
        match outcome {
            Ok(_) | Err(Errno::INTR) => Ok(ready),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether connections may be waiting in the kernel for a worker that accepts them, which will not be reported.
    fn has_waiting_room(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Whether programs have to wait until a worker has taken some of what waits for it.
    fn is_congested(&self) -> bool {
        self.peers.iter().any(|(_, peer)| match &peer.kind {
            PeerKind::Worker(_) => {
                peer.link.unsent() > CONGESTED_AT && self.now.duration_since(peer.progress_at) < STALLED
            }
            PeerKind::Program(_) => false,
        })
    }

    // ---- requests of the supervisor ---------------------------------------------------------------------------------

    /// Returns false if the hub is to end.
    fn carry_out_requests(&mut self) -> bool {
        while matches!((&self.woken).read(&mut [0; 256]), Ok(256)) {}
        let requests = std::mem::take(&mut *lock(&self.desk.requests));
        for request in requests {
            match request {
                Request::Listen(listener, ownership) => {
                    if rustix::io::ioctl_fionbio(&listener, true).is_ok() {
                        self.listeners.push((listener, ownership));
                    }
                }
                Request::Add { slot, worker_id, stream } => self.add_worker(slot, worker_id, stream),
                Request::Leave { slot, why } => self.tell_to_leave(slot, why),
                Request::Drain { slot, time } => {
                    if let Some((link, _)) = self.worker(slot) {
                        link.send(&Message::Drain(time));
                    }
                }
                Request::Ended { slot } => self.clear(slot),
                Request::StopAccepting => {
                    self.is_stopping = true;
                    self.turn_all_away();
                    for (listener, ownership) in self.listeners.drain(..) {
                        if ownership == Ownership::Ours {
                            // A forked child may hold it too, and the kernel would keep accepting connections that
                            // nobody serves.
                            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
                        }
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
        self.worker_count = self.worker_count.max(worker_id.saturating_add(1));
        let worker = WorkerPeer {
            slot,
            worker_id,
            stage: WorkerStage::Starting,
            handed: 0,
            untaken: VecDeque::new(),
            taken_at: self.now,
            taken: 0,
            slow_at_turn: None,
            dropped: 0,
            pulse: Pulse::default(),
        };
        self.workers[usize::from(slot)] = Some(self.add_peer(link, PeerKind::Worker(worker)));
    }

    fn add_peer(&mut self, link: Link, kind: PeerKind) -> usize {
        self.last_number += 1;
        self.peers.insert(Peer { link, kind, progress_at: self.now, asking: 0, serial: self.last_number })
    }

    pub(super) fn tell_to_leave(&mut self, slot: u8, why: Leave) {
        if let Some((peer, worker)) = self.worker(slot) {
            worker.stage = WorkerStage::Leaving;
            peer.send(&Message::Leave(why));
        }
    }

    pub(super) fn worker(&mut self, slot: u8) -> Option<(&mut Link, &mut WorkerPeer)> {
        let peer = self.peers.get_mut((*self.workers.get(usize::from(slot))?)?)?;
        match &mut peer.kind {
            PeerKind::Worker(worker) => Some((&mut peer.link, worker)),
            PeerKind::Program(_) => None,
        }
    }

    /// Clears up after a worker whose process is gone.
    fn clear(&mut self, slot: u8) {
        // Messages that it sent before it ended still count.
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
            if matches!(peer.kind, PeerKind::Worker(_)) {
                peer.link.send(&Message::SenderGone);
            }
        }
    }

    // ---- peers ------------------------------------------------------------------------------------------------------

    fn admit_programs(&mut self) {
        let Some(control) = &self.control else { return };
        let (mut admitted, mut failed) = (Vec::new(), None);
        self.admit_at = None;
        while self.peers.len() + admitted.len() < MAX_PROGRAMS + SLOTS {
            match sockets::accept(control) {
                Ok(stream) if is_ours(stream.as_fd()) => admitted.extend(Link::new(stream)),
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    failed = Some(io::Error::from(error));
                    self.admit_at = Some(self.now + COMPLAINT_INTERVAL);
                    break;
                }
            }
        }
        if let Some(error) = failed {
            self.tell_of_pause(&format!("no more programs can connect for now: {}", sockets::explain(&error)));
        }
        for link in admitted {
            let program = Program { has_greeted: false, awaited_since: self.now, is_interrupted: false };
            self.add_peer(link, PeerKind::Program(program));
        }
    }

    pub(super) fn cut_off(&mut self, key: usize, cut: &Cut) {
        let Some(peer) = self.peers.try_remove(key) else { return };
        match peer.kind {
            PeerKind::Worker(mut worker) => {
                let slot = usize::from(worker.slot);
                self.workers[slot] = None;
                self.desk.registry.bury(worker.slot);
                let current = &mut self.current[usize::from(worker.worker_id) % WORKERS];
                if *current == Some(worker.slot) {
                    *current = None;
                }
                for number in self.questions.waiting_for(worker.slot) {
                    self.answered(worker.slot, number, Answer::Done(false));
                }
                self.forget_watcher(worker.slot);
                self.lose_members(worker.slot);
                if let Some(abroad) = &mut self.abroad {
                    abroad.interests.lose(worker.slot, self.now);
                }
                worker.see_taken(&Arc::clone(&self.desk).registry, self.now);
                while let Some(handed) = worker.take_back(&Arc::clone(&self.desk).registry) {
                    self.find_home(handed, None);
                }
            }
            PeerKind::Program(_) => self.misbehaved += u64::from(matches!(cut, Cut::Misbehaved)),
        }
        self.questions.forget(key);
        self.hosts_questions.forget(key);
    }

    fn cut_off_the_silent(&mut self) {
        let is_overdue = |peer: &Peer| match &peer.kind {
            PeerKind::Worker(_) => false,
            PeerKind::Program(program) => {
                let has_waited_since = |at: Instant| self.now.duration_since(at) > PATIENCE;
                peer.owes_something() && has_waited_since(program.awaited_since)
                    || peer.link.unsent() > PAUSE_PROGRAM_AT && has_waited_since(peer.progress_at)
            }
        };
        let overdue: Vec<usize> = self.peers.iter().filter(|(_, peer)| is_overdue(peer)).map(|(key, _)| key).collect();
        for key in overdue {
            self.cut_off(key, &Cut::Misbehaved);
        }
    }

    /// Reports misbehaving programs, now and then.
    fn complain(&mut self) {
        if self.misbehaved == 0 || self.complained_at.is_some_and(|at| self.now.duration_since(at) < COMPLAINT_INTERVAL)
        {
            return;
        }
        let programs = match std::mem::take(&mut self.misbehaved) {
            1 => "1 program on the control socket misbehaved and was disconnected".into(),
            count => format!("{count} programs on the control socket misbehaved and were disconnected"),
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
            let PeerKind::Worker(worker) = &mut peer.kind else { continue };
            if worker.dropped > 0 && peer.link.unsent() < MAX_FOR_WORKER / 2 {
                let (worker_id, dropped) = (worker.worker_id, std::mem::take(&mut worker.dropped));
                self.desk.registry.slot(worker.slot).is_behind.store(0, Ordering::Release);
                peer.link.send(&Message::Dropped);
                let text = format!("worker {worker_id} has caught up; {dropped} commands for it were dropped");
                self.desk.tell(HubEvent::Warning(text));
            }
        }
        for key in gone {
            // Messages sent before can still be read, and then the end of the link.
            if let Some(peer) = self.peers.get_mut(key) {
                peer.link.discard();
            }
        }
    }
}

struct Ready {
    woken: bool,
    control: bool,
    listeners: bool,
    peers: Vec<(usize, PollFlags)>,
    parting: Vec<bool>,
}

/// Whether the process at the other end belongs to the same user, or to root.
#[cfg(target_os = "linux")]
fn is_ours(stream: BorrowedFd<'_>) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(stream).map(|peer| peer.uid);
    peer.is_ok_and(|uid| uid == rustix::process::geteuid() || uid.is_root())
}

/// The socket's directory and mode keep everyone else out.
#[cfg(not(target_os = "linux"))]
fn is_ours(_: BorrowedFd<'_>) -> bool {
    true
}
