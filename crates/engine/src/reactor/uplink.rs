//! A worker's side of its link to the hub: requests for other processes' connections, and their requests for ours.
//!
//! Commands from the hub are carried out here, within a turn, without entering Python.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mio::event::Event;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use rustix::io::Errno;
use wire::frame::{DataOpcode, Fin};

use crate::broker::Told;
use crate::connection::{Connection, Stage};
use crate::language::command::{Command, Format, MAX_PIPED};
use crate::language::link::{Link, MAX_SOCKETS, Read};
use crate::language::message::{Answer, Leave, Message, Question, content};
use crate::reactor::Reactor;
use crate::reactor::commands::Source;
use crate::reactor::event::MemberEvent;
use crate::reactor::joining::{Asker, Joining, Wish};
use crate::reactor::notice::{Notice, PipeMessage};
use crate::reactor::phase::Phase;
use crate::reactor::proxied;
use crate::reactor::sending::Place;
use crate::reactor::visit::Return;
use crate::registry::{self, Fd, Registry, Way, add, topic_bit};
use crate::system::codec::Malformed;
use crate::system::sockets;
use crate::system::table::Key;
use crate::topics::Topics;
use crate::topics::publication::Publication;

pub(crate) const LINK: Token = Token(usize::MAX - 2);

/// Bytes that may wait to be sent to the hub.
const MAX_UNSENT: usize = 64 * 1024 * 1024;
/// A link with this many bytes waiting is written at once, in the middle of a turn.
const WRITE_AT: usize = 256 * 1024;
/// The largest number of `pipe_message` handlers running at the same time. Further messages wait.
const MAX_PIPE_HANDLERS: usize = 1024;
/// Milliseconds between checks whether descriptors are available again.
const RETRY: u64 = 1000;
/// Ids given out between two requests for more.
const IDS_BETWEEN_QUESTIONS: u64 = 65_536;
/// Descriptors that a worker needs in addition to its connections.
const SPARE_DESCRIPTORS: u64 = 128;

/// See the module documentation. A server of one process has no link, but can send messages to itself.
#[derive(Default)]
pub(crate) struct Uplink {
    link: Option<Link>,
    worker_id: u8,
    /// Whether the link may have something to read.
    pub(crate) ready: bool,
    pub(crate) notices: VecDeque<Notice>,
    pipe_messages: VecDeque<PipeMessage>,
    piped_bytes: usize,
    pipe_handlers: usize,
    /// Subscriptions requested from other workers.
    subscribes_sent: u64,
    /// Sockets received from the hub.
    sockets_come: u64,
    /// Once this counter is given out, the hub is asked for more ids if few are left.
    asks_for_ids_at: u64,
    /// Set when this process has run out of descriptors: the time of the next check.
    pub(crate) retry_at: Option<u64>,
}

impl Uplink {
    pub(crate) fn has_work(&self) -> bool {
        let has_unsent = self.link.as_ref().is_some_and(|link| link.unsent() > 0 && !link.blocked);
        let has_piped = !self.pipe_messages.is_empty() && self.pipe_handlers < MAX_PIPE_HANDLERS;
        self.ready || has_unsent || has_piped || !self.notices.is_empty()
    }

    /// The next message whose handler may be started.
    pub(crate) fn next_pipe_message(&mut self) -> Option<PipeMessage> {
        if self.pipe_handlers >= MAX_PIPE_HANDLERS {
            return None;
        }
        let message = self.pipe_messages.pop_front()?;
        self.piped_bytes -= message.payload.len();
        self.pipe_handlers += 1;
        Some(message)
    }

    /// Notes that the link has become readable or writable.
    pub(crate) fn is_reported(&mut self, event: &Event) {
        self.ready |= event.is_readable() || event.is_read_closed();
        if let Some(link) = self.link.as_mut().filter(|_| event.is_writable()) {
            link.blocked = false;
        }
    }

    /// Whether there are other processes.
    pub(crate) fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// Queues a message for the hub, unless too much is waiting.
    pub(crate) fn send_to_hub(&mut self, message: &Message<'_>) -> bool {
        self.link.as_mut().is_some_and(|link| link.send_within(message, MAX_UNSENT))
    }

    /// Tells the hub which topics are wanted, if that has changed and it wants to know. This comes before anything that
    /// is asked about these topics.
    pub(crate) fn tell_wanted(&mut self, topics: &mut Topics) {
        for (topic, interest) in topics.take_changes() {
            self.tell_hub(&match interest {
                registry::Interest::Wanted => Message::Want(&topic),
                registry::Interest::Unwanted => Message::Unwant(&topic),
            });
        }
    }

    /// Sends a short message that must not be lost, however much is waiting.
    pub(crate) fn tell_hub(&mut self, message: &Message<'_>) {
        if let Some(link) = &mut self.link {
            link.send(message);
        }
    }

    /// Answers a question of the hub's.
    pub(crate) fn answer(&mut self, number: u64, answer: Answer) {
        // A list may be too long while much is waiting.
        if !self.send_to_hub(&Message::Answer(number, answer)) {
            self.tell_hub(&Message::Answer(number, Answer::Refused));
        }
    }

    /// Tells the hub that a watched connection is no longer open. This is sent once per connection, however much is
    /// waiting.
    pub(crate) fn tell_gone(&mut self, fd: Fd) {
        self.tell_hub(&Message::Gone(fd));
    }

    pub(crate) fn flush(&mut self) {
        // After an error here, the end of the link will be seen when reading.
        if let Some(link) = &mut self.link
            && link.flush().is_err()
        {
            link.discard();
        }
    }
}

impl Reactor {
    /// Joins a server of many processes.
    ///
    /// # Errors
    /// If the kernel refuses to watch the link.
    pub fn join(&mut self, stream: OwnedFd) -> io::Result<()> {
        let link = Link::new(stream)?;
        let watched = std::os::fd::AsRawFd::as_raw_fd(&link.stream());
        self.poll.registry().register(&mut SourceFd(&watched), LINK, Interest::READABLE | Interest::WRITABLE)?;
        self.uplink.worker_id = self.shared.worker_id();
        self.uplink.link = Some(link);
        if self.settings.broker.is_some() {
            self.topics.note_changes();
        }
        // The hub has it.
        self.broker = None;
        self.has_room_again();
        self.ask_for_ids_if_few();
        Ok(())
    }

    /// Asks the hub to lease more ids if few are left. If that fails, it asks again after many more ids.
    pub(crate) fn ask_for_ids_if_few(&mut self) {
        let Some(last) = self.ids.last_of_few(&self.shared.registry) else { return };
        if last >= self.uplink.asks_for_ids_at {
            self.uplink.asks_for_ids_at = last + IDS_BETWEEN_QUESTIONS;
            self.tell(&Message::FewIds);
        }
    }

    /// Tells the hub how many connections this worker can hold.
    fn has_room_again(&mut self) {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let (most, room) = (self.most_connections() as u64, files.saturating_sub(SPARE_DESCRIPTORS).max(1));
        let slot = self.shared.registry.slot(self.shared.slot);
        slot.descriptors.store(if room < most { room } else { 0 }, Ordering::Relaxed);
        slot.capacity.store(most.min(room), Ordering::Relaxed);
        self.uplink.retry_at = None;
    }

    /// Tells the hub that, for now, this worker can hold no more connections than it has.
    fn is_full(&mut self) {
        self.shared.registry.slot(self.shared.slot).capacity.store(0, Ordering::Relaxed);
        self.uplink.retry_at = Some(self.clock.now + RETRY);
        self.accept_error = Some(Errno::MFILE.into());
    }

    /// Retries, when it is time, what failed for lack of descriptors.
    pub(crate) fn retry_uplink(&mut self) {
        if self.uplink.retry_at.is_some_and(|at| self.clock.now >= at) {
            self.has_room_again();
        }
    }

    /// Tells the hub that this worker accepts connections.
    pub fn tell_ready(&mut self) {
        self.tell(&Message::Ready);
    }

    /// Tells the hub that this worker has been asked to leave; the hub will then tell it to.
    pub fn tell_leaving(&mut self) {
        self.tell(&Message::Leaving);
    }

    /// Asks the master to replace all workers.
    pub fn ask_for_reload(&mut self) {
        self.tell(&Message::Reload);
    }

    /// Asks the master to stop the server.
    pub fn ask_for_shutdown(&mut self) {
        self.tell(&Message::Shutdown);
    }

    fn tell(&mut self, message: &Message<'_>) {
        if let Some(link) = &mut self.uplink.link {
            link.send(message);
            self.uplink.flush();
        }
    }

    /// Closes every descriptor, in a forked child: otherwise a connection would stay open after its own process is
    /// gone. Nothing is sent to anyone, and nothing else may be called afterwards.
    pub fn abandon(&mut self) {
        self.uplink.link = None;
        drop(self.acceptor.close());
        for connection in self.connections.values_mut() {
            connection.socket = None;
        }
    }

    // ---- going out --------------------------------------------------------------------------------------------------

    /// Whether `fd` is an open connection of another process, or one of another host.
    pub(crate) fn is_away(&self, fd: Fd) -> bool {
        let registry = &self.shared.registry;
        if self.uplink.link.is_none() || registry.reaches(fd) {
            return self.uplink.link.is_some();
        }
        let slot = Registry::slot_of(fd);
        slot != self.shared.slot && registry.exists(fd) && !registry.is_behind(slot)
    }

    /// Sends a command on its way to the hub. Returns false, and counts the loss, if too many are waiting.
    pub(crate) fn send_away(&mut self, command: Command<'_>) -> bool {
        if !self.uplink.is_linked() {
            return false;
        }
        let is_subscribe = matches!(command, Command::Subscribe { .. });
        let sent = self.try_away(command);
        if sent {
            self.uplink.subscribes_sent += u64::from(is_subscribe);
        } else {
            self.shared.totals().commands_dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// The same for a command that is not lost if this fails.
    pub(crate) fn try_away(&mut self, command: Command<'_>) -> bool {
        if self.uplink.link.as_ref().is_some_and(|link| link.unsent() > WRITE_AT) {
            self.uplink.flush();
        }
        self.uplink.send_to_hub(&Message::Command(command))
    }

    /// Sends a push for a connection of another process on its way.
    #[cold]
    pub(crate) fn push_away(&mut self, fd: Fd, opcode: DataOpcode, fin: Fin, payload: &[u8]) -> bool {
        if self.shared.registry.is_abroad(fd) {
            // Nobody here knows how full its outbox is.
            return self.is_away(fd) && self.send_away(Command::Push { fd, opcode, fin, payload });
        }
        if self.uplink.link.is_none() || Registry::slot_of(fd) == self.shared.slot {
            return false;
        }
        let mut overflow = None;
        if !self.shared.clone().reserve(fd, payload.len(), |command| overflow = Some(command)) {
            if let Some(overflow) = overflow {
                self.send_away(overflow);
            }
            return false;
        }
        let sent = self.send_away(Command::Push { fd, opcode, fin, payload });
        if !sent {
            self.shared.registry.arrived(fd, payload.len());
        }
        sent
    }

    /// Requests the end of a subscription of another process's connection.
    pub(crate) fn unsubscribe_away(&mut self, fd: Fd, topic: &str) -> bool {
        self.shared.registry.begin_unsubscribe(fd);
        let sent = self.send_away(Command::Unsubscribe { fd, topic });
        if !sent {
            self.shared.registry.end_unsubscribe(fd);
        }
        sent
    }

    /// Has the hub put a message in the order of its topic.
    pub(crate) fn publish_in_order(&mut self, topic: &str, publication: Publication<'_>, exclude: &[Fd]) {
        if self.uplink.is_linked() {
            self.send_away(Command::Publish { topic, publication, exclude: Cow::Borrowed(exclude) });
            return;
        }
        self.clock.read();
        let (at, mut placed) = (self.moment(), None);
        if let Some(broker) = &mut self.broker {
            broker.publish(topic, publication, exclude, at, &mut |told| {
                if let Told::Placed { position, .. } = told {
                    placed = Some(position);
                }
            });
            add(&self.shared.totals().history_evicted, broker.take_evicted());
        }
        if placed.is_some() {
            self.gather(Some(topic), publication, placed, exclude);
        }
    }

    /// Sends a publish to other workers and hosts, if they may have subscribers.
    pub(crate) fn publish_away(&mut self, topic: &str, publication: Publication<'_>, exclude: &[Fd]) {
        if self.uplink.link.is_some() && self.others_want(topic) {
            self.send_away(Command::Publish { topic, publication, exclude: Cow::Borrowed(exclude) });
        }
    }

    /// Sends a broadcast to other workers and hosts, if they may have connections.
    pub(crate) fn broadcast_away(&mut self, opcode: DataOpcode, payload: &[u8], exclude: &[Fd]) {
        let registry = &self.shared.registry;
        let own = self.shared.totals().connections.load(Ordering::Relaxed);
        if self.uplink.link.is_some() && (registry.way() != Way::None || registry.connections() > own) {
            self.send_away(Command::Broadcast { opcode, payload, exclude: Cow::Borrowed(exclude) });
        }
    }

    fn others_want(&self, topic: &str) -> bool {
        let (registry, own) = (&self.shared.registry, self.shared.slot);
        if registry.way() != Way::None {
            return true;
        }
        // Subscriptions that this process has requested may still be on their way to the hub.
        if registry.slot(own).subscribes_routed.load(Ordering::SeqCst) != self.uplink.subscribes_sent {
            return true;
        }
        let bit = topic_bit(topic);
        registry.living().any(|slot| slot != own && registry.has_interest(slot, bit))
    }

    /// Sends a message to a worker's `pipe_message` handler. Returns false, and counts the loss, if too many are
    /// waiting.
    pub fn send_message(&mut self, to: u8, format: Format, payload: &[u8]) -> bool {
        let from = self.uplink.worker_id;
        let command = Command::PipeMessage { from, to, format, payload };
        if to == from { self.keep_pipe_message(from, format, payload) } else { self.send_away(command) }
    }

    /// To be called when a `pipe_message` handler has ended.
    pub fn pipe_message_done(&mut self) {
        self.uplink.pipe_handlers = self.uplink.pipe_handlers.saturating_sub(1);
    }

    /// Returns connections without a request to the hub, for another worker; the others end with their next answer.
    pub fn return_sockets(&mut self) {
        self.enter_phase(Phase::Leaving);
        if self.uplink.link.is_none() {
            return;
        }
        // Input that has already been read is sent along.
        self.end_visit(Return::Soon);
        // The state of a TLS handshake cannot be transferred.
        let is_fresh = |it: &Connection| {
            let has_no_tls = it.tls.as_ref().is_none_or(|session| session.is_fresh());
            matches!(it.stage, Stage::Header | Stage::Head { .. }) && it.outbox.is_empty() && has_no_tls
        };
        let fresh = self.connections.iter().filter(|(_, it)| is_fresh(it));
        let keys: Vec<Key> = fresh.map(|(key, _)| key).collect();
        for batch in keys.chunks(MAX_SOCKETS) {
            let mut sockets = Vec::with_capacity(batch.len());
            let mut inputs = Vec::with_capacity(batch.len());
            for key in batch {
                let connection = &mut self.connections[*key];
                let mut input = Vec::new();
                if self.settings.proxy_protocol.is_some() && !matches!(connection.stage, Stage::Header) {
                    input = proxied::header_again(connection);
                }
                let Some(mut socket) = connection.socket.take() else { continue };
                let _ = self.poll.registry().deregister(&mut socket);
                sockets.push(Arc::new(OwnedFd::from(std::net::TcpStream::from(socket))));
                input.extend(match &mut connection.tls {
                    Some(session) => session.take_kept(),
                    None => connection.input.split_off(connection.used),
                });
                inputs.push(input);
                self.abort(*key);
            }
            if let Some(link) = self.uplink.link.as_mut().filter(|_| !sockets.is_empty()) {
                link.send_sockets(sockets, inputs.iter().map(Vec::as_slice).collect());
            }
        }
        self.uplink.flush();
    }

    // ---- coming in --------------------------------------------------------------------------------------------------

    /// Handles what the hub has sent, as long as the turn's time lasts.
    pub(crate) fn hear_hub(&mut self) {
        while self.uplink.ready {
            let Some(link) = &mut self.uplink.link else {
                self.uplink.ready = false;
                return;
            };
            let mut input = std::mem::take(&mut link.input);
            let mut has_time = true;
            let malformed = loop {
                match input.next_frame(usize::MAX) {
                    Ok(Some(frame)) => match Message::decode(content(input.frame(frame))) {
                        Ok(message) => has_time = self.deal_with(message),
                        Err(Malformed) => break true,
                    },
                    Ok(None) => break false,
                    Err(_) => break true,
                }
                if !has_time {
                    break false;
                }
            };
            let Some(link) = &mut self.uplink.link else { return };
            link.input = input;
            if !has_time {
                return;
            }
            match link.read() {
                Ok(Read::Some) if !malformed => {}
                Ok(Read::Nothing) if !malformed => self.uplink.ready = false,
                // The master is gone, and with it the server.
                _ => {
                    self.uplink.link = None;
                    self.note_others_gone();
                    self.uplink.notices.push_back(Notice::Leave(Leave::Stop));
                }
            }
        }
    }

    /// Returns false if the turn's time is over.
    fn deal_with(&mut self, message: Message<'_>) -> bool {
        match message {
            Message::Command(command) => return self.carry_out_in_time(command, Source::Hub),
            Message::Ask(number, _, question) => {
                let answer = match question {
                    Question::Join { fd, topic, since, last, floor, info } => {
                        self.begin_join(Asker::Hub(number), fd, topic, Wish { since, last, floor }, info);
                        return self.has_budget();
                    }
                    Question::Do(Command::Push { fd, opcode, fin, payload }) => {
                        Answer::Done(self.push(fd, opcode, fin, payload).unwrap_or(false))
                    }
                    Question::Do(Command::Disconnect { fd, code, reason }) => {
                        Answer::Done(self.disconnect(fd, code, reason))
                    }
                    question => self.look_up(&question),
                };
                self.uplink.answer(number, answer);
            }
            Message::Answer(number, answer) if Joining::is_ours(number) => self.missed_is_answered(number, answer),
            Message::Answer(number, answer) => {
                self.uplink.notices.push_back(Notice::Answered { number, answer: Box::new(answer) });
            }
            Message::Sockets(inputs) => self.take_sockets(&inputs),
            Message::Gone(fd) => self.note_gone(fd),
            Message::AwaitRoom { fd, host, slot, length } => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                self.await_room_for_other(fd, length, Place { host, slot });
            }
            Message::Fenced(counter) => self.close_fenced(counter),
            Message::Room { fd, .. } => self.note_room(fd),
            Message::Lost { fd, number, topic, info } => {
                let (event, topic, info) = (MemberEvent::Left, topic.into(), info.into());
                self.uplink.notices.push_back(Notice::Member { event, topic, fd, number, info });
            }
            Message::Dropped => self.look_for_gaps(),
            Message::Renewed(topic) => self.look_for_gap(topic),
            Message::Leave(why) => self.uplink.notices.push_back(Notice::Leave(why)),
            Message::Drain(time) => self.uplink.notices.push_back(Notice::Drain(time)),
            Message::SenderGone => {
                for (_, row) in self.connections.values().filter_map(|connection| connection.identity.open()) {
                    // Messages that room was reserved for may never arrive. Messages under way from other processes
                    // count too little for a moment.
                    self.shared.registry.forget_underway(row);
                }
            }
            _ => {}
        }
        self.has_budget()
    }

    fn take_sockets(&mut self, inputs: &[&[u8]]) {
        let Some(link) = &mut self.uplink.link else { return };
        let sockets = link.take_sockets();
        let shared = Arc::clone(&self.shared);
        let slot = shared.registry.slot(shared.slot);
        let mut sockets = sockets.into_iter();
        for input in inputs {
            let number = self.uplink.sockets_come;
            self.uplink.sockets_come += 1;
            let Some(socket) = sockets.next() else {
                // This process cannot have more descriptors. The hub will reclaim the sockets that are not taken here.
                self.is_full();
                continue;
            };
            if slot.sockets_taken.compare_exchange(number, number + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                // We took too long: the hub has given it to another worker.
                continue;
            }
            let socket = std::net::TcpStream::from(socket);
            let peer: io::Result<SocketAddr> = socket.set_nonblocking(true).and_then(|()| sockets::peer(&socket));
            match peer {
                Ok(peer) => self.adopt(TcpStream::from_std(socket), peer, input.to_vec()),
                // It is already closed.
                Err(_) => add(&slot.sockets_done, 1),
            }
        }
    }

    /// Keeps a message for its handler.
    pub(crate) fn keep_pipe_message(&mut self, from: u8, format: Format, payload: &[u8]) -> bool {
        let uplink = &mut self.uplink;
        // Of all that wait for their handlers; a single one is no longer.
        if uplink.piped_bytes > 0 && uplink.piped_bytes + payload.len() > MAX_PIPED {
            self.shared.totals().commands_dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        uplink.piped_bytes += payload.len();
        uplink.pipe_messages.push_back(PipeMessage { from, format, payload: payload.to_vec() });
        true
    }
}
