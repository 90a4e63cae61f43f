//! Answers requests with what is given in Python.

use engine::Token;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::bodies::kept;
use crate::reactor::Reactor;

impl Reactor {
    /// Answers a request or refuses a handshake with a body of bytes. Returns whether the client is still there.
    pub(crate) fn send_body<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        token: Token,
        status: u16,
        headers: &[(N, V)],
        body: &Bound<'_, PyBytes>,
    ) -> PyResult<bool> {
        let kept = kept(body);
        self.on_loop(body.py(), |engine| match kept {
            Some(kept) => engine.respond_kept(token, status, headers, kept),
            None => engine.respond(token, status, headers, body.as_bytes()),
        })
    }
}
