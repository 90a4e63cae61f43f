//! Which hosts a request may be for. A page can have its own name resolve to our address (DNS rebinding). To the
//! browser that page and this server are one origin, and only the Host header still carries the foreign name.

use std::fmt;
use std::net::Ipv6Addr;

use crate::http::{Head, Scheme, split_authority};

/// The hosts that requests may be for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostPolicy {
    /// Any host, or none.
    Any,
    /// Only the hosts in this list.
    List(Vec<HostPattern>),
}

/// One permitted host: `app.example.com`, `*.example.com`, `127.0.0.1` or `[::1]`, with or without a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPattern {
    host: Host,
    /// Permits the host's subdomains, of any depth, but not the host itself.
    subdomains: bool,
    /// `None` means any port.
    port: Option<u16>,
}

/// A text that is neither a host nor a pattern of hosts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidHost(String);

impl fmt::Display for InvalidHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "not a host, such as app.example.com, *.example.com or [::1]: {:?}", self.0)
    }
}

impl std::error::Error for InvalidHost {}

impl HostPolicy {
    /// Parses the policy of a list of hosts.
    ///
    /// # Errors
    ///
    /// The first text that is not `host[:port]`, with or without `*.` before the host.
    pub fn parse_list<S: AsRef<str>>(hosts: &[S]) -> Result<Self, InvalidHost> {
        let parse = |text: &str| HostPattern::parse(text).ok_or_else(|| InvalidHost(text.to_owned()));
        hosts.iter().map(|text| parse(text.as_ref())).collect::<Result<_, _>>().map(Self::List)
    }

    /// Whether a request may be for `authority`, the host and port of its target or its Host header. With
    /// [`Scheme::Https`], https's port is the default.
    pub fn allows(&self, authority: Option<&[u8]>, scheme: Scheme) -> bool {
        let Self::List(patterns) = self else { return true };
        let Some((host, port)) = authority.and_then(parse_authority) else { return false };
        patterns.iter().any(|pattern| pattern.permits(&host, port, scheme))
    }

    /// Like [`HostPolicy::allows`], for a request's head.
    pub fn allows_head(&self, head: &Head, scheme: Scheme) -> bool {
        self.allows(head.authority(), scheme)
    }
}

impl HostPattern {
    fn parse(text: &str) -> Option<Self> {
        let (subdomains, text) = text.strip_prefix("*.").map_or((false, text), |parent| (true, parent));
        let (host, port) = parse_authority(text.as_bytes())?;
        let is_malformed = match &host {
            Host::Name(name) => name.contains('*'),
            Host::V6(_) => subdomains,
        };
        (!is_malformed).then_some(Self { host, subdomains, port })
    }

    fn permits(&self, host: &Host, port: Option<u16>, scheme: Scheme) -> bool {
        let host_is_permitted = if self.subdomains { host.is_subdomain_of(&self.host) } else { *host == self.host };
        let port_is_permitted = match (self.port, port) {
            (None, _) => true,
            (Some(permitted), Some(port)) => permitted == port,
            (Some(permitted), None) if scheme == Scheme::Https => permitted == 443,
            // A proxy may have terminated TLS, so either default may be meant.
            (Some(permitted), None) => permitted == 80 || permitted == 443,
        };
        host_is_permitted && port_is_permitted
    }
}

/// A host, in the form used for comparison.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Host {
    V6(Ipv6Addr),
    /// In lower case, without the trailing dot of a fully qualified name (RFC 3986 §3.2.2).
    Name(String),
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(literal) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            return literal.parse().ok().map(Self::V6);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        (!name.is_empty()).then(|| Self::Name(name.to_ascii_lowercase()))
    }

    fn is_subdomain_of(&self, parent: &Self) -> bool {
        let (Self::Name(name), Self::Name(parent)) = (self, parent) else { return false };
        let label = name.strip_suffix(parent.as_str()).and_then(|rest| rest.strip_suffix('.'));
        label.is_some_and(|label| !label.is_empty())
    }
}

fn parse_authority(authority: &[u8]) -> Option<(Host, Option<u16>)> {
    let (host, port) = split_authority(str::from_utf8(authority).ok()?)?;
    Some((Host::parse(host)?, port))
}
