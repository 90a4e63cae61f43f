//! The authorities of clients' certificates.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::tls::pem_file;

/// Accepts only clients that show a certificate of one of the authorities in a PEM file.
///
/// # Errors
/// What to tell after the file's name.
pub(super) fn verifier(path: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in pem_file::certificates(path)?.into_iter().enumerate() {
        let cannot_be_used = |error| format!("cannot be used: certificate {} in it: {error}", index + 1);
        roots.add(certificate).map_err(cannot_be_used)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| format!("cannot be used: {error}"))
}
