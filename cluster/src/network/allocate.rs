//! Which pod has which address.
//!
//! Addresses are handed out in order and start again at the lowest only when the end is reached,
//! so that a freed address is reused as late as possible: a client that still has an old pod's
//! address gets an error, not another pod.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::NetworkError;

/// Hands out the host addresses of a CIDR.
#[derive(Debug)]
pub(super) struct Allocator {
    cidr: Ipv4Net,
    reserved: Vec<Ipv4Addr>,
    taken: HashSet<Ipv4Addr>,
    next: u32,
}

impl Allocator {
    /// `reserved` addresses are never handed out, nor are the network and broadcast addresses.
    pub(super) fn new(cidr: Ipv4Net, reserved: Vec<Ipv4Addr>) -> Self {
        Self {
            cidr,
            reserved,
            taken: HashSet::new(),
            next: u32::from(cidr.network()),
        }
    }

    /// Takes `wanted`, or the next free address.
    pub(super) fn take(&mut self, wanted: Option<IpAddr>) -> Result<Ipv4Addr, NetworkError> {
        let ip = match wanted {
            Some(IpAddr::V4(ip)) if self.is_for_pods(ip) => {
                if self.taken.contains(&ip) {
                    return Err(NetworkError::AddressInUse(ip.into()));
                }
                ip
            }
            Some(ip) => return Err(NetworkError::AddressNotForPods(ip)),
            None => self.next_free().ok_or(NetworkError::NoAddressLeft)?,
        };
        self.taken.insert(ip);
        Ok(ip)
    }

    /// Gives an address back.
    pub(super) fn free(&mut self, ip: Ipv4Addr) {
        self.taken.remove(&ip);
    }

    fn next_free(&mut self) -> Option<Ipv4Addr> {
        let (first, last) = (
            u32::from(self.cidr.network()),
            u32::from(self.cidr.broadcast()),
        );
        for _ in first..=last {
            self.next = if self.next >= last {
                first
            } else {
                self.next + 1
            };
            let ip = Ipv4Addr::from(self.next);
            if self.is_for_pods(ip) && !self.taken.contains(&ip) {
                return Some(ip);
            }
        }
        None
    }

    fn is_for_pods(&self, ip: Ipv4Addr) -> bool {
        self.cidr.contains(&ip)
            && ip != self.cidr.network()
            && ip != self.cidr.broadcast()
            && !self.reserved.contains(&ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator() -> Allocator {
        let node = Ipv4Addr::new(10, 0, 0, 1);
        Allocator::new("10.0.0.0/29".parse().unwrap(), vec![node])
    }

    fn last_byte(ip: Result<Ipv4Addr, NetworkError>) -> u8 {
        ip.unwrap().octets()[3]
    }

    #[test]
    fn a_freed_address_is_reused_last() {
        let mut addresses = allocator();
        assert_eq!(last_byte(addresses.take(None)), 2);
        addresses.free(Ipv4Addr::new(10, 0, 0, 2));
        let rest: Vec<u8> = (0..5).map(|_| last_byte(addresses.take(None))).collect();
        assert_eq!(rest, [3, 4, 5, 6, 2]);
        assert!(matches!(
            addresses.take(None),
            Err(NetworkError::NoAddressLeft)
        ));
    }

    #[test]
    fn a_wanted_address_is_honoured_or_refused_with_the_reason() {
        let mut addresses = allocator();
        let ip = |s: &str| Some(s.parse::<IpAddr>().unwrap());
        assert_eq!(last_byte(addresses.take(ip("10.0.0.2"))), 2);
        assert!(matches!(
            addresses.take(ip("10.0.0.2")),
            Err(NetworkError::AddressInUse(_))
        ));
        for (name, wanted) in [
            ("the node's", "10.0.0.1"),
            ("the network", "10.0.0.0"),
            ("broadcast", "10.0.0.7"),
            ("outside", "10.0.1.1"),
            ("the other family", "fd00::1"),
        ] {
            assert!(
                matches!(
                    addresses.take(ip(wanted)),
                    Err(NetworkError::AddressNotForPods(_))
                ),
                "{name}"
            );
        }
        assert_eq!(last_byte(addresses.take(None)), 3);
    }
}
