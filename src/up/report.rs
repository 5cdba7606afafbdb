//! What `up` reports to the API: Ingresses are reached at the gateway's own address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sealane_config::model::PublishedAddress;
use sealane_config::report::lease::LeaseOptions;
use sealane_config::report::{Publish, ReportOptions};

use super::settings::ControlPlane;

/// Where the Lease is.
const NAMESPACE: &str = "kube-system";

/// Name of the Lease, and of its holder.
const NAME: &str = "sealane-up";

/// Options for a gateway that listens at `http`.
pub(crate) fn options(plane: &ControlPlane, http: SocketAddr) -> ReportOptions {
    let mut lease = LeaseOptions::new(NAMESPACE, NAME, NAME);
    if matches!(plane, ControlPlane::Embedded { .. }) {
        // The data directory is locked, so nobody else has this name; after a crash the Lease is
        // still ours.
        NAME.clone_into(&mut lease.identity);
    }
    let ip = match http.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    ReportOptions {
        lease,
        publish: Publish::Addresses(vec![PublishedAddress::Ip(ip)]),
    }
}
