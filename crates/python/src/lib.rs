//! `hubbub._core`: the engine as Python sees it.
//!
//! Thin: it turns arguments and events into one another and calls handlers. No rule of the protocol stands here.

mod arguments;
mod fork;
mod frame;
mod handlers;
mod hub;
mod publisher;
mod reactor;
mod settings;
mod stopwatch;
mod turn;
mod values;
mod watch;

use pyo3::prelude::*;

/// The native part of hubbub; see the stub file for what is in it.
#[pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    use super::frame::Frame;
    #[pymodule_export]
    use super::hub::{Hub, die_with_parent, explain};
    #[pymodule_export]
    use super::publisher::Publisher;
    #[pymodule_export]
    use super::reactor::Reactor;
    #[pymodule_export]
    use super::settings::check_certificate;
    #[pymodule_export]
    use super::watch::Watcher;
    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
