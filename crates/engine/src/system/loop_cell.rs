//! A value that one thread may access, in steps that never nest.
//!
//! Cheaper than a `Mutex`, which would cost two locked instructions for every message, and it never waits.

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// Belongs to the thread that created it.
pub struct LoopCell<T> {
    thread: usize,
    is_borrowed: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `mine` and `borrow` give the value only to the thread that created the cell, and only once at a time;
// everything else here is atomic or never changes. The value itself may be dropped by another thread, hence `Send`.
unsafe impl<T: Send> Sync for LoopCell<T> {}

impl<T> LoopCell<T> {
    /// A cell that belongs to the calling thread.
    pub fn new(value: T) -> Self {
        Self { thread: thread_mark(), is_borrowed: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// The calling thread's right to borrow the value, if the cell is its own. Requested once for many borrows.
    #[inline]
    pub fn mine(&self) -> Option<Mine<'_, T>> {
        (thread_mark() == self.thread).then_some(Mine { cell: self, not_send: PhantomData })
    }
}

/// See [`LoopCell::mine`]. It does not leave its thread.
pub struct Mine<'a, T> {
    cell: &'a LoopCell<T>,
    not_send: PhantomData<*const ()>,
}

impl<'a, T> Mine<'a, T> {
    /// Borrows the value for one step.
    ///
    /// # Errors
    /// If a step is in progress: the caller was entered from the middle of it.
    #[inline]
    pub fn borrow(&self) -> Result<Borrow<'a, T>, InUse> {
        // Only the cell's own thread gets here, so no other can set the flag between the two operations on it.
        if self.cell.is_borrowed.load(Ordering::Relaxed) {
            return Err(InUse);
        }
        self.cell.is_borrowed.store(true, Ordering::Relaxed);
        Ok(Borrow { cell: self.cell })
    }
}

/// The value is already borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse;

impl fmt::Display for InUse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the reactor is in the middle of a step")
    }
}

impl std::error::Error for InUse {}

/// The value of a [`LoopCell`], until it is dropped.
pub struct Borrow<'a, T> {
    cell: &'a LoopCell<T>,
}

impl<T> Deref for Borrow<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this is the only `Borrow`, see `Mine::borrow`.
        unsafe { &*self.cell.value.get() }
    }
}

impl<T> DerefMut for Borrow<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { &mut *self.cell.value.get() }
    }
}

impl<T> Drop for Borrow<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.is_borrowed.store(false, Ordering::Relaxed);
    }
}

/// A number that no other living thread has: the thread pointer. The address of a thread-local variable would do too,
/// but in a shared library finding it takes a call.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
fn thread_mark() -> usize {
    let pointer: usize;
    // SAFETY: this reads the thread pointer, which is all that it does: on x86-64, the thread's control block begins with
    // a pointer to itself.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(pure, readonly, nostack, preserves_flags));
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(pure, nomem, nostack, preserves_flags));
    }
    pointer
}

/// A number that no other living thread has; cheaper to get than `std::thread::current().id()`.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[inline]
fn thread_mark() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_borrow_at_a_time_in_the_threads_own_steps() {
        let cell = LoopCell::new(1);
        let mine = cell.mine().expect("made here");
        let first = mine.borrow().expect("free");
        assert!(mine.borrow().is_err());
        drop(first);
        *mine.borrow().expect("free again") += 1;
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(cell.mine().is_none()));
        });
        assert_eq!(*mine.borrow().expect("free"), 2);
    }
}
