//! Where a server is reached from elsewhere.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// The addresses at which a server is reached that listens on `bound`: themselves, or those of the
/// machine's interfaces if it listens on all. Loopback addresses are nobody else's way.
pub fn own_addresses(bound: &[IpAddr]) -> Vec<IpAddr> {
    let everywhere = bound.is_empty() || bound.iter().any(IpAddr::is_unspecified);
    let mut own = match everywhere {
        true => of_interfaces(),
        false => bound.to_vec(),
    };
    own.retain(|addr| !addr.is_loopback());
    own
}

/// None where they cannot be listed: then the zone's name server has no address.
fn of_interfaces() -> Vec<IpAddr> {
    let listed = getifaddrs().into_iter().flatten();
    let addresses = listed.filter_map(|interface| interface.address);
    addresses
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_a11_a_server_is_reached_where_it_listens() {
        let bound: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        assert_eq!(own_addresses(&bound), bound[..1]);
        let everywhere = own_addresses(&["0.0.0.0".parse().unwrap()]);
        assert_eq!(everywhere, own_addresses(&[]));
        assert!(everywhere.iter().all(|addr| !addr.is_loopback()));
    }
}
