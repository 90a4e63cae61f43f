//! Connections that a proxy has opened for a client, and begins with a PROXY header.

use wire::http::Rejection;
use wire::proxy;

use crate::connection::flow::{Finish, Incoming};
use crate::connection::{Connection, Source, Stage};
use crate::reactor::Reactor;
use crate::reactor::refusals::Refused;
use crate::system::table::Key;

/// Bytes read at a time, so that what follows the header stays short.
pub(super) const READ: usize = 4096;

const STRANGER: &str = "this peer is not in trusted_proxies, and with proxy_protocol only those may connect";
const LATE: &str = "the PROXY header did not arrive in time";

impl Reactor {
    /// Begins with a new connection where a PROXY header is expected, and turns strangers away.
    pub(super) fn expect_header(&mut self, key: Key) {
        let connection = &mut self.connections[key];
        connection.stage = Stage::Header;
        let peer = connection.source.address().ip();
        if self.settings.proxy_protocol.as_ref().is_some_and(|proxies| !proxies.contain(peer)) {
            self.refuse_unproxied(key, STRANGER);
        }
    }

    /// Looks for a whole PROXY header. After it, the connection is the client's.
    pub(super) fn read_header(&mut self) {
        let Some(visit) = &mut self.visit else { return };
        let key = visit.key;
        let header = match proxy::parse(visit.unused(&self.tools.buffer)) {
            Ok(Some(header)) => header,
            Ok(None) => {
                self.read_more();
                return;
            }
            Err(malformed) => {
                self.refuse_unproxied(key, malformed.reason());
                return;
            }
        };
        visit.from += header.length;
        let Ok(tls) = self.tls_session() else {
            // A bug of ours, as in `adopt`.
            self.abort(key);
            return;
        };
        let Some(visit) = &mut self.visit else { return };
        let connection = &mut self.connections[key];
        connection.source = header.client.map_or(Source::Proxy(connection.source.address()), Source::Client);
        connection.stage = Stage::Head { scanned: 0 };
        if let Some(mut session) = tls {
            let sealed = visit.unused(&self.tools.buffer).to_vec();
            visit.from = visit.to;
            if !sealed.is_empty() {
                connection.incoming = connection.incoming.max(Incoming::Readable);
            }
            session.keep(sealed);
            connection.tls = Some(session);
        }
    }

    pub(super) fn reject_late_header(&mut self, key: Key) {
        self.refuse_unproxied(key, LATE);
    }

    /// Answers with 400, or, where the client would expect TLS, without a word.
    fn refuse_unproxied(&mut self, key: Key, reason: &'static str) {
        if self.certificate.is_none() {
            self.reject(key, &Rejection { status: 400, reason, headers: &[] }, None);
            return;
        }
        let peer = self.connections[key].source.address();
        let reason = reason.into();
        self.turned_away(Refused { peer, hides_client: false, status: None, reason, sent: 0, head: None, others: 0 });
        self.finish_sending(key, Finish::Linger);
    }
}

/// The PROXY header that another worker needs to take on this connection, if its own has been read.
pub(super) fn header_again(connection: &Connection) -> Vec<u8> {
    let mut header = Vec::new();
    proxy::write(connection.source.client(), &mut header);
    header
}
