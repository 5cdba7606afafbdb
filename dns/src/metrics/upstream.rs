//! What caches and forwards count. One of each a worker.

use std::array;
use std::cell::OnceCell;
use std::time::Duration;

use hickory_proto::op::ResponseCode;

use super::labels::{NO_VIEW, RCODE_COUNT, rcode_index, rcode_label, zones_label};
use super::{Counter, Gauge, Histogram, Metrics, names};
use crate::name::Name;

/// `proxy_name` of the upstreams of `forward`.
const FORWARD: &str = "forward";

/// Part of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Answers with records.
    Success,
    /// Answers that say that there is nothing.
    Denial,
}

/// Counts for a cache.
#[derive(Debug)]
pub struct CacheMetrics {
    /// Queries that came to the cache.
    pub requests: Counter,
    /// Those that it could not answer.
    pub misses: Counter,
    /// Names fetched before they expired.
    pub prefetch: Counter,
    /// Answers that did not fit their query.
    pub drops: Counter,
    /// Answers given after their end.
    pub served_stale: Counter,
    entries: [Gauge; 2],
    hits: [Counter; 2],
    evictions: [Counter; 2],
}

impl CacheMetrics {
    /// Labels are `server`, see [`super::labels::server_label`], and the cache's zones.
    pub fn new(metrics: &Metrics, server: &str, zones: &[Name]) -> Self {
        let zones = zones_label(zones);
        let all = |family| metrics.counter(family, &[server, &zones, NO_VIEW]);
        let parts = ["success", "denial"].map(|part| [server, part, &zones, NO_VIEW]);
        Self {
            requests: all(&names::CACHE_REQUESTS),
            misses: all(&names::CACHE_MISSES),
            prefetch: all(&names::CACHE_PREFETCH),
            drops: all(&names::CACHE_DROPS),
            served_stale: all(&names::CACHE_SERVED_STALE),
            entries: parts.map(|labels| metrics.gauge(&names::CACHE_ENTRIES, &labels)),
            hits: parts.map(|labels| metrics.counter(&names::CACHE_HITS, &labels)),
            evictions: parts.map(|labels| metrics.counter(&names::CACHE_EVICTIONS, &labels)),
        }
    }

    /// So many answers are kept now.
    pub fn entries(&self, part: Part, count: usize) {
        self.entries[part as usize].set(count as f64);
    }

    /// A query was answered from this part.
    pub fn hit(&self, part: Part) {
        self.hits[part as usize].increment();
    }

    /// An answer made room.
    pub fn evicted(&self, part: Part) {
        self.evictions[part as usize].increment();
    }
}

/// Counts for all upstreams together.
#[derive(Debug)]
pub struct ForwardMetrics {
    /// Queries while every upstream was down.
    pub broken: Counter,
    /// Queries refused because too many waited.
    pub rejects: Counter,
}

impl ForwardMetrics {
    /// Without labels.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            broken: metrics.counter(&names::FORWARD_BROKEN, &[]),
            rejects: metrics.counter(&names::FORWARD_REJECTS, &[]),
        }
    }
}

/// Counts for one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    metrics: Metrics,
    to: String,
    requests: OnceCell<Counter>,
    by_rcode: Box<[OnceCell<ByRcode>; RCODE_COUNT]>,
    health: OnceCell<[Counter; 2]>,
    connections: [OnceCell<[Counter; 2]>; Self::PROTOCOLS.len()],
}

#[derive(Debug)]
struct ByRcode {
    durations: [Histogram; 2],
    responses: Counter,
}

impl UpstreamMetrics {
    const PROTOCOLS: [&str; 4] = ["udp", "tcp", "tcp-tls", "https"];

    /// `to` is the upstream's address with port.
    pub fn new(metrics: &Metrics, to: &str) -> Self {
        Self {
            metrics: metrics.clone(),
            to: to.to_owned(),
            requests: OnceCell::new(),
            by_rcode: Box::new(array::from_fn(|_| OnceCell::new())),
            health: OnceCell::new(),
            connections: array::from_fn(|_| OnceCell::new()),
        }
    }

    /// It was asked.
    pub fn asked(&self) {
        let to: &str = &self.to;
        let count = self
            .requests
            .get_or_init(|| self.metrics.counter(&names::FORWARD_REQUESTS, &[to]));
        count.increment();
    }

    /// It answered.
    pub fn answered(&self, rcode: ResponseCode, duration: Duration) {
        let (to, metrics) = (&self.to, &self.metrics);
        let counts = self.by_rcode[rcode_index(rcode)].get_or_init(|| {
            let rcode = rcode_label(rcode);
            ByRcode {
                durations: [
                    metrics.histogram(&names::PROXY_DURATION, &[FORWARD, to, rcode]),
                    metrics.histogram(&names::FORWARD_DURATION, &[to, rcode]),
                ],
                responses: metrics.counter(&names::FORWARD_RESPONSES, &[to, rcode]),
            }
        });
        for histogram in &counts.durations {
            histogram.observe_time(duration);
        }
        counts.responses.increment();
    }

    /// A health check failed.
    pub fn health_check_failed(&self) {
        let (to, metrics) = (&self.to, &self.metrics);
        let counts = self.health.get_or_init(|| {
            [
                metrics.counter(&names::PROXY_HEALTH_FAILURES, &[FORWARD, to]),
                metrics.counter(&names::FORWARD_HEALTH_FAILURES, &[to]),
            ]
        });
        counts.iter().for_each(Counter::increment);
    }

    /// A query took a connection: one that was there or a new one. `proto` is `udp`, `tcp`, `tcp-tls`
    /// or `https`.
    pub fn connection(&self, proto: &'static str, is_reused: bool) {
        let Some(index) = Self::PROTOCOLS.iter().position(|&known| known == proto) else {
            return;
        };
        let labels = [FORWARD, &self.to, proto];
        let counts = self.connections[index].get_or_init(|| {
            let families = [
                &names::PROXY_CONNECTION_MISSES,
                &names::PROXY_CONNECTION_HITS,
            ];
            families.map(|family| self.metrics.counter(family, &labels))
        });
        counts[usize::from(is_reused)].increment();
    }
}
