//! What a task waits for until the reactor has something new for it.
//!
//! To asyncio, a [`Waiter`] is a future. Unlike asyncio's own, it can run the task that waits for it at once, without a
//! detour through the event loop.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Borrow, LoopCell};
use pyo3::exceptions::PyRuntimeError;
use pyo3::exceptions::asyncio::{CancelledError, InvalidStateError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::borrowing::borrow;
use crate::contexts::enter;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Pending,
    Woken,
    Cancelled,
}

/// What wakes a task, and the context to call it in.
struct Callback {
    function: Py<PyAny>,
    context: Py<PyAny>,
}

struct State {
    outcome: Outcome,
    callback: Option<Callback>,
    /// What the cancellation says. anyio recognizes its own by this.
    message: Option<Py<PyAny>>,
}

/// A future whose result is `None`, for one task.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct Waiter {
    event_loop: Py<PyAny>,
    is_blocking: AtomicBool,
    state: LoopCell<State>,
}

impl Waiter {
    pub(crate) fn new(event_loop: Py<PyAny>) -> Self {
        let state = LoopCell::new(State { outcome: Outcome::Pending, callback: None, message: None });
        // asyncio takes what a coroutine yields for a future only if this is set.
        Self { event_loop, is_blocking: AtomicBool::new(true), state }
    }

    fn state(&self) -> PyResult<Borrow<'_, State>> {
        borrow(&self.state)
    }

    fn is_pending(&self) -> PyResult<bool> {
        Ok(self.state()?.outcome == Outcome::Pending)
    }

    /// Notes that nobody waits for it any longer.
    pub(crate) fn abandon(&self) -> PyResult<()> {
        self.state()?.outcome = Outcome::Cancelled;
        Ok(())
    }

    /// Ends the waiting. Returns the task's callback, if it waits.
    fn end(&self, outcome: Outcome) -> PyResult<Option<Callback>> {
        let mut state = self.state()?;
        if state.outcome != Outcome::Pending {
            return Ok(None);
        }
        state.outcome = outcome;
        Ok(state.callback.take())
    }

    fn call_soon(this: &Bound<'_, Self>, callback: &Callback) -> PyResult<()> {
        let py = this.py();
        let options = PyDict::new(py);
        options.set_item(intern!(py, "context"), &callback.context)?;
        let arguments = (&callback.function, this);
        this.get().event_loop.bind(py).call_method(intern!(py, "call_soon"), arguments, Some(&options)).map(|_| ())
    }

    /// Has the event loop run the task that waits.
    pub(crate) fn wake_soon(this: &Bound<'_, Self>) -> PyResult<()> {
        match this.get().end(Outcome::Woken)? {
            Some(callback) => Self::call_soon(this, &callback),
            None => Ok(()),
        }
    }

    /// Runs the task that waits until it waits for something else. No other task may be running.
    ///
    /// # Errors
    /// SystemExit and KeyboardInterrupt, if the task raises them.
    pub(crate) fn wake_now(this: &Bound<'_, Self>) -> PyResult<()> {
        let Some(callback) = this.get().end(Outcome::Woken)? else { return Ok(()) };
        let py = this.py();
        let _entered = enter(callback.context.bind(py))?;
        callback.function.bind(py).call1((this,)).map(|_| ())
    }
}

#[pymethods]
impl Waiter {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        // On another thread, or in the middle of a step, it is only seen as in use.
        let Some(Ok(state)) = self.state.mine().map(|mine| mine.borrow()) else { return Ok(()) };
        if let Some(callback) = &state.callback {
            visit.call(&callback.function).and_then(|()| visit.call(&callback.context))?;
        }
        visit.call(&state.message)
    }

    #[getter(_asyncio_future_blocking)]
    fn is_blocking(&self) -> bool {
        self.is_blocking.load(Ordering::Relaxed)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, is_blocking: bool) {
        self.is_blocking.store(is_blocking, Ordering::Relaxed);
    }

    fn get_loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.event_loop.clone_ref(py)
    }

    #[pyo3(signature = (function, *, context))]
    fn add_done_callback(this: &Bound<'_, Self>, function: Py<PyAny>, context: Py<PyAny>) -> PyResult<()> {
        let callback = Callback { function, context };
        {
            let mut state = this.get().state()?;
            if state.outcome == Outcome::Pending {
                if state.callback.is_some() {
                    return Err(PyRuntimeError::new_err("another task waits for this already"));
                }
                state.callback = Some(callback);
                return Ok(());
            }
        }
        Self::call_soon(this, &callback)
    }

    fn remove_done_callback(&self, py: Python<'_>, function: &Bound<'_, PyAny>) -> PyResult<usize> {
        let callback = self.state()?.callback.take();
        let Some(callback) = callback else { return Ok(0) };
        if callback.function.bind(py).eq(function)? {
            return Ok(1);
        }
        self.state()?.callback = Some(callback);
        Ok(0)
    }

    #[pyo3(signature = (msg=None))]
    fn cancel(this: &Bound<'_, Self>, msg: Option<Bound<'_, PyAny>>) -> PyResult<bool> {
        if !this.get().is_pending()? {
            return Ok(false);
        }
        this.get().state()?.message = msg.map(Bound::unbind);
        if let Some(callback) = this.get().end(Outcome::Cancelled)? {
            Self::call_soon(this, &callback)?;
        }
        Ok(true)
    }

    fn cancelled(&self) -> PyResult<bool> {
        Ok(self.state()?.outcome == Outcome::Cancelled)
    }

    fn done(&self) -> PyResult<bool> {
        Ok(!self.is_pending()?)
    }

    fn result(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state()?;
        match state.outcome {
            Outcome::Woken => Ok(()),
            Outcome::Cancelled => Err(match &state.message {
                Some(message) => CancelledError::new_err((message.clone_ref(py),)),
                None => CancelledError::new_err(()),
            }),
            Outcome::Pending => Err(InvalidStateError::new_err("nothing has happened yet")),
        }
    }

    fn exception(&self, py: Python<'_>) -> PyResult<()> {
        self.result(py)
    }
}

/// The tasks that wait for something new about one request or connection.
#[derive(Default)]
pub(crate) struct Waiters(Vec<Py<Waiter>>);

impl Waiters {
    /// Adds one. Those that no longer wait are dropped.
    pub(crate) fn add(&mut self, py: Python<'_>, waiter: &Bound<'_, Waiter>) {
        // What is dropped here has no callback left, so that no code of Python's runs.
        self.0.retain(|waiter| waiter.bind(py).get().is_pending().unwrap_or(false));
        self.0.push(waiter.clone().unbind());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self) -> Self {
        Self(mem::take(&mut self.0))
    }

    pub(crate) fn wake_soon(self, py: Python<'_>) -> PyResult<()> {
        self.0.iter().try_for_each(|waiter| Waiter::wake_soon(waiter.bind(py)))
    }

    pub(crate) fn wake_now(self, py: Python<'_>) -> PyResult<()> {
        self.0.iter().try_for_each(|waiter| Waiter::wake_now(waiter.bind(py)))
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.iter().try_for_each(|waiter| visit.call(waiter))
    }
}
