//! The hub as seen by the supervisor.

use std::os::fd::{IntoRawFd, RawFd};
use std::time::Duration;

use engine::{HubEvent, Leave};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::reactor::{ownership, taken_over};
use crate::topics::OptionsArgument;
use crate::values::metrics_dict;

/// A level of Python's `logging`.
const WARNING: u8 = 30;

const LEAVES: [(&str, Leave); 3] =
    [("stop", Leave::Stop), ("replace", Leave::Replace), ("terminate", Leave::Terminate)];

/// The name that Python uses for a reason to leave.
pub(crate) fn leave_name(why: Leave) -> &'static str {
    LEAVES.iter().find(|(_, leave)| *leave == why).map_or("stop", |(name, _)| name)
}

/// Passes connections to workers and commands between processes, in a thread of its own. Usable from any thread.
///
/// Args:
///     settings: A `hubbub.Settings`.
///     topics: The options of topics; see `OptionsArgument`.
///     control: The descriptor of a listening Unix socket for other programs, handed over, or `None`.
///     lease: The descriptor of the file that keeps ids from being given out again after a restart, handed over, or
///     `None`.
///     number: The descriptor of the file that keeps the number of this host among others over a restart, handed over, or
///     `None`.
///     name: What the other hosts' people call this host.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct Hub {
    hub: engine::Hub,
}

#[pymethods]
impl Hub {
    #[new]
    fn new(
        settings: &Bound<'_, PyAny>,
        topics: Vec<OptionsArgument>,
        control: Option<RawFd>,
        lease: Option<RawFd>,
        number: Option<RawFd>,
        name: String,
    ) -> PyResult<Self> {
        // The hub has no WebSockets whose memory could be limited.
        let mut settings = crate::settings::read(settings, usize::MAX)?;
        settings.topics = crate::topics::rules(topics);
        if let Some(broker) = &mut settings.broker {
            broker.name = name;
        }
        let [control, lease, number] = [control, lease, number].map(|descriptor| descriptor.map(taken_over));
        let hub = engine::Hub::new(&settings, control, lease, number)?;
        Ok(Self { hub })
    }

    /// The descriptor of the server's registry, for workers to inherit.
    #[getter]
    fn registry(&self) -> RawFd {
        self.hub.memory()
    }

    /// The descriptor that becomes readable when there are events.
    fn fileno(&self) -> RawFd {
        self.hub.fileno()
    }

    /// Events since the last call, as `(what, slot or level, text)`, where `what` is "ready", "leaving", "reload",
    /// "shutdown", "drain" (with the seconds as text), "stuck" (with a text if the worker has not said so itself),
    /// "moves", "numbered" (with the number of this host among others), "unreachable" (the broker cannot be reached for
    /// now, and why), "reachable" (it can now), "unusable" (this host cannot be one of the others, and why) or "log".
    fn events(&self) -> Vec<(&'static str, u8, String)> {
        let values = |event| match event {
            HubEvent::Ready(slot) => ("ready", slot, String::new()),
            HubEvent::Leaving(slot) => ("leaving", slot, String::new()),
            HubEvent::Reload(slot) => ("reload", slot, String::new()),
            HubEvent::Shutdown(slot) => ("shutdown", slot, String::new()),
            HubEvent::Drain(time) => ("drain", 0, time.as_secs_f64().to_string()),
            HubEvent::Stuck { slot, is_news } => ("stuck", slot, if is_news { "news".into() } else { String::new() }),
            HubEvent::Moves(slot) => ("moves", slot, String::new()),
            HubEvent::Numbered(host) => ("numbered", host, String::new()),
            HubEvent::Unreachable(text) => ("unreachable", 0, text),
            HubEvent::Reachable => ("reachable", 0, String::new()),
            HubEvent::Unusable(text) => ("unusable", 0, text),
            HubEvent::Warning(text) => ("log", WARNING, text),
        };
        self.hub.events().into_iter().map(values).collect()
    }

    /// Accepts connections from a listening socket, whose descriptor belongs to the hub from here on.
    ///
    /// Args:
    ///     descriptor: It listens, on TCP or a Unix socket.
    ///     shared: Whether other processes go on using the socket when this server stops.
    fn listen(&self, descriptor: RawFd, shared: bool) {
        self.hub.listen(taken_over(descriptor), ownership(shared));
    }

    /// Makes room for a worker process. Returns its slot and the descriptor of its end of the link, which belongs to
    /// the caller.
    fn add_worker(&self, worker_id: u8) -> PyResult<(u8, RawFd)> {
        let (slot, link) = self.hub.add_worker(worker_id)?;
        Ok((slot, link.into_raw_fd()))
    }

    /// Passes no more connections to a worker, and tells it to leave: to "stop", to be replaced ("replace"), or because
    /// it was asked to ("terminate").
    fn leave(&self, slot: u8, why: &str) -> PyResult<()> {
        let Some((_, leave)) = LEAVES.iter().find(|(name, _)| *name == why) else {
            return Err(PyValueError::new_err(format!("unknown reason to leave: {why}")));
        };
        self.hub.leave(slot, *leave);
        Ok(())
    }

    /// Has a worker refuse handshakes, and close its connections one after the other within so many seconds.
    fn drain(&self, slot: u8, seconds: f64) -> PyResult<()> {
        let time = Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.hub.drain(slot, time);
        Ok(())
    }

    /// Clears up after a worker's process and frees its slot. The process must certainly be gone.
    fn ended(&self, slot: u8) {
        self.hub.ended(slot);
    }

    /// Counts a worker that was replaced after it had died.
    fn restarted(&self, worker_id: u8) {
        self.hub.restarted(worker_id);
    }

    /// The measurements of all processes; see `hubbub.metrics`. Usable from any thread.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        metrics_dict(py, &self.hub.metrics())
    }

    /// Closes the listening sockets.
    fn stop_accepting(&self) {
        self.hub.stop_accepting();
    }

    /// Ends the thread.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.hub.close());
    }
}

/// Explains an error in accepting a connection, and what an operator can do about it.
#[pyfunction]
pub(crate) fn explain(errno: i32) -> String {
    engine::explain(&std::io::Error::from_raw_os_error(errno))
}

/// Asks the kernel to kill this process when the thread that started it ends. Returns false if this system cannot do
/// that.
#[pyfunction]
pub(crate) fn die_with_parent() -> PyResult<bool> {
    Ok(engine::die_with_parent()?)
}
