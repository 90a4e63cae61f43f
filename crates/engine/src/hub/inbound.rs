//! Messages from workers and programs to the hub, and its answers.

use std::sync::Arc;

use rustix::event::PollFlags;
use serde_json::Value;
use serde_json::value::RawValue;

use super::desk::HubEvent;
use super::hosts::Origin;
use super::hosts_questions::ABROAD;
use super::peer::{Cut, Handed, Peer, PeerKind, WorkerStage};
use super::thread::{MAX_FOR_WORKER, Routing};
use crate::language::command::{Command, MAX_PIPED};
use crate::language::link::Read;
use crate::language::message::{Answer, Leave, Message, Question, VERSION, content};
use crate::registry::{Registry, WORKERS, add};
use crate::topics::envelope::enveloped_len;
use crate::topics::publication::{Content, Publication};

/// Bytes of answers that may wait for a program before further long ones are refused.
const MAX_LISTS_FOR_PROGRAM: usize = 8 * 1024 * 1024;

impl Routing {
    /// Reads once from a peer and handles what arrived. Returns false if nothing did.
    pub(super) fn serve(&mut self, key: usize, flags: PollFlags) -> Result<bool, Cut> {
        let Some(peer) = self.peers.get_mut(key) else { return Ok(false) };
        if flags.contains(PollFlags::OUT) {
            peer.link.blocked = false;
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return Ok(false);
        }
        if peer.is_held_up() {
            // It is not being read, so this can only be its end.
            return Err(Cut::Gone);
        }
        let read = match &mut peer.kind {
            PeerKind::Worker(_) => peer.link.read(),
            PeerKind::Program(program) => {
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

    /// Handles input from a peer, until its answers wait to be read.
    fn deal_with_input(&mut self, key: usize) -> Result<(), Cut> {
        let Some(peer) = self.peers.get_mut(key) else { return Ok(()) };
        let longest = match &peer.kind {
            PeerKind::Worker(_) => usize::MAX,
            PeerKind::Program(_) => self.send_queue_size.max(MAX_PIPED) + self.most_beside_payload,
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
            if let PeerKind::Program(program) = &mut peer.kind {
                program.is_interrupted = matches!(result, Ok(true));
                if has_come {
                    program.awaited_since = self.now;
                }
            }
        }
        result.map(|_| ())
    }

    /// Continues with programs that have read their answers.
    pub(super) fn resume(&mut self) {
        let is_due = |peer: &Peer| {
            matches!(&peer.kind, PeerKind::Program(program) if program.is_interrupted) && !peer.is_held_up()
        };
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
            PeerKind::Worker(worker) => {
                let slot = worker.slot;
                self.hear_worker(key, slot, message, frame)
            }
            PeerKind::Program(program) if !program.has_greeted => {
                let Message::Hello { .. } = message else { return Err(Cut::Misbehaved) };
                program.has_greeted = true;
                let topics = self.topics.all().iter().map(|options| (&*options.pattern, options.envelope)).collect();
                let send_queue_size = self.send_queue_size as u64;
                peer.link.send(&Message::Welcome { version: VERSION, send_queue_size, topics });
                Ok(())
            }
            PeerKind::Program(_) => self.hear_program(key, message, frame),
        }
    }

    fn hear_worker(&mut self, key: usize, slot: u8, message: Message<'_>, frame: &[u8]) -> Result<(), Cut> {
        match message {
            Message::Command(command) => {
                self.route(Origin::Worker(slot), &command, frame);
                if let Command::Subscribe { .. } = command {
                    add(&self.desk.registry.slot(slot).subscribes_routed, 1);
                }
            }
            Message::Ask(
                number,
                patience,
                question @ (Question::Subscribers(_)
                | Question::Topics { .. }
                | Question::Members { .. }
                | Question::Presence { .. }),
            ) => self.ask_interested(key, number, patience, &question),
            Message::Ask(
                number,
                _,
                question @ (Question::History { .. } | Question::Missed { .. } | Question::Forget(_)),
            ) => self.ask_broker(key, number, &question),
            Message::Ask(number, patience, question @ Question::Join { .. }) => {
                self.ask_to_join(key, number, patience, question);
            }
            Message::Ask(number, _, Question::Everywhere(question)) => self.ask_everywhere(key, number, *question),
            Message::Ask(number, patience, question @ Question::Info(fd)) => {
                self.ask_host_of(fd, key, number, patience, question);
            }
            Message::Want(topic) => self.want(slot, topic),
            Message::Unwant(topic) => {
                if let Some(abroad) = &mut self.abroad {
                    abroad.interests.unwant(slot, topic, self.now);
                }
            }
            // Only about its own connections.
            Message::Joined { fd, number, topic, info } if Registry::slot_of(fd) == slot => {
                self.attendance.begin(fd, number, topic, info);
                self.with_broker(|broker, _| broker.join(topic, fd, info));
            }
            Message::Left { fd, number, topic } if Registry::slot_of(fd) == slot => {
                self.attendance.end(fd, number);
                self.with_broker(|broker, _| broker.leave(topic, fd));
            }
            Message::JoinTold { fd, number } => self.attendance.join_is_told(slot, fd, number),
            Message::LeaveTold { fd, number } => self.attendance.leave_is_told(slot, fd, number),
            Message::Answer(number, answer) => self.answered(slot, number, answer),
            Message::Sockets(inputs) => {
                let sockets = self.peers[key].link.take_sockets();
                for (socket, input) in sockets.into_iter().zip(inputs) {
                    // The worker is leaving, and nothing has been requested on this connection yet.
                    let (socket, since) = (Arc::new(socket), self.now);
                    self.find_home(Handed { socket, since, input: input.to_vec() }, None);
                }
            }
            Message::Ready => {
                if let Some((_, worker)) = self.worker(slot)
                    && worker.stage == WorkerStage::Starting
                {
                    worker.stage = WorkerStage::Ready;
                    let worker_id = usize::from(worker.worker_id);
                    self.current[worker_id % WORKERS] = Some(slot);
                }
                self.extend_lease();
                self.desk.tell(HubEvent::Ready(slot));
            }
            Message::Leaving => {
                self.tell_to_leave(slot, Leave::Terminate);
                self.desk.tell(HubEvent::Leaving(slot));
            }
            Message::FewIds => {
                self.extend_lease();
            }
            Message::Watch(fd) => self.watch(slot, fd),
            Message::Unwatch(fd) => self.unwatch(slot, fd),
            // Only for its own connections: the worker that closes a connection reports its end.
            Message::Gone(fd) if Registry::slot_of(fd) == slot => self.tell_watchers(fd),
            Message::AwaitRoom { fd, host, slot: asker, .. } if asker == slot => match host {
                0 => self.pass_if_room(Registry::slot_of(fd), frame),
                _ => {
                    self.send_abroad(Registry::host_of(fd), frame);
                }
            },
            // Only for its own connections, too.
            Message::Room { fd, host, slot: asker } if Registry::slot_of(fd) == slot => match host {
                0 => self.pass_if_room(asker, frame),
                _ => {
                    self.send_abroad(host, frame);
                }
            },
            Message::Reload => self.desk.tell(HubEvent::Reload(slot)),
            Message::Shutdown => self.desk.tell(HubEvent::Shutdown(slot)),
            _ => return Err(Cut::Misbehaved),
        }
        Ok(())
    }

    fn hear_program(&mut self, key: usize, message: Message<'_>, frame: &[u8]) -> Result<(), Cut> {
        match message {
            Message::Command(Command::PipeMessage { .. }) => return Err(Cut::Misbehaved),
            Message::Command(command) if self.is_allowed(&command) => self.route(Origin::Program, &command, frame),
            Message::Ask(number, patience, question) => {
                let registry = &self.desk.registry;
                let answer = match question {
                    Question::Do(ref command @ Command::PipeMessage { .. })
                        if command.is_allowed(self.send_queue_size) =>
                    {
                        self.route_from_outside(command)
                    }
                    Question::Do(command) if command.is_allowed(self.send_queue_size) => {
                        self.ask_owner(key, number, patience, command);
                        return Ok(());
                    }
                    Question::Do(_) => return Err(Cut::Misbehaved),
                    Question::Subscribers(_)
                    | Question::Topics { .. }
                    | Question::Members { .. }
                    | Question::Presence { .. } => {
                        self.ask_interested(key, number, patience, &question);
                        return Ok(());
                    }
                    Question::History { .. } | Question::Forget(_) => {
                        self.ask_broker(key, number, &question);
                        return Ok(());
                    }
                    Question::Everywhere(question) => {
                        self.ask_everywhere(key, number, *question);
                        return Ok(());
                    }
                    Question::Hosts => Answer::Hosts(registry.hosts()),
                    // For workers only.
                    Question::Missed { .. } | Question::Join { .. } => return Err(Cut::Misbehaved),
                    Question::Stats => Answer::Stats(registry.stats().into()),
                    Question::Connections => Answer::Connections(registry.open_ids()),
                    Question::Info(fd) if registry.is_abroad(fd) => {
                        self.ask_host_of(fd, key, number, patience, question);
                        return Ok(());
                    }
                    Question::Info(fd) => Answer::Info(registry.info(fd).map(|info| (registry.worker_of(fd), info))),
                    Question::Flush => Answer::Done(true),
                    Question::Drain(time) => {
                        registry.set_draining();
                        self.desk.tell(HubEvent::Drain(time));
                        Answer::Done(true)
                    }
                };
                self.reply(key, number, answer);
            }
            _ => return Err(Cut::Misbehaved),
        }
        Ok(())
    }

    /// Whether a program may send this.
    fn is_allowed(&self, command: &Command<'_>) -> bool {
        let fits_topic = match command {
            Command::Publish { topic, publication, .. } => {
                let has_envelope = || self.topics.of(topic).is_some_and(|options| options.envelope);
                !has_envelope() || fits_envelope(topic, publication, self.send_queue_size)
            }
            Command::Subscribe { info: Some(info), .. } => serde_json::from_str::<Value>(info).is_ok(),
            _ => true,
        };
        fits_topic && command.is_allowed(self.send_queue_size)
    }

    /// Answers a peer.
    pub(super) fn reply(&mut self, key: usize, number: u64, answer: Answer) {
        if key == ABROAD {
            self.reply_to_host(number, answer);
            return;
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        let (limit, most) = match peer.kind {
            // A worker that reads nothing may be stopped, which is no reason to cut it off: it does not wait forever
            // for an answer.
            PeerKind::Worker(_) => (MAX_FOR_WORKER / 2, MAX_FOR_WORKER),
            // A program is not read while much is waiting for it, so short answers exceed the limit only slightly.
            PeerKind::Program(_) => (MAX_LISTS_FOR_PROGRAM, usize::MAX),
        };
        // Lists are long, and many of them may have been asked for.
        if !peer.link.send_within(&Message::Answer(number, answer), limit) {
            peer.link.send_within(&Message::Answer(number, Answer::Refused), most);
        }
    }
}

/// Whether a message can be put in an envelope, which is JSON of at most `limit` bytes.
fn fits_envelope(topic: &str, publication: &Publication<'_>, limit: usize) -> bool {
    let is_valid = match publication.content {
        Content::Binary => false,
        Content::Text => true,
        Content::Json => serde_json::from_slice::<&RawValue>(publication.payload).is_ok(),
    };
    is_valid && enveloped_len(topic, publication) <= limit
}
