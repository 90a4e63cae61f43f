//! Information about one connection.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::registry::fd::Fd;
use crate::system::codec::{Malformed, Reader, put_u64};

/// How much of a path is kept, in bytes of UTF-8.
pub(super) const PATH_BYTES: usize = 64;

/// Information about one connection. Times are in milliseconds of Unix time; sizes are payload bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The connection's id.
    pub fd: Fd,
    /// The peer's address (as reported by a trusted proxy, if there is one).
    pub client: SocketAddr,
    /// The beginning of the handshake's path, percent-decoded.
    pub path: String,
    /// Topics that it is subscribed to.
    pub topics: u64,
    /// When the handshake was accepted.
    pub opened_at: u64,
    /// When bytes last arrived.
    pub last_received_at: u64,
    /// The time between the last answered ping and its pong.
    pub latency: Option<Duration>,
    /// Messages received.
    pub messages_in: u64,
    /// Messages queued.
    pub messages_out: u64,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes queued.
    pub bytes_out: u64,
    /// Unsent bytes, including frame headers.
    pub queued_bytes: u64,
}

impl Info {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (ip, port) = (to_bits(self.client.ip()), u64::from(self.client.port()));
        for value in [
            self.fd,
            (ip >> 64) as u64,
            ip as u64,
            port,
            self.topics,
            self.opened_at,
            self.last_received_at,
            latency_to_bits(self.latency),
            self.messages_in,
            self.messages_out,
            self.bytes_in,
            self.bytes_out,
            self.queued_bytes,
        ] {
            put_u64(out, value);
        }
        for word in path_to_bits(&self.path) {
            put_u64(out, word);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut info = Self {
            fd: reader.u64()?,
            client: from_bits([reader.u64()?, reader.u64()?], reader.u64()?),
            path: String::new(),
            topics: reader.u64()?,
            opened_at: reader.u64()?,
            last_received_at: reader.u64()?,
            latency: latency_from_bits(reader.u64()?),
            messages_in: reader.u64()?,
            messages_out: reader.u64()?,
            bytes_in: reader.u64()?,
            bytes_out: reader.u64()?,
            queued_bytes: reader.u64()?,
        };
        let mut words = [0; PATH_BYTES / 8];
        for word in &mut words {
            *word = reader.u64()?;
        }
        let bytes = path_bytes(words);
        info.path = str::from_utf8(&bytes).map_err(|_| Malformed)?.trim_end_matches('\0').to_owned();
        Ok(info)
    }
}

pub(super) fn latency_to_bits(latency: Option<Duration>) -> u64 {
    latency.map_or(0, |latency| latency.as_micros() as u64 + 1)
}

pub(super) fn latency_from_bits(bits: u64) -> Option<Duration> {
    bits.checked_sub(1).map(Duration::from_micros)
}

/// The beginning of a path, up to a whole character, filled up with zero bytes.
pub(super) fn path_to_bits(path: &str) -> [u64; PATH_BYTES / 8] {
    let end = (0..=path.len().min(PATH_BYTES)).rfind(|end| path.is_char_boundary(*end)).unwrap_or(0);
    let mut bytes = [0; PATH_BYTES];
    bytes[..end].copy_from_slice(&path.as_bytes()[..end]);
    std::array::from_fn(|word| u64::from_le_bytes(std::array::from_fn(|byte| bytes[word * 8 + byte])))
}

/// If the path was being written meanwhile, the result is any text.
pub(super) fn path_from_bits(words: [u64; PATH_BYTES / 8]) -> String {
    String::from_utf8_lossy(&path_bytes(words)).trim_end_matches('\0').to_owned()
}

fn path_bytes(words: [u64; PATH_BYTES / 8]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(super) fn to_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
    .to_bits()
}

pub(super) fn from_bits(ip: [u64; 2], port: u64) -> SocketAddr {
    let bits = u128::from(ip[0]) << 64 | u128::from(ip[1]);
    SocketAddr::new(Ipv6Addr::from_bits(bits).to_canonical(), port as u16)
}
