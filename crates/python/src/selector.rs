//! The reactor in the place of an event loop's selector: one wait for its sockets and for the event loop's descriptors.
//!
//! As a descriptor in the event loop's selector, the reactor costs two waits and the event loop's own work between a
//! message and its handler. Here the event loop calls `Reactor.select` instead of its selector. That waits for the
//! reactor's sockets and, as one more descriptor, for the selector, and runs the turn before it returns.

use std::sync::atomic::AtomicBool;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

/// The event loop that the reactor waits for, and its selector.
pub(crate) struct Selector {
    pub(crate) event_loop: Py<PyAny>,
    /// The `select` of the selector whose place the reactor takes.
    pub(crate) select: Py<PyAny>,
    /// The context that turns run in, as every callback of the event loop has one.
    pub(crate) context: Py<PyAny>,
    /// Whether the selector had something ready when it was last asked. The kernel reports it only when something new
    /// is ready, so it is asked again until it has nothing.
    pub(crate) was_ready: AtomicBool,
}

impl Selector {
    pub(crate) fn new(event_loop: Py<PyAny>, select: Py<PyAny>, context: Py<PyAny>) -> Self {
        Self { event_loop, select, context, was_ready: AtomicBool::new(true) }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.select)?;
        visit.call(&self.context)
    }
}
