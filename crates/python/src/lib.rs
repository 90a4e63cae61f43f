//! `hubbub._core`: the engine as seen by Python.
//!
//! This layer is thin: it converts arguments and events, and calls handlers. No rule of the protocol belongs here.

mod addresses;
mod answers;
mod app_request;
mod app_socket;
mod application;
mod arguments;
mod batch;
mod bodies;
mod borrowing;
mod contexts;
mod endpoints;
mod events;
mod everywhere;
mod fork;
mod frame;
mod handlers;
mod header_pairs;
mod home;
mod hub;
mod ids;
mod operation;
mod publisher;
mod push;
mod reactor;
mod ready;
mod request;
mod runner;
mod scopes;
mod selector;
mod serving;
mod settings;
mod stopwatch;
mod text;
mod topics;
mod turn;
mod values;
mod waiter;
mod waiting;
mod watch;

use pyo3::prelude::*;

/// The native part of hubbub; see the stub file for its contents.
#[pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    use super::app_request::AppRequest;
    #[pymodule_export]
    use super::app_socket::AppSocket;
    #[pymodule_export]
    use super::batch::{HandlerCoroutine, note_use};
    #[pymodule_export]
    use super::endpoints::PathPattern;
    #[pymodule_export]
    use super::frame::Frame;
    #[pymodule_export]
    use super::home::Home;
    #[pymodule_export]
    use super::hub::{Hub, die_with_parent, explain};
    #[pymodule_export]
    use super::publisher::Publisher;
    #[pymodule_export]
    use super::push::{bind_push, unbind_push};
    #[pymodule_export]
    use super::reactor::Reactor;
    #[pymodule_export]
    use super::request::RequestParts;
    #[pymodule_export]
    use super::settings::{broker_address, check_certificates};
    #[pymodule_export]
    use super::watch::Watcher;
    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
