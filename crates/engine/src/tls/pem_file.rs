//! Reading PEM files, and what to tell people about one that cannot be used.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

/// The largest file, in bytes; anything larger is not a certificate or key.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads all certificates of a file, at least one.
///
/// # Errors
/// What to tell after the file's name.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let content = read(path)?;
    let found = CertificateDer::pem_slice_iter(&content).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| not_well_formed(&error))?;
    if found.is_empty() {
        return Err("contains no certificate (PEM)".into());
    }
    Ok(found)
}

/// Reads a file.
///
/// # Errors
/// What to tell after the file's name.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot_read = |error: io::Error| format!("cannot be read: {error}");
    let mut content = Vec::new();
    // Opening a pipe would wait for its other end.
    if !path.metadata().map_err(cannot_read)?.is_file() {
        return Err("is not a file".into());
    }
    let file = File::open(path).map_err(cannot_read)?;
    file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(cannot_read)?;
    if content.len() as u64 > MAX_FILE {
        return Err("is too large for a PEM file".into());
    }
    Ok(content)
}

/// What is wrong with a PEM file. The library prints the lines that it quotes as lists of bytes.
pub(super) fn not_well_formed(error: &pem::Error) -> String {
    let quoted_line = |line: &[u8]| String::from_utf8_lossy(line).trim().escape_debug().to_string();
    let what = match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("the line -----END {}----- is missing", quoted_line(end_marker))
        }
        pem::Error::IllegalSectionStart { line } => format!("this line begins no section: {}", quoted_line(line)),
        error => error.to_string(),
    };
    format!("is not well-formed PEM: {what}")
}
