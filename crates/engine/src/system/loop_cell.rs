//! A value that one thread may touch, in steps that never nest.
//!
//! Cheaper than a `Mutex`, whose locked instructions would be paid for twice with every message, and it never waits.

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// Belongs to the thread that made it.
pub struct LoopCell<T> {
    thread: usize,
    is_borrowed: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `mine` and `borrow` hand the value to no thread but the one that made the cell, and to that one only once at
// a time; all else here is atomic or never changes. The value itself may end up being dropped by another thread, hence
// `Send`.
unsafe impl<T: Send> Sync for LoopCell<T> {}

impl<T> LoopCell<T> {
    /// A cell of the calling thread.
    pub fn new(value: T) -> Self {
        Self { thread: thread_mark(), is_borrowed: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// The right of the calling thread to borrow the value, if it is the cell's: asked for once for many borrows.
    #[inline]
    pub fn mine(&self) -> Option<Mine<'_, T>> {
        (thread_mark() == self.thread).then_some(Mine { cell: self, not_send: PhantomData })
    }
}

/// See [`LoopCell::mine`]. It stays in its thread.
pub struct Mine<'a, T> {
    cell: &'a LoopCell<T>,
    not_send: PhantomData<*const ()>,
}

impl<'a, T> Mine<'a, T> {
    /// The value, for one step.
    ///
    /// # Errors
    /// A step is under way: the caller was entered from the middle of it.
    #[inline]
    pub fn borrow(&self) -> Result<Borrow<'a, T>, InUse> {
        // Only the cell's own thread gets here, so nobody sets the flag between the two operations on it.
        if self.cell.is_borrowed.load(Ordering::Relaxed) {
            return Err(InUse);
        }
        self.cell.is_borrowed.store(true, Ordering::Relaxed);
        Ok(Borrow { cell: self.cell })
    }
}

/// The value is borrowed already.
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
        // SAFETY: this is the only `Borrow` there is, see `Mine::borrow`.
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

/// A number that no other living thread has; cheaper to ask for than `std::thread::current().id()`.
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
