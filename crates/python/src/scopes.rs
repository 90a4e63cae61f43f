//! The connection scopes of an ASGI application (ASGI 3.0, "HTTP & WebSocket ASGI Message Format").

use data_encoding::BASE64;
use engine::TlsFacts;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use pyo3::{IntoPyObjectExt, intern};
use wire::http::Head;
use wire::path;

/// Makes a scope for each request.
pub(crate) struct Scopes {
    /// What the scopes of requests are copies of. Each has all keys already: a dict that grows costs more than one that is
    /// copied. Its `asgi`, `extensions` and `state` are copied too.
    http: Py<PyDict>,
    /// The same for handshakes.
    websocket: Py<PyDict>,
    /// Prepended to each path.
    root_path: String,
}

impl Scopes {
    /// `common` is what all scopes have in common. Its `scheme`, `http` or `https`, is that of this server itself.
    pub(crate) fn new(common: &Bound<'_, PyDict>) -> PyResult<Self> {
        let py = common.py();
        let root_path = common.as_any().get_item(intern!(py, "root_path"))?.extract()?;
        let is_encrypted = common.as_any().get_item(intern!(py, "scheme"))?.eq("https")?;
        let all = common.copy()?;
        for key in ["type", "http_version", "path", "raw_path", "query_string", "headers", "client"] {
            all.set_item(PyString::intern(py, key), py.None())?;
        }
        let (http, websocket) = (all.copy()?, all);
        http.set_item(intern!(py, "type"), intern!(py, "http"))?;
        http.set_item(intern!(py, "method"), py.None())?;
        websocket.set_item(intern!(py, "type"), intern!(py, "websocket"))?;
        websocket.set_item(intern!(py, "scheme"), if is_encrypted { "wss" } else { "ws" })?;
        let (http, websocket) = (http.unbind(), websocket.unbind());
        Ok(Self { http, websocket, root_path })
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.http)?;
        visit.call(&self.websocket)
    }

    /// The scope of a plain request.
    pub(crate) fn http<'py>(
        &self,
        py: Python<'py>,
        head: &Head,
        client: Bound<'py, PyAny>,
        tls: Option<TlsFacts>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scope = self.make(self.http.bind(py), head, client, tls)?;
        scope.set_item(intern!(py, "method"), method(py, head.method()))?;
        if head.has_token("te", "trailers")
            && let Some(extensions) = scope.get_item(intern!(py, "extensions"))?
        {
            extensions.set_item(intern!(py, "http.response.trailers"), PyDict::new(py))?;
        }
        Ok(scope)
    }

    /// The scope of a handshake.
    pub(crate) fn websocket<'py>(
        &self,
        py: Python<'py>,
        head: &Head,
        client: Bound<'py, PyAny>,
        tls: Option<TlsFacts>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.make(self.websocket.bind(py), head, client, tls)
    }

    fn make<'py>(
        &self,
        template: &Bound<'py, PyDict>,
        head: &Head,
        client: Bound<'py, PyAny>,
        tls: Option<TlsFacts>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let py = template.py();
        let scope = template.copy()?;
        for name in [intern!(py, "asgi"), intern!(py, "extensions"), intern!(py, "state")] {
            if let Some(value) = scope.get_item(name)? {
                scope.set_item(name, value.cast::<PyDict>()?.copy()?)?;
            }
        }
        let version = if head.minor_version() == 0 { intern!(py, "1.0") } else { intern!(py, "1.1") };
        scope.set_item(intern!(py, "http_version"), version)?;
        let (path, query) = head.path_and_query();
        scope.set_item(intern!(py, "path"), self.path(py, path))?;
        let raw_path = match self.root_path.as_str() {
            "" => PyBytes::new(py, path.as_bytes()),
            root => PyBytes::new(py, &[root.as_bytes(), path.as_bytes()].concat()),
        };
        scope.set_item(intern!(py, "raw_path"), raw_path)?;
        scope.set_item(intern!(py, "query_string"), PyBytes::new(py, query.as_bytes()))?;
        scope.set_item(intern!(py, "headers"), headers(py, head)?)?;
        scope.set_item(intern!(py, "client"), client)?;
        if let Some(facts) = tls
            && let Some(extensions) = scope.get_item(intern!(py, "extensions"))?
        {
            extensions.set_item(intern!(py, "tls"), tls_extension(py, &facts)?)?;
        }
        Ok(scope)
    }

    /// The decoded path, with the root path before it; bytes that are not UTF-8 become U+FFFD.
    fn path<'py>(&self, py: Python<'py>, path: &str) -> Bound<'py, PyString> {
        let decoded = path::decoded(path);
        match self.root_path.as_str() {
            "" => PyString::new(py, &decoded),
            root => PyString::new(py, &format!("{root}{decoded}")),
        }
    }
}

/// The extension `tls`. What is not known here is `None`, as the specification allows.
fn tls_extension<'py>(py: Python<'py>, facts: &TlsFacts) -> PyResult<Bound<'py, PyDict>> {
    let extension = PyDict::new(py);
    let chain = facts.certificates.iter().map(|der| pem(der));
    extension.set_item("server_cert", py.None())?;
    extension.set_item("client_cert_chain", PyList::new(py, chain.collect::<Vec<_>>())?)?;
    extension.set_item("client_cert_name", py.None())?;
    extension.set_item("client_cert_error", py.None())?;
    extension.set_item("tls_version", facts.version)?;
    extension.set_item("cipher_suite", facts.cipher_suite)?;
    Ok(extension)
}

/// A certificate as text (RFC 7468 §5).
fn pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in BASE64.encode(der).as_bytes().chunks(64) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

/// The headers as pairs of bytes, with the names in lower case.
fn headers<'py>(py: Python<'py>, head: &Head) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for (name, value) in head.headers() {
        let name = PyBytes::new_with(py, name.len(), |bytes| {
            bytes.copy_from_slice(name.as_bytes());
            bytes.make_ascii_lowercase();
            Ok(())
        })?;
        list.append((name, PyBytes::new(py, value)).into_bound_py_any(py)?)?;
    }
    Ok(list)
}

/// The method in upper case, as the specification has it.
fn method<'py>(py: Python<'py>, method: &str) -> Bound<'py, PyString> {
    match method {
        "GET" => intern!(py, "GET").clone(),
        "POST" => intern!(py, "POST").clone(),
        _ => PyString::new(py, &method.to_ascii_uppercase()),
    }
}
