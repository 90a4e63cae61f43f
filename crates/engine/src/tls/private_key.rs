//! The server's private key, which may be encrypted.

use std::fmt;

use pkcs8::pkcs5;
use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::tls::pem_file;

/// The lines around an encrypted key (PKCS #8, RFC 5958).
const BEGIN_ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END_ENCRYPTED: &str = "-----END ENCRYPTED PRIVATE KEY-----";
/// A header line of OpenSSL's own encryption of PKCS #1 and SEC 1 (RFC 1421 §4.6.1.1), which is not supported: it derives
/// the key with one round of MD5.
const ENCRYPTED_BY_HEADER: &str = "Proc-Type: 4,ENCRYPTED";
const CONVERT: &str = "convert it with `openssl pkcs8 -topk8 -in OLD -out NEW`";

/// A password that is never shown.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Takes a password.
    pub fn new(password: String) -> Self {
        Self(password)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(…)")
    }
}

/// Why there is no key.
pub(super) enum KeyError {
    /// The key is encrypted with another password.
    WrongPassword,
    /// What to tell after the file's name.
    Unusable(String),
}

impl From<&str> for KeyError {
    fn from(why: &str) -> Self {
        Self::Unusable(why.into())
    }
}

/// Finds the key in the content of a PEM file, and decrypts it if it is encrypted. A password for a key that is not
/// encrypted is ignored.
pub(super) fn parse(content: &[u8], password: Option<&Password>) -> Result<PrivateKeyDer<'static>, KeyError> {
    let text = String::from_utf8_lossy(content);
    if text.contains(ENCRYPTED_BY_HEADER) {
        return Err(KeyError::Unusable(format!("is encrypted in OpenSSL's old format: {CONVERT}")));
    }
    match PrivateKeyDer::from_pem_slice(content) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => match encrypted_section(&text) {
            Some(section) => decrypt(section, password.ok_or("is encrypted: set ssl_keyfile_password")?),
            None => Err("contains no private key (PEM)".into()),
        },
        Err(error) => Err(KeyError::Unusable(pem_file::not_well_formed(&error))),
    }
}

/// The first encrypted key in a PEM file, without what else is in it.
fn encrypted_section(text: &str) -> Option<&str> {
    let section = &text[text.find(BEGIN_ENCRYPTED)?..];
    Some(section.find(END_ENCRYPTED).map_or(section, |end| &section[..end + END_ENCRYPTED.len()]))
}

fn decrypt(section: &str, password: &Password) -> Result<PrivateKeyDer<'static>, KeyError> {
    let unsupported = |error: pkcs8::Error| {
        KeyError::Unusable(format!("is encrypted in a way that is not supported ({error}): {CONVERT}"))
    };
    let (_, document) = SecretDocument::from_pem(section)
        .map_err(|error| KeyError::Unusable(format!("is encrypted, and not well-formed: {error}")))?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(unsupported)?;
    let decrypted = encrypted.decrypt(password.0.as_bytes()).map_err(|error| match error {
        // A wrong password is noticed because what comes out is no key.
        pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::DecryptFailed) | pkcs8::Error::Asn1(_) => {
            KeyError::WrongPassword
        }
        error => unsupported(error),
    })?;
    Ok(PrivatePkcs8KeyDer::from(decrypted.as_bytes().to_vec()).into())
}
