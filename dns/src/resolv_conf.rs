//! Upstreams from the host's `/etc/resolv.conf`.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use crate::name::Name;

/// Resolvers taken from the file at most.
const MAX_UPSTREAMS: usize = 15;
/// Names of a search path taken at most.
const MAX_SEARCH: usize = 32;
/// Port of DNS.
const PORT: u16 = 53;

/// The resolvers that a `resolv.conf` names, in order, each once.
///
/// Loop protection: `own` are the addresses on which this server listens; a resolver that is one of
/// them is dropped, as is a loopback address if we listen on every address at that port.
pub fn upstreams_from_resolv_conf(text: &str, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut upstreams = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some("nameserver"), Some(address)) = (words.next(), words.next()) else {
            continue;
        };
        let Some(upstream) = parse(address) else {
            tracing::warn!(address, "resolv.conf: not an address, skipped");
            continue;
        };
        if is_one_of(own, upstream) {
            tracing::error!(%upstream, "resolv.conf: the resolver is this server itself, dropped");
            continue;
        }
        if !upstreams.contains(&upstream) && upstreams.len() < MAX_UPSTREAMS {
            upstreams.push(upstream);
        }
    }
    upstreams
}

/// The search path that a `resolv.conf` sets: the last `search` or `domain` line counts.
pub fn search_from_resolv_conf(text: &str) -> Vec<Name> {
    let path = text.lines().rev().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        matches!(words.next(), Some("search" | "domain")).then_some(words)
    });
    let names = path.into_iter().flatten().map(str::parse::<Name>);
    names
        .filter_map(Result::ok)
        .filter(|name| *name != Name::root())
        .take(MAX_SEARCH)
        .collect()
}

/// An address, with the interface of a link-local one as `fe80::1%eth0`.
fn parse(address: &str) -> Option<SocketAddr> {
    let Some((ip, interface)) = address.split_once('%') else {
        return Some((address.parse::<IpAddr>().ok()?, PORT).into());
    };
    let index = match interface.parse() {
        Ok(index) => index,
        Err(_) => nix::net::if_::if_nametoindex(interface).ok()?,
    };
    Some(SocketAddrV6::new(ip.parse().ok()?, PORT, 0, index).into())
}

/// The addresses at which a server that listens there is reached: with an unspecified one those of
/// all interfaces.
pub(crate) fn own_addresses(listening: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut own = listening.to_vec();
    for everywhere in listening.iter().filter(|addr| addr.ip().is_unspecified()) {
        let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
        own.extend(interfaces.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip()));
            let ip = v4.or_else(v6)?;
            Some(SocketAddr::from((ip, everywhere.port())))
        }));
    }
    own
}

/// A server that is reached at `own` is reached at this address.
pub(crate) fn is_one_of(own: &[SocketAddr], upstream: SocketAddr) -> bool {
    own.iter().any(|own| is_same(*own, upstream))
}

fn is_same(own: SocketAddr, upstream: SocketAddr) -> bool {
    let everywhere = own.ip().is_unspecified() && upstream.ip().to_canonical().is_loopback();
    own.port() == upstream.port() && (own.ip() == upstream.ip() || everywhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_cases() {
        let many: String = (0..20)
            .map(|n| format!("nameserver 10.0.0.{n}\n"))
            .collect();
        for (name, text, own, expected) in [
            (
                "comments, options and order",
                "# nameserver 9.9.9.9\n; x\nsearch lan\nnameserver 192.168.1.1 # router\n\
                 nameserver fd00::1\noptions ndots:5\nnameserver 192.168.1.1\n",
                &["127.0.0.1:1053"][..],
                &["192.168.1.1:53", "[fd00::1]:53"][..],
            ),
            ("no address", "nameserver example\nnameserver\n", &[], &[]),
            (
                "itself",
                "nameserver 127.0.0.1\nnameserver 10.0.0.2\n",
                &["127.0.0.1:53"],
                &["10.0.0.2:53"],
            ),
            (
                "itself on every address",
                "nameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.2\n",
                &["0.0.0.0:53"],
                &["10.0.0.2:53"],
            ),
            (
                "another port is somebody else",
                "nameserver 127.0.0.1\n",
                &["127.0.0.1:1053", "0.0.0.0:1053"],
                &["127.0.0.1:53"],
            ),
            (
                "interface by number",
                "nameserver fe80::1%3\n",
                &[],
                &["[fe80::1%3]:53"],
            ),
        ] {
            let own: Vec<SocketAddr> = own.iter().map(|addr| addr.parse().unwrap()).collect();
            let found = upstreams_from_resolv_conf(text, &own);
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(upstreams_from_resolv_conf(&many, &[]).len(), MAX_UPSTREAMS);
    }

    #[test]
    fn the_last_search_path_counts() {
        for (text, expected) in [
            ("nameserver 10.0.0.1\n", &[][..]),
            ("domain lan\nsearch a.example b.\n", &["a.example.", "b."]),
            ("search a..b . c\n# search d\n", &["c."]),
        ] {
            let found: Vec<_> = search_from_resolv_conf(text)
                .iter()
                .map(Name::to_string)
                .collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
