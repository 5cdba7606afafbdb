//! What the workers of `up` do: everything.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use ipnet::IpNet;
use sealane_cluster::network::{INTERCEPT_MARK, PodNetwork};
use sealane_config::Reader;
use sealane_config::sockets::HostSockets;
use sealane_dns::{DnsConfig, DnsSettings};
use sealane_ingress::{Answers, GatewayOptions, Limiter, Passwords, tls};
use sealane_proxy::admission::{Connections, Limits};
use sealane_proxy::connect::{Barred, Connector};
use sealane_proxy::http::{Hop, ServerOptions};
use sealane_proxy::intercept::InterceptOptions;
use sealane_proxy::node::Capture;

use super::settings::{Addresses, Settings};
use super::system::DNS_PORT;
use tokio::sync::watch;

use crate::exit::Failure;
use crate::serve::workers::{self, Dns, Work};

/// Port of the listeners for intercepted connections, in the cluster's namespace.
const INTERCEPT_PORT: u16 = 15001;

/// The work, with the gateway's address for HTTPS.
///
/// # Errors
/// No certificate for hosts without one can be made, or no access log.
pub(super) fn work(
    reader: &Reader,
    network: &PodNetwork,
    sockets: &HostSockets,
    settings: &Settings,
    https: SocketAddr,
) -> Result<Work, Failure> {
    let addresses = settings.pod_network.addresses();
    let (services, connector) = match network {
        PodNetwork::Namespaces(_) => {
            let cluster = [addresses.pods, addresses.services].map(IpNet::V4);
            let connector = Connector::Split {
                cluster: Arc::new(cluster),
                host: sockets.clone(),
            };
            (Capture::Transparent(intercept(&addresses)), connector)
        }
        PodNetwork::Loopback(_) => {
            // Here pods and the API have loopback addresses.
            let loopback = IpNet::new_assert(Ipv4Addr::LOCALHOST.into(), 8).trunc();
            let barred = Barred::new([https], Vec::new().into(), [loopback]);
            (Capture::Listeners, Connector::Barring(Arc::new(barred)))
        }
    };
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let own = [settings.dns, SocketAddr::new(addresses.dns, DNS_PORT)];
    let inside = [addresses.dns, addresses.node.into()];
    let fallback = tls::self_signed().context("cannot make the default certificate")?;
    Ok(Work {
        reader: reader.clone(),
        network: Some(network.clone()),
        sockets: sockets.clone(),
        connector,
        access_log: workers::access_log(settings.access_log)?,
        connections: Connections::new(Limits::none()),
        applied: watch::Sender::default(),
        gateway: Some(GatewayOptions {
            tls: tls::server_config(reader.clone(), fallback).context("cannot set up TLS")?,
            https_port: https.port(),
            server: ServerOptions {
                hop: Hop::Gateway,
                ..ServerOptions::default()
            },
            http3: settings.gateway.http3(),
            limiter: Limiter::default(),
            passwords: Passwords::default(),
            answers: Answers::default(),
            outside: settings.gateway.outside(),
        }),
        dns: Some(Dns {
            config: Arc::new(DnsConfig::cluster(
                DnsSettings {
                    own_addresses: vec![addresses.dns],
                    ..DnsSettings::default()
                },
                sealane_dns::upstreams_from_resolv_conf(&resolv_conf, &own),
            )),
            observe: sealane_dns::Observe::default(),
            connections: sealane_dns::Connections::default(),
            inside: inside.map(|ip| SocketAddr::new(ip, DNS_PORT)).to_vec(),
            // Without a namespace of its own port 53 may be somebody else's, or root's.
            inside_is_optional: matches!(network, PodNetwork::Loopback(_)),
        }),
        pod: None,
        services: Some(services),
    })
}

fn intercept(addresses: &Addresses) -> InterceptOptions {
    InterceptOptions {
        port: INTERCEPT_PORT,
        mark: INTERCEPT_MARK,
        node_ips: vec![addresses.node.into()].into(),
        local_addresses: vec![addresses.dns],
        pod_cidrs: vec![addresses.pods.into()],
        service_cidrs: vec![addresses.services.into()],
        egress: true,
        ..InterceptOptions::default()
    }
}
