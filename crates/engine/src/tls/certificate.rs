//! The server's certificate, and the files it comes from, which may be replaced while the server runs.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{Error, InconsistentKeys, ServerConfig};

use crate::tls::session::Session;

/// Milliseconds between checks of the files.
const LOOK_INTERVAL: u64 = 1000;
/// The largest file, in bytes; anything larger is not a certificate or key.
const MAX_FILE: u64 = 1024 * 1024;
/// The keys that ring can sign with.
const ACCEPTED_KEYS: &str = "the key has to be RSA (2048 to 4096 bits), ECDSA (P-256 or P-384), or Ed25519";

/// The paths of the certificate chain and its private key, which are PEM files.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain, beginning with the server's own certificate.
    pub certfile: PathBuf,
    /// PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub keyfile: PathBuf,
}

impl CertificateFiles {
    /// Checks whether a server could use the files.
    ///
    /// # Errors
    /// One line for people that names the setting, the file, and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        self.load().map(|_| ())
    }

    fn load(&self) -> Result<Arc<ServerConfig>, String> {
        let (certfile, keyfile) = (&self.certfile, &self.keyfile);
        let wrong_chain = |why: &dyn std::fmt::Display| format!("ssl_certfile: {} {why}", quoted(certfile));
        let wrong_key = |why: &dyn std::fmt::Display| format!("ssl_keyfile: {} {why}", quoted(keyfile));
        let chain = read(certfile).map_err(|error| wrong_chain(&error))?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong_chain(&not_well_formed(&error)))?;
        if chain.is_empty() {
            return Err(wrong_chain(&"contains no certificate (PEM)"));
        }
        let key = read(keyfile).map_err(|error| wrong_key(&error))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| match error {
            _ if is_encrypted(&key) => wrong_key(&"is encrypted: give the key without a password"),
            pem::Error::NoItemsFound => wrong_key(&"contains no private key (PEM)"),
            error => wrong_key(&not_well_formed(&error)),
        })?;
        let unusable = |error: Error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let certfile = quoted(certfile);
                wrong_key(&format_args!(
                    "is not the key of the first certificate in {certfile} (the server's own must come first)"
                ))
            }
            // This is all it reports about a key of another kind.
            Error::General(_) => wrong_key(&format_args!("cannot be used: {ACCEPTED_KEYS}")),
            Error::InvalidCertificate(why) => wrong_chain(&format_args!("cannot be used: {why:?}")),
            error => wrong_key(&format_args!("cannot be used: {error}")),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        // Tickets leave the state of a session with the client; rustls rotates their key by itself. A new certificate
        // gets a new ticketer, so no client resumes with the old one.
        config.ticketer = ring::Ticketer::new().map_err(unusable)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    fn versions(&self) -> [Option<Version>; 2] {
        [&self.certfile, &self.keyfile].map(|path| Version::of(path))
    }
}

/// Quotes a text on one line, as Python's messages do.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().escape_debug())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
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
fn not_well_formed(error: &pem::Error) -> String {
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

/// Recognises the headers of PKCS #8, and of PKCS #1 and SEC 1.
fn is_encrypted(key: &[u8]) -> bool {
    let text = String::from_utf8_lossy(key);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// The parts of a file's metadata that change with its content or permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The certificate in use, and the state of its files when they were last read.
pub(crate) struct Certificate {
    files: CertificateFiles,
    config: Arc<ServerConfig>,
    versions: [Option<Version>; 2],
    looked_at: u64,
    failure: Option<Failure>,
}

/// Why the files could not be used at the last check.
struct Failure {
    reason: String,
    is_told: bool,
}

impl Certificate {
    /// # Errors
    /// The same as for [`CertificateFiles::check`].
    pub(crate) fn new(files: CertificateFiles) -> Result<Self, String> {
        // Taken before the files are read, so that the next check sees changes made in the meantime.
        let versions = files.versions();
        Ok(Self { config: files.load()?, files, versions, looked_at: 0, failure: None })
    }

    /// Reads the files again if they have changed; they are checked only now and then. Returns the result of reading
    /// them; if that failed, the old certificate stays in use.
    ///
    /// After a failure they are read at each check, as the cause may lie outside the files. A failure is reported once,
    /// and not before the second check, because files are renewed one after the other.
    pub(crate) fn refresh(&mut self, now: u64) -> Option<Result<(), String>> {
        if now < self.looked_at + LOOK_INTERVAL {
            return None;
        }
        self.looked_at = now;
        let versions = self.files.versions();
        if versions == self.versions && self.failure.is_none() {
            return None;
        }
        self.versions = versions;
        let before = self.failure.take();
        let reason = match self.files.load() {
            Ok(config) => {
                self.config = config;
                return Some(Ok(()));
            }
            Err(reason) => reason,
        };
        let before = before.filter(|before| before.reason == reason);
        let (is_new, was_told) = (before.is_none(), before.is_some_and(|before| before.is_told));
        self.failure = Some(Failure { reason: reason.clone(), is_told: !is_new });
        (!is_new && !was_told).then_some(Err(reason))
    }

    /// The state of a new connection.
    ///
    /// # Errors
    /// rustls's error, which would be a bug of ours.
    pub(crate) fn session(&self) -> Result<Session, Error> {
        Session::new(Arc::clone(&self.config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a new chain, and its key if requested.
    fn renew(files: &CertificateFiles, with_key: bool) -> String {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(&files.certfile, made.cert.pem()).expect("written");
        let key = made.signing_key.serialize_pem();
        if with_key {
            std::fs::write(&files.keyfile, &key).expect("written");
        }
        key
    }

    #[test]
    fn what_is_wrong_with_a_cut_off_file_is_readable() {
        let directory = std::env::temp_dir().join(format!("cut-off-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let files = CertificateFiles { certfile: directory.join("chain.pem"), keyfile: directory.join("key.pem") };
        renew(&files, true);
        let whole = std::fs::read(&files.certfile).expect("read");
        std::fs::write(&files.certfile, &whole[..whole.len() / 2]).expect("written");
        let told = files.check().expect_err("half a file");
        let end = "is not well-formed PEM: the line -----END CERTIFICATE----- is missing";
        assert!(told.ends_with(end), "{told}");
        std::fs::remove_dir_all(directory).expect("removed");
    }

    #[test]
    fn half_a_renewal_is_told_only_if_it_stays_so() {
        let directory = std::env::temp_dir().join(format!("certificate-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let files = CertificateFiles { certfile: directory.join("chain.pem"), keyfile: directory.join("key.pem") };
        renew(&files, true);
        let mut certificate = Certificate::new(files.clone()).expect("a usable certificate");
        let mut now = 0;
        let mut look = || {
            now += LOOK_INTERVAL;
            certificate.refresh(now)
        };
        assert_eq!(look(), None);

        let key = renew(&files, false);
        assert_eq!(look(), None);
        std::fs::write(&files.keyfile, key).expect("written");
        assert_eq!(look(), Some(Ok(())));
        assert_eq!(look(), None);

        let key = renew(&files, false);
        assert_eq!(look(), None);
        let told = look().expect("told").expect_err("half a renewal");
        assert!(told.starts_with("ssl_keyfile: "), "{told}");
        assert_eq!(look(), None);
        std::fs::write(&files.keyfile, key).expect("written");
        assert_eq!(look(), Some(Ok(())));
        std::fs::remove_dir_all(directory).expect("removed");
    }
}
