//! Which web pages may connect: a browser sends the page's origin, and lets any page connect anywhere (RFC 6455 §10.2).

use std::fmt;
use std::net::Ipv6Addr;

use crate::http::{Head, Scheme, split_authority};

/// Which pages may connect from a browser. A client without an Origin header is not a browser, and may always connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OriginPolicy {
    /// Pages of this server itself: the Origin's host and port are those of the request, and its scheme is a secure one
    /// if the request came over TLS that ends here.
    Same,
    /// Every page.
    Any,
    /// Pages of these origins.
    List(Vec<OriginPattern>),
}

/// One permitted origin: `https://app.example.com`, `https://*.example.com`, `file://`, or `null`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OriginPattern(Pattern);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Pattern {
    /// The origin of sandboxed and local pages.
    Null,
    Exact(Origin),
    /// Every subdomain of the origin's host, of any depth, but not the host itself.
    Subdomains(Origin),
}

/// A text that is neither an origin nor a pattern of origins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidOrigin(String);

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "not an origin, such as https://app.example.com or https://*.example.com: {:?}", self.0)
    }
}

impl std::error::Error for InvalidOrigin {}

impl OriginPolicy {
    /// Parses the policy of a list of origins; `*` among them permits every page.
    ///
    /// # Errors
    ///
    /// The first text that is neither an origin (`scheme://host[:port]`), one with `*.` before its host, `null`, nor
    /// `*`.
    pub fn parse_list<S: AsRef<str>>(origins: &[S]) -> Result<Self, InvalidOrigin> {
        let mut patterns = Vec::with_capacity(origins.len());
        let mut any = false;
        for text in origins.iter().map(AsRef::as_ref) {
            if text == "*" {
                any = true;
            } else {
                patterns.push(OriginPattern::parse(text).ok_or_else(|| InvalidOrigin(text.to_owned()))?);
            }
        }
        Ok(if any { Self::Any } else { Self::List(patterns) })
    }

    /// Whether a page may connect. `origin` is the value of its Origin header, `host` that of the Host header. With
    /// [`Scheme::Http`], a proxy may have terminated TLS, and pages of both schemes can belong to this server.
    pub fn allows(&self, origin: Option<&[u8]>, host: Option<&[u8]>, scheme: Scheme) -> bool {
        let Some(origin) = origin else { return true };
        match self {
            Self::Any => true,
            Self::Same => is_same(origin, host, scheme).unwrap_or(false),
            Self::List(patterns) => str::from_utf8(origin).is_ok_and(|origin| permits(patterns, origin)),
        }
    }

    /// Like [`OriginPolicy::allows`], for a request; one with two Origin headers is refused.
    pub fn allows_head(&self, head: &Head, scheme: Scheme) -> bool {
        let mut origins = head.get_all("origin");
        let origin = origins.next();
        origins.next().is_none() && self.allows(origin, head.authority(), scheme)
    }
}

/// Whether `origin` has the host and port of `host`, which omits its port if that is the default of the origin's
/// scheme. With TLS, a page that came over plain HTTP does not belong to this server: anyone on the way may have
/// written it.
fn is_same(origin: &[u8], host: Option<&[u8]>, scheme: Scheme) -> Option<bool> {
    let origin = Origin::parse(str::from_utf8(origin).ok()?)?;
    if scheme == Scheme::Https && !["https", "wss"].contains(&origin.scheme.as_str()) {
        return Some(false);
    }
    let (host, port) = split_authority(str::from_utf8(host?).ok()?)?;
    let port = port.or_else(|| default_port(&origin.scheme));
    Some(origin.host == canonical(host) && origin.port == port)
}

fn permits(patterns: &[OriginPattern], origin: &str) -> bool {
    let parsed = Origin::parse(origin);
    patterns.iter().any(|OriginPattern(pattern)| match (pattern, &parsed) {
        (Pattern::Null, _) => origin == "null",
        (Pattern::Exact(permitted), Some(origin)) => permitted == origin,
        (Pattern::Subdomains(parent), Some(origin)) => origin.is_subdomain_of(parent),
        (_, None) => false,
    })
}

impl OriginPattern {
    fn parse(text: &str) -> Option<Self> {
        let pattern = if text == "null" {
            Pattern::Null
        } else if let Some((scheme, parent)) = text.split_once("://*.") {
            Pattern::Subdomains(Origin::parse(&format!("{scheme}://{parent}"))?)
        } else {
            Pattern::Exact(Origin::parse(text)?)
        };
        match &pattern {
            Pattern::Exact(origin) | Pattern::Subdomains(origin) if origin.host.contains('*') => None,
            Pattern::Subdomains(origin) if origin.host.is_empty() => None,
            _ => Some(Self(pattern)),
        }
    }
}

/// Scheme and host in the form in which they are compared, and the port, even if it is the scheme's default (RFC 6454
/// §4).
#[derive(Clone, PartialEq, Eq, Debug)]
struct Origin {
    scheme: String,
    /// Empty only for `file://`.
    host: String,
    /// `None` if the scheme has no default and no port is given, as in `app://name`.
    port: Option<u16>,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme_is_valid = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !scheme_is_valid {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        if scheme == "file" && authority.is_empty() {
            // The form that applications send for pages loaded from disk.
            return Some(Self { scheme, host: String::new(), port: None });
        }
        let (host, port) = split_authority(authority)?;
        Some(Self { host: canonical(host), port: port.or_else(|| default_port(&scheme)), scheme })
    }

    fn is_subdomain_of(&self, parent: &Self) -> bool {
        let label = self.host.strip_suffix(&parent.host).and_then(|rest| rest.strip_suffix('.'));
        self.scheme == parent.scheme && self.port == parent.port && label.is_some_and(|label| !label.is_empty())
    }
}

/// A host in lower case; an IPv6 address, which has many spellings, in one of them.
fn canonical(host: &str) -> String {
    let literal = host.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match literal.and_then(|text| text.parse::<Ipv6Addr>().ok()) {
        Some(address) => format!("[{address}]"),
        None => host.to_ascii_lowercase(),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}
