//! Waiting in the place of an event loop's selector; see [`Selector`].

use std::sync::atomic::Ordering;
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::contexts::enter;
use crate::reactor::Reactor;
use crate::runner::ends_the_loop;
use crate::selector::Selector;

impl Reactor {
    /// Waits as a selector's `select` does, and runs a turn if there is something to do. Returns what is ready for the
    /// event loop.
    ///
    /// # Errors
    /// Any exception that a signal's handler raises; SystemExit and KeyboardInterrupt from other handlers.
    pub(crate) fn wait_and_turn<'py>(
        &self,
        py: Python<'py>,
        selector: &Selector,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if self.is_in_turn() {
            // A handler runs the event loop itself. Until it returns, the reactor's sockets wait.
            selector.was_ready.store(true, Ordering::Relaxed);
            return selector.select.bind(py).call1((timeout,));
        }
        let was_ready = selector.was_ready.load(Ordering::Relaxed);
        let is_due = self.take_schedule();
        // A negative timeout means not to wait, and one that no Duration can hold, to wait forever.
        let timeout = match timeout {
            _ if is_due || was_ready => Some(Duration::ZERO),
            Some(seconds) => Duration::try_from_secs_f64(seconds.max(0.0)).ok(),
            None => None,
        };
        let waited = py.detach(|| -> PyResult<_> { Ok(self.engine()?.await_readiness(timeout)) })?;
        let has_work = match waited {
            Ok(has_work) => has_work || is_due,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                py.check_signals()?;
                is_due
            }
            Err(error) => return Err(error.into()),
        };
        if has_work {
            self.turn_of(py, selector)?;
        }
        if self.engine()?.take_guest() || was_ready {
            let ready = selector.select.bind(py).call1((0,))?;
            selector.was_ready.store(ready.len()? > 0, Ordering::Relaxed);
            return Ok(ready);
        }
        Ok(PyTuple::empty(py).into_any())
    }

    /// Runs a turn as the event loop runs its callbacks.
    fn turn_of(&self, py: Python<'_>, selector: &Selector) -> PyResult<()> {
        let event_loop = selector.event_loop.bind(py);
        if event_loop.call_method0(intern!(py, "get_debug"))?.is_truthy()? {
            // There, the event loop measures its callbacks and names those that are slow.
            self.runner.worker.bind(py).call_method0(intern!(py, "call_turn_soon"))?;
            return Ok(());
        }
        // Only callbacks of the event loop enter it, and none of them is running.
        let entered = enter(selector.context.bind(py))?;
        let result = self.turn_now(py);
        drop(entered);
        match result {
            Err(error) if !ends_the_loop(py, &error) => {
                self.runner.worker.bind(py).call_method1(intern!(py, "turn_failed"), (error,)).map(|_| ())
            }
            result => result,
        }
    }
}
