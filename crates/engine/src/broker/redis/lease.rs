//! The number of this host, from its claim until it is given back or lost. No I/O: the time is an argument.

use std::time::{Duration, Instant};

use crate::registry::{COUNTER, ticks};

/// How long a number is this host's without a renewal.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// Time between renewals, and until a command is given again if there is no reply.
const RENEWAL: Duration = Duration::from_secs(3);
/// How much earlier this host stops to rely on its lease: clocks may go at different speeds.
const MARGIN: Duration = Duration::from_secs(5);
/// Time until a command is given again that has failed.
const RETRY: Duration = Duration::from_secs(1);

/// How a host proves that a number is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn new(random: u128) -> Self {
        Self(format!("{random:032x}"))
    }

    /// The token with this text, which [`Token::text`] returned.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_token = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_token.then(|| Self(text.to_owned()))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

/// Now, on two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) at: Instant,
    /// Milliseconds of the boot clock, which goes on while the machine sleeps.
    pub(super) boot: u64,
}

/// What is to be asked of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Claim,
    Renew(u8),
    /// Remove the members that were left under this number.
    Clear(u8),
    /// Note up to where counters may be given out.
    Raise(u8, u64),
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// This number is this host's; it is not used yet.
    Claimed(u8),
    /// From now on it is.
    Numbered {
        host: u8,
        above: u64,
    },
    /// It is this host's until then, by the boot clock.
    Held(u64),
    Leased(u64),
    /// This number is not this host's any longer.
    Unclaimed(u8),
    /// And it was used.
    Fenced,
    /// The members of this host have to join again.
    Emptied,
    /// All numbers are taken.
    NoneLeft,
}

/// Where this host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unnumbered,
    /// It has a number, but members of an earlier holder may be left, or it does not hear what is sent to it.
    Settling {
        host: u8,
        above: u64,
        until: u64,
        is_clear: bool,
        is_heard: bool,
    },
    /// `until` is when the number stops being certain. That is told once there are counters in its name: until then,
    /// ids would still have the host's earlier number.
    Settled {
        host: u8,
        until: u64,
        is_leased: bool,
    },
    /// It has given its number back.
    Gone,
}

/// See the module documentation.
pub(super) struct Lease {
    pub(super) token: Token,
    /// The number before this process was started.
    former: Option<(u8, Token)>,
    /// The highest counter that this host may have given out under any number.
    own_top: u64,
    /// The highest counter of any host.
    highest: u64,
    stage: Stage,
    /// When to ask next, for each wish.
    claim_at: Option<Instant>,
    renew_at: Option<Instant>,
    clear_at: Option<Instant>,
    raise_at: Option<Instant>,
    wanted: u64,
    is_connected: bool,
}

impl Lease {
    /// `own_top`: the highest counter that this host may have given out so far.
    pub(super) fn new(token: Token, former: Option<(u8, Token)>, own_top: u64) -> Self {
        Self {
            token,
            former,
            own_top,
            highest: own_top,
            stage: Stage::Unnumbered,
            claim_at: None,
            renew_at: None,
            clear_at: None,
            raise_at: None,
            wanted: 0,
            is_connected: false,
        }
    }

    /// The number, once it is used.
    pub(super) fn host(&self) -> Option<u8> {
        match self.stage {
            Stage::Settled { host, .. } => Some(host),
            _ => None,
        }
    }

    fn number(&self) -> Option<u8> {
        match self.stage {
            Stage::Settling { host, .. } | Stage::Settled { host, .. } => Some(host),
            Stage::Unnumbered | Stage::Gone => None,
        }
    }

    /// The number and the token before; the token is empty if there was none.
    pub(super) fn former(&self) -> (u8, &str) {
        self.former.as_ref().map_or((0, ""), |(number, token)| (*number, token.text()))
    }

    /// The highest counters that this host, and any host, may have given out.
    pub(super) fn tops(&self) -> (u64, u64) {
        (self.own_top, self.highest.max(self.own_top))
    }

    /// Redis can be asked again, or for the first time.
    pub(super) fn connected(&mut self, now: Now) {
        self.is_connected = true;
        match self.stage {
            Stage::Unnumbered => self.claim_at = Some(now.at),
            Stage::Settling { .. } | Stage::Settled { .. } => self.renew_at = Some(now.at),
            Stage::Gone => {}
        }
        for at in [&mut self.clear_at, &mut self.raise_at].into_iter().flatten() {
            *at = now.at;
        }
    }

    /// Redis cannot be asked for now.
    pub(super) fn disconnected(&mut self) {
        self.is_connected = false;
    }

    /// Counters up to this one are wanted.
    pub(super) fn want(&mut self, up_to: u64, now: Now) {
        self.wanted = self.wanted.max(up_to);
        self.raise_at = Some(now.at);
    }

    /// What was put in Redis in this host's name is not what it should be.
    /// Returns false if that cannot be put right yet.
    pub(super) fn doubt_members(&mut self, now: Now) -> bool {
        let can = self.is_connected && matches!(self.stage, Stage::Settled { .. });
        if can {
            self.clear_at.get_or_insert(now.at);
        }
        // There are no members before.
        can || self.number().is_none()
    }

    /// The number is given back. Returns it.
    pub(super) fn leave(&mut self) -> Option<u8> {
        let number = self.number();
        self.stage = Stage::Gone;
        (self.claim_at, self.renew_at, self.clear_at, self.raise_at) = (None, None, None, None);
        number
    }

    /// When [`Lease::next`] has a wish.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.is_connected {
            return None;
        }
        let raise_at = self.raise_at.filter(|_| self.host().is_some());
        [self.claim_at, self.renew_at, self.clear_at, raise_at].into_iter().flatten().min()
    }

    /// What to ask now, if anything. It is asked again after a while, unless a reply arrives.
    pub(super) fn next(&mut self, now: Now) -> Option<Wish> {
        if !self.is_connected {
            return None;
        }
        let is_due = |at: &mut Option<Instant>| {
            let is_due = at.is_some_and(|at| at <= now.at);
            if is_due {
                *at = Some(now.at + RENEWAL);
            }
            is_due
        };
        let Some(host) = self.number() else { return is_due(&mut self.claim_at).then_some(Wish::Claim) };
        if is_due(&mut self.renew_at) {
            return Some(Wish::Renew(host));
        }
        if is_due(&mut self.clear_at) {
            return Some(Wish::Clear(host));
        }
        let is_settled = self.host().is_some();
        (is_settled && is_due(&mut self.raise_at)).then_some(Wish::Raise(host, self.wanted))
    }

    /// A wish was not fulfilled.
    pub(super) fn failed(&mut self, wish: Wish, now: Now) {
        let at = match wish {
            Wish::Claim => &mut self.claim_at,
            Wish::Renew(_) => &mut self.renew_at,
            Wish::Clear(_) => &mut self.clear_at,
            Wish::Raise(..) => &mut self.raise_at,
        };
        if let Some(at) = at {
            *at = (*at).min(now.at + RETRY);
        }
    }

    /// The reply to [`Wish::Claim`], which was asked at `asked` by the boot clock: a number or 0, the counters that were
    /// given out in its name and in all names, and Redis's Unix time in milliseconds.
    pub(super) fn claimed(&mut self, reply: [u64; 4], asked: u64, now: Now) -> Option<Change> {
        let [number, top, floor, unix] = reply;
        if self.stage != Stage::Unnumbered {
            return None;
        }
        let Some(host) = u8::try_from(number).ok().filter(|host| *host != 0) else {
            return Some(Change::NoneLeft);
        };
        // A clock that is ahead of all possible counters says nothing.
        let clock = Some(ticks(unix)).filter(|clock| *clock < COUNTER).unwrap_or(0);
        let above = top.max(floor).max(clock).max(self.own_top);
        self.stage = Stage::Settling { host, above, until: until(asked), is_clear: false, is_heard: false };
        (self.claim_at, self.raise_at) = (None, None);
        self.renew_at = Some(now.at + RENEWAL);
        self.clear_at = Some(now.at);
        Some(Change::Claimed(host))
    }

    /// Messages for this number are heard from now on.
    pub(super) fn heard(&mut self, number: u8, tell: &mut dyn FnMut(Change)) {
        if let Stage::Settling { host, is_heard, .. } = &mut self.stage
            && *host == number
        {
            *is_heard = true;
            self.settle(tell);
        }
    }

    /// The reply to [`Wish::Clear`]. `state`: 1 if nothing is left, 2 if something may be, 0 if the number is another
    /// host's.
    pub(super) fn cleared(&mut self, number: u8, state: u64, now: Now, tell: &mut dyn FnMut(Change)) {
        if self.number() != Some(number) || self.clear_at.is_none() {
            return;
        }
        match state {
            1 => {
                self.clear_at = None;
                match &mut self.stage {
                    Stage::Settling { is_clear, .. } => *is_clear = true,
                    _ => tell(Change::Emptied),
                }
                self.settle(tell);
            }
            2 => self.clear_at = Some(now.at),
            _ => self.renew_at = Some(now.at),
        }
    }

    fn settle(&mut self, tell: &mut dyn FnMut(Change)) {
        if let Stage::Settling { host, above, until, is_clear: true, is_heard: true } = self.stage {
            self.stage = Stage::Settled { host, until, is_leased: false };
            self.own_top = self.own_top.max(above);
            tell(Change::Numbered { host, above });
        }
    }

    /// The reply to [`Wish::Renew`], which was asked at `asked` by the boot clock. `state`: 1 if the number is this
    /// host's, 2 if Redis had lost that, 0 if this host counts as dead. `highest`: the highest counter of any host.
    pub(super) fn renewed(
        &mut self,
        number: u8,
        [state, highest]: [u64; 2],
        asked: u64,
        now: Now,
        tell: &mut dyn FnMut(Change),
    ) {
        if self.number() != Some(number) {
            return;
        }
        self.highest = self.highest.max(highest.min(COUNTER));
        if state == 0 {
            let was_used = matches!(self.stage, Stage::Settled { .. });
            (self.stage, self.former) = (Stage::Unnumbered, None);
            (self.renew_at, self.clear_at, self.raise_at) = (None, None, None);
            self.claim_at = Some(now.at);
            self.wanted = 0;
            tell(Change::Unclaimed(number));
            if was_used {
                tell(Change::Fenced);
            }
            return;
        }
        let is_leased = matches!(self.stage, Stage::Settled { is_leased: true, .. });
        if let Stage::Settling { until: held, .. } | Stage::Settled { until: held, .. } = &mut self.stage {
            *held = (*held).max(until(asked));
        }
        if is_leased {
            if state == 2 {
                tell(Change::Emptied);
            }
            tell(Change::Held(until(asked)));
        }
    }

    /// The reply to [`Wish::Raise`].
    pub(super) fn raised(&mut self, number: u8, up_to: u64, is_done: bool, now: Now, tell: &mut dyn FnMut(Change)) {
        if self.host() != Some(number) || self.raise_at.is_none() {
            return;
        }
        if !is_done {
            self.renew_at = Some(now.at);
            return;
        }
        self.own_top = self.own_top.max(up_to);
        if up_to >= self.wanted {
            self.raise_at = None;
        }
        tell(Change::Leased(up_to));
        if let Stage::Settled { until, is_leased, .. } = &mut self.stage
            && !std::mem::replace(is_leased, true)
        {
            tell(Change::Held(*until));
        }
    }
}

/// Until when a number can be relied on that was claimed or renewed by a command of that time.
fn until(asked: u64) -> u64 {
    asked + (LEASE - MARGIN).as_millis() as u64
}
