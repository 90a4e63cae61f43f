//! The link's thread: two connections, and what goes through them.

use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use redis_protocol::resp3::types::RangeFrame;

use super::connection::{Connection, malformed};
use super::desk::{Desk, Orders};
use super::greeting::{Failure, Ready, quoted};
use super::input::{CHUNK, Frame};
use super::interest::{Confirmed, Interest};
use super::pipeline::{Pipeline, Sent};
use super::pulse::{Condition, Pulse, Verdict};
use super::report::Report;
use super::resolver::Resolver;
use super::resp;
use crate::settings::BrokerSettings;

pub(super) const WOKEN: Token = Token(0);
const COMMANDS: Token = Token(1);
const MESSAGES: Token = Token(2);

/// Reads of one connection in a turn, of [`CHUNK`] each, and bytes that are written to it.
const READS_PER_TURN: usize = 16;
const WRITTEN_PER_TURN: usize = READS_PER_TURN * CHUNK;
/// Commands of subscription that wait in this program; the others are not made yet.
const MAX_OUTPUT: usize = 256 * 1024;
/// The longest sleep.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long what is queued may take when the link ends.
const CLOSING: Duration = Duration::from_millis(200);

/// See the module documentation.
pub(super) struct Thread {
    desk: Arc<Desk>,
    poll: Poll,
    resolver: Resolver,
    orders: Orders,
    report: Report,
    commands: Connection,
    pipeline: Pipeline,
    messages: Connection,
    interest: Interest,
    pulse: Pulse,
    /// The channel of this link's probes, and whether it is subscribed.
    probes: Box<[u8]>,
    takes_probes: bool,
    /// Whether the connection for messages was usable before, and whether its channels are to be subscribed again.
    was_subscribed: bool,
    is_renewing: bool,
    /// Whether messages are not read because the hub has not heard those before.
    is_held_up: bool,
    max_unheard: usize,
    /// The last reason that was told, since both connections were usable.
    told: Option<String>,
    /// Whether it was told that Redis refuses to end lost connections.
    is_refusal_told: bool,
    /// Whether there is more to do than fits into a turn.
    has_more: bool,
}

impl Thread {
    pub(super) fn new(desk: Arc<Desk>, poll: Poll, settings: &BrokerSettings) -> Self {
        let now = Instant::now();
        let address = Arc::new(settings.address.clone());
        Self {
            resolver: Resolver::new(Arc::clone(&desk)),
            desk,
            poll,
            orders: Orders::default(),
            report: Report::default(),
            commands: Connection::new(COMMANDS, "hubbub-commands", Arc::clone(&address), now),
            pipeline: Pipeline::default(),
            messages: Connection::new(MESSAGES, "hubbub-messages", address, now),
            interest: Interest::default(),
            pulse: Pulse::new(now),
            probes: probes_channel(&settings.prefix),
            takes_probes: false,
            was_subscribed: false,
            is_renewing: false,
            is_held_up: false,
            max_unheard: settings.queue_size,
            told: None,
            is_refusal_told: false,
            has_more: false,
        }
    }

    pub(super) fn run(mut self) {
        let desk = Arc::clone(&self.desk);
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.turn_until_closed())).is_err() {
            let mut report = Report::default();
            report.unusable("the link to Redis has failed, which is a bug in Hubbub");
            desk.report(&mut report);
        }
    }

    fn turn_until_closed(&mut self) {
        let mut events = Events::with_capacity(8);
        let mut close_at = None;
        loop {
            let wait = if self.has_more { Some(Duration::ZERO) } else { self.wait(close_at) };
            if self.poll.poll(&mut events, wait).is_err() {
                events.clear();
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    COMMANDS => self.commands.note(event),
                    MESSAGES => self.messages.note(event),
                    _ => {}
                }
            }
            self.has_more = false;
            let is_closing = self.take_orders();
            self.turn(now);
            self.desk.report(&mut self.report);
            if is_closing {
                let close_at = *close_at.get_or_insert(now + CLOSING);
                if now >= close_at || !self.commands.is_usable() || self.pipeline.is_idle() {
                    break;
                }
            }
        }
        self.commands.lose(false, Instant::now(), self.poll.registry());
        self.messages.lose(false, Instant::now(), self.poll.registry());
    }

    fn wait(&self, close_at: Option<Instant>) -> Option<Duration> {
        let now = Instant::now();
        let connections = self.commands.next_deadline().into_iter().chain(self.messages.next_deadline());
        let pulse = self.pulse.check(self.condition(), now).1;
        let deadlines = connections.chain(self.pipeline.next_expiry()).chain(pulse).chain(close_at);
        let first = deadlines.min().map(|at| at.saturating_duration_since(now));
        Some(first.map_or(LOOK_AGAIN, |first| first.min(LOOK_AGAIN)))
    }

    /// Returns whether these are the last orders.
    fn take_orders(&mut self) -> bool {
        let is_closing = self.desk.take_orders(&mut self.orders);
        let Orders { bytes, commands, channels } = &mut self.orders;
        if !commands.is_empty() {
            self.pipeline.append(bytes, commands);
        }
        for (name, is_wanted) in channels.drain(..) {
            self.interest.change(&name, is_wanted);
        }
        is_closing
    }

    fn turn(&mut self, now: Instant) {
        if let Err(failure) = self.serve_commands(now) {
            self.lose_commands(failure, now);
        }
        if let Err(failure) = self.serve_messages(now) {
            self.lose_messages(failure, now);
        }
        self.judge(now);
    }

    // ---- commands ---------------------------------------------------------------------------------------------------

    fn serve_commands(&mut self, now: Instant) -> Result<(), Failure> {
        if let Some(Ready { identity, refusal }) = self.commands.advance(now, self.poll.registry(), &self.resolver)? {
            self.tell_refusal(refusal);
            self.report.connected(&identity.run_id);
            self.told = None;
        }
        let read = if self.commands.is_usable() { self.read_replies(now) } else { Ok(()) };
        let report = &mut self.report;
        self.pipeline.expire(now, |tag, size| report.lost(tag, size));
        read?;
        if self.commands.is_usable() { self.write_commands(now) } else { Ok(()) }
    }

    fn read_replies(&mut self, now: Instant) -> Result<(), Failure> {
        for _ in 0..READS_PER_TURN {
            while let Some(frame) = self.commands.input.next().map_err(malformed)? {
                let Frame { decoded, bytes } = &frame;
                if matches!(decoded, RangeFrame::Push { .. }) {
                    return Err(malformed("a message where there are only replies"));
                }
                self.pulse.replied(now);
                let sent = self.pipeline.answered().ok_or_else(|| malformed("a reply to no command"))?;
                if let Sent::Ordered { tag, size } = sent {
                    self.report.reply(tag, size, decoded, bytes);
                }
                if let Some(error) = resp::error(decoded, bytes) {
                    check(error)?;
                    if sent == Sent::Own {
                        return Err(Failure::Unusable(format!("Redis refuses to publish: {}", quoted(error))));
                    }
                }
            }
            if !self.commands.fill()? {
                return Ok(());
            }
        }
        self.has_more = true;
        Ok(())
    }

    fn write_commands(&mut self, now: Instant) -> Result<(), Failure> {
        let mut written = 0;
        loop {
            let next = self.pipeline.next();
            if next.is_empty() {
                break;
            }
            if written >= WRITTEN_PER_TURN {
                self.has_more = true;
                break;
            }
            let count = self.commands.write(next)?;
            if count == 0 {
                break;
            }
            if !self.pipeline.awaits_reply() {
                self.pulse.replied(now);
            }
            self.pipeline.sent(count);
            written += count;
        }
        self.commands.write(&[]).map(|_| ())
    }

    fn lose_commands(&mut self, failure: Failure, now: Instant) {
        self.tell_failure(&failure);
        self.commands.lose(matches!(failure, Failure::Unusable(_)), now, self.poll.registry());
        let report = &mut self.report;
        self.pipeline.lose(|tag, size| report.lost(tag, size));
        self.pulse.forget_probe();
    }

    // ---- messages ---------------------------------------------------------------------------------------------------

    fn serve_messages(&mut self, now: Instant) -> Result<(), Failure> {
        if let Some(Ready { refusal, .. }) = self.messages.advance(now, self.poll.registry(), &self.resolver)? {
            self.tell_refusal(refusal);
            self.pulse.heard(now);
            self.interest.begin();
            self.is_renewing = std::mem::replace(&mut self.was_subscribed, true);
            resp::encode(&[b"SUBSCRIBE", &self.probes], &mut self.messages.output);
        }
        if !self.messages.is_usable() {
            return Ok(());
        }
        self.read_messages(now)?;
        self.interest.ask(&mut self.messages.output, MAX_OUTPUT);
        self.messages.write_output()?;
        if self.messages.output.is_empty() && !self.interest.has_asked_all() {
            self.has_more = true;
        }
        Ok(())
    }

    fn read_messages(&mut self, now: Instant) -> Result<(), Failure> {
        for _ in 0..READS_PER_TURN {
            while let Some(frame) = self.messages.input.next().map_err(malformed)? {
                self.pulse.heard(now);
                let Frame { decoded, bytes } = &frame;
                if let Some(error) = resp::error(decoded, bytes) {
                    check(error)?;
                    return Err(Failure::Unusable(format!("Redis refuses a subscription: {}", quoted(error))));
                }
                let strange = || malformed("something else than messages");
                let RangeFrame::Push { data, .. } = decoded else { return Err(strange()) };
                let mut texts = data.iter().map(|part| resp::text(part, bytes));
                let (kind, channel) = (texts.next().flatten(), texts.next().flatten());
                match (kind, channel, texts.next().flatten()) {
                    (Some(b"message"), Some(channel), Some(_)) if *channel == *self.probes => {}
                    (Some(b"message"), Some(channel), Some(payload)) => self.report.message(channel, payload),
                    (Some(b"subscribe"), Some(channel), _) if *channel == *self.probes => self.takes_probes = true,
                    (Some(b"subscribe"), Some(channel), _) => match self.interest.confirm(channel) {
                        Confirmed::Subscribed => self.report.subscribed(channel),
                        Confirmed::Nothing => {}
                        Confirmed::Unexpected => return Err(strange()),
                    },
                    (Some(b"unsubscribe"), Some(_), _) => {}
                    _ => return Err(strange()),
                }
            }
            if self.takes_probes && self.interest.is_renewed() {
                if std::mem::take(&mut self.is_renewing) {
                    self.report.resubscribed();
                }
                self.told = self.told.take().filter(|_| !self.commands.is_usable());
            }
            let was_held_up = self.is_held_up;
            self.is_held_up = self.desk.is_full(self.report.messages(), self.max_unheard);
            if self.is_held_up || was_held_up {
                // Silence proves nothing while nobody listens.
                self.pulse.heard(now);
            }
            if self.is_held_up || !self.messages.fill()? {
                return Ok(());
            }
        }
        self.has_more = true;
        Ok(())
    }

    fn lose_messages(&mut self, failure: Failure, now: Instant) {
        self.tell_failure(&failure);
        self.messages.lose(matches!(failure, Failure::Unusable(_)), now, self.poll.registry());
        (self.takes_probes, self.is_held_up) = (false, false);
    }

    // ---- both -------------------------------------------------------------------------------------------------------

    fn condition(&self) -> Condition {
        let takes_messages = self.messages.is_usable() && !self.is_held_up;
        Condition {
            takes_commands: self.commands.is_usable(),
            awaits_reply: self.pipeline.awaits_reply(),
            takes_messages,
            awaits_confirmation: !self.takes_probes || self.interest.awaits_confirmation(),
            takes_probes: self.takes_probes,
        }
    }

    /// Looks whether the connections are alive. What has arrived was read before.
    fn judge(&mut self, now: Instant) {
        match self.pulse.check(self.condition(), now).0 {
            Verdict::Fine => {}
            Verdict::SendProbe => {
                self.pipeline.append_own(&[b"PUBLISH", &self.probes, b""]);
                self.pulse.probed(now);
                self.has_more = true;
            }
            Verdict::ProbeLost => {
                let failure = Failure::Lost("Redis has passed nothing on for 4 s, not even our own message".into());
                self.lose_messages(failure.clone(), now);
                self.lose_commands(failure, now);
            }
            Verdict::NoReply => {
                self.lose_commands(Failure::Lost("Redis has not replied to a command for 4 s".into()), now);
            }
            Verdict::NoConfirmation => {
                self.lose_messages(Failure::Lost("Redis has not confirmed a subscription for 4 s".into()), now);
            }
        }
    }

    /// Tells of a failure, unless it is the one that was told last.
    fn tell_failure(&mut self, failure: &Failure) {
        let (Failure::Lost(reason) | Failure::Unusable(reason)) = failure;
        if self.told.as_ref() == Some(reason) {
            return;
        }
        match failure {
            Failure::Lost(reason) => self.report.disconnected(reason),
            Failure::Unusable(reason) => self.report.unusable(reason),
        }
        self.told = Some(reason.clone());
    }

    /// Tells once that Redis refuses to end lost connections.
    fn tell_refusal(&mut self, refusal: Option<String>) {
        if let Some(refusal) = refusal.filter(|_| !self.is_refusal_told) {
            self.is_refusal_told = true;
            let what = "Redis refuses to end a connection that was lost";
            let why = "so commands that were sent there may be executed after later ones";
            self.report.warning(&format!("{what}, {why}; the user needs +client|kill: {refusal}"));
        }
    }
}

/// Whether a server that replies with this error can still be used: after a failover, the one that we know is a replica.
fn check(error: &[u8]) -> Result<(), Failure> {
    let code = error.split(|byte| *byte == b' ').next().unwrap_or_default();
    match code {
        b"READONLY" | b"LOADING" | b"MASTERDOWN" | b"NOAUTH" => {
            Err(Failure::Lost(format!("Redis cannot be used any longer: {}", quoted(error))))
        }
        b"MOVED" | b"ASK" | b"CROSSSLOT" | b"CLUSTERDOWN" => {
            let what = "is a part of a Redis Cluster, which cannot be the broker";
            Err(Failure::Unusable(format!("Redis {what}: {}", quoted(error))))
        }
        _ => Ok(()),
    }
}

/// A name that no other link has, on any host.
fn probes_channel(prefix: &str) -> Box<[u8]> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // The keys of these are random.
    let [one, other] =
        [RandomState::new(), RandomState::new()].map(|random| random.hash_one((count, std::process::id())));
    format!("{prefix}:probe:{one:016x}{other:016x}").into_bytes().into()
}
