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
    /// What all of them have in common; values that are dicts are copied for each.
    common: Py<PyDict>,
    /// Prepended to each path.
    root_path: String,
    is_encrypted: bool,
}

impl Scopes {
    /// `common` also has `scheme`, `http` or `https`, which is that of this server itself.
    pub(crate) fn new(common: Bound<'_, PyDict>) -> PyResult<Self> {
        let py = common.py();
        let root_path = common.as_any().get_item(intern!(py, "root_path"))?.extract()?;
        let is_encrypted = common.as_any().get_item(intern!(py, "scheme"))?.eq("https")?;
        Ok(Self { common: common.unbind(), root_path, is_encrypted })
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.common)
    }

    /// The scope of a plain request.
    pub(crate) fn http<'py>(
        &self,
        py: Python<'py>,
        head: &Head,
        client: Bound<'py, PyAny>,
        tls: Option<TlsFacts>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scope = self.make(py, head, client, tls)?;
        scope.set_item(intern!(py, "type"), intern!(py, "http"))?;
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
        let scope = self.make(py, head, client, tls)?;
        scope.set_item(intern!(py, "type"), intern!(py, "websocket"))?;
        let scheme = if self.is_encrypted { intern!(py, "wss") } else { intern!(py, "ws") };
        scope.set_item(intern!(py, "scheme"), scheme)?;
        Ok(scope)
    }

    fn make<'py>(
        &self,
        py: Python<'py>,
        head: &Head,
        client: Bound<'py, PyAny>,
        tls: Option<TlsFacts>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scope = self.common.bind(py).copy()?;
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
