//! The first words on a connection: who we are, and whether the server is one that can be used. No I/O here.
//!
//! The server may still have input of the connection before this one, which it has not read. So the last words end that
//! connection: what was sent there is executed before anything that is sent here, or never.

use std::collections::VecDeque;

use redis_protocol::resp3::types::RangeFrame;

use super::input::Frame;
use super::resp;
use crate::redis_address::{Host, Login, Place, RedisAddress};

/// Characters of Redis's own words in a reason.
const MAX_QUOTED: usize = 200;

/// Why a connection cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may be usable in a moment.
    Lost(String),
    /// Somebody has to change something.
    Unusable(String),
}

impl Failure {
    /// Both of this and of another one, which came next. If one of the two may be over in a moment, so may both.
    pub(super) fn and(self, next: Self) -> Self {
        let is_lasting = matches!((&self, &next), (Self::Unusable(_), Self::Unusable(_)));
        let (Self::Lost(text) | Self::Unusable(text), Self::Lost(other) | Self::Unusable(other)) = (self, next);
        let both = format!("{text}; {other}");
        if is_lasting { Self::Unusable(both) } else { Self::Lost(both) }
    }
}

/// A connection as its server knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// The server's process.
    pub(super) run_id: String,
    /// The connection's number in that process, which no other connection has had.
    pub(super) client: Option<u64>,
}

/// A server that can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) identity: Identity,
    /// The server refuses to end the connection before this one, and why.
    pub(super) refusal: Option<String>,
}

/// What the greeting was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Welcome {
    Ready(Ready),
    /// A Sentinel says where the server is.
    Server(Host),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Hello,
    Select,
    Role,
    Info,
    End,
    Master,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Greeting {
    /// The server, for people.
    server: String,
    steps: VecDeque<Step>,
    is_led_by_sentinels: bool,
    database: u32,
    /// The last connection that was usable.
    former: Option<Identity>,
    ready: Ready,
}

impl Greeting {
    /// Greets a server. `name`: what it is to call this connection; `former`: the last one that was usable. Appends what
    /// is to be sent.
    pub(super) fn server(
        server: String,
        address: &RedisAddress,
        name: &str,
        former: Option<Identity>,
        output: &mut Vec<u8>,
    ) -> Self {
        let mut steps = VecDeque::from([Step::Hello]);
        hello(name, address.login.as_ref(), output);
        if address.database != 0 {
            resp::encode(&[b"SELECT", address.database.to_string().as_bytes()], output);
            steps.push_back(Step::Select);
        }
        resp::encode(&[b"ROLE"], output);
        steps.push_back(Step::Role);
        resp::encode(&[b"INFO", b"server"], output);
        steps.push_back(Step::Info);
        let is_led_by_sentinels = matches!(address.place, Place::Sentinels { .. });
        let ready = Ready::default();
        Self { server, steps, is_led_by_sentinels, database: address.database, former, ready }
    }

    /// Asks a Sentinel where the server of this name is. Appends what is to be sent.
    pub(super) fn sentinel(sentinel: String, name: &str, login: Option<&Login>, output: &mut Vec<u8>) -> Self {
        hello("hubbub", login, output);
        resp::encode(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_bytes()], output);
        let steps = [Step::Hello, Step::Master].into();
        let server = format!("{sentinel} (Sentinel)");
        let ready = Ready::default();
        Self { server, steps, is_led_by_sentinels: true, database: 0, former: None, ready }
    }

    /// Takes the next reply. Appends what is to be sent then. Returns the result with the last reply.
    ///
    /// # Errors
    /// Why the server cannot be used.
    pub(super) fn take(&mut self, reply: &Frame<'_>, output: &mut Vec<u8>) -> Result<Option<Welcome>, Failure> {
        let Frame { decoded, bytes } = reply;
        let step = self.steps.pop_front().ok_or_else(|| self.lost("sent something that was not asked for"))?;
        if let Some(error) = resp::error(decoded, bytes) {
            match (step, self.refused(step, error)) {
                // A user may be allowed everything else.
                (Step::End, Failure::Unusable(_)) => self.ready.refusal = Some(quoted(error)),
                (_, failure) => return Err(failure),
            }
            return Ok(self.result());
        }
        match step {
            Step::Hello => self.take_properties(decoded, bytes)?,
            // The number of connections that were ended: none if the server has noticed the end before.
            Step::Select | Step::End => {}
            Step::Role => self.check_role(decoded, bytes)?,
            Step::Info => {
                let info = resp::text(decoded, bytes).map(String::from_utf8_lossy).unwrap_or_default();
                let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
                let run_id = run_id.ok_or_else(|| self.lost("has no run_id in INFO"))?.chars().take(64).collect();
                self.ready.identity.run_id = run_id;
                self.end_former(output);
            }
            Step::Master => return self.master(decoded, bytes).map(|host| Some(Welcome::Server(host))),
        }
        Ok(self.result())
    }

    fn result(&mut self) -> Option<Welcome> {
        self.steps.is_empty().then(|| Welcome::Ready(std::mem::take(&mut self.ready)))
    }

    /// Ends the connection before this one, unless that was on another server, or on an earlier process of this one, which
    /// has given the same number to somebody else.
    fn end_former(&mut self, output: &mut Vec<u8>) {
        let Identity { run_id, client: own } = &self.ready.identity;
        let former = self.former.as_ref().filter(|former| former.run_id == *run_id && former.client != *own);
        if let Some(client) = former.and_then(|former| former.client) {
            resp::encode(&[b"CLIENT", b"KILL", b"ID", client.to_string().as_bytes()], output);
            self.steps.push_back(Step::End);
        }
    }

    /// Looks at the properties of the server.
    fn take_properties(&mut self, properties: &RangeFrame, bytes: &[u8]) -> Result<(), Failure> {
        let RangeFrame::Map { data, .. } = properties else { return Err(self.lost("answers HELLO in a strange way")) };
        let property = |wanted: &[u8]| data.iter().find(|(name, _)| resp::text(name, bytes) == Some(wanted));
        if let Some((_, RangeFrame::Number { data: client, .. })) = property(b"id") {
            self.ready.identity.client = u64::try_from(*client).ok();
        }
        match property(b"mode").and_then(|(_, mode)| resp::text(mode, bytes)) {
            Some(b"cluster") => Err(self.unusable(
                "is a part of a Redis Cluster, which cannot be the broker; it needs \
                one server, with or without replicas",
            )),
            Some(b"sentinel") if matches!(self.steps.front(), Some(Step::Select | Step::Role)) => {
                Err(self.unusable("is a Sentinel; its address begins with redis+sentinel://"))
            }
            _ => Ok(()),
        }
    }

    fn check_role(&self, role: &RangeFrame, bytes: &[u8]) -> Result<(), Failure> {
        let RangeFrame::Array { data, .. } = role else { return Err(self.lost("answers ROLE in a strange way")) };
        match data.first().and_then(|role| resp::text(role, bytes)) {
            Some(b"master") => Ok(()),
            // In the middle of a failover, a Sentinel may still name the old server.
            Some(b"slave") if self.is_led_by_sentinels => Err(self.lost("is a replica now")),
            Some(b"slave") => {
                Err(self
                    .unusable("is a replica, which cannot be written to; the broker needs the address of its master"))
            }
            _ => Err(self.lost("answers ROLE in a strange way")),
        }
    }

    fn master(&self, place: &RangeFrame, bytes: &[u8]) -> Result<Host, Failure> {
        if matches!(place, RangeFrame::Null) {
            return Err(self.unusable("does not know servers of that name"));
        }
        let host = || {
            let RangeFrame::Array { data, .. } = place else { return None };
            let [name, port] = data.as_slice() else { return None };
            let text = |part| std::str::from_utf8(resp::text(part, bytes)?).ok();
            let name = text(name).filter(|name| !name.is_empty())?;
            Some(Host { name: name.to_owned(), port: text(port)?.parse().ok().filter(|port| *port != 0)? })
        };
        host().ok_or_else(|| self.lost("names the server in a strange way"))
    }

    fn refused(&self, step: Step, error: &[u8]) -> Failure {
        let error = quoted(error);
        let is = |code: &str| error.strip_prefix(code).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        if is("LOADING") || is("MASTERDOWN") || is("BUSY") || is("TRYAGAIN") || error.contains("max number of clients")
        {
            return self.lost(&format!("is not ready: {error}"));
        }
        if is("WRONGPASS") || error.starts_with("ERR invalid password") {
            return self.unusable(&format!("refuses the user or the password: {error}"));
        }
        if is("NOAUTH") {
            return self.unusable(&format!("requires a password: {error}"));
        }
        match step {
            Step::Hello if is("NOPROTO") || error.to_ascii_lowercase().contains("unknown command") => {
                self.unusable(&format!("is too old: Redis 6 or later, or Valkey, is required: {error}"))
            }
            Step::Select => self.unusable(&format!("has no database {}: {error}", self.database)),
            _ if is("NOPERM") => self.unusable(&format!("does not allow this user what Hubbub needs: {error}")),
            _ => self.unusable(&format!("refuses: {error}")),
        }
    }

    fn lost(&self, what: &str) -> Failure {
        Failure::Lost(format!("Redis at {} {what}", self.server))
    }

    fn unusable(&self, what: &str) -> Failure {
        Failure::Unusable(format!("Redis at {} {what}", self.server))
    }
}

fn hello(name: &str, login: Option<&Login>, output: &mut Vec<u8>) {
    let name = name.as_bytes();
    match login {
        Some(Login { username, password }) => {
            let login = [username.as_bytes(), password.as_bytes()];
            resp::encode(&[b"HELLO", b"3", b"AUTH", login[0], login[1], b"SETNAME", name], output);
        }
        None => resp::encode(&[b"HELLO", b"3", b"SETNAME", name], output),
    }
}

/// The server's words on one line of limited length.
pub(super) fn quoted(error: &[u8]) -> String {
    let words = String::from_utf8_lossy(error);
    words.chars().take(MAX_QUOTED).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests;
