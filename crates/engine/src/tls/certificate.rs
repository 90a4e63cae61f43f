//! The server's certificate and the authorities of its clients, and the files they come from, which may be replaced
//! while the server runs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::{Error, InconsistentKeys, ServerConfig};

use crate::tls::authorities;
use crate::tls::pem_file;
use crate::tls::private_key::{self, KeyError, Password};
use crate::tls::session::Session;

/// Milliseconds between checks of the files.
const LOOK_INTERVAL: u64 = 1000;
/// The keys that ring can sign with.
const ACCEPTED_KEYS: &str = "the key has to be RSA (2048 to 4096 bits), ECDSA (P-256 or P-384), or Ed25519";

/// The paths of the certificate chain, its private key and the clients' authorities, which are PEM files.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain, beginning with the server's own certificate.
    pub certfile: PathBuf,
    /// PKCS #8, which may be encrypted, PKCS #1 or SEC 1.
    pub keyfile: PathBuf,
    /// The password of an encrypted key.
    pub keyfile_password: Option<Password>,
    /// The authorities that clients need a certificate of; `None` if clients need none.
    pub ca_certs: Option<PathBuf>,
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
        let chain = pem_file::certificates(certfile).map_err(|error| wrong_chain(&error))?;
        let key = pem_file::read(keyfile).map_err(|error| wrong_key(&error))?;
        let key = private_key::parse(&key, self.keyfile_password.as_ref()).map_err(|error| match error {
            KeyError::WrongPassword => {
                format!("ssl_keyfile_password: it is not the password of {}", quoted(keyfile))
            }
            KeyError::Unusable(why) => wrong_key(&why),
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
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match &self.ca_certs {
            None => builder.with_no_client_auth(),
            Some(file) => builder.with_client_cert_verifier(
                authorities::verifier(file, provider)
                    .map_err(|error| format!("ssl_ca_certs: {} {error}", quoted(file)))?,
            ),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if self.ca_certs.is_some() {
            // A resumed session would not check the client's certificate again, although it may have expired.
            config.send_tls13_tickets = 0;
        } else {
            // Tickets leave the state of a session with the client; rustls rotates their key by itself. A new
            // certificate gets a new ticketer, so no client resumes with the old one.
            config.ticketer = ring::Ticketer::new().map_err(unusable)?;
        }
        Ok(Arc::new(config))
    }

    fn versions(&self) -> Versions {
        [Some(&self.certfile), Some(&self.keyfile), self.ca_certs.as_ref()]
            .map(|path| path.and_then(|path| Version::of(path)))
    }
}

/// Quotes a text on one line, as Python's messages do.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().escape_debug())
}

/// The parts of a file's metadata that change with its content or permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Those of the chain, the key, and the authorities.
type Versions = [Option<Version>; 3];

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
    versions: Versions,
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
        let files = CertificateFiles {
            certfile: directory.join("chain.pem"),
            keyfile: directory.join("key.pem"),
            keyfile_password: None,
            ca_certs: None,
        };
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
        let files = CertificateFiles {
            certfile: directory.join("chain.pem"),
            keyfile: directory.join("key.pem"),
            keyfile_password: None,
            ca_certs: None,
        };
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
