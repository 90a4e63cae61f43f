//! The time as seen by a turn, and a coarse clock for what is needed at every message.

#[cfg(test)]
pub(crate) mod simulated;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(test)]
use crate::system::clock::simulated::SimulatedTime;

/// Nanoseconds since some moment that is the same for the whole process, as of the kernel's last tick. They may be some
/// milliseconds old, but cost a fraction of an exact reading.
#[inline]
pub fn coarse_now() -> u64 {
    coarsetime::Duration::from_ticks(coarsetime::Instant::now_without_cache_update().as_ticks()).as_nanos()
}

/// What a clock reads. Outside tests, there is only the system's time, and this takes no memory.
#[derive(Clone, Debug)]
pub(crate) enum TimeSource {
    System,
    #[cfg(test)]
    Simulated(SimulatedTime),
}

impl TimeSource {
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::System => Instant::now(),
            #[cfg(test)]
            Self::Simulated(time) => time.now(),
        }
    }

    fn system_now(&self) -> SystemTime {
        match self {
            Self::System => SystemTime::now(),
            #[cfg(test)]
            Self::Simulated(time) => time.system_now(),
        }
    }
}

/// Milliseconds since the reactor was created, and the same moment in Unix time and in HTTP's format.
pub(crate) struct Clock {
    source: TimeSource,
    started: Instant,
    turn: Instant,
    pub(crate) now: u64,
    pub(crate) unix: u64,
    date: (u64, String),
}

impl Clock {
    pub(crate) fn new(source: TimeSource) -> Self {
        let started = source.now();
        Self { source, started, turn: started, now: 0, unix: 0, date: (0, String::new()) }
    }

    /// What this clock reads.
    pub(crate) fn source(&self) -> TimeSource {
        self.source.clone()
    }

    pub(crate) fn begin_turn(&mut self) {
        self.turn = self.source.now();
        self.set(self.turn);
    }

    /// Microseconds since the reactor was created, read anew.
    pub(crate) fn exact(&self) -> u64 {
        self.source.now().duration_since(self.started).as_micros() as u64
    }

    /// How long this turn has taken so far.
    pub(crate) fn turn_time(&self) -> Duration {
        self.source.now().duration_since(self.turn)
    }

    /// A turn reads the clock once. Code that needs the exact time, or may run outside a turn, reads it again.
    pub(crate) fn read(&mut self) {
        self.set(self.source.now());
    }

    fn set(&mut self, now: Instant) {
        self.now = now.duration_since(self.started).as_millis() as u64;
        self.unix = self.source.system_now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    }

    /// The value of a Date header (RFC 9110 §6.6.1).
    pub(crate) fn date(&mut self) -> &str {
        let second = self.unix / 1000;
        if self.date.0 != second {
            self.date = (second, httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second)));
        }
        &self.date.1
    }
}
