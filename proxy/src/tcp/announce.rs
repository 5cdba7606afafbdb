//! The PROXY protocol, version 2, as sent to endpoints ("The PROXY protocol", HAProxy, 2020/03/05): who
//! the client of a connection is, ahead of its bytes.

use std::net::{IpAddr, SocketAddr};

use sealane_config::model::ClientAddr;

/// Signature, version 2 and the command `PROXY`.
const BEGIN: &[u8; 13] = b"\r\n\r\n\0\r\nQUIT\n\x21";

/// TCP over IPv4, TCP over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Both ends of a client's connection, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub client: ClientAddr,
    /// Where it connected to.
    pub dialled: SocketAddr,
}

/// The header. Addresses of different families are written as those of IPv6.
pub(crate) fn header(ends: Ends) -> Vec<u8> {
    let (client, dialled) = (ends.client.0, ends.dialled);
    let ips = [client, dialled].map(|addr| addr.ip().to_canonical());
    let mut addresses = Vec::with_capacity(36);
    let family = if let [IpAddr::V4(client), IpAddr::V4(dialled)] = ips {
        addresses.extend(client.octets());
        addresses.extend(dialled.octets());
        TCP4
    } else {
        for ip in ips {
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            addresses.extend(ip.octets());
        }
        TCP6
    };
    for port in [client.port(), dialled.port()] {
        addresses.extend(port.to_be_bytes());
    }
    let length = if family == TCP4 { 12_u16 } else { 36 };
    let mut header = BEGIN.to_vec();
    header.push(family);
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_t7_a_header_has_both_ends_in_one_family() {
        let mapped = b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x07";
        let six = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";
        let v4 = [
            b"\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01".as_slice(),
            b"\x30\x39\x01\xbb",
        ];
        let v6 = [b"\x21\x00\x24".as_slice(), six, six, b"\x30\x39\x01\xbb"];
        let both = [b"\x21\x00\x24".as_slice(), mapped, six, b"\x30\x39\x01\xbb"];
        for (client, dialled, wanted) in [
            ("192.0.2.7:12345", "198.51.100.1:443", v4.concat()),
            ("[::ffff:192.0.2.7]:12345", "198.51.100.1:443", v4.concat()),
            ("[2001:db8::1]:12345", "[2001:db8::1]:443", v6.concat()),
            ("192.0.2.7:12345", "[2001:db8::1]:443", both.concat()),
        ] {
            let ends = Ends {
                client: ClientAddr(client.parse().unwrap()),
                dialled: dialled.parse().unwrap(),
            };
            let wanted = [BEGIN.as_slice(), &wanted].concat();
            assert_eq!(header(ends), wanted, "{client} {dialled}");
        }
    }
}
