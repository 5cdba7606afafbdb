//! What is measured. A new case is a variant here, its load in [`crate::load`], and a word in the
//! peers' configurations if they need one.

mod variant;

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::gate::{self, Gate};
use crate::load::{self, Question, Served};
use crate::peers::{Peer, Running};
use crate::report::Sample;
use crate::services;
use crate::stage::Stage;

pub(crate) use variant::{KUBE_PROXY, Variant, grouped};

/// A case of `spec`: what kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// HTTP/1.1, 64 connections that are kept, small answers, 1,000 hosts
    Http1,
    /// As `http1`, but 8,000 requests a second, however soon they are answered
    Http1Paced,
    /// HTTP/1.1, 8 connections, answers of 1 MiB
    Body,
    /// TCP, 64 connections, 100 bytes there and back
    TcpPingPong,
    /// TCP, 8 connections, as much as goes through from server to client; one request is 1 MiB
    TcpBulk,
    /// HTTP/1.1, a connection for each request
    Connections,
    /// Memory: idle, and with 10,000 client connections that had one request each
    IdleMemory,
    /// As `http1`, with 10 and with 20,000 hosts
    ScalingHosts,
    /// As `http1`, with 10 and with 10,000 endpoints
    ScalingEndpoints,
    /// As `http1`, with one worker and with two (that share CPUs with the load)
    ScalingWorkers,
    /// As `http1`, through TLS 1.3
    Tls,
    /// TLS 1.3: a full handshake and one request for each connection, P-256 certificate, X25519
    Handshakes,
    /// HTTP/2, one connection with 100 streams, small answers
    Http2,
    /// An Ingress among 20,000 hosts is edited: from the edit to its effect, while other requests go on
    Edits,
    /// DNS over UDP: A, AAAA and SRV of Services with cluster IP, and names that do not exist
    Dns,
    /// DNS over UDP, 1,000 names of an upstream that are in the cache
    DnsForward,
    /// From the start of `sealane up -f examples/shop` to the first answer of its pods
    Up,
    /// Endpoints of a Service among 1,000 and 10,000 on a real API server change: until new connections follow
    EndpointsChange,
    /// From the start of a node's proxy to the first connection to one of these Services
    ColdStart,
    /// From the start of a DNS server to the first answer about one of these Services
    DnsColdStart,
}

/// What peers are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// CPU time a request
    Cpu,
    /// Memory a connection
    Memory,
    /// Time until something shows
    Time,
}

impl Measure {
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Cpu => "µs of CPU",
            Self::Memory => "KiB",
            Self::Time => "ms",
        }
    }
}

/// Client connections that are held open.
const IDLE: usize = 10_000;

impl Case {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http1Paced => "http1-paced",
            Self::Body => "body",
            Self::TcpPingPong => "tcp-ping-pong",
            Self::TcpBulk => "tcp-bulk",
            Self::Connections => "connections",
            Self::IdleMemory => "idle-memory",
            Self::ScalingHosts => "scaling-hosts",
            Self::ScalingEndpoints => "scaling-endpoints",
            Self::ScalingWorkers => "scaling-workers",
            Self::Tls => "tls",
            Self::Handshakes => "handshakes",
            Self::Http2 => "http2",
            Self::Edits => "edits",
            Self::Dns => "dns",
            Self::DnsForward => "dns-forward",
            Self::Up => "up",
            Self::EndpointsChange => "endpoints-change",
            Self::ColdStart => "cold-start",
            Self::DnsColdStart => "dns-cold-start",
        }
    }

    pub(crate) fn measure(self) -> Measure {
        match self {
            Self::IdleMemory => Measure::Memory,
            Self::Edits
            | Self::Up
            | Self::EndpointsChange
            | Self::ColdStart
            | Self::DnsColdStart => Measure::Time,
            _ => Measure::Cpu,
        }
    }

    /// The backends' port, if it is not about HTTP.
    pub(crate) fn tcp_port(self) -> Option<u16> {
        match self {
            Self::TcpPingPong => Some(crate::backend::ECHO),
            Self::TcpBulk => Some(crate::backend::STREAM),
            _ => None,
        }
    }

    /// The program of somebody else that makes the load, if it is one.
    pub(crate) fn generator(self) -> Option<&'static str> {
        match self {
            Self::Http1
            | Self::Body
            | Self::ScalingHosts
            | Self::ScalingEndpoints
            | Self::ScalingWorkers
            | Self::Tls => Some("wrk"),
            Self::Http2 => Some("h2load"),
            _ => None,
        }
    }

    /// It is about names.
    pub(crate) fn is_dns(self) -> bool {
        matches!(self, Self::Dns | Self::DnsForward | Self::DnsColdStart)
    }

    /// It is about the Services of a real API server.
    pub(crate) fn needs_cluster(self) -> bool {
        matches!(
            self,
            Self::EndpointsChange | Self::ColdStart | Self::DnsColdStart
        )
    }

    /// A program is started in each round, and what counts is how long that takes.
    pub(crate) fn is_start(self) -> bool {
        matches!(self, Self::Up | Self::ColdStart | Self::DnsColdStart)
    }

    /// Clients ask something in front of backends.
    pub(crate) fn is_proxied(self) -> bool {
        !self.is_dns() && !self.needs_cluster() && self != Self::Up
    }

    /// A proxy is compared with itself above all.
    pub(crate) fn is_scaling(self) -> bool {
        matches!(
            self,
            Self::ScalingHosts | Self::ScalingEndpoints | Self::ScalingWorkers
        )
    }

    /// Load is repeated in rounds, and more often where rounds differ more: by how the buffers of eight
    /// connections have grown, by what an API server has to do besides. Memory is looked at once, and all is
    /// when one round is asked for, which is to see whether it works.
    pub(crate) fn rounds(self, rounds: usize) -> usize {
        match self {
            Self::IdleMemory => 1,
            _ if rounds == 1 => 1,
            Self::Body | Self::Edits | Self::EndpointsChange | Self::ColdStart => 3 * rounds,
            Self::Http1
            | Self::Http1Paced
            | Self::TcpPingPong
            | Self::TcpBulk
            | Self::ScalingWorkers
            | Self::Http2
            | Self::DnsColdStart => 2 * rounds,
            _ => rounds,
        }
    }

    /// Puts load on a proxy.
    ///
    /// # Errors
    /// The generator failed, or an answer was not a good one.
    pub(crate) fn load(
        self,
        stage: &Stage,
        variant: &Variant,
        proxy: &Running,
        time: Duration,
        gate: &Gate,
    ) -> anyhow::Result<Served> {
        let addr = proxy.addr;
        match self {
            Self::Http1
            | Self::ScalingHosts
            | Self::ScalingEndpoints
            | Self::ScalingWorkers
            | Self::Tls => load::wrk(stage, addr, 64, "/", variant, time, gate),
            Self::Http1Paced => load::paced(addr, variant.hosts, time, gate),
            Self::Body => load::wrk(stage, addr, 8, "/1mib", variant, time, gate),
            Self::Handshakes => load::handshakes(addr, 16, stage.identity()?, time, gate),
            Self::Http2 => load::h2load(addr, variant.tls, time, gate),
            Self::Edits => {
                let editor = proxy.editor.as_ref();
                load::edits(addr, editor.context("it cannot be edited")?, time)
            }
            Self::TcpPingPong => load::ping_pong(addr, 64, time, gate),
            Self::TcpBulk => load::bulk(addr, 8, time, gate),
            Self::Connections | Self::IdleMemory => load::connections(addr, 16, time, gate),
            Self::Dns => load::dns(addr, &services::questions(variant.hosts), time, gate),
            Self::DnsForward => load::dns(addr, &forwarded(variant), time, gate),
            Self::EndpointsChange => {
                let node = proxy.node.as_ref().context("it is not on a node")?;
                let cluster = stage.cluster(variant)?;
                let kubeconfig = cluster.kubeconfig();
                node.namespace.run(|| load::changes(kubeconfig, time))
            }
            Self::Up | Self::ColdStart | Self::DnsColdStart => {
                bail!("there is no load on what starts")
            }
        }
    }

    /// One measurement of a running proxy.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub(crate) fn sample(
        self,
        stage: &Stage,
        variant: &Variant,
        proxy: &Running,
        time: Duration,
    ) -> anyhow::Result<Sample> {
        let before = proxy.program.usage()?;
        if self == Self::IdleMemory {
            let held = load::hold(proxy.addr, IDLE)?;
            let after = proxy.program.usage()?;
            drop(held);
            return Ok(Sample::memory(before.resident, after.resident, IDLE));
        }
        let served = self.load(stage, variant, proxy, time, &Gate::new(true))?;
        let after = proxy.program.usage()?;
        Ok(Sample::load(before, after, served))
    }

    /// What each of several proxies costs, that have their load in turn; each for `time`.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub(crate) fn costs<'p>(
        self,
        stage: &Stage,
        variant: &Variant,
        proxies: Vec<(Peer, &'p Running)>,
        time: Duration,
    ) -> anyhow::Result<Vec<Sample>> {
        let all = u32::try_from(proxies.len()).unwrap_or(u32::MAX);
        let load = |(peer, proxy): (Peer, &'p Running)| {
            move |gate: Gate| {
                let before = proxy.program.usage()?;
                let served = self.load(stage, variant, proxy, time * all, &gate);
                let served = served.with_context(|| format!("{} under load", peer.name()))?;
                Ok(Sample::load(before, proxy.program.usage()?, served))
            }
        };
        gate::alternate(proxies.into_iter().map(load).collect())
            .into_iter()
            .collect()
    }
}

/// Type A.
pub(crate) const A: u16 = 1;

/// One address each. `test` is a zone that unbound itself has.
fn forwarded(variant: &Variant) -> Vec<Question> {
    let question = |index| Question::new(&format!("host-{index}.example.org"), A, 0, 1);
    (0..variant.hosts).map(question).collect()
}
