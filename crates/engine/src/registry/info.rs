//! Information about one connection.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::registry::fd::Fd;
use crate::system::codec::{Malformed, Reader, put_u64};

/// Information about one connection. Times are in milliseconds of Unix time; sizes are payload bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The connection's id.
    pub fd: Fd,
    /// The peer's address (as reported by a trusted proxy, if there is one).
    pub client: SocketAddr,
    /// When the handshake was accepted.
    pub opened_at: u64,
    /// When bytes last arrived.
    pub last_received_at: u64,
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
            self.opened_at,
            self.last_received_at,
            self.messages_in,
            self.messages_out,
            self.bytes_in,
            self.bytes_out,
            self.queued_bytes,
        ] {
            put_u64(out, value);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            fd: reader.u64()?,
            client: from_bits([reader.u64()?, reader.u64()?], reader.u64()?),
            opened_at: reader.u64()?,
            last_received_at: reader.u64()?,
            messages_in: reader.u64()?,
            messages_out: reader.u64()?,
            bytes_in: reader.u64()?,
            bytes_out: reader.u64()?,
            queued_bytes: reader.u64()?,
        })
    }
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
