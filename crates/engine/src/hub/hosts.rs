//! This host among others: its number, what it hears from them, and what it sends them.
//!
//! What is heard is dealt with while the broker tells it, in the order in which it was sent. Meanwhile the broker cannot
//! be asked anything: answers wait until it has told everything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::abroad::TELL_INTERVAL;
use super::desk::HubEvent;
use super::thread::Routing;
use crate::broker::hosts::Hosts;
use crate::broker::told::News;
use crate::language::command::Command;
use crate::language::message::{Message, content};
use crate::registry::{Fd, HostInfo, Registry, Way, add};

/// A host that was not heard from for so long is not alive: it is as long as its number is certainly its own.
const SILENT_AFTER: Duration = Duration::from_secs(15);
/// Bytes of answers that wait until the broker can be asked again. They come from what was heard at once.
const MAX_WAITING: usize = 64 * 1024 * 1024;

impl Routing {
    /// Has `ask` use the way to other hosts, if there is one and the broker is not telling something just now.
    pub(super) fn with_hosts<T>(&mut self, ask: impl FnOnce(&mut dyn Hosts) -> T) -> Option<T> {
        self.broker.as_mut()?.hosts().map(ask)
    }

    /// Hears what has arrived from other hosts, and does what is due.
    pub(super) fn hear_hosts(&mut self) {
        if self.abroad.is_none() {
            return;
        }
        let now = self.now;
        self.with_broker(|broker, tell| {
            if let Some(hosts) = broker.hosts() {
                hosts.hear(now, tell);
            }
        });
        self.send_waiting();
        self.extend_claim();
        self.join_again();
        self.tell_hosts();
        self.forget_silent_hosts();
        self.give_up_hosts_questions();
        while let Some(topic) = self.abroad.as_mut().and_then(|abroad| abroad.interests.take_unwanted(now)) {
            self.with_hosts(|hosts| hosts.unwant(&topic));
        }
    }

    /// Sends on its way what is for other hosts.
    pub(super) fn flush_hosts(&mut self) {
        if self.abroad.is_none() {
            return;
        }
        let sent = self.with_hosts(|hosts| {
            hosts.flush();
            (hosts.take_dropped(), hosts.has_room())
        });
        let Some((dropped, has_room)) = sent else { return };
        add(&self.desk.registry.header().past.commands_dropped, dropped);
        self.desk.registry.set_way(if has_room { Way::Open } else { Way::Full });
    }

    /// When something is due about other hosts.
    pub(super) fn next_for_hosts(&mut self) -> Option<Instant> {
        let own = self.abroad.as_ref()?.next_deadline();
        let asked = self.hosts_questions.next_deadline();
        let brokers = self.with_hosts(|hosts| hosts.next_deadline()).flatten();
        own.into_iter().chain(asked).chain(brokers).min()
    }

    /// Sends a frame to another host. Returns false if it is lost; it is then counted.
    pub(super) fn send_abroad(&mut self, host: u8, frame: &[u8]) -> bool {
        if let Some(is_sent) = self.with_hosts(|hosts| hosts.send(host, frame)) {
            return is_sent;
        }
        let Some(abroad) = &mut self.abroad else { return false };
        let fits = abroad.waiting_bytes + frame.len() <= MAX_WAITING;
        if fits {
            abroad.waiting_bytes += frame.len();
            abroad.waiting.push((host, frame.to_vec()));
        } else {
            add(&self.desk.registry.header().past.commands_dropped, 1);
        }
        fits
    }

    pub(super) fn tell_host(&mut self, host: u8, message: &Message<'_>) -> bool {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.send_abroad(host, &frame)
    }

    fn send_waiting(&mut self) {
        let Some(abroad) = &mut self.abroad else { return };
        abroad.waiting_bytes = 0;
        for (host, frame) in std::mem::take(&mut abroad.waiting) {
            self.with_hosts(|hosts| hosts.send(host, &frame));
        }
    }

    // ---- what is heard ----------------------------------------------------------------------------------------------

    /// Handles something that the broker tells about other hosts.
    pub(super) fn hear_news(&mut self, news: News<'_>) {
        let desk = Arc::clone(&self.desk);
        let Some(abroad) = &mut self.abroad else { return };
        match news {
            News::Frame { from, frame } => self.hear_frame(from, frame),
            News::Numbered { host, above } => abroad.claimed = Some((host, above)),
            News::Leased(up_to) => self.note_leased(up_to),
            News::Held(until) => desk.registry.set_ids_until(until),
            News::Fenced => self.end_all_connections(),
            News::Emptied => abroad.is_emptied = true,
            News::Missed => {
                for (_, peer) in &mut self.peers {
                    if matches!(peer.kind, super::peer::PeerKind::Worker(_)) {
                        peer.link.send(&Message::Dropped);
                    }
                }
                self.watch_again();
            }
            // After the way was lost, a host that is there may not listen yet.
            News::Absent(host) if !abroad.is_fresh(host, self.now) => self.lose_host(host),
            News::Absent(_) => {}
            News::Lost { topic, fd, info } => self.attendance.note_lost(topic, fd, info),
            News::Open(is_open) => {
                if is_open && !abroad.is_open {
                    desk.tell(HubEvent::Reachable);
                }
                abroad.is_open = is_open;
                abroad.opened_at = self.now;
                desk.registry.set_degraded(!is_open);
            }
            News::Unreachable(text) => desk.tell(HubEvent::Unreachable(text)),
            News::Unusable(text) => desk.tell(HubEvent::Unusable(text)),
            News::Warning(text) => desk.tell(HubEvent::Warning(text)),
        }
    }

    fn hear_frame(&mut self, from: u8, frame: &[u8]) {
        let own = self.desk.registry.host();
        let Ok(message) = Message::decode(content(frame)) else {
            self.count_garbage();
            return;
        };
        let is_ours = |fd: Fd| Registry::host_of(fd) == own;
        match message {
            Message::Command(Command::PipeMessage { .. } | Command::Deliver { .. }) => self.count_garbage(),
            Message::Command(command) if !command.is_allowed(self.send_queue_size) => self.count_garbage(),
            Message::Command(Command::Publish { topic, .. }) => self.pass_to_interested(None, topic, frame),
            Message::Command(command) if command.fd().is_none_or(is_ours) => {
                self.route(Origin::Host, &command, frame);
            }
            Message::Ask(number, patience, question) => self.hear_question(from, number, patience, question),
            Message::Answer(number, answer) => self.answered_by_host(from, number, answer, frame.len()),
            Message::Watch(fd) if is_ours(fd) => self.watch_for_host(from, fd),
            Message::Unwatch(fd) => self.watchers.remove_host(from, fd),
            Message::Gone(fd) if Registry::host_of(fd) == from => self.tell_watchers(fd),
            Message::AwaitRoom { fd, host, .. } if host == from && is_ours(fd) => {
                self.pass_if_room(Registry::slot_of(fd), frame);
            }
            Message::Room { fd, host, slot } if host == own && Registry::host_of(fd) == from => {
                self.pass_if_room(slot, frame);
            }
            Message::Host(host) if host.number == from => self.note_host(&host),
            Message::HostLeaves => self.lose_host(from),
            // For, or from, a number that a host had before.
            Message::Command(_)
            | Message::Watch(_)
            | Message::Gone(_)
            | Message::AwaitRoom { .. }
            | Message::Room { .. } => {}
            _ => self.count_garbage(),
        }
    }

    fn count_garbage(&mut self) {
        let Some(abroad) = &mut self.abroad else { return };
        abroad.garbage += 1;
        if abroad.garbage.is_power_of_two() {
            let text = format!(
                "messages on the channels of this server's hosts that no host would send, ignored so far: {}",
                abroad.garbage
            );
            self.desk.tell(HubEvent::Warning(text));
        }
    }

    // ---- hosts that come and go -------------------------------------------------------------------------------------

    fn note_host(&mut self, host: &HostInfo) {
        let now = self.now;
        if let Some(abroad) = &mut self.abroad {
            abroad.heard_at.insert(host.number, now);
            if !self.desk.registry.is_alive(host.number) {
                // It may have just started, and has not heard of this one.
                abroad.told_at = None;
            }
            self.desk.registry.note_host(host);
        }
    }

    /// Notes that a host is gone. Its connections are no longer open.
    fn lose_host(&mut self, host: u8) {
        if let Some(abroad) = &mut self.abroad {
            abroad.heard_at.remove(&host);
        }
        if !self.desk.registry.is_alive(host) || host == self.desk.registry.host() {
            return;
        }
        self.desk.registry.set_alive(host, false);
        self.watchers.forget_host(host);
        for fd in self.watchers.of_host(host) {
            self.tell_watchers(fd);
        }
        self.give_up_host(host);
    }

    fn forget_silent_hosts(&mut self) {
        let Some(abroad) = &self.abroad else { return };
        let silent = |at: &Instant| self.now.duration_since((*at).max(abroad.opened_at)) > SILENT_AFTER;
        if abroad.is_open {
            let gone: Vec<u8> = abroad.heard_at.iter().filter(|(_, at)| silent(at)).map(|(host, _)| *host).collect();
            for host in gone {
                self.lose_host(host);
            }
        }
    }

    /// Tells the other hosts about this one, now and then.
    fn tell_hosts(&mut self) {
        let registry = &self.desk.registry;
        let number = registry.host();
        let Some(abroad) = &mut self.abroad else { return };
        if number == 0 || abroad.told_at.is_some_and(|at| self.now < at + TELL_INTERVAL) {
            return;
        }
        abroad.told_at = Some(self.now);
        let (name, connections) = (abroad.name.clone(), registry.connections());
        let started_at = registry.stats().started_at;
        let host = HostInfo { number, name, started_at, connections, age: 0 };
        registry.note_host(&host);
        let mut frame = Vec::new();
        Message::Host(host).encode(&mut frame);
        self.with_hosts(|hosts| hosts.announce(&frame));
    }

    // ---- the number of this host ------------------------------------------------------------------------------------

    /// Makes sure that enough counters are leased from the broker, in the name of the number that this host has or is
    /// about to have.
    fn extend_claim(&mut self) {
        let Some(abroad) = &mut self.abroad else { return };
        let registry = &self.desk.registry;
        if let Some((_, above)) = abroad.claimed {
            let up_to = registry.last().max(above) + registry.lease_length();
            if abroad.asked_up_to < up_to {
                abroad.asked_up_to = up_to;
                self.with_hosts(|hosts| hosts.lease(up_to));
            }
        }
    }

    /// Asks the broker for counters up to this one.
    pub(super) fn lease_from_broker(&mut self, up_to: u64) {
        let Some(abroad) = &mut self.abroad else { return };
        if abroad.asked_up_to < up_to {
            abroad.asked_up_to = up_to;
            self.with_hosts(|hosts| hosts.lease(up_to));
        }
    }

    /// Handles that ids may be given out up to a counter.
    fn note_leased(&mut self, up_to: u64) {
        let Some(abroad) = &mut self.abroad else { return };
        let registry = &self.desk.registry;
        if let Some((host, above)) = abroad.claimed.take() {
            abroad.told_at = None;
            abroad.asked_up_to = up_to;
            registry.begin_above_for_host(host, above);
            self.desk.tell(HubEvent::Numbered(host));
        }
        registry.lease(up_to);
    }

    /// Ends all connections: other hosts count this one as dead, and have told the application that its members have
    /// left.
    fn end_all_connections(&mut self) {
        self.desk.registry.set_ids_until(0);
        self.attendance.forget_own();
        if let Some(abroad) = &mut self.abroad {
            (abroad.claimed, abroad.asked_up_to) = (None, 0);
        }
        self.desk.registry.set_alive(self.desk.registry.host(), false);
        let leased = self.desk.registry.leased();
        for (_, peer) in &mut self.peers {
            if matches!(peer.kind, super::peer::PeerKind::Worker(_)) {
                peer.link.send(&Message::Fenced(leased));
            }
        }
        let text = "other hosts have counted this one as dead: its connections are closed with 1012, and it gets another number";
        self.desk.tell(HubEvent::Warning(text.into()));
    }

    /// Puts the members of topics there again after the broker has lost them.
    fn join_again(&mut self) {
        if self.abroad.as_mut().is_none_or(|abroad| !std::mem::take(&mut abroad.is_emptied)) {
            return;
        }
        let attendance = std::mem::take(&mut self.attendance);
        for (topic, fd, info) in attendance.present() {
            self.with_broker(|broker, _| broker.join(topic, fd, info));
        }
        self.attendance = attendance;
    }

    /// Tells the other hosts that this server ends.
    pub(super) fn leave_hosts(&mut self) {
        let mut frame = Vec::new();
        Message::HostLeaves.encode(&mut frame);
        self.with_hosts(|hosts| {
            hosts.announce(&frame);
            hosts.leave();
            hosts.flush();
        });
    }
}

/// Where a command comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The worker in this slot.
    Worker(u8),
    /// Another program, through the control socket.
    Program,
    /// Another host.
    Host,
}

impl Origin {
    /// The slot of the worker that it is.
    pub(super) fn slot(self) -> Option<u8> {
        if let Self::Worker(slot) = self { Some(slot) } else { None }
    }
}
