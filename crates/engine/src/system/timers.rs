//! One wheel for all deadlines: a slot for each 16 ms of the next 16 s.
//!
//! A connection has at most one entry that counts, the one for the time stored in its `timer_at`. Moving its deadline
//! later changes nothing here; the entry is checked again when it comes up. So a message costs the wheel nothing. Times
//! are milliseconds on the reactor's clock.

use crate::system::table::Key;

/// Milliseconds per slot.
const TICK: u64 = 16;
const SLOTS: usize = 1024;
const WORDS: usize = SLOTS / 64;

/// An entry: the connection it belongs to, and the time it was set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Timer {
    pub(crate) key: Key,
    pub(crate) serial: u32,
    pub(crate) at: u64,
}

pub(crate) struct Wheel {
    slots: Box<[Vec<Timer>]>,
    /// One bit for each slot that holds an entry.
    used: [u64; WORDS],
    /// The first tick that has not been taken out yet.
    tick: u64,
    /// The last answer of [`Wheel::tell_next`]; `u64::MAX` if nothing was to come up.
    told: u64,
    /// When the first of the entries set since then comes up.
    first_set: u64,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        let slots = vec![Vec::new(); SLOTS].into();
        Self { slots, used: [0; WORDS], tick: 0, told: u64::MAX, first_set: u64::MAX }
    }

    /// Sets an entry. One beyond the horizon comes up at the horizon and is set again by its owner.
    pub(crate) fn set(&mut self, entry: Timer) {
        let tick = entry.at.div_ceil(TICK).clamp(self.tick, self.tick + SLOTS as u64 - 1);
        let slot = tick as usize % SLOTS;
        self.slots[slot].push(entry);
        self.used[slot / 64] |= 1 << (slot % 64);
        self.first_set = self.first_set.min(tick * TICK);
    }

    /// When the next entry comes up, so that the caller can set a timer for it.
    pub(crate) fn tell_next(&mut self) -> Option<u64> {
        let next = self.next();
        (self.told, self.first_set) = (next.unwrap_or(u64::MAX), u64::MAX);
        next
    }

    /// Whether an entry has been set that comes up earlier than the last answer.
    pub(crate) fn has_earlier(&self) -> bool {
        self.first_set < self.told
    }

    /// Moves everything due at `now` into `due`.
    pub(crate) fn take_due(&mut self, now: u64, due: &mut Vec<Timer>) {
        let last = now / TICK;
        if last < self.tick {
            return;
        }
        for tick in self.tick..=last.min(self.tick + SLOTS as u64 - 1) {
            let slot = tick as usize % SLOTS;
            if self.used[slot / 64] & (1 << (slot % 64)) != 0 {
                self.used[slot / 64] &= !(1 << (slot % 64));
                due.append(&mut self.slots[slot]);
                self.slots[slot].shrink_to(16);
            }
        }
        self.tick = last + 1;
    }

    /// When the next entry comes up, in milliseconds.
    fn next(&self) -> Option<u64> {
        let first = self.tick as usize % SLOTS;
        let (word, bit) = (first / 64, first % 64);
        for step in 0..=WORDS {
            let at = (word + step) % WORDS;
            let mut bits = self.used[at];
            if step == 0 {
                bits &= u64::MAX << bit;
            } else if step == WORDS {
                bits &= !(u64::MAX << bit);
            }
            if bits != 0 {
                let slot = at * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - first) % SLOTS;
                return Some((self.tick + ahead as u64) * TICK);
            }
        }
        None
    }
}

#[cfg(test)]
impl Wheel {
    /// All entries, also those that no longer count.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Timer> {
        self.slots.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: u32, at: u64) -> Timer {
        Timer { key: Key::from_bits(key), serial: 0, at }
    }

    #[test]
    fn nothing_comes_early_and_nothing_is_lost() {
        let mut wheel = Wheel::new();
        for key in 0..2_000 {
            wheel.set(entry(key, u64::from(key) * 7));
        }
        let (mut now, mut seen) = (0, 0);
        while let Some(at) = wheel.next() {
            now = now.max(at);
            let mut due = Vec::new();
            wheel.take_due(now, &mut due);
            for entry in due {
                assert!(entry.at <= now);
                assert!(now - entry.at < 2 * TICK);
                seen += 1;
            }
        }
        assert_eq!(seen, 2_000);
    }

    #[test]
    fn an_entry_beyond_the_horizon_comes_up_to_be_set_again() {
        let mut wheel = Wheel::new();
        wheel.set(entry(1, 60_000));
        let mut due = Vec::new();
        let at = wheel.next().expect("an entry");
        assert!(at < 60_000);
        wheel.take_due(at, &mut due);
        assert_eq!(due, [entry(1, 60_000)]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_long_pause_takes_everything() {
        let mut wheel = Wheel::new();
        wheel.set(entry(1, 100));
        wheel.set(entry(2, 16_000));
        let mut due = Vec::new();
        wheel.take_due(1_000_000, &mut due);
        assert_eq!(due.len(), 2);
        wheel.set(entry(3, 0));
        assert!(wheel.next().expect("an entry") > 1_000_000 - TICK);
    }

    #[test]
    fn only_what_comes_before_the_told_time_is_earlier() {
        let mut wheel = Wheel::new();
        assert!(!wheel.has_earlier());
        wheel.set(entry(0, 5_000));
        assert!(wheel.has_earlier());
        let told = wheel.tell_next();
        assert!(told.is_some() && !wheel.has_earlier());
        wheel.set(entry(1, 6_000));
        assert!(!wheel.has_earlier());
        wheel.set(entry(2, 1_000));
        assert!(wheel.has_earlier());
        assert!(wheel.tell_next() < told);
        assert!(!wheel.has_earlier());
    }
}
