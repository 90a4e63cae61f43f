//! The addresses of clients as Python sees them.

use std::net::IpAddr;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// How many are kept. Requests often come from the same few machines, such as proxies.
const KEPT: usize = 64;

/// Some addresses, and the `str` of each, at a place that its last byte determines.
pub(crate) struct Addresses([Option<(IpAddr, Py<PyString>)>; KEPT]);

impl Default for Addresses {
    fn default() -> Self {
        Self([const { None }; KEPT])
    }
}

impl Addresses {
    pub(crate) fn get<'py>(&mut self, py: Python<'py>, ip: IpAddr) -> Bound<'py, PyString> {
        let last = match ip {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        };
        let place = &mut self.0[usize::from(last) % KEPT];
        match place {
            Some((known, text)) if *known == ip => text.bind(py).clone(),
            _ => {
                let text = PyString::new(py, &ip.to_canonical().to_string());
                *place = Some((ip, text.clone().unbind()));
                text
            }
        }
    }
}
