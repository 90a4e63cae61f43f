//! Where Redis is, and who we are there.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

/// The ports of Redis and of its Sentinel.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// A number that a configuration of Redis may allow; 16 databases are usual.
const MAX_DATABASE: u32 = 1_000_000;

/// The address of a Redis or Valkey server, as the setting `broker` gives it.
///
/// One of
/// - `redis://user:password@host:6379/0`, or `rediss://…` with TLS. The certificate has to be of an authority that the
///   system trusts, or of one in the PEM file `?ca_certs=/path`.
/// - `redis+unix://user:password@/path/to/redis.sock?db=0`
/// - `redis+sentinel://user:password@name@host:26379,host:26379/0`, where `name` is the name of the group of servers.
///   `?sentinel_password=` (and `sentinel_username`) are for the Sentinels themselves.
///
/// User and password may also be parameters: `?username=…&password=…`. All parts may be percent-encoded.
#[derive(Clone, Debug)]
pub struct RedisAddress {
    pub(crate) place: Place,
    pub(crate) login: Option<Login>,
    /// The login at the Sentinels.
    pub(crate) sentinel_login: Option<Login>,
    pub(crate) database: u32,
    /// TLS, if it is to be used.
    pub(crate) trust: Option<Trust>,
}

/// What connections are made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Host(Host),
    Socket(PathBuf),
    /// The Sentinels that know where the server of this name is.
    Sentinels {
        name: String,
        sentinels: Vec<Host>,
    },
}

/// A host's name or IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// How to prove to be allowed in.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: String,
}

/// Whose certificates are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Those that the system trusts.
    System,
    /// The authorities in a PEM file.
    File(PathBuf),
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Login({}:***)", self.username)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        if name.contains(':') { write!(formatter, "[{name}]:{port}") } else { write!(formatter, "{name}:{port}") }
    }
}

/// The address without a password, for people.
impl fmt::Display for RedisAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host(host) => write!(formatter, "{host}"),
            Place::Socket(path) => write!(formatter, "{}", path.to_string_lossy().escape_debug()),
            Place::Sentinels { name, .. } => write!(formatter, "the Sentinels of '{}'", name.escape_debug()),
        }
    }
}

impl RedisAddress {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// One line for people that names the setting and what is wrong. It repeats no part that may be a secret.
    pub fn parse(url: &str) -> Result<Self, String> {
        parse(url).map_err(|error| format!("broker: {error}"))
    }
}

fn parse(url: &str) -> Result<RedisAddress, String> {
    if url.chars().any(|char| char.is_whitespace() || char.is_control() || char == '#') {
        return Err("an address has no spaces and no '#'; write them as %20 and %23".into());
    }
    let unknown = "an address begins with redis://, rediss://, redis+unix:// or redis+sentinel://";
    let (scheme, rest) = url.split_once("://").ok_or(unknown)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let query = Query::parse(query)?;
    let address = match scheme {
        "redis" | "rediss" => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let (login, authority) = split_login(authority)?;
            let trust = (scheme == "rediss").then(|| match &query.ca_certs {
                Some(file) => Trust::File(file.into()),
                None => Trust::System,
            });
            RedisAddress {
                place: Place::Host(host(authority, PORT)?),
                login,
                sentinel_login: None,
                database: query.database(path)?,
                trust,
            }
        }
        "redis+unix" => {
            let path = rest.find('/').ok_or("redis+unix:// needs the path of a socket, which begins with '/'")?;
            let (before, path) = rest.split_at(path);
            let (login, nothing) = split_login(before)?;
            if !nothing.is_empty() {
                return Err("redis+unix:// has no host: three slashes come before the path of the socket".into());
            }
            let place = Place::Socket(decoded(path, "path")?.into());
            RedisAddress { place, login, sentinel_login: None, database: query.database("")?, trust: None }
        }
        "redis+sentinel" => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let nameless = "redis+sentinel:// needs the name of the servers before an '@': redis+sentinel://name@host";
            let (before, sentinels) = authority.rsplit_once('@').ok_or(nameless)?;
            let (login, name) = split_login(before)?;
            let name = decoded(name, "name")?;
            if name.is_empty() {
                return Err(nameless.into());
            }
            let sentinels = sentinels.split(',').map(|one| host(one, SENTINEL_PORT)).collect::<Result<_, _>>()?;
            RedisAddress {
                place: Place::Sentinels { name, sentinels },
                login,
                sentinel_login: query.sentinel_login()?,
                database: query.database(path)?,
                trust: None,
            }
        }
        _ => return Err(unknown.into()),
    };
    query.complete(address)
}

/// The parameters after the `?`.
#[derive(Default)]
struct Query {
    username: Option<String>,
    password: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<String>,
    ca_certs: Option<String>,
    db: Option<String>,
}

impl Query {
    fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or("a parameter after the '?' has no '='")?;
            let place = match name {
                "username" => &mut parsed.username,
                "password" => &mut parsed.password,
                "sentinel_username" => &mut parsed.sentinel_username,
                "sentinel_password" => &mut parsed.sentinel_password,
                "ca_certs" => &mut parsed.ca_certs,
                "db" => &mut parsed.db,
                _ => {
                    let known = "username, password, sentinel_username, sentinel_password, ca_certs and db";
                    return Err(format!("the parameters after the '?' are {known}"));
                }
            };
            if place.replace(decoded(value, name)?).is_some() {
                return Err(format!("the parameter {name} is there twice"));
            }
        }
        Ok(parsed)
    }

    /// The number of the database, which is in the path or in `db`.
    fn database(&self, path: &str) -> Result<u32, String> {
        let digits = match &self.db {
            Some(_) if !path.is_empty() => return Err("the number of the database is there twice".into()),
            Some(digits) => digits,
            None if path.is_empty() => return Ok(0),
            None => path,
        };
        let number = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|digits| digits.parse().ok()).filter(|number| *number <= MAX_DATABASE);
        number.ok_or_else(|| format!("a database is a number from 0 to {MAX_DATABASE}"))
    }

    fn sentinel_login(&self) -> Result<Option<Login>, String> {
        if self.sentinel_username.is_some() && self.sentinel_password.is_none() {
            return Err("sentinel_username is of no use without sentinel_password".into());
        }
        let username = self.sentinel_username.clone().unwrap_or_else(|| "default".into());
        Ok(self.sentinel_password.clone().map(|password| Login { username, password }))
    }

    /// Adds to an address what only parameters say.
    fn complete(self, mut address: RedisAddress) -> Result<RedisAddress, String> {
        if self.ca_certs.is_some() && address.trust.is_none() {
            return Err("ca_certs is for rediss:// only".into());
        }
        let is_for_sentinels = self.sentinel_username.is_some() || self.sentinel_password.is_some();
        if is_for_sentinels && !matches!(address.place, Place::Sentinels { .. }) {
            return Err("sentinel_username and sentinel_password are for redis+sentinel:// only".into());
        }
        match (self.username, self.password) {
            (None, None) => {}
            _ if address.login.is_some() => return Err("user and password are there twice".into()),
            (Some(_), None) => return Err("username is of no use without password".into()),
            (username, Some(password)) => {
                address.login = Some(Login { username: username.unwrap_or_else(|| "default".into()), password });
            }
        }
        Ok(address)
    }
}

/// Splits what comes before the last `@` off.
fn split_login(text: &str) -> Result<(Option<Login>, &str), String> {
    let Some((login, rest)) = text.rsplit_once('@') else { return Ok((None, text)) };
    let (username, password) = login.split_once(':').unwrap_or((login, ""));
    let username = if username.is_empty() { "default".into() } else { decoded(username, "user")? };
    Ok((Some(Login { username, password: decoded(password, "password")? }), rest))
}

fn host(text: &str, default_port: u16) -> Result<Host, String> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or("an IPv6 address ends with ']'")?;
            if name.parse::<Ipv6Addr>().is_err() {
                return Err("there is no IPv6 address between '[' and ']'".into());
            }
            (name.to_owned(), port)
        }
        None => {
            if text.matches(':').count() > 1 {
                return Err("an IPv6 address is written in brackets".into());
            }
            let (name, port) = text.find(':').map_or((text, ""), |colon| text.split_at(colon));
            (decoded(name, "host")?, port)
        }
    };
    if name.is_empty() || name.chars().any(|char| char.is_control() || "@/,".contains(char)) {
        return Err("the name of a host is missing".into());
    }
    if port.is_empty() {
        return Ok(Host { name, port: default_port });
    }
    let digits = port.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok()).filter(|port| *port != 0);
    let port = number.ok_or("a port is a number from 1 to 65535")?;
    Ok(Host { name, port })
}

/// Replaces percent-encoded bytes.
fn decoded(text: &str, what: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| format!("the {what} has a '%' without two digits after it; write it as %25"))?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| format!("the {what} is not UTF-8"))
}

#[cfg(test)]
mod tests;
