//! Host names of rules and certificates.

use crate::model::HostMatch;

/// Longest DNS name in text form (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;

/// Reads a host as an Ingress or a certificate has it: empty is any host, `*.` stands for one label.
/// The result is lower case and has no trailing dot.
///
/// # Errors
/// Why it is not a host, as a clause that follows the text.
pub(super) fn parse(text: &str) -> Result<HostMatch, &'static str> {
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if text.is_empty() {
        return Ok(HostMatch::Any);
    }
    if let Some(suffix) = host.strip_prefix("*.") {
        check(suffix)?;
        return Ok(HostMatch::Wildcard(suffix.into()));
    }
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Err("is an IP address; a rule needs a host name, or no host at all");
    }
    check(&host)?;
    Ok(HostMatch::Exact(host.into()))
}

fn check(name: &str) -> Result<(), &'static str> {
    let label_ok = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.contains('*') {
        Err("has `*` elsewhere than as its whole first label")
    } else if name.len() > MAX_NAME || !name.split('.').all(label_ok) {
        Err("is not a DNS name (RFC 1123)")
    } else {
        Ok(())
    }
}

/// Whether a certificate for `name` is good for `host` (RFC 6125: a wildcard stands for one label).
pub(super) fn covers(name: &HostMatch, host: &HostMatch) -> bool {
    match (name, host) {
        (HostMatch::Any, _) | (_, HostMatch::Any) => false,
        (HostMatch::Wildcard(suffix), HostMatch::Exact(host)) => host
            .split_once('.')
            .is_some_and(|(_, rest)| rest == &**suffix),
        (name, host) => name == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_or_refused() {
        let exact = |name: &str| Ok(HostMatch::Exact(name.into()));
        let cases: [(&str, &str, Result<HostMatch, ()>); 10] = [
            ("none", "", Ok(HostMatch::Any)),
            ("plain", "shop.example.com", exact("shop.example.com")),
            (
                "case and dot",
                "Shop.Example.COM.",
                exact("shop.example.com"),
            ),
            (
                "wildcard",
                "*.foo.com",
                Ok(HostMatch::Wildcard("foo.com".into())),
            ),
            ("bare star", "*", Err(())),
            ("inner star", "a.*.com", Err(())),
            ("v4", "10.0.0.1", Err(())),
            ("v6", "::1", Err(())),
            ("underscore", "a_b.com", Err(())),
            ("empty label", "a..com", Err(())),
        ];
        for (name, text, want) in cases {
            assert_eq!(parse(text).map_err(|_why| ()), want, "{name}");
        }
    }

    #[test]
    fn a_wildcard_certificate_is_good_for_one_label() {
        let host = |text| parse(text).unwrap();
        assert!(covers(&host("*.foo.com"), &host("a.foo.com")));
        assert!(covers(&host("*.foo.com"), &host("*.foo.com")));
        assert!(!covers(&host("*.foo.com"), &host("a.b.foo.com")));
        assert!(!covers(&host("*.foo.com"), &host("foo.com")));
        assert!(!covers(&host("a.foo.com"), &host("*.foo.com")));
    }
}
