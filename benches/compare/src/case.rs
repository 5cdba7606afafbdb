//! What is measured. A new case is a variant here, its load in [`crate::load`], and a word in the
//! peers' configurations if they need one.

use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;

use crate::load::{self, Question, Served};
use crate::peers::Running;
use crate::report::Sample;
use crate::services;
use crate::stage::Stage;

/// A case of `spec`: what kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// HTTP/1.1, 64 connections that are kept, small answers, 1,000 hosts
    Http1,
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
}

/// What is configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    /// Hosts of the gateway, or Services of a DNS server.
    pub(crate) hosts: usize,
    pub(crate) endpoints: usize,
    pub(crate) workers: usize,
    /// Clients speak TLS.
    pub(crate) tls: bool,
}

const USUAL: Variant = Variant {
    name: "",
    hosts: 1000,
    endpoints: 3,
    workers: 1,
    tls: false,
};

const ONE_HOST: Variant = Variant { hosts: 1, ..USUAL };

/// Client connections that are held open.
const IDLE: usize = 10_000;

impl Case {
    pub(crate) const ALL: [Self; 15] = [
        Self::Http1,
        Self::Body,
        Self::TcpPingPong,
        Self::TcpBulk,
        Self::Connections,
        Self::IdleMemory,
        Self::ScalingHosts,
        Self::ScalingEndpoints,
        Self::ScalingWorkers,
        Self::Tls,
        Self::Handshakes,
        Self::Http2,
        Self::Edits,
        Self::Dns,
        Self::DnsForward,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
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
        }
    }

    /// What is compared within the case.
    pub(crate) fn variants(self) -> &'static [Variant] {
        match self {
            Self::Http1 | Self::DnsForward => &[USUAL],
            Self::Body
            | Self::TcpPingPong
            | Self::TcpBulk
            | Self::Connections
            | Self::IdleMemory => &[ONE_HOST],
            Self::ScalingHosts => &[
                Variant {
                    name: "10 hosts",
                    hosts: 10,
                    ..USUAL
                },
                Variant {
                    name: "20,000 hosts",
                    hosts: 20_000,
                    ..USUAL
                },
            ],
            Self::ScalingEndpoints => &[
                Variant {
                    name: "10 endpoints",
                    endpoints: 10,
                    ..ONE_HOST
                },
                Variant {
                    name: "10,000 endpoints",
                    endpoints: 10_000,
                    ..ONE_HOST
                },
            ],
            Self::ScalingWorkers => &[
                Variant {
                    name: "1 worker",
                    ..USUAL
                },
                Variant {
                    name: "2 workers",
                    workers: 2,
                    ..USUAL
                },
            ],
            Self::Tls => &[Variant { tls: true, ..USUAL }],
            Self::Handshakes => &[Variant {
                tls: true,
                ..ONE_HOST
            }],
            Self::Http2 => &[
                Variant {
                    name: "over TLS",
                    tls: true,
                    ..USUAL
                },
                Variant {
                    name: "in plain text",
                    ..USUAL
                },
            ],
            Self::Edits => &[Variant {
                hosts: 20_000,
                ..USUAL
            }],
            Self::Dns => &[
                Variant {
                    name: "1,000 Services",
                    ..USUAL
                },
                Variant {
                    name: "10,000 Services",
                    hosts: 10_000,
                    ..USUAL
                },
            ],
        }
    }

    /// The backends' port, if it is not about HTTP.
    pub(crate) fn tcp_port(self) -> Option<u16> {
        match self {
            Self::TcpPingPong => Some(crate::backend::ECHO),
            Self::TcpBulk => Some(crate::backend::STREAM),
            Self::Http1
            | Self::Body
            | Self::Connections
            | Self::IdleMemory
            | Self::ScalingHosts
            | Self::ScalingEndpoints
            | Self::ScalingWorkers
            | Self::Tls
            | Self::Handshakes
            | Self::Http2
            | Self::Edits
            | Self::Dns
            | Self::DnsForward => None,
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
            Self::TcpPingPong
            | Self::TcpBulk
            | Self::Connections
            | Self::IdleMemory
            | Self::Handshakes
            | Self::Edits
            | Self::Dns
            | Self::DnsForward => None,
        }
    }

    /// It is about names.
    pub(crate) fn is_dns(self) -> bool {
        matches!(self, Self::Dns | Self::DnsForward)
    }

    /// Load is repeated in rounds; memory is looked at once.
    pub(crate) fn needs_warm_up(self) -> bool {
        self != Self::IdleMemory
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
    ) -> anyhow::Result<Served> {
        let addr = proxy.addr;
        match self {
            Self::Http1
            | Self::ScalingHosts
            | Self::ScalingEndpoints
            | Self::ScalingWorkers
            | Self::Tls => load::wrk(stage, addr, 64, "/", variant, time),
            Self::Body => load::wrk(stage, addr, 8, "/1mib", variant, time),
            Self::Handshakes => load::handshakes(addr, 16, stage.identity()?, time),
            Self::Http2 => load::h2load(addr, variant.tls, time),
            Self::Edits => {
                let editor = proxy.editor.as_ref();
                load::edits(addr, editor.context("it cannot be edited")?, time)
            }
            Self::TcpPingPong => load::ping_pong(addr, 64, time),
            Self::TcpBulk => load::bulk(addr, 8, time),
            Self::Connections | Self::IdleMemory => load::connections(addr, 16, time),
            Self::Dns => load::dns(addr, &services::questions(variant.hosts), time),
            Self::DnsForward => load::dns(addr, &forwarded(variant), time),
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
        let served = self.load(stage, variant, proxy, time)?;
        let after = proxy.program.usage()?;
        Ok(Sample::load(before, after, served))
    }
}

/// Type A.
const A: u16 = 1;

/// One address each. `test` is a zone that unbound itself has.
fn forwarded(variant: &Variant) -> Vec<Question> {
    let question = |index| Question::new(&format!("host-{index}.example.org"), A, 0, 1);
    (0..variant.hosts).map(question).collect()
}
