//! HTTP: what comes before a WebSocket, and is served beside it on the same port.

use std::borrow::Cow;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;

use wire::body::BodyDecoder;
use wire::handshake::{self, Offers, Upgrade};
use wire::http::{self, Body, Framing, Head, Persistence, Rejection, Scheme};
use wire::path;
use wire::receiver::Receiver;
use wire::sender::Sender;

use crate::connection::exchange::{Answer, Exchange, RequestBody};
use crate::connection::flow::{Finish, Incoming};
use crate::connection::outbox::{Kept, Outbox, Pool};
use crate::connection::{Asked, Stage, Unfinished, Wait};
use crate::endpoints::{Bodies, EndpointId, WebSockets};
use crate::reactor::Reactor;
use crate::reactor::event::{Event, Shortage, Token};
use crate::reactor::phase::Phase;
use crate::reactor::refusals::Refused;
use crate::registry::{Fd, NoId, add};
use crate::system::table::Key;
use crate::tls::session;

/// Seconds after which a client that was refused for lack of room may retry.
const RETRY_AFTER: &str = "5";

const TOO_LARGE: Rejection = Rejection { status: 431, reason: "the request head is too large", headers: &[] };
const TOO_SLOW: Rejection = Rejection { status: 408, reason: "the request took too long", headers: &[] };
const FOREIGN_ORIGIN: Rejection =
    Rejection { status: 403, reason: "pages of this origin may not connect here", headers: &[] };
const FOREIGN_HOST: Rejection = Rejection { status: 400, reason: "this host is not served here", headers: &[] };
const NOT_FOUND: Rejection = Rejection { status: 404, reason: "not found", headers: &[] };
const NO_ROOM: Rejection =
    Rejection { status: 503, reason: "too many connections", headers: &[("Retry-After", RETRY_AFTER)] };
const TOO_MANY_HANDLERS: Rejection = Rejection {
    status: 503,
    reason: "too many handlers are still running for clients that have left",
    headers: &[("Retry-After", RETRY_AFTER)],
};
const NO_IDS: Rejection = Rejection { status: 503, reason: "all connection ids have been given out", headers: &[] };
const NO_LEASED_IDS: Rejection =
    Rejection { status: 503, reason: "no connection ids are leased", headers: &[("Retry-After", RETRY_AFTER)] };
const STOPPING: Rejection =
    Rejection { status: 503, reason: "the server is stopping", headers: &[("Retry-After", RETRY_AFTER)] };
const PLAIN_HTTP: Rejection =
    Rejection { status: 400, reason: "this port speaks TLS: use https:// or wss://", headers: &[] };
/// It would show a page what the browser hides from it, cookies for example (RFC 9110 §9.3.8).
const NO_TRACES: Rejection = Rejection { status: 501, reason: "TRACE is not supported", headers: &[] };

/// What an acceptable request asks for.
enum Accepted {
    Handshake(Upgrade),
    Request { body: BodyDecoder, expects_continue: bool },
}

/// The reason as the operator reads it, with the host that was asked for and the setting that refused it.
fn reason_for_log(rejection: &Rejection, head: Option<&Head>) -> Cow<'static, str> {
    match head {
        Some(head) if *rejection == FOREIGN_HOST => {
            let host = String::from_utf8_lossy(head.authority().unwrap_or_default());
            Cow::Owned(format!("{}: '{host}' is not in allowed_hosts", rejection.reason))
        }
        _ if *rejection == FOREIGN_ORIGIN => Cow::Owned(format!("{}, see the setting origins", rejection.reason)),
        _ => Cow::Borrowed(rejection.reason),
    }
}

/// What TLS has agreed on with a client.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// The protocol's version (RFC 8446 §4.1.2), `0x0304` for TLS 1.3.
    pub version: Option<u16>,
    /// The cipher suite (RFC 8446 §B.4).
    pub cipher_suite: Option<u16>,
    /// The client's certificates in DER, its own first; none unless clients need one.
    pub certificates: Vec<Vec<u8>>,
}

impl Reactor {
    /// Handles a request head. Returns the event if the request is to be passed to a handler; otherwise it has been
    /// answered, or its body is awaited.
    pub(crate) fn enter(&mut self, key: Key, head: Result<Head, Rejection>) -> Option<Event<'static>> {
        let (head, rejection) = match head {
            Ok(head) => match self.examine(key, &head) {
                Ok(Accepted::Handshake(upgrade)) => {
                    let head = Arc::new(head);
                    let (token, peer) = self.await_answer(key, Asked::Handshake(Box::new(upgrade), Arc::clone(&head)));
                    let endpoint = self.connections[key].endpoint;
                    return Some(Event::Handshake { token, head, peer, endpoint });
                }
                Ok(Accepted::Request { body, .. }) if body.is_complete() => {
                    return Some(self.request(key, head, Some(Vec::new()), RequestBody::Taken));
                }
                Ok(Accepted::Request { body, expects_continue }) if self.streams_body(key) => {
                    match self.enter_with_head(key, head, body, expects_continue) {
                        Ok(event) => return Some(event),
                        Err(refused) => {
                            let (head, rejection) = *refused;
                            (Some(Arc::new(head)), rejection)
                        }
                    }
                }
                Ok(Accepted::Request { body, expects_continue }) => {
                    self.await_body(key, Unfinished { head, body });
                    if expects_continue {
                        self.ask_for_body(key);
                    }
                    return None;
                }
                Err(rejection) => (Some(Arc::new(head)), rejection),
            },
            Err(rejection) => (None, rejection),
        };
        self.reject(key, &rejection, head);
        None
    }

    fn examine(&mut self, key: Key, head: &Head) -> Result<Accepted, Rejection> {
        // This comes first: pages that may not connect should cost as little as possible.
        if !self.settings.allowed_hosts.allows_head(head, self.scheme()) {
            return Err(FOREIGN_HOST);
        }
        let endpoint = self.settings.endpoints.find(head);
        self.connections[key].endpoint = endpoint;
        if head.wants_upgrade() {
            return self.check_handshake(endpoint, head).map(Accepted::Handshake);
        }
        let length = http::body_length(head)?;
        if head.method() == "TRACE" {
            return Err(NO_TRACES);
        }
        let expects_continue = head.expects_continue()?;
        let body = BodyDecoder::new(length, self.settings.max_body_size)?;
        Ok(Accepted::Request { body, expects_continue })
    }

    fn check_handshake(&mut self, endpoint: EndpointId, head: &Head) -> Result<Upgrade, Rejection> {
        // These are the first checks of a handshake, for the same reason.
        if self.settings.endpoints.websockets(endpoint) == WebSockets::NotFound {
            return Err(NOT_FOUND);
        }
        if !self.settings.origins_of(endpoint).allows_head(head, self.scheme()) {
            return Err(FOREIGN_ORIGIN);
        }
        let offers = if self.settings.compression { Offers::Accepted } else { Offers::Declined };
        let upgrade = handshake::check(head, offers)?;
        self.check_room()?;
        Ok(upgrade)
    }

    /// Whether one more connection may be admitted.
    fn check_room(&mut self) -> Result<(), Rejection> {
        if self.phase == Phase::Refusing || self.shared.registry.is_draining() {
            return Err(STOPPING);
        }
        if self.shared.registry.connections() >= self.settings.max_connections as u64 {
            return Err(NO_ROOM);
        }
        if self.is_overrun() {
            self.shortage = Some(Shortage::Handlers(self.outliving()));
            return Err(TOO_MANY_HANDLERS);
        }
        if self.ids.are_exhausted(&self.shared.registry) {
            return Err(self.no_id(NoId::Exhausted));
        }
        Ok(())
    }

    /// The answer when no id can be given out.
    fn no_id(&mut self, why: NoId) -> Rejection {
        let (shortage, rejection) = match why {
            NoId::NoFreeRow => return NO_ROOM,
            NoId::Exhausted => (Shortage::Ids, NO_IDS),
            NoId::Unleased => (Shortage::LeasedIds, NO_LEASED_IDS),
        };
        self.shortage = Some(shortage);
        rejection
    }

    fn scheme(&self) -> Scheme {
        if self.settings.certificate.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// Whether the application takes the body of this request as it arrives.
    fn streams_body(&self, key: Key) -> bool {
        self.settings.endpoints.bodies(self.connections[key].endpoint) == Bodies::Streamed
    }

    /// The event for a request.
    pub(crate) fn request(
        &mut self,
        key: Key,
        head: Head,
        body: Option<Vec<u8>>,
        remaining: RequestBody,
    ) -> Event<'static> {
        let exchange = Exchange {
            head_only: head.method() == "HEAD",
            keep_alive: head.keep_alive(),
            takes_chunks: head.minor_version() == 1,
            body: remaining,
            answer: Answer::Nothing,
        };
        let (token, peer) = self.await_answer(key, Asked::Request(exchange));
        let endpoint = self.connections[key].endpoint;
        Event::Request { token, head, peer, endpoint, body }
    }

    /// Makes the connection wait for its handler. Returns the token that names it to the handler, and the peer.
    fn await_answer(&mut self, key: Key, asked: Asked) -> (Token, SocketAddr) {
        self.requests = self.requests.wrapping_add(1);
        let connection = &mut self.connections[key];
        connection.stage = Stage::Asked(asked);
        connection.request = self.requests;
        self.outlive_if_abandoned(key);
        self.wait(key, Wait::Nothing);
        let connection = &self.connections[key];
        (Token { key, number: connection.request }, connection.source.address())
    }

    /// An id for a new connection, if the whole server has room for one more.
    fn new_id(&mut self) -> Result<Fd, Rejection> {
        self.check_room()?;
        // Take the place first, so that a refusal costs no id.
        if !self.shared.registry.take_place(self.shared.slot, self.settings.max_connections) {
            return Err(NO_ROOM);
        }
        let fd = self.ids.next(&self.shared.registry).map_err(|why| {
            self.shared.registry.give_place_back(self.shared.slot);
            self.no_id(why)
        });
        self.ask_for_ids_if_few();
        fd
    }

    pub(crate) fn reject_too_large(&mut self, key: Key) {
        self.reject(key, &TOO_LARGE, None);
    }

    pub(crate) fn reject_too_slow(&mut self, key: Key) {
        self.reject(key, &TOO_SLOW, None);
    }

    pub(crate) fn reject_stopping(&mut self, key: Key) {
        self.reject(key, &STOPPING, None);
    }

    /// Answers plain HTTP on a port that speaks TLS.
    pub(crate) fn reject_plain(&mut self, key: Key) {
        self.reject(key, &PLAIN_HTTP, None);
    }

    /// Answers TLS on a port that speaks plain HTTP.
    pub(crate) fn alert_that_there_is_no_tls(&mut self, key: Key) {
        let alert = |out: &mut Vec<u8>| out.extend_from_slice(session::NO_TLS_HERE);
        self.connections[key].outbox.append(&mut self.tools.pool, alert);
        self.refuse_tls(key, "this port speaks plain HTTP (there is no ssl_certfile)");
        self.finish_sending(key, Finish::Linger);
    }

    /// Gives up a request whose body does not arrive in time.
    pub(crate) fn give_up_body(&mut self, key: Key) {
        self.fail_body(key, &TOO_SLOW);
    }

    /// Answers a request that is not passed to a handler, and closes: what follows it may not be what it seems.
    pub(crate) fn reject(&mut self, key: Key, rejection: &Rejection, head: Option<Arc<Head>>) {
        let head = head.or_else(|| match std::mem::replace(&mut self.connections[key].stage, Stage::Gone) {
            Stage::Body(request) => Some(Arc::new(request.head)),
            _ => None,
        });
        let mut headers = vec![("Content-Type", "text/plain; charset=utf-8")];
        headers.extend_from_slice(rejection.headers);
        let body = format!("{}\n", rejection.reason);
        // RFC 9110 §9.3.2: no content in the response to HEAD.
        let (sent, content) = match &head {
            Some(head) if head.method() == "HEAD" => (0, Body::Announced(body.len())),
            _ => (body.len(), Body::Sent(body.as_bytes())),
        };
        let date = self.clock.date();
        self.connections[key].outbox.append(&mut self.tools.pool, |out| {
            http::write_response(out, rejection.status, &headers, content, Persistence::Close, date);
        });
        self.turned_away(Refused {
            peer: self.connections[key].source.address(),
            hides_client: self.connections[key].source.hides_client(),
            status: Some(rejection.status),
            reason: reason_for_log(rejection, head.as_deref()),
            sent,
            head,
            others: 0,
        });
        self.finish_sending(key, Finish::Linger);
    }

    /// Counts a client that never reached a handler, and has it reported.
    pub(crate) fn turned_away(&mut self, refused: Refused) {
        self.count_refused(refused.status);
        self.refusals.push(refused);
    }

    fn count_refused(&self, status: Option<u16>) {
        add(&self.shared.totals().refused, 1);
        self.shared.measured().refused(status);
    }

    /// The endpoint that a handshake is for; the server itself, if the client has gone.
    pub fn endpoint(&self, token: Token) -> EndpointId {
        let connection = self.connections.get(token.key).filter(|it| it.request == token.number);
        connection.map_or(EndpointId::SERVER, |connection| connection.endpoint)
    }

    /// The certificate that the client of a request has shown, in DER; `None` without one, or if the client has gone.
    pub fn peer_certificate(&self, token: Token) -> Option<&[u8]> {
        let connection = self.connections.get(token.key).filter(|it| it.request == token.number)?;
        connection.tls.as_ref()?.peer_certificate()
    }

    /// What TLS has agreed on with the client of a request; `None` without TLS, or if the client has gone.
    pub fn tls_facts(&self, token: Token) -> Option<TlsFacts> {
        let connection = self.connections.get(token.key).filter(|it| it.request == token.number)?;
        let session = connection.tls.as_ref()?;
        let (version, cipher_suite) = session.agreed();
        let certificates = session.peer_certificates().map(<[u8]>::to_vec).collect();
        Some(TlsFacts { version, cipher_suite, certificates })
    }

    /// Whether the peer is a proxy whose PROXY header named no client.
    pub fn hides_client(&self, token: Token) -> bool {
        self.connections.get(token.key).is_some_and(|it| it.request == token.number && it.source.hides_client())
    }

    /// The subprotocols that a handshake offers, and the one from `settings` that the server would choose.
    pub fn offered_subprotocols(&self, token: Token) -> (Vec<String>, Option<String>) {
        let connection = self.connections.get(token.key).filter(|it| it.request == token.number);
        match connection.map(|connection| &connection.stage) {
            Some(Stage::Asked(Asked::Handshake(upgrade, _))) => {
                let known = self.settings.subprotocols_of(self.endpoint(token));
                let chosen = handshake::choose_subprotocol(known, &upgrade.protocols);
                (upgrade.protocols.clone(), chosen.map(str::to_owned))
            }
            _ => (Vec::new(), None),
        }
    }

    /// Accepts a handshake: the 101 is queued, and from here on the connection has an id. `client` replaces the peer's
    /// address in the connection's information. Returns `None` if the connection is gone, or there is no longer room.
    ///
    /// Names and values of `headers` must have been checked.
    pub fn accept<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        token: Token,
        subprotocol: Option<&str>,
        headers: &[(N, V)],
        client: Option<SocketAddr>,
    ) -> Option<Fd> {
        self.clock.read();
        self.settle();
        let (key, asked) = self.asked(token)?;
        let Asked::Handshake(upgrade, head) = asked else {
            return None;
        };
        let fd = match self.new_id() {
            Ok(fd) => fd,
            Err(rejection) => {
                self.reject(key, &rejection, Some(head));
                return None;
            }
        };
        let connection = &mut self.connections[key];
        let known = self.settings.subprotocols_of(connection.endpoint);
        let chosen = subprotocol.or_else(|| handshake::choose_subprotocol(known, &upgrade.protocols));
        connection.max_message_size = self.settings.max_message_size_of(connection.endpoint);
        let client = client.unwrap_or(connection.source.address());
        // Others see the connection before the peer can have seen the 101.
        let path = path::shown(head.path_and_query().0);
        self.shared.registry.claim(fd, client, &path, self.clock.unix);
        let date = self.clock.date();
        connection.outbox.append(&mut self.tools.pool, |out| {
            handshake::write_accept(out, &upgrade, chosen, headers, date);
        });
        connection.outbox.end_preface(&mut self.tools.pool);
        let compression = upgrade.compression.map(|(parameters, _)| parameters);
        connection.stage = Stage::WebSocket(Receiver::new(compression));
        connection.doubled = 0;
        connection.sender = Sender::new(compression);
        add(&self.shared.totals().accepted, 1);
        self.name(key, fd);
        self.connections[key].idle_since = self.clock.now;
        self.wait(key, Wait::Ping);
        self.queued(key);
        self.make_ready(key);
        Some(fd)
    }

    /// Completes the upgrade and closes at once with `code`. A browser's page can read that code, unlike the status of
    /// a refused handshake. The connection gets no id and has no events.
    pub fn refuse(&mut self, token: Token, code: u16, reason: &str) {
        let Some((key, Asked::Handshake(upgrade, _))) = self.asked(token) else {
            return;
        };
        self.count_refused(Some(101));
        let (mut receiver, mut sender) = (Receiver::new(None), Sender::new(None));
        let connection = &mut self.connections[key];
        let known = self.settings.subprotocols_of(connection.endpoint);
        let chosen = handshake::choose_subprotocol(known, &upgrade.protocols);
        let no_headers: [(&str, &str); 0] = [];
        let date = self.clock.date();
        let _ = connection.outbox.append(&mut self.tools.pool, |out| {
            handshake::write_accept(out, &upgrade, chosen, &no_headers, date);
            sender.close(&mut receiver, Some(code), reason, out)
        });
        (connection.stage, connection.sender) = (Stage::WebSocket(receiver), sender);
        self.wait(key, Wait::Taking);
        self.queued(key);
        self.make_ready(key);
    }

    /// Answers a request, or refuses a handshake, with a response. Names and values of `headers` must have been
    /// checked. Returns false if the client is known to be gone.
    pub fn respond<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        token: Token,
        status: u16,
        headers: &[(N, V)],
        body: &[u8],
    ) -> bool {
        self.answer(token, status, headers, body.len(), |outbox, pool| {
            outbox.append(pool, |out| out.extend_from_slice(body));
        })
    }

    /// The same, with a long body, which is not copied.
    pub fn respond_kept<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        token: Token,
        status: u16,
        headers: &[(N, V)],
        body: Kept,
    ) -> bool {
        self.answer(token, status, headers, (*body).as_ref().len(), |outbox, _| outbox.keep(body))
    }

    /// The same, with `length` bytes of a file, starting at `offset`, as the body. They are read as the peer takes
    /// them; if they no longer exist by then, the connection is cut.
    pub fn respond_file<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        token: Token,
        status: u16,
        headers: &[(N, V)],
        file: File,
        offset: u64,
        length: usize,
    ) -> bool {
        self.answer(token, status, headers, length, |outbox, _| outbox.append_file(file, offset, length))
    }

    /// Sends a response, and its body of `length` bytes with `put_body`, if it is to have one.
    fn answer<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        token: Token,
        status: u16,
        headers: &[(N, V)],
        length: usize,
        put_body: impl FnOnce(&mut Outbox, &mut Pool),
    ) -> bool {
        self.clock.read();
        let is_serving = self.phase == Phase::Serving;
        let connection = self.connections.get_mut(token.key).filter(|it| it.request == token.number);
        if connection.is_none_or(|it| it.exchange().is_some_and(|exchange| exchange.has_begun_answer())) {
            return false;
        }
        let Some((key, asked)) = self.asked(token) else {
            return false;
        };
        let mut persistence = Persistence::Close;
        let mut is_sent = !http::is_bodiless(status);
        match &asked {
            Asked::Request(exchange) => {
                is_sent &= !exchange.head_only;
                if is_serving && exchange.may_be_kept() && !http::asks_to_close(headers) {
                    persistence = Persistence::KeepAlive;
                }
            }
            Asked::Handshake(..) => self.count_refused(Some(status)),
        }
        let connection = &mut self.connections[key];
        let is_there = connection.incoming != Incoming::HungUp;
        let date = self.clock.date();
        connection.outbox.append(&mut self.tools.pool, |out| {
            http::write_response_head(out, status, headers, Framing::Length(length as u64), persistence, date);
        });
        if is_sent {
            put_body(&mut connection.outbox, &mut self.tools.pool);
        }
        match asked {
            Asked::Request(exchange) => self.answered(key, exchange, persistence),
            Asked::Handshake(..) => self.finish_sending(key, Finish::Linger),
        }
        is_there
    }
}
