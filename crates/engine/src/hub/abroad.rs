//! What a host knows of the others, and has to tell them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::interest::Interests;
use crate::registry::MAX_HOST_NAME;
use crate::settings::BrokerSettings;

/// How often hosts tell one another about themselves.
pub(super) const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// The same for one that does not listen, as the broker says.
pub(super) const ABSENT_AFTER: Duration = Duration::from_secs(5);

/// See the module documentation.
pub(super) struct Abroad {
    pub(super) name: Box<str>,
    /// Whether what is sent arrives, as far as is known; and since when.
    pub(super) is_open: bool,
    pub(super) opened_at: Instant,
    /// The number that this host is about to have, and the counter above which its ids are new.
    pub(super) claimed: Option<(u8, u64)>,
    /// The counter up to which the broker was asked for ids.
    pub(super) asked_up_to: u64,
    /// When this host told about itself, and when each other one did.
    pub(super) told_at: Option<Instant>,
    pub(super) heard_at: BTreeMap<u8, Instant>,
    pub(super) interests: Interests,
    /// Frames for other hosts that wait until the broker can be asked.
    pub(super) waiting: Vec<(u8, Vec<u8>)>,
    pub(super) waiting_bytes: usize,
    /// What was heard and has to be dealt with when the broker can be asked.
    pub(super) is_emptied: bool,
    /// Messages on our channels that no host has sent.
    pub(super) garbage: u64,
}

impl Abroad {
    pub(super) fn new(settings: &BrokerSettings, now: Instant) -> Self {
        let mut end = settings.name.len().min(MAX_HOST_NAME);
        while !settings.name.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            name: settings.name[..end].into(),
            is_open: false,
            opened_at: now,
            claimed: None,
            asked_up_to: 0,
            told_at: None,
            heard_at: BTreeMap::new(),
            interests: Interests::default(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            is_emptied: false,
            garbage: 0,
        }
    }

    /// Whether a host was heard from not long ago, or could not have been.
    pub(super) fn is_fresh(&self, host: u8, now: Instant) -> bool {
        let heard_at = self.heard_at.get(&host).copied().unwrap_or(self.opened_at);
        now.duration_since(heard_at.max(self.opened_at)) < ABSENT_AFTER
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let tell = self.told_at.map(|at| at + TELL_INTERVAL);
        tell.into_iter().chain(self.interests.next_deadline()).min()
    }
}
