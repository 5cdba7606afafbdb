//! What operators see: metrics, the query log and the log of failures.
//!
//! Log lines are put together and written by a thread of their own. Workers hand it what a line is
//! about through a bounded queue; when that is full, lines are thrown away and counted, and queries
//! go on.

use std::net::{IpAddr, SocketAddr};

use crate::config::{DnsConfig, Listener, Plugins};
use crate::metrics::labels::{NO_VIEW, server_label};
use crate::metrics::{Gauge, Metrics, names};

mod errors;
mod format;
mod sink;
mod upkeep;

pub(crate) use format::{Entry, Format, class_of};
pub use sink::LogSink;
pub(crate) use sink::{Failure, Line};
pub use upkeep::{watch_health, watch_state};

/// Where a server reports to. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Observe {
    /// Counts.
    pub metrics: Metrics,
    /// Lines.
    pub log: LogSink,
}

/// The metrics that say what is configured, for as long as this is held. One a process, not one a
/// worker.
#[derive(Debug)]
pub struct ConfigMetrics {
    _gauges: Vec<Gauge>,
}

impl ConfigMetrics {
    /// Says which plugins the blocks have, and which version this is.
    pub fn new(metrics: &Metrics, config: &DnsConfig) -> Self {
        // What made it stands where the version of Go does.
        let labels = [env!("CARGO_PKG_VERSION"), "", "rust"];
        let build = metrics.gauge(&names::BUILD_INFO, &labels);
        build.set(1.0);
        let mut gauges = vec![build];
        for block in &config.blocks {
            for key in &block.keys {
                let binds: Vec<Option<IpAddr>> = match block.bind[..] {
                    [] => vec![None],
                    ref addrs => addrs.iter().copied().map(Some).collect(),
                };
                for bind in binds {
                    let server = server_label(key.scheme, bind, key.port);
                    let zone = key.zone.to_string();
                    for plugin in enabled(&block.plugins) {
                        let labels = [&*server, &*zone, NO_VIEW, plugin];
                        let gauge = metrics.gauge(&names::PLUGIN_ENABLED, &labels);
                        gauge.set(1.0);
                        gauges.push(gauge);
                    }
                }
            }
        }
        Self { _gauges: gauges }
    }
}

/// The names of a block's plugins.
fn enabled(plugins: &Plugins) -> impl Iterator<Item = &'static str> {
    let all = [
        ("acl", !plugins.acl.is_empty()),
        ("any", plugins.any),
        ("autopath", plugins.autopath.is_some()),
        ("bufsize", plugins.bufsize.is_some()),
        ("cache", plugins.cache.is_some()),
        ("chaos", plugins.chaos.is_some()),
        ("errors", plugins.errors.is_some()),
        ("forward", !plugins.forward.is_empty()),
        ("health", plugins.health.is_some()),
        ("hosts", plugins.hosts.is_some()),
        ("kubernetes", plugins.kubernetes.is_some()),
        ("loadbalance", plugins.loadbalance),
        ("log", !plugins.log.is_empty()),
        ("loop", plugins.loop_detection),
        ("minimal", plugins.minimal),
        ("nsid", plugins.nsid.is_some()),
        ("prometheus", plugins.prometheus.is_some()),
        ("ready", plugins.ready.is_some()),
        ("rewrite", !plugins.rewrite.is_empty()),
        ("template", !plugins.template.is_empty()),
        ("tls", plugins.tls.is_some()),
        ("whoami", plugins.whoami),
    ];
    let enabled = all.into_iter().filter(|(_, is_enabled)| *is_enabled);
    enabled.map(|(name, _)| name)
}

/// `server` of a listener.
pub(crate) fn server_of(listener: &Listener) -> String {
    server_label(listener.scheme, listener.addr, listener.port)
}

/// An address as it stands in log lines: IPv6 in brackets, IPv4 clients of IPv6 sockets as IPv4.
pub(crate) fn shown(addr: SocketAddr) -> String {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests;
