//! Names of endpoints below their Service (Kubernetes DNS specification 2.4.1).
//!
//! An endpoint is called by its host name; failing that, if asked for, by its pod's name; failing
//! that, by its address with dashes.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sealane_config::model::ServiceEndpoint;

use crate::name::MAX_LABEL;

/// The label of an endpoint.
pub(super) fn label(endpoint: &ServiceEndpoint, pod_names: bool) -> Cow<'_, str> {
    match given_name(endpoint, pod_names) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(dashed(endpoint.addr())),
    }
}

/// The label is this one. `dashed_addr` is the label read by [`from_dashed`].
pub(super) fn is_called(
    endpoint: &ServiceEndpoint,
    pod_names: bool,
    label: &str,
    dashed_addr: Option<IpAddr>,
) -> bool {
    match given_name(endpoint, pod_names) {
        Some(name) => name.eq_ignore_ascii_case(label),
        None => dashed_addr == Some(endpoint.addr()),
    }
}

fn given_name(endpoint: &ServiceEndpoint, pod_names: bool) -> Option<&str> {
    if let Some(hostname) = endpoint.hostname().filter(|name| !name.is_empty()) {
        return Some(hostname);
    }
    let pod = endpoint.pod().filter(|_| pod_names)?;
    (pod.len() <= MAX_LABEL).then_some(pod)
}

/// An address as a label: `172-0-0-3`, `5678-abcd--1`; a label cannot end in a dash, so
/// `5678-abcd::` is `5678-abcd--0`.
pub(super) fn dashed(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(ip) => ip.to_string().replace('.', "-"),
        IpAddr::V6(ip) => {
            let mut label = ip.to_string().replace([':', '.'], "-");
            if label.ends_with('-') {
                label.push('0');
            }
            label
        }
    }
}

/// The address that is written like this, exactly.
pub(super) fn from_dashed(label: &str) -> Option<IpAddr> {
    let addr = parse_dashed(label)?;
    dashed(addr).eq_ignore_ascii_case(label).then_some(addr)
}

/// The address that is meant by a label in which dashes stand for dots or colons, in any spelling.
pub(super) fn parse_dashed(label: &str) -> Option<IpAddr> {
    let dashes = label.bytes().filter(|&byte| byte == b'-').count();
    if dashes == 3 && !label.contains("--") {
        let ip: Ipv4Addr = label.replace('-', ".").parse().ok()?;
        return Some(ip.into());
    }
    let ip: Ipv6Addr = label.replace('-', ":").parse().ok()?;
    Some(ip.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_b5_addresses_as_labels() {
        for (addr, label) in [
            ("172.0.0.3", "172-0-0-3"),
            ("5678:abcd::1", "5678-abcd--1"),
            ("5678:abcd::", "5678-abcd--0"),
            ("::1", "--1"),
        ] {
            let addr: IpAddr = addr.parse().unwrap();
            assert_eq!(dashed(addr), label);
            assert_eq!(from_dashed(label), Some(addr), "{label}");
        }
        for label in [
            "172-0-0-03",
            "172-0-0",
            "5678-abcd-0-0-0-0-0-1",
            "web",
            "",
            "-",
        ] {
            assert_eq!(from_dashed(label), None, "{label}");
        }
    }
}
