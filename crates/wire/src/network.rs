//! Networks of IP addresses, such as those of trusted proxies.

use std::fmt;
use std::net::IpAddr;

/// A list of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    /// The number of leading bits that count.
    prefix: u32,
}

/// A text that is not a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidNetwork(String);

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "not a network, such as 10.0.0.0/8: {:?}", self.0)
    }
}

impl std::error::Error for InvalidNetwork {}

impl Networks {
    /// Parses networks of the form `10.0.0.0/8`.
    ///
    /// # Errors
    /// The first text that is not one.
    pub fn parse_list<S: AsRef<str>>(networks: &[S]) -> Result<Self, InvalidNetwork> {
        let parse = |text: &str| Network::parse(text).ok_or_else(|| InvalidNetwork(text.to_owned()));
        networks.iter().map(|text| parse(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of them contains an address. An IPv4 address may also be given as IPv6 (`::ffff:192.0.2.1`).
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (IpAddr, u32) = (address.parse().ok()?, prefix.parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= most).then_some(Self { address, prefix })
    }

    fn contains(self, address: IpAddr) -> bool {
        let differs = match (self.address, address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differs >= self.prefix
    }
}
