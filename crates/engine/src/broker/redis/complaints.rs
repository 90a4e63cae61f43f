//! What goes wrong again and again, told now and then. No I/O: the time is an argument.

use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(10);
/// The longest text from Redis that is passed on.
const MAX_TEXT: usize = 200;

/// One thing that goes wrong.
#[derive(Default)]
struct Complaint {
    count: u64,
    told_at: Option<Instant>,
}

impl Complaint {
    /// Counts it. Returns how often it went wrong since it was told, if it is time to tell.
    fn add(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.told_at.is_some_and(|at| now < at + INTERVAL) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Complaints {
    strangers: Complaint,
    refusals: Complaint,
}

impl Complaints {
    /// Somebody has published what no server of this kind would. Returns a line for the log, if it is time for one.
    pub(super) fn stranger(&mut self, channel: &[u8], now: Instant) -> Option<String> {
        let count = self.strangers.add(now)?;
        let channel = String::from_utf8_lossy(channel);
        Some(match count {
            1 => format!("a message in Redis, on channel {channel:?}, was not from a Hubbub server"),
            _ => {
                format!("{count} messages in Redis were not from a Hubbub server, the last one on channel {channel:?}")
            }
        })
    }

    /// Redis has refused a command.
    pub(super) fn refusal(&mut self, text: &str, now: Instant) -> Option<String> {
        let count = self.refusals.add(now)?;
        let text: String = text.chars().take(MAX_TEXT).collect();
        Some(match count {
            1 => format!("Redis refused a command: {text}"),
            _ => format!("Redis refused {count} commands, the last one with: {text}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_not_flooded_and_nothing_is_uncounted() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        assert!(complaints.refusal("OOM", now).is_some_and(|line| line.contains("refused a command: OOM")));
        assert!((0..99).all(|_| complaints.refusal("OOM", now).is_none()));
        assert!(complaints.stranger(b"c\xff", now).is_some());
        assert!(complaints.refusal("OOM", now + INTERVAL).is_some_and(|line| line.contains("refused 100 ")));
    }
}
