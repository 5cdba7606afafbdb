//! Settings of forwarding.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::Codes;
use crate::name::Name;

/// Upstreams of one `forward` at most.
pub const MAX_UPSTREAMS: usize = 15;

/// `forward FROM TO…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardSettings {
    /// Names in this zone are forwarded.
    pub from: Name,
    /// Where to.
    pub upstreams: Vec<Upstream>,
    /// Files in the form of `resolv.conf` whose name servers are upstreams too; looked at again when
    /// they change.
    pub files: Vec<PathBuf>,
    /// Zones that are not forwarded after all.
    pub except: Vec<Name>,
    /// How plain upstreams are asked.
    pub protocol: Protocol,
    /// In which order upstreams are asked.
    pub policy: Policy,
    /// How an upstream that failed is watched.
    pub health_check: HealthCheck,
    /// Failed checks after which an upstream counts as down; 0: never.
    pub max_fails: u32,
    /// Queries that may wait at a time; 0: no limit of its own.
    pub max_concurrent: usize,
    /// How long an idle connection is kept.
    pub expire: Duration,
    /// How long a connection is used at most; zero: for ever.
    pub max_age: Duration,
    /// Idle connections kept an upstream; 0: no limit of its own.
    pub max_idle_connections: usize,
    /// TLS towards `tls://` and `https://` upstreams.
    pub tls: UpstreamTls,
    /// Codes after which the next `forward` or plugin is asked instead.
    pub next: Codes,
    /// So is after an answer without records.
    pub next_on_nodata: bool,
    /// Codes after which the next upstream is asked instead.
    pub failover: Codes,
    /// With every upstream down: fail at once instead of trying one.
    pub failfast_all_unhealthy_upstreams: bool,
    /// Tries after which a query that cannot be sent fails; 0: until time is over.
    pub max_connect_attempts: u32,
    /// Longest time for one try.
    pub read_timeout: Duration,
    /// Address from which upstreams are asked.
    pub source_address: Option<IpAddr>,
}

/// A server that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// UDP and TCP.
    Plain(SocketAddr),
    /// DNS over TLS; with the name that its certificate must have, if other than the setting's.
    Tls(SocketAddr, Option<String>),
    /// DNS over HTTPS: where it is reached, and its URL.
    Https(SocketAddr, String),
}

impl fmt::Display for Upstream {
    /// As in a Corefile.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(addr) => addr.fmt(f),
            Self::Tls(addr, None) => write!(f, "tls://{addr}"),
            Self::Tls(addr, Some(name)) => write!(f, "tls://{addr}%{name}"),
            Self::Https(_, url) => f.write_str(url),
        }
    }
}

/// How plain upstreams are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// As the client asked; TCP after a truncated reply to a client over TCP.
    #[default]
    Client,
    /// `force_tcp`.
    Tcp,
    /// `prefer_udp`: UDP first, TCP after a truncated reply.
    PreferUdp,
}

/// In which order upstreams are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// Any order.
    #[default]
    Random,
    /// In turn.
    RoundRobin,
    /// In the order given.
    Sequential,
    /// The fastest of late first.
    Latency,
}

/// How an upstream that failed is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Pause between two checks.
    pub interval: Duration,
    /// The checks ask for recursion.
    pub recursion_desired: bool,
    /// What they ask for (type NS).
    pub domain: Name,
}

/// TLS towards upstreams.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct UpstreamTls {
    /// Client certificate and key files, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Authorities; none: the system's.
    pub ca: Option<PathBuf>,
    /// The name that upstreams' certificates must have.
    pub server_name: Option<String>,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            recursion_desired: true,
            domain: Name::root(),
        }
    }
}

impl ForwardSettings {
    /// Everything to these upstreams, with CoreDNS's defaults.
    pub fn to(upstreams: Vec<Upstream>) -> Self {
        Self {
            from: Name::root(),
            upstreams,
            files: Vec::new(),
            except: Vec::new(),
            protocol: Protocol::default(),
            policy: Policy::default(),
            health_check: HealthCheck::default(),
            max_fails: 2,
            max_concurrent: 0,
            expire: Duration::from_secs(10),
            max_age: Duration::ZERO,
            max_idle_connections: 0,
            tls: UpstreamTls::default(),
            next: Vec::new(),
            next_on_nodata: false,
            failover: Vec::new(),
            failfast_all_unhealthy_upstreams: false,
            max_connect_attempts: 0,
            read_timeout: Duration::from_secs(2),
            source_address: None,
        }
    }
}
