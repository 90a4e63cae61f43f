//! Whether the workers' event loops are running.
//!
//! A worker counts its turns in shared memory. A worker that has run none since the last check is sent
//! [`Message::Wake`], which makes it run a turn; if it runs none for `stuck_after`, it is stuck. So neither an idle nor
//! a busy worker is mistaken for a stuck one, and messages pay nothing for this.

use std::sync::Arc;
use std::time::Duration;

use super::desk::HubEvent;
use super::peer::WorkerStage;
use super::thread::Routing;
use crate::language::message::Message;
use crate::registry::{SLOTS, Stuck};

/// A worker's own watchdog knows where it is stuck, and is given this much longer, plus one interval, to report it.
const WATCHDOG_GRACE: Duration = Duration::from_secs(1);

impl Routing {
    /// Checks, when it is time, whether the workers are running.
    pub(super) fn look_at_workers(&mut self) {
        let (now, Some(stuck_after), Some(interval)) = (self.now, self.looks.stuck_after, self.looks.interval()) else {
            return;
        };
        let since_last = now.duration_since(self.looks.last);
        if since_last < interval {
            return;
        }
        self.looks.last = now;
        // This process was stopped itself, and what it requested then may not have been sent.
        let has_slept = since_last > interval * 4 + WATCHDOG_GRACE;
        let desk = Arc::clone(&self.desk);
        for slot in 0..SLOTS as u8 {
            let Some((link, worker)) = self.worker(slot) else { continue };
            let (row, is_ready) = (desk.registry.slot(slot), worker.stage == WorkerStage::Ready);
            let pulse = &mut worker.pulse;
            let turns = row.measured.count_turns();
            if turns != pulse.turns {
                let was_stuck = std::mem::take(&mut pulse.is_stuck);
                (pulse.turns, pulse.silent_since) = (turns, None);
                if was_stuck && row.stuck.change(Stuck::SaidByHub, Stuck::No) {
                    desk.tell(HubEvent::Moves(slot));
                }
                continue;
            }
            if worker.stage == WorkerStage::Starting {
                // It runs no turns yet, so its own report is all there is to go by.
                let is_stuck = row.stuck.is_set();
                if is_stuck && !pulse.is_stuck {
                    desk.tell(HubEvent::Stuck { slot, is_news: false });
                }
                pulse.is_stuck = is_stuck;
            }
            // A worker that is leaving has other deadlines.
            if pulse.is_stuck || !is_ready {
                continue;
            }
            match pulse.silent_since {
                Some(since) if !has_slept => {
                    if now.duration_since(since) > stuck_after + interval + WATCHDOG_GRACE {
                        pulse.is_stuck = true;
                        let is_news = row.stuck.change(Stuck::No, Stuck::SaidByHub);
                        desk.tell(HubEvent::Stuck { slot, is_news });
                    }
                }
                _ => {
                    pulse.silent_since = Some(now);
                    // If something is waiting on the link, that wakes it as well.
                    if link.unsent() == 0 {
                        link.send(&Message::Wake);
                    }
                }
            }
        }
    }
}
