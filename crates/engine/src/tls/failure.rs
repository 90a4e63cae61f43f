//! Why a TLS connection has failed, in words for an operator.

use std::borrow::Cow;

use rustls::{CertificateError, Error, InvalidMessage};

/// The reason in words. Those of rustls are kept where a client's certificate is not the cause.
pub(crate) fn in_words(error: &Error) -> Cow<'static, str> {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    let words = match error {
        Error::NoCertificatesPresented => "the client shows no certificate, which ssl_ca_certs requires",
        Error::InvalidCertificate(Expired | ExpiredContext { .. }) => "the client's certificate has expired",
        Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            "the client's certificate is not valid yet"
        }
        Error::InvalidCertificate(UnknownIssuer) => "the client's certificate is of no authority in ssl_ca_certs",
        Error::InvalidCertificate(InvalidPurpose | InvalidPurposeContext { .. }) => {
            "the client's certificate is not meant for clients (extended key usage)"
        }
        Error::InvalidCertificate(BadSignature) => {
            "the client's certificate is not signed by the authority that it names, or the client lacks its key"
        }
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
            "a message in it, such as the client's chain of certificates, is too long"
        }
        Error::InvalidCertificate(why) => {
            return Cow::Owned(format!("the client's certificate cannot be used: {why}"));
        }
        error => return Cow::Owned(error.to_string()),
    };
    Cow::Borrowed(words)
}
