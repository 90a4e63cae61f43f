//! Whether the workers' event loops move.
//!
//! A worker counts its turns in shared memory. One that has made none since the last look is sent [`Message::Wake`],
//! which makes it run a turn; if it runs none for `stuck_after`, it is stuck. So neither a worker that idles nor one
//! that has much to do is taken for stuck, and a message pays nothing for it.

use std::sync::Arc;
use std::time::Duration;

use super::desk::HubEvent;
use super::peer::WorkerStage;
use super::thread::Routing;
use crate::language::message::Message;
use crate::registry::{SLOTS, Stuck};

/// A worker's own watchdog knows what it is stuck in, and is given this much longer, beside an interval, to say so.
const WATCHDOG_GRACE: Duration = Duration::from_secs(1);

impl Routing {
    /// Looks whether the workers move, if it is time.
    pub(super) fn look_at_workers(&mut self) {
        let (now, Some(stuck_after), Some(interval)) = (self.now, self.looks.stuck_after, self.looks.interval()) else {
            return;
        };
        let since_last = now.duration_since(self.looks.last);
        if since_last < interval {
            return;
        }
        self.looks.last = now;
        // This process was stopped itself, and what it asked for then may not have been sent.
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
                // It makes no turns yet, so all there is to go by is its own word.
                let is_stuck = row.stuck.is_set();
                if is_stuck && !pulse.is_stuck {
                    desk.tell(HubEvent::Stuck { slot, is_news: false });
                }
                pulse.is_stuck = is_stuck;
            }
            // One that leaves has other deadlines.
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
                    // What waits on the link wakes it as well.
                    if link.unsent() == 0 {
                        link.send(&Message::Wake);
                    }
                }
            }
        }
    }
}
