//! The PROXY protocol, versions 1 and 2: a proxy begins each connection with a header that says for whom it has opened
//! it (haproxy.org, proxy-protocol.txt).
//!
//! The header has to come first, and there is no way to tell that none will come. So whoever expects one must not
//! accept a connection without it, and must not believe one from anybody but a proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, with its line end (§2.1).
const MAX_V1: usize = 107;
/// The beginning of each header of version 1.
const LINE: &[u8] = b"PROXY ";
/// The beginning of each header of version 2 (§2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and protocol, length.
const V2_HEAD: usize = 16;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPEC: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;
/// Two addresses and two ports; for Unix sockets, two paths.
const IPV4_ADDRESSES: usize = 12;
const IPV6_ADDRESSES: usize = 36;
const UNIX_ADDRESSES: usize = 216;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length in bytes; what follows is the client's.
    pub length: usize,
    /// The client. `None` if the connection is the proxy's own (`LOCAL`, a health check), or the client has no address
    /// that could be told (`UNKNOWN`, a Unix socket); then the peer of the socket counts.
    pub client: Option<SocketAddr>,
}

/// Why a connection does not begin with a valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It does not begin with a header at all.
    Missing,
    /// The header begins with `proxy`, in the wrong case.
    Case,
    /// The line does not end with CR LF.
    LineEnd,
    /// The line is longer than a line may be.
    TooLong,
    /// The line names another protocol than TCP over IPv4 or IPv6.
    Protocol,
    /// The line has too few or too many fields, or is not text.
    Fields,
    /// An address in the line is not one of its family.
    Address,
    /// A port in the line is not a number from 0 to 65535.
    Port,
    /// The version is not 2 in a header that is not a line.
    Version,
    /// The command is neither LOCAL nor PROXY.
    Command,
    /// The family is not TCP over IPv4 or IPv6, a Unix stream socket, or unspecified.
    Family,
    /// The header is too short for the addresses of its family.
    TooShort,
}

impl Malformed {
    /// The reason, in words for the operator.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "the connection does not begin with a PROXY header, which proxy_protocol requires",
            Self::Case => "the PROXY header is malformed: it must begin with PROXY in upper case",
            Self::LineEnd => "the PROXY header is malformed: its line must end with CR LF",
            Self::TooLong => "the PROXY header is malformed: its line is longer than 107 bytes",
            Self::Protocol => "the PROXY header is malformed: its protocol must be TCP4, TCP6 or UNKNOWN",
            Self::Fields => {
                "the PROXY header is malformed: it must name two addresses and two ports, each after one space"
            }
            Self::Address => "the PROXY header is malformed: an address is not valid",
            Self::Port => "the PROXY header is malformed: a port is not valid",
            Self::Version => "the PROXY header is malformed: its version must be 1 or 2",
            Self::Command => "the PROXY header is malformed: its command must be LOCAL or PROXY",
            Self::Family => "the PROXY header is malformed: its protocol must be TCP or a Unix stream socket",
            Self::TooShort => "the PROXY header is malformed: it is too short for its addresses",
        }
    }
}

/// Parses the header at the beginning of `input`. Returns `None` if more bytes are needed; it never needs more than 16
/// + 65,535.
///
/// # Errors
/// As soon as `input` cannot become a valid header.
pub fn parse(input: &[u8]) -> Result<Option<Header>, Malformed> {
    let begins_as = |signature: &[u8]| input.iter().zip(signature).all(|(one, other)| one == other);
    if begins_as(SIGNATURE) {
        parse_v2(input)
    } else if begins_as(LINE) {
        parse_v1(input)
    } else if input.get(..LINE.len()).is_some_and(|word| word.eq_ignore_ascii_case(LINE)) {
        Err(Malformed::Case)
    } else if input.len() < LINE.len() && input.eq_ignore_ascii_case(&LINE[..input.len()]) {
        Ok(None)
    } else {
        Err(Malformed::Missing)
    }
}

fn parse_v1(input: &[u8]) -> Result<Option<Header>, Malformed> {
    let line = &input[..input.len().min(MAX_V1)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if line.len() == MAX_V1 { Err(Malformed::TooLong) } else { Ok(None) };
    };
    let text = line[..end].strip_suffix(b"\r").ok_or(Malformed::LineEnd)?;
    let text = std::str::from_utf8(text).map_err(|_| Malformed::Fields)?;
    let length = end + 1;
    let fields: Vec<&str> = text.split(' ').collect();
    let client = match fields[..] {
        // What follows has to be ignored.
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4", source, destination, from, to] => {
            let [source, _] = both::<Ipv4Addr>(source, destination)?;
            Some(SocketAddr::new(IpAddr::V4(source), ports(from, to)?))
        }
        ["PROXY", "TCP6", source, destination, from, to] => {
            let [source, _] = both::<Ipv6Addr>(source, destination)?;
            Some(SocketAddr::new(IpAddr::V6(source), ports(from, to)?))
        }
        ["PROXY", "TCP4" | "TCP6", ..] => return Err(Malformed::Fields),
        _ => return Err(Malformed::Protocol),
    };
    Ok(Some(Header { length, client }))
}

fn both<A: std::str::FromStr>(source: &str, destination: &str) -> Result<[A; 2], Malformed> {
    let address = |text: &str| text.parse().map_err(|_| Malformed::Address);
    Ok([address(source)?, address(destination)?])
}

/// Checks both ports, and returns the client's.
fn ports(from: &str, to: &str) -> Result<u16, Malformed> {
    let port = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| is_plain).ok_or(Malformed::Port)
    };
    port(to)?;
    port(from)
}

fn parse_v2(input: &[u8]) -> Result<Option<Header>, Malformed> {
    // Each byte is judged as soon as it is there.
    match input.get(12) {
        None | Some(&(LOCAL | PROXY)) => {}
        Some(command) if command >> 4 != 2 => return Err(Malformed::Version),
        Some(_) => return Err(Malformed::Command),
    }
    let Some([.., command, family, high, low]) = input.get(..V2_HEAD) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let least = match *family {
        // The family of the proxy's own connections does not matter.
        _ if *command == LOCAL => 0,
        UNSPEC => 0,
        TCP_OVER_IPV4 => IPV4_ADDRESSES,
        TCP_OVER_IPV6 => IPV6_ADDRESSES,
        UNIX_STREAM => UNIX_ADDRESSES,
        _ => return Err(Malformed::Family),
    };
    if length < least {
        return Err(Malformed::TooShort);
    }
    // What follows the addresses are further facts, which are not used.
    let Some(block) = input.get(V2_HEAD..V2_HEAD + length) else { return Ok(None) };
    let client = match (*command, *family) {
        (PROXY, TCP_OVER_IPV4) => array::<4>(block, 0)
            .zip(array::<2>(block, 8))
            .map(|(address, port)| SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), u16::from_be_bytes(port))),
        (PROXY, TCP_OVER_IPV6) => array::<16>(block, 0)
            .zip(array::<2>(block, 32))
            .map(|(address, port)| SocketAddr::new(IpAddr::V6(Ipv6Addr::from(address)), u16::from_be_bytes(port))),
        _ => None,
    };
    Ok(Some(Header { length: V2_HEAD + length, client }))
}

fn array<const N: usize>(block: &[u8], from: usize) -> Option<[u8; N]> {
    block.get(from..from + N)?.try_into().ok()
}

/// Writes a header of version 2 that says the same as one that was read.
pub fn write(client: Option<SocketAddr>, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    match client {
        None => out.extend_from_slice(&[LOCAL, UNSPEC, 0, 0]),
        Some(client) => {
            let (family, length, address) = match client.ip() {
                IpAddr::V4(address) => (TCP_OVER_IPV4, IPV4_ADDRESSES, address.octets().to_vec()),
                IpAddr::V6(address) => (TCP_OVER_IPV6, IPV6_ADDRESSES, address.octets().to_vec()),
            };
            out.extend_from_slice(&[PROXY, family, 0, length as u8]);
            out.extend_from_slice(&address);
            // The destination is not known any more.
            out.resize(out.len() + address.len(), 0);
            out.extend_from_slice(&client.port().to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }
    }
}
