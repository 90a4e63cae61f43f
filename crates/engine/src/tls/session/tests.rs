//! Both ends of TLS, without sockets.

use super::*;
use std::io::{Read, Write};
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::Index;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use crate::tls::certificate::{Certificate, CertificateFiles};

/// A server's configuration, and the certificate that its clients trust.
fn server() -> &'static (Certificate, CertificateDer<'static>) {
    static SERVER: OnceLock<(Certificate, CertificateDer<'static>)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let directory = std::env::temp_dir().join(format!("tls-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let (certfile, keyfile) = (directory.join("chain.pem"), directory.join("key.pem"));
        let files = CertificateFiles { certfile, keyfile, keyfile_password: None, ca_certs: None };
        std::fs::write(&files.certfile, made.cert.pem()).expect("written");
        std::fs::write(&files.keyfile, made.signing_key.serialize_pem()).expect("written");
        let certificate = Certificate::new(files).expect("a usable certificate");
        std::fs::remove_dir_all(directory).expect("removed");
        (certificate, made.cert.der().clone())
    })
}

fn session() -> Session {
    server().0.session().expect("a session")
}

fn client(version: &'static SupportedProtocolVersion) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(server().1.clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").expect("a name")).expect("a client")
}

/// The output that a client currently has.
fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("no error");
    }
    bytes
}

/// Has a client read these bytes; returns the content.
pub(crate) fn hear(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).expect("no error");
        client.process_new_packets().expect("well-formed");
        if let Err(error) = client.reader().read_to_end(&mut plain) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }
    plain
}

/// Passes input to the session, as the reactor does.
fn receive(session: &mut Session, bytes: &[u8], sealed: &mut Vec<u8>) -> Result<Vec<u8>, Error> {
    let mut buffer = vec![0; session.kept() + bytes.len()];
    session.room_behind_kept(&mut buffer).copy_from_slice(bytes);
    let mut plain = vec![0; buffer.len()];
    let count = session.receive(&mut buffer, &mut plain, sealed);
    plain.truncate(count);
    session.take_failure().map_or(Ok(plain), Err)
}

fn shake_hands(session: &mut Session, client: &mut ClientConnection) {
    while session.is_handshaking() || client.is_handshaking() {
        let mut sealed = Vec::new();
        receive(session, &said(client), &mut sealed).expect("no error");
        hear(client, &sealed);
    }
}

/// A session after its handshake, and its client.
pub(crate) fn established() -> (Session, ClientConnection) {
    let (mut session, mut client) = (session(), client(&TLS13));
    shake_hands(&mut session, &mut client);
    (session, client)
}

fn either() -> impl Strategy<Value = &'static SupportedProtocolVersion> {
    prop_oneof![Just(&TLS12), Just(&TLS13)]
}

#[test]
fn what_is_sealed_is_what_the_client_reads() {
    for version in [&TLS12, &TLS13] {
        let (mut session, mut client) = (session(), client(version));
        shake_hands(&mut session, &mut client);
        for length in [0, 1, RECORD - 1, RECORD, RECORD + 1, 4 * RECORD] {
            let plain = vec![7; length];
            let mut sealed = b"before".to_vec();
            session.seal(&plain, &mut sealed).expect("no error");
            assert!(sealed.starts_with(b"before"));
            assert_eq!(hear(&mut client, &sealed[6..]), plain);
        }
        let mut end = Vec::new();
        assert!(session.end_output(&mut end));
        hear(&mut client, &end);
        assert_eq!(client.reader().read(&mut [0]).expect("an end"), 0);
        assert!(!session.end_output(&mut end));
        assert!(session.seal(b"more", &mut end).is_err());
    }
}

proptest! {
    #[test]
    fn however_the_input_is_divided_all_of_it_is_read(
        version in either(),
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..5),
        steps in prop::collection::vec(1..200_usize, 1..50),
    ) {
        let (mut session, mut client) = (session(), client(version));
        let (mut sealed, mut plain) = (Vec::new(), Vec::new());
        let mut steps = steps.iter().cycle();
        let mut is_written = false;
        loop {
            if !client.is_handshaking() && !is_written {
                for message in &messages {
                    client.writer().write_all(message).expect("room");
                }
                client.send_close_notify();
                is_written = true;
            }
            let bytes = said(&mut client);
            if bytes.is_empty() {
                break;
            }
            let mut rest = &bytes[..];
            while let Some(step) = steps.next().filter(|_| !rest.is_empty()) {
                let (now, later) = rest.split_at(rest.len().min(*step));
                plain.extend(receive(&mut session, now, &mut sealed).expect("no error"));
                rest = later;
            }
            hear(&mut client, &std::mem::take(&mut sealed));
        }
        prop_assert_eq!(plain, messages.concat());
        prop_assert!(session.input_has_ended());
        prop_assert_eq!(session.kept(), 0);
    }

    #[test]
    fn altered_input_is_an_error_and_never_content(
        version in either(),
        shakes_hands in any::<bool>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        inserted in prop::collection::vec(any::<u8>(), 0..20),
        place in any::<Index>(),
        step in 1..400_usize,
    ) {
        let (mut session, mut client) = (session(), client(version));
        if shakes_hands {
            shake_hands(&mut session, &mut client);
        }
        client.writer().write_all(b"content").expect("room");
        let mut bytes = said(&mut client);
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let place = place.index(bytes.len());
        bytes.splice(place..place, inserted);
        let (mut sealed, mut plain) = (Vec::new(), Vec::new());
        for now in bytes.chunks(step) {
            match receive(&mut session, now, &mut sealed) {
                Ok(more) => plain.extend(more),
                Err(_) => {
                    prop_assert!(session.input_has_ended());
                    prop_assert!(session.seal(b"more", &mut sealed).is_err());
                    break;
                }
            }
            if !session.is_handshaking() {
                session.seal(b"answer", &mut sealed).expect("no error");
            }
        }
        prop_assert!(plain.is_empty() || plain == b"content");
    }
}
