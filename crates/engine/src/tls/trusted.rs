//! TLS as a client: whose certificates are trusted.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

use crate::tls::pem_file;

/// Trusts the authorities in a PEM file, or else those that the system trusts.
///
/// # Errors
/// One line for people.
pub(crate) fn client_config(ca_certs: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match ca_certs {
        Some(path) => {
            let named = |error: String| format!("'{}' {error}", path.to_string_lossy().escape_debug());
            for certificate in pem_file::certificates(path).map_err(named)? {
                roots.add(certificate).map_err(|error| named(format!("cannot be used: {error}")))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            // A system has some that cannot be used.
            let (usable, _) = roots.add_parsable_certificates(found.certs);
            if usable == 0 {
                let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
                return Err(format!("the system has no certificates of authorities{why}"));
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
