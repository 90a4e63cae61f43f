//! What the hub and the link's thread pass to each other. Locks are held only to exchange buffers.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mio::Waker;

use super::pipeline::Order;
use super::report::Report;

/// Empty reports that are kept for later ones.
const MAX_SPARE: usize = 4;

/// What the hub wants from the thread.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Commands as bytes, one after the other.
    pub(super) bytes: Vec<u8>,
    pub(super) commands: Vec<Order>,
    /// Channels, and whether they are wanted.
    pub(super) channels: Vec<(Box<[u8]>, bool)>,
}

impl Orders {
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.channels.is_empty()
    }

    fn append(&mut self, later: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, later);
        } else {
            self.bytes.append(&mut later.bytes);
            self.commands.append(&mut later.commands);
            self.channels.append(&mut later.channels);
        }
    }
}

#[derive(Default)]
struct Reports {
    full: VecDeque<Report>,
    spare: Vec<Report>,
}

/// See the module documentation.
pub(super) struct Desk {
    orders: Mutex<Orders>,
    reports: Mutex<Reports>,
    waker: Waker,
    wake_hub: UnixStream,
    /// Whether the thread was woken and has not looked since; and the same for the hub.
    is_thread_called: AtomicBool,
    is_hub_called: AtomicBool,
    /// Bytes of the messages that the hub has not heard.
    unheard: AtomicUsize,
    /// Whether the thread waits for the hub to hear messages.
    is_held_up: AtomicBool,
    is_closing: AtomicBool,
}

impl Desk {
    /// Returns the hub's end of the wake-up, too.
    ///
    /// # Errors
    /// If there is no descriptor.
    pub(super) fn new(waker: Waker) -> io::Result<(Self, UnixStream)> {
        let (hubs_end, wake_hub) = UnixStream::pair()?;
        hubs_end.set_nonblocking(true)?;
        wake_hub.set_nonblocking(true)?;
        let desk = Self {
            orders: Mutex::default(),
            reports: Mutex::default(),
            waker,
            wake_hub,
            is_thread_called: AtomicBool::new(false),
            is_hub_called: AtomicBool::new(false),
            unheard: AtomicUsize::new(0),
            is_held_up: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
        };
        Ok((desk, hubs_end))
    }

    // ---- the hub's side ---------------------------------------------------------------------------------------------

    /// Passes orders on; leaves `orders` empty.
    pub(super) fn order(&self, orders: &mut Orders) {
        lock(&self.orders).append(orders);
        self.call_thread();
    }

    /// Takes what there is to hear.
    pub(super) fn take_reports(&self, hubs_end: &UnixStream) -> VecDeque<Report> {
        while matches!((&*hubs_end).read(&mut [0; 256]), Ok(256)) {}
        self.is_hub_called.store(false, Ordering::SeqCst);
        std::mem::take(&mut lock(&self.reports).full)
    }

    /// Hands a report back that was heard.
    pub(super) fn return_report(&self, mut report: Report) {
        self.unheard.fetch_sub(report.messages(), Ordering::SeqCst);
        report.clear();
        let mut reports = lock(&self.reports);
        if reports.spare.len() < MAX_SPARE {
            reports.spare.push(report);
        }
        drop(reports);
        if self.is_held_up.swap(false, Ordering::SeqCst) {
            self.call_thread();
        }
    }

    /// Asks the thread to end.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        self.call_thread();
    }

    // ---- the thread's side ------------------------------------------------------------------------------------------

    /// Wakes the thread.
    pub(super) fn call_thread(&self) {
        if !self.is_thread_called.swap(true, Ordering::SeqCst) {
            // It fails only without memory in the kernel. The thread looks now and then anyway.
            let _ = self.waker.wake();
        }
    }

    /// Takes the orders; `orders` has to be empty. Returns whether they are the last ones, after which the thread is to
    /// end.
    pub(super) fn take_orders(&self, orders: &mut Orders) -> bool {
        self.is_thread_called.store(false, Ordering::SeqCst);
        // In this order: the last orders are there before the hub asks the thread to end.
        let is_closing = self.is_closing.load(Ordering::SeqCst);
        std::mem::swap(&mut *lock(&self.orders), orders);
        is_closing
    }

    /// Tells the hub what is in the report, and leaves an empty one.
    pub(super) fn report(&self, report: &mut Report) {
        if report.is_empty() {
            return;
        }
        self.unheard.fetch_add(report.messages(), Ordering::SeqCst);
        let mut reports = lock(&self.reports);
        let empty = reports.spare.pop().unwrap_or_default();
        reports.full.push_back(std::mem::replace(report, empty));
        drop(reports);
        if !self.is_hub_called.swap(true, Ordering::SeqCst) {
            // If it is full, the hub is awake.
            let _ = (&self.wake_hub).write(&[0]);
        }
    }

    /// Whether the hub has to hear some of its messages before there may be more. The thread is then called.
    pub(super) fn is_full(&self, unreported: usize, max: usize) -> bool {
        let is_full = || self.unheard.load(Ordering::SeqCst) + unreported > max;
        if !is_full() {
            return false;
        }
        self.is_held_up.store(true, Ordering::SeqCst);
        // The hub may have heard them in between, and not have seen this.
        is_full()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
