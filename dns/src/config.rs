//! What a DNS server is to do: the server blocks of a Corefile, each with its plugins, typed and
//! with every default filled in.
//!
//! A Corefile is read into this by `corefile`; modes that have none (`up`, flags) build it directly.
//! Names, defaults and ranges are those of CoreDNS 1.14.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;

use crate::forward::ForwardPlans;
use crate::limit::ClientRates;
use crate::name::Name;
use crate::settings::{DnsSettings, RecursionClients};

mod cache;
mod forward;
mod listener;
mod names;
mod observe;

pub use crate::plugin::template::PatternError;
pub use cache::{CacheSettings, CacheShare, Prefetch, ServeStale, StaleRefresh};
pub use forward::{
    ForwardSettings, HealthCheck, MAX_UPSTREAMS, Policy, Protocol, Upstream, UpstreamTls,
};
pub use listener::Listener;
pub use names::{
    AnswerRewrite, AutopathSettings, HostsSettings, NameMatch, RewriteRule, RewriteWhat,
    TemplateRecord, TemplateSettings,
};
pub use observe::{
    COMBINED_LOG_FORMAT, COMMON_LOG_FORMAT, Consolidate, ErrorsSettings, HealthSettings, LogClass,
    LogSettings, ReadyMonitor, ReadySettings,
};

/// A whole configuration.
#[derive(Clone, Debug, Default)]
pub struct DnsConfig {
    /// The server blocks in the order of the file.
    pub blocks: Vec<Arc<ServerBlock>>,
    /// How often the file is looked at for changes, if it is.
    pub reload: Option<Reload>,
    /// What the forwards of all workers have in common, once it is loaded.
    pub forwards: ForwardPlans,
}

/// How a query reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// UDP and TCP, `dns://`, port 53.
    Dns,
    /// DNS over TLS (RFC 7858), `tls://`, port 853.
    Tls,
    /// DNS over HTTPS (RFC 8484), `https://`, port 443.
    Https,
    /// DNS over QUIC (RFC 9250), `quic://`, port 853.
    Quic,
}

/// A server block: the zones that it answers for, where it listens and its plugins. A query goes to
/// the block with the longest matching zone among those that listen where it came in.
#[derive(Clone, Debug)]
pub struct ServerBlock {
    /// Where the block stands, `FILE:LINE`, for messages.
    pub place: String,
    /// The names and ports of the block.
    pub keys: Vec<ServerKey>,
    /// Addresses to listen on (`bind`); none: all.
    pub bind: Vec<IpAddr>,
    /// What answers.
    pub plugins: Plugins,
}

/// One name before a server block's brace, such as `tls://example.org:853`. A CIDR is one key for
/// each of its zones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerKey {
    /// How queries come in.
    pub scheme: Scheme,
    /// The zone; the root for `.`.
    pub zone: Name,
    /// Port.
    pub port: u16,
}

/// The plugins of a block. They are asked in CoreDNS's order whatever the order of the lines:
/// acl, rewrite, autopath, cache, template, hosts, kubernetes, loop, forward.
#[derive(Clone, Debug, Default)]
pub struct Plugins {
    /// `errors`: failures are logged.
    pub errors: Option<ErrorsSettings>,
    /// `log`: queries are logged, a rule a line.
    pub log: Vec<LogSettings>,
    /// `health`.
    pub health: Option<HealthSettings>,
    /// `ready`.
    pub ready: Option<ReadySettings>,
    /// `prometheus`: where metrics are served.
    pub prometheus: Option<SocketAddr>,
    /// `tls`: certificate and key files of the block's TLS, HTTPS and QUIC listeners.
    pub tls: Option<ServerTls>,
    /// `timeouts`: how long connections of clients are waited for.
    pub timeouts: Option<Timeouts>,
    /// `bufsize`: the largest UDP reply, bytes.
    pub bufsize: Option<u16>,
    /// `loadbalance`: addresses are shuffled.
    pub loadbalance: bool,
    /// `chaos`: answers of class CH.
    pub chaos: Option<ChaosSettings>,
    /// `nsid`: what the server calls itself (RFC 5001).
    pub nsid: Option<String>,
    /// `local`: names that never leave a host (`localhost`, `127.in-addr.arpa` and the like) are
    /// answered here (RFC 6303).
    pub local: bool,
    /// `debug`: the log says more.
    pub debug: bool,
    /// `compat coredns`: answers like CoreDNS where that departs from an RFC, in every plugin.
    pub compat_coredns: bool,
    /// `minimal`: authority and additional sections are left out where they are not needed.
    pub minimal: bool,
    /// `any`: ANY queries are answered with a HINFO record (RFC 8482).
    pub any: bool,
    /// `whoami`: answers with the client's address.
    pub whoami: bool,
    /// `ratelimit`: how many queries a client may ask.
    pub client_limit: Option<Arc<ClientRates>>,
    /// `acl` rules, first match decides.
    pub acl: Vec<AclRule>,
    /// `rewrite` rules in order.
    pub rewrite: Vec<RewriteRule>,
    /// `autopath @kubernetes`: the search path is followed here.
    pub autopath: Option<AutopathSettings>,
    /// `cache`.
    pub cache: Option<CacheSettings>,
    /// `template`s in order.
    pub template: Vec<TemplateSettings>,
    /// `hosts`.
    pub hosts: Option<HostsSettings>,
    /// `kubernetes`.
    pub kubernetes: Option<Arc<DnsSettings>>,
    /// `loop`: forwarding to oneself is found out.
    pub loop_detection: bool,
    /// Whose queries are forwarded.
    pub recursion: RecursionClients,
    /// `forward`s in order; the first whose zone the name is in is asked.
    pub forward: Vec<Arc<ForwardSettings>>,
}

/// How often the Corefile is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Pause, at least 2 s.
    pub interval: Duration,
    /// Random part of it, at least 1 s and at most half of it.
    pub jitter: Duration,
}

impl DnsConfig {
    /// What modes without a Corefile do: one block for every name with the `kubernetes` plugin, a
    /// cache and these upstreams, for private clients only. Without upstreams all other names fail.
    pub fn cluster(kubernetes: DnsSettings, upstreams: Vec<SocketAddr>) -> Self {
        let forward = (!upstreams.is_empty()).then(|| {
            let upstreams = upstreams.into_iter().map(Upstream::Plain).collect();
            Arc::new(ForwardSettings {
                policy: Policy::Sequential,
                // As the resolver of a libc goes on with the next name server.
                failover: vec![
                    ResponseCode::ServFail,
                    ResponseCode::Refused,
                    ResponseCode::NotImp,
                ],
                max_concurrent: MAX_CONCURRENT,
                ..ForwardSettings::to(upstreams)
            })
        });
        let plugins = Plugins {
            loadbalance: true,
            cache: Some(CacheSettings::default()),
            kubernetes: Some(Arc::new(kubernetes)),
            recursion: RecursionClients::Private,
            forward: forward.into_iter().collect(),
            ..Plugins::default()
        };
        let key = ServerKey {
            scheme: Scheme::Dns,
            zone: Name::root(),
            port: Scheme::Dns.port(),
        };
        let block = ServerBlock {
            place: "flags".to_owned(),
            keys: vec![key],
            bind: Vec::new(),
            plugins,
        };
        Self {
            blocks: vec![Arc::new(block)],
            reload: None,
            forwards: ForwardPlans::default(),
        }
    }

    /// The block that has the name, whatever listener it comes in on: the one with the longest zone.
    pub fn block_of(&self, name: &Name) -> Option<&Arc<ServerBlock>> {
        let zones = |block: &ServerBlock| {
            let zones = block.keys.iter().map(|key| &key.zone);
            name.split_longest_zone(zones).map(|(left, _)| left)
        };
        let having = self
            .blocks
            .iter()
            .filter_map(|block| Some((zones(block)?, block)));
        having.min_by_key(|(left, _)| *left).map(|(_, block)| block)
    }

    /// The `kubernetes` plugins of all blocks.
    pub fn kubernetes(&self) -> impl Iterator<Item = &Arc<DnsSettings>> {
        let plugins = self.blocks.iter().map(|block| &block.plugins);
        plugins.filter_map(|plugins| plugins.kubernetes.as_ref())
    }
}

/// Queries that may wait for upstreams at a time where no Corefile says otherwise; kubeadm's number.
const MAX_CONCURRENT: usize = 1000;

impl Scheme {
    /// The port where none is given.
    pub fn port(self) -> u16 {
        match self {
            Self::Dns => 53,
            Self::Tls | Self::Quic => 853,
            Self::Https => 443,
        }
    }
}

impl ForwardSettings {
    /// Names like this are forwarded here.
    pub fn takes(&self, name: &Name) -> bool {
        name.is_within(&self.from) && !self.except.iter().any(|zone| name.is_within(zone))
    }
}

impl Default for Reload {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            jitter: Duration::from_secs(15),
        }
    }
}

/// How long connections of clients are waited for; what is not given has the server's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// For a query, 1 s to 24 h.
    pub read: Option<Duration>,
    /// For room to write a reply, 1 s to 24 h.
    pub write: Option<Duration>,
    /// For the next query of a connection that has had one, 1 s to 24 h.
    pub idle: Option<Duration>,
    /// Queries that a TCP or TLS connection may bring; `None`: no limit.
    pub tcp_queries: Option<u32>,
}

/// Files of a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Key, PEM.
    pub key: PathBuf,
    /// Authorities that client certificates are checked against, if clients need one.
    pub client_ca: Option<PathBuf>,
}

/// Answers to questions of class CH (`version.bind`, `authors.bind`, `hostname.bind`, `id.server`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChaosSettings {
    /// Version told.
    pub version: String,
    /// Authors told.
    pub authors: Vec<String>,
}

/// Rule of `acl`: what happens to queries from some clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRule {
    /// Zones for which the rule holds.
    pub zones: Vec<Name>,
    /// What happens.
    pub action: AclAction,
    /// Query types; none: all.
    pub types: Vec<hickory_proto::rr::RecordType>,
    /// Clients as address and prefix length; none: all.
    pub clients: Vec<(IpAddr, u8)>,
}

/// What happens to a query that an [`AclRule`] matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclAction {
    /// It is answered.
    Allow,
    /// REFUSED.
    Block,
    /// NOERROR without records.
    Filter,
    /// Silence.
    Drop,
}

/// Where a plugin hands on what it does not know.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Fallthrough {
    /// Nowhere: what is not known does not exist.
    #[default]
    No,
    /// To the next plugin, for names in these zones.
    Zones(Vec<Name>),
}

impl Fallthrough {
    /// Names like this are handed on.
    pub fn allows(&self, name: &Name) -> bool {
        match self {
            Self::No => false,
            Self::Zones(zones) => zones.iter().any(|zone| name.is_within(zone)),
        }
    }
}

/// Response codes by which an upstream's answer does not count.
pub type Codes = Vec<ResponseCode>;
