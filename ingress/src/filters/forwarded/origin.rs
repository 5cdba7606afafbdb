//! Where a request of a trusted proxy comes from.
//!
//! There is one algorithm, and everything that asks for the client gets its answer: access lists,
//! limits, the access log, `X-Real-IP`. It begins with the address of the connection, or the one that
//! a PROXY header has in its place. As long as that is a trusted proxy's, the address that this proxy
//! wrote takes its place: the last one of the list that was not looked at. So nothing counts that was
//! written by somebody who is not trusted, however long the list is that a client made up.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use sealane_config::model::TrustedProxies;

/// The client of a request that came from `from`. An entry that is no address ends the walk: the proxy
/// that wrote it is the client then.
pub(super) fn client(from: IpAddr, proxies: &TrustedProxies, headers: &HeaderMap) -> IpAddr {
    let mut client = from;
    let values = headers.get_all(&proxies.forwarded_for);
    for value in values.iter().rev() {
        let Ok(text) = value.to_str() else {
            return client;
        };
        let entries = text.rsplit(',').map(str::trim);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            if !proxies.contains(client) {
                return client;
            }
            match address(entry) {
                Some(address) => client = address,
                None => return client,
            }
        }
    }
    client
}

/// An address, with a port behind it or not.
fn address(entry: &str) -> Option<IpAddr> {
    let alone = entry.parse::<IpAddr>().ok();
    let address = alone.or_else(|| {
        let bare = entry.strip_prefix('[').and_then(|e| e.strip_suffix(']'));
        match bare {
            Some(bare) => bare.parse().ok().map(IpAddr::V6),
            None => entry.parse::<SocketAddr>().ok().map(|addr| addr.ip()),
        }
    });
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(networks: &[&str]) -> TrustedProxies {
        TrustedProxies {
            networks: networks.iter().map(|net| net.parse().unwrap()).collect(),
            forwarded: true,
            ..TrustedProxies::default()
        }
    }

    /// Connection, fields, client.
    type Case = (&'static str, &'static [&'static str], &'static str);

    const CASES: [Case; 31] = [
        // Nobody in between says anything.
        ("192.0.2.7", &[], "192.0.2.7"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &[""], "10.0.0.1"),
        // Who is not trusted may write what he likes.
        ("192.0.2.7", &["6.6.6.6"], "192.0.2.7"),
        ("192.0.2.7", &["10.0.0.1"], "192.0.2.7"),
        ("192.0.2.7", &["6.6.6.6, 10.0.0.1"], "192.0.2.7"),
        // One proxy.
        ("10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["10.0.0.9, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["127.0.0.1,192.0.2.7"], "192.0.2.7"),
        // Several.
        ("10.0.0.1", &["192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        (
            "10.0.0.1",
            &["6.6.6.6, 192.0.2.7, 10.0.0.3, 10.0.0.2"],
            "192.0.2.7",
        ),
        (
            "10.0.0.1",
            &["192.0.2.7, 203.0.113.9, 10.0.0.2"],
            "203.0.113.9",
        ),
        // All of them trusted: the farthest.
        ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        // In several fields.
        ("10.0.0.1", &["6.6.6.6", "192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["192.0.2.7", "10.0.0.2"], "192.0.2.7"),
        (
            "10.0.0.1",
            &["192.0.2.7", "10.0.0.3", "10.0.0.2"],
            "192.0.2.7",
        ),
        // Spellings.
        ("10.0.0.1", &["  192.0.2.7  "], "192.0.2.7"),
        ("10.0.0.1", &["192.0.2.7,"], "192.0.2.7"),
        ("10.0.0.1", &["192.0.2.7,,10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", &["192.0.2.7:4711"], "192.0.2.7"),
        ("10.0.0.1", &["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
        ("10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", &["::ffff:192.0.2.7"], "192.0.2.7"),
        ("::ffff:10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
        ("fd00::1", &["2001:db8::7, fd00::2"], "2001:db8::7"),
        // What is no address ends the walk where it stands.
        ("10.0.0.1", &["6.6.6.6, unknown"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, _hidden, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", &["192.0.2.7, 010.0.0.1"], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7\", 10.0.0.2x"], "10.0.0.1"),
    ];

    #[test]
    fn ingress_t14_the_client_is_the_last_that_a_trusted_proxy_names() {
        let proxies = proxies(&["10.0.0.0/8", "fd00::/8"]);
        for (from, fields, expected) in CASES {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append("x-forwarded-for", field.parse().unwrap());
            }
            let found = client(
                from.parse::<IpAddr>().unwrap().to_canonical(),
                &proxies,
                &headers,
            );
            assert_eq!(found.to_string(), expected, "{from}: {fields:?}");
        }
    }

    #[test]
    fn ingress_t14_nobody_is_trusted_by_default() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "192.0.2.7".parse().unwrap());
        let from: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(client(from, &TrustedProxies::default(), &headers), from);
        assert!(!TrustedProxies::default().believes(from));
    }

    #[test]
    fn ingress_t14_another_field_can_hold_the_list() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "6.6.6.6".parse().unwrap());
        headers.insert("cf-connecting-ip", "192.0.2.7".parse().unwrap());
        let proxies = TrustedProxies {
            forwarded_for: "cf-connecting-ip".parse().unwrap(),
            ..proxies(&["10.0.0.0/8"])
        };
        let found = client("10.0.0.1".parse().unwrap(), &proxies, &headers);
        assert_eq!(found.to_string(), "192.0.2.7");
    }
}
