//! Whether the connections are alive. No I/O here.
//!
//! Packets may be dropped silently in either direction of either connection, or Redis may stand still; then nothing
//! arrives, and no error either. So a probe goes the whole way now and then: it is published on one connection and
//! arrives on the other.

use std::time::{Duration, Instant};

/// Without a message for so long, a probe is sent.
const SILENCE: Duration = Duration::from_secs(2);
/// The probe has so long to arrive.
const ECHO: Duration = Duration::from_secs(2);
/// The longest time without any reply while one is awaited.
const OVERDUE: Duration = Duration::from_secs(4);

/// What is known of the connections.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Condition {
    /// Whether commands are sent, and whether a reply is awaited.
    pub(super) takes_commands: bool,
    pub(super) awaits_reply: bool,
    /// Whether messages are read, whether a confirmation is awaited there, and whether the probes' channel is subscribed.
    pub(super) takes_messages: bool,
    pub(super) awaits_confirmation: bool,
    pub(super) takes_probes: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    SendProbe,
    /// A probe has not arrived. Either connection may be the cause.
    ProbeLost,
    NoReply,
    NoConfirmation,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When something has last arrived with messages, or could have.
    heard_at: Instant,
    probed_at: Option<Instant>,
    /// When the last reply has arrived, or the first command was sent after it.
    replied_at: Instant,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { heard_at: now, probed_at: None, replied_at: now }
    }

    /// Something has arrived with messages, or nothing was read for a reason of ours.
    pub(super) fn heard(&mut self, now: Instant) {
        (self.heard_at, self.probed_at) = (now, None);
    }

    /// A reply has arrived, or the first command was sent of which one is awaited.
    pub(super) fn replied(&mut self, now: Instant) {
        self.replied_at = now;
    }

    pub(super) fn probed(&mut self, now: Instant) {
        self.probed_at = Some(now);
    }

    /// The connection for commands is another: a probe may be lost with the one before.
    pub(super) fn forget_probe(&mut self) {
        self.probed_at = None;
    }

    /// The verdict, and when to ask again.
    pub(super) fn check(&self, condition: Condition, now: Instant) -> (Verdict, Option<Instant>) {
        let Condition { takes_commands, awaits_reply, takes_messages, awaits_confirmation, takes_probes } = condition;
        let probe = match self.probed_at {
            Some(at) => (at + ECHO, Verdict::ProbeLost),
            None => (self.heard_at + SILENCE, Verdict::SendProbe),
        };
        let tests = [
            (takes_commands && takes_messages && takes_probes).then_some(probe),
            (takes_messages && awaits_confirmation).then_some((self.heard_at + OVERDUE, Verdict::NoConfirmation)),
            (takes_commands && awaits_reply).then_some((self.replied_at + OVERDUE, Verdict::NoReply)),
        ];
        let tests = || tests.iter().flatten();
        let verdict = tests().find(|(at, _)| now >= *at).map_or(Verdict::Fine, |(_, verdict)| *verdict);
        (verdict, tests().map(|(at, _)| *at).min())
    }
}

#[cfg(test)]
mod tests;
