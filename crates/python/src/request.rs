//! The requests that handlers receive: a `hubbub.Request` and the parts that it refers to.

use std::net::SocketAddr;
use std::sync::Arc;

use engine::EndpointId;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyType};
use pyo3::{IntoPyObjectExt, ffi, intern};
use wire::http::Head;

use crate::endpoints::PathPattern;
use crate::reactor::Reactor;

/// The parts of one request. Each becomes a Python value when it is asked for: most handlers look at few of them.
#[pyclass(frozen, module = "hubbub._core")]
pub(crate) struct RequestParts {
    head: Arc<Head>,
    client: Client,
    is_encrypted: bool,
    /// `None` if it is empty.
    body: Option<Py<PyBytes>>,
    endpoint: EndpointId,
    /// That of the endpoint.
    pattern: Option<Py<PathPattern>>,
    /// In DER.
    #[pyo3(get)]
    peer_certificate: Option<Py<PyBytes>>,
    /// The `hubbub.jsons.Json` of the server.
    #[pyo3(get)]
    json: Py<PyAny>,
}

/// The client of a request.
enum Client {
    /// The peer of the socket, or whom a PROXY header names.
    Peer(SocketAddr),
    /// An address and a port as Python has them: whom a trusted proxy names, for example.
    Named(Py<PyAny>),
}

#[pymethods]
impl RequestParts {
    #[getter]
    fn method<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        match self.head.method() {
            "GET" => intern!(py, "GET").clone(),
            "POST" => intern!(py, "POST").clone(),
            other => PyString::new(py, other),
        }
    }

    /// As in the request line, percent-encoded.
    #[getter]
    fn target_path(&self) -> &str {
        self.head.path_and_query().0
    }

    #[getter]
    fn query_string(&self) -> &str {
        self.head.path_and_query().1
    }

    #[getter]
    fn client<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &self.client {
            Client::Peer(peer) => client_tuple(*peer).into_bound_py_any(py),
            Client::Named(client) => Ok(client.bind(py).clone()),
        }
    }

    #[getter]
    fn scheme(&self) -> &'static str {
        scheme(self.is_encrypted)
    }

    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.body.as_ref().map_or_else(|| PyBytes::new(py, b""), |body| body.bind(py).clone())
    }

    /// The number of the endpoint's handlers.
    #[getter]
    fn endpoint(&self) -> usize {
        self.endpoint.index()
    }

    /// Names as received, values as latin-1.
    fn header_pairs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        header_pairs(py, &self.head)
    }

    /// The parameters of the path; none without an endpoint.
    fn path_params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        match &self.pattern {
            Some(pattern) => pattern.get().parameters(py, self.target_path()),
            None => Ok(PyDict::new(py)),
        }
    }
}

/// Where a request comes from.
pub(crate) struct Source {
    pub(crate) peer: SocketAddr,
    /// Whether the peer is a proxy that has named no client.
    pub(crate) hides_client: bool,
    pub(crate) peer_certificate: Option<Vec<u8>>,
}

impl Reactor {
    /// The Python `Request` of a head and a body.
    pub(crate) fn request<'py>(
        &self,
        py: Python<'py>,
        head: Arc<Head>,
        source: Source,
        endpoint: EndpointId,
        body: Option<Py<PyBytes>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (client, is_encrypted) = if source.hides_client || is_forwarded(&head) {
            self.named_client(py, &head, &source)?
        } else {
            (Client::Peer(source.peer), self.is_encrypted)
        };
        let parts = RequestParts {
            head,
            client,
            is_encrypted,
            body,
            endpoint,
            pattern: self.pattern(endpoint).map(|pattern| pattern.clone_ref(py)),
            peer_certificate: source.peer_certificate.map(|der| PyBytes::new(py, &der).unbind()),
            json: self.json.clone_ref(py),
        };
        from_parts(&Bound::new(py, parts)?)
    }

    /// The client, and whether it used TLS, of a request that proxies may have told about.
    #[cold]
    fn named_client(&self, py: Python<'_>, head: &Head, source: &Source) -> PyResult<(Client, bool)> {
        let client = client_of(py, source.peer, source.hides_client)?;
        let arguments = (header_pairs(py, head)?, client, scheme(self.is_encrypted));
        let found = self.runner.worker.bind(py).call_method1(intern!(py, "forwarded"), arguments)?;
        let (client, scheme): (Py<PyAny>, String) = found.extract()?;
        Ok((Client::Named(client), scheme == "https"))
    }
}

fn from_parts<'py>(parts: &Bound<'py, RequestParts>) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = parts.py();
    let class = CLASS.import(py, "hubbub.requests", "Request")?;
    // SAFETY: the thread is attached. The class is written in Python and inherits from `object`, whose `__new__` does no
    // more than this: the slots are empty at first. It gives a new reference, or null with an exception set.
    let request = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(class.as_ptr().cast(), 0)) }?;
    request.setattr(intern!(py, "_parts"), parts)?;
    Ok(request)
}

fn header_pairs<'py>(py: Python<'py>, head: &Head) -> PyResult<Bound<'py, PyList>> {
    let headers = PyList::empty(py);
    for (name, value) in head.headers() {
        headers.append((name, latin1(value)))?;
    }
    Ok(headers)
}

fn scheme(is_encrypted: bool) -> &'static str {
    if is_encrypted { "https" } else { "http" }
}

/// Whether proxies may have named the client or the scheme.
pub(crate) fn is_forwarded(head: &Head) -> bool {
    head.headers().any(|(name, _)| name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("x-forwarded-")))
}

/// The client that a request comes from, as `hubbub.forwarding` takes it.
pub(crate) fn client_of(py: Python<'_>, peer: SocketAddr, hides_client: bool) -> PyResult<Bound<'_, PyAny>> {
    let client = client_tuple(peer).into_bound_py_any(py)?;
    if hides_client { py.import("hubbub.forwarding")?.getattr("ProxyItself")?.call1((client,)) } else { Ok(client) }
}

/// A client as Python sees it: its address and port.
pub(crate) fn client_tuple(peer: SocketAddr) -> (String, u16) {
    (peer.ip().to_canonical().to_string(), peer.port())
}

/// Header values are bytes; Python sees them as latin-1 (RFC 9110 §5.5).
fn latin1(value: &[u8]) -> String {
    value.iter().copied().map(char::from).collect()
}
