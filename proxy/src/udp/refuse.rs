//! Telling a client that nobody takes its datagrams.
//!
//! The kernel refuses what is for a Service without endpoints. That the only endpoint of a Service
//! has closed its port is known to the proxy alone, which passes it on as the ICMP error that the
//! client would have had from the endpoint: "port unreachable" (RFC 792, RFC 4443) about a datagram
//! from the client to the address that it dialled. That takes `CAP_NET_RAW`; without it clients are
//! left to their timeouts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sealane_config::model::{ClientAddr, VipAddr};
use socket2::{Domain, Protocol, Socket, Type};

/// Sends refusals.
#[derive(Debug)]
pub(super) struct Refuser {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl Refuser {
    /// In the namespace of the calling thread.
    pub(super) fn new() -> Self {
        let raw = |domain, protocol| {
            let socket = Socket::new(domain, Type::RAW, Some(protocol)).ok()?;
            socket.set_nonblocking(true).ok()?;
            // Nothing is read; the kernel queues what it can, and then nothing any more.
            let _ = socket.set_recv_buffer_size(0);
            Some(socket)
        };
        Self {
            v4: raw(Domain::IPV4, Protocol::ICMPV4),
            v6: raw(Domain::IPV6, Protocol::ICMPV6),
        }
    }

    /// For clients that are in another namespace.
    pub(super) fn none() -> Self {
        Self { v4: None, v6: None }
    }

    /// Tells `client` that `vip` takes no datagrams. One that cannot be told is not.
    pub(super) fn refuse(&self, client: ClientAddr, vip: VipAddr) {
        let (socket, message) = match (client.0.ip(), vip.0.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (&self.v4, about_v4(client, from, vip, to)),
            (IpAddr::V6(from), IpAddr::V6(to)) => (&self.v6, about_v6(client, from, vip, to)),
            _ => return,
        };
        if let Some(socket) = socket {
            let client = SocketAddr::new(client.0.ip(), 0);
            if let Err(error) = socket.send_to(&message, &client.into()) {
                tracing::trace!(%client, %error, "not refused");
            }
        }
    }
}

/// The UDP header of an empty datagram without a checksum.
fn header(client: ClientAddr, vip: VipAddr) -> [u8; 8] {
    let [a, b] = client.0.port().to_be_bytes();
    let [c, d] = vip.0.port().to_be_bytes();
    [a, b, c, d, 0, 8, 0, 0]
}

fn about_v4(client: ClientAddr, from: Ipv4Addr, vip: VipAddr, to: Ipv4Addr) -> Vec<u8> {
    const UNREACHABLE: u8 = 3;
    const PORT: u8 = 3;
    const UDP: u8 = 17;
    // Version and header length, length 28, do not fragment, time to live.
    let mut ip = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, UDP, 0, 0];
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    let mut message = vec![UNREACHABLE, PORT, 0, 0, 0, 0, 0, 0];
    message.extend(ip);
    message.extend(header(client, vip));
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// The kernel fills in the checksum of ICMPv6.
fn about_v6(client: ClientAddr, from: Ipv6Addr, vip: VipAddr, to: Ipv6Addr) -> Vec<u8> {
    const UNREACHABLE: u8 = 1;
    const PORT: u8 = 4;
    const UDP: u8 = 17;
    let mut message = vec![UNREACHABLE, PORT, 0, 0, 0, 0, 0, 0];
    // Version, length of the payload, next header, hop limit.
    message.extend([0x60, 0, 0, 0, 0, 8, UDP, 64]);
    message.extend(from.octets());
    message.extend(to.octets());
    message.extend(header(client, vip));
    message
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| {
        let high = u32::from(pair[0]) << 8;
        high | u32::from(pair[1])
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!(folded as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_with_its_checksum_is_zero() {
        // The example of RFC 1071, section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&bytes), [!0xdd, !0xf2]);
        let client = ClientAddr("10.244.0.2:4000".parse().unwrap());
        let vip = VipAddr("10.96.0.1:53".parse().unwrap());
        let ips = (Ipv4Addr::new(10, 244, 0, 2), Ipv4Addr::new(10, 96, 0, 1));
        let message = about_v4(client, ips.0, vip, ips.1);
        assert_eq!(checksum(&message), [0, 0]);
        assert_eq!(checksum(&message[8..28]), [0, 0], "the header inside");
        assert_eq!(message.len(), 36);
    }
}
