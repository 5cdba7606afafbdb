//! `sealane gateway`: serves the Ingresses of a cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use ipnet::IpNet;
use sealane_config::compile::{ObjectKey, ServedClasses};
use sealane_config::model::PublishedAddress;
use sealane_config::report::Publish;
use sealane_config::snapshot;
use sealane_config::sockets::HostSockets;
use sealane_config::watch::{IngressWatch, WatchOptions};
use sealane_ingress::{Answers, GatewayOptions as ServeOptions, Limiter, Passwords, tls};
use sealane_proxy::admission::{Connections, Limits};
use sealane_proxy::connect::{Barred, Connector};
use sealane_proxy::http::{Hop, ServerOptions};
use sealane_proxy::intercept::NodeAddresses;

use tokio::sync::watch;

use crate::admin::{MetricsHandle, Readiness};
use crate::classes::ClassOptions;
use crate::exit::Failure;
use crate::gateway_settings::{SettingsOptions, object};
use crate::mode::{self, Mode, ModeOptions, Report};
use crate::serve::bind::Binder;
use crate::serve::workers::{self, AccessLogOptions, Work, distribute};

/// Options as given.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GatewayOptions {
    /// Address for HTTP
    #[arg(long, default_value = "0.0.0.0:80", value_name = "ADDR")]
    http: SocketAddr,
    /// Address for HTTPS
    #[arg(long, default_value = "0.0.0.0:443", value_name = "ADDR")]
    https: SocketAddr,
    #[command(flatten)]
    classes: ClassOptions,
    /// Serve Ingresses that name no class, too
    #[arg(long)]
    watch_ingress_without_class: bool,
    /// Secret with the certificate for hosts that have none of their own
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object)]
    default_ssl_certificate: Option<ObjectKey>,
    /// Service whose addresses become the status of Ingresses
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object)]
    publish_service: Option<ObjectKey>,
    /// Address or host name that becomes the status of Ingresses (repeatable)
    #[arg(long, value_name = "ADDR", conflicts_with = "publish_service")]
    publish_address: Vec<String>,
    /// Lease whose holder writes status and Events [default: sealane-gateway in the own namespace]
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object)]
    lease: Option<ObjectKey>,
    /// Connections of all clients together
    #[arg(long, default_value_t = Limits::public().total, value_name = "COUNT")]
    max_connections: usize,
    /// Connections of one source address
    #[arg(long, default_value_t = Limits::public().per_source, value_name = "COUNT")]
    max_connections_per_source: usize,
    /// Where addresses stand for many clients, such as load balancers (repeatable): no limit for each
    #[arg(long, value_name = "CIDR")]
    trusted_source: Vec<IpNet>,
    /// Connect to endpoints in here, too (repeatable), which are refused otherwise: addresses that are
    /// loopback, link-local, multicast or reserved
    #[arg(long, value_name = "CIDR")]
    allow_endpoints: Vec<IpNet>,
    #[command(flatten)]
    access_log: AccessLogOptions,
    #[command(flatten)]
    settings: SettingsOptions,
    #[command(flatten)]
    mode: ModeOptions,
}

/// Runs the gateway until SIGTERM or Ctrl-C.
///
/// # Errors
/// Options that cannot be used, no cluster, or a part that failed.
pub(crate) fn run(options: GatewayOptions, metrics: MetricsHandle) -> Result<(), Failure> {
    let workers = options.mode.workers()?;
    if let Some(problem) = options.settings.problem() {
        return Err(Failure::Input(vec![problem]));
    }
    let publish = options.publish();
    let mut binder = Binder::default();
    let http3 = options.settings.http3();
    let listeners = binder.gateway(options.http, options.https, http3, workers);
    let admin = options.mode.bind(&mut binder);
    let (listeners, admin) = binder.finish(listeners.zip(admin))?;

    let admin_addresses = admin.iter().map(|(listener, _)| listener.local_addr());
    let admin_addresses: Vec<SocketAddr> = admin_addresses
        .collect::<Result<_, _>>()
        .context("an admin listener has no address")?;
    let own = [listeners.http, listeners.https];
    let barred = options.barred(own.into_iter().chain(admin_addresses));
    let (publisher, reader) = snapshot::channel();
    let fallback = tls::self_signed().context("cannot make the default certificate")?;
    let work = Work {
        network: None,
        sockets: HostSockets::here(),
        connector: Connector::Barring(Arc::new(barred)),
        access_log: workers::access_log(options.access_log)?,
        connections: Connections::new(options.limits()),
        applied: watch::Sender::default(),
        gateway: Some(ServeOptions {
            tls: tls::server_config(reader.clone(), fallback).context("cannot set up TLS")?,
            https_port: listeners.https.port(),
            server: ServerOptions {
                hop: Hop::Gateway,
                ..ServerOptions::default()
            },
            http3,
            limiter: Limiter::default(),
            passwords: Passwords::default(),
            answers: Answers::default(),
            outside: options.settings.outside(),
        }),
        dns: None,
        services: None,
        pod: None,
        reader,
    };
    let ingress = IngressWatch {
        classes: ServedClasses {
            without_class: options.watch_ingress_without_class,
            ..options.classes.served(ServedClasses::default())
        },
        default_certificate: options
            .default_ssl_certificate
            .map(|key| (key.namespace.to_string(), key.name.to_string())),
        ..IngressWatch::default()
    };
    let ingress = options.settings.apply(ingress);
    let lease = options.lease;
    mode::run(Mode {
        name: "gateway",
        options: options.mode,
        admin,
        metrics,
        readiness: Readiness::default(),
        corefile: None,
        watch: Some(WatchOptions {
            ingress: Some(ingress),
            ..WatchOptions::services_only()
        }),
        health: None,
        publisher,
        work,
        sockets: distribute(workers, listeners.sockets, Vec::new()),
        addresses: BTreeMap::from([("http", listeners.http), ("https", listeners.https)]),
        report: Some(Report {
            namespace: lease.as_ref().map(|lease| lease.namespace.to_string()),
            lease: lease.map_or("sealane-gateway".to_owned(), |lease| lease.name.to_string()),
            publish,
        }),
    })
}

impl GatewayOptions {
    /// What no connection is made to, also on behalf of whoever writes EndpointSlices.
    fn barred(&self, listeners: impl IntoIterator<Item = SocketAddr>) -> Barred {
        let own = NodeAddresses::of_devices().unwrap_or_else(|error| {
            tracing::warn!(%error, "own addresses are not known, so endpoints may have them");
            Vec::new().into()
        });
        Barred::new(listeners, own, self.allow_endpoints.iter().copied())
    }

    /// Proxies stand for many clients.
    fn limits(&self) -> Limits {
        let proxies = self.settings.trusted_proxies();
        let trusted = self.trusted_source.iter().chain(proxies);
        Limits {
            total: self.max_connections,
            per_source: self.max_connections_per_source,
            trusted: trusted.copied().collect(),
        }
    }

    fn publish(&self) -> Publish {
        if let Some(service) = &self.publish_service {
            return Publish::Service(service.clone());
        }
        if self.publish_address.is_empty() {
            return Publish::Nothing;
        }
        let addresses = self.publish_address.iter().map(|text| match text.parse() {
            Ok(ip) => PublishedAddress::Ip(ip),
            Err(_name) => PublishedAddress::Hostname(text.as_str().into()),
        });
        Publish::Addresses(addresses.collect())
    }
}
