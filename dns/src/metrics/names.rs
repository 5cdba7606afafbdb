//! Every metric: names, labels and buckets are CoreDNS's, those that begin with `sealane_dns_` are
//! ours.

use super::{Buckets, Family, Kind};

/// CoreDNS's buckets of times, 0.25 ms doubled up to 8.192 s, in nanoseconds.
const TIME: Buckets = Buckets {
    bounds: &doubled::<16>(250_000),
    unit: 1e9,
};
/// Few buckets of times, 0.25 ms to 2.5 s.
const SLIM_TIME: Buckets = Buckets {
    bounds: &[250_000, 2_500_000, 25_000_000, 250_000_000, 2_500_000_000],
    unit: 1e9,
};
/// Buckets of sizes, bytes.
const SIZE: Buckets = Buckets {
    bounds: &[
        0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000,
    ],
    unit: 1.0,
};

const fn doubled<const N: usize>(first: u64) -> [u64; N] {
    let mut bounds = [first; N];
    let mut index = 1;
    while index < N {
        bounds[index] = bounds[index - 1] * 2;
        index += 1;
    }
    bounds
}

const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Family {
    Family {
        name,
        help,
        kind: Kind::Counter,
        labels,
    }
}

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family {
    Family {
        name,
        help,
        kind: Kind::Gauge,
        labels,
    }
}

const fn histogram(
    name: &'static str,
    help: &'static str,
    buckets: Buckets,
    labels: &'static [&'static str],
) -> Family {
    Family {
        name,
        help,
        kind: Kind::Histogram(buckets),
        labels,
    }
}

/// Labels of a server block.
const BLOCK: &[&str] = &["server", "zone", "view"];
/// Labels of a cache.
const CACHE: &[&str] = &["server", "zones", "view"];
/// Labels of one part of a cache.
const CACHE_PART: &[&str] = &["server", "type", "zones", "view"];

macro_rules! families {
    ($($(#[$doc:meta])* $constant:ident = $family:expr;)*) => {
        $($(#[$doc])* pub static $constant: Family = $family;)*
    };
}

families! {
    /// 1, with versions.
    BUILD_INFO = gauge(
        "coredns_build_info",
        "A metric with a constant '1' value labeled by version, revision, and goversion from which CoreDNS was built.",
        &["version", "revision", "goversion"],
    );
    /// 1 for each plugin of each server block.
    PLUGIN_ENABLED = gauge(
        "coredns_plugin_enabled",
        "A metric that indicates whether a plugin is enabled on per server and zone basis.",
        &["server", "zone", "view", "name"],
    );
    /// Reloads that left the old configuration in place.
    RELOAD_FAILED = counter("coredns_reload_failed_total", "Counter of the number of failed reload attempts.", &[]);
    /// 1, with the digest of the configuration in force.
    RELOAD_VERSION = gauge(
        "coredns_reload_version_info",
        "A metric with a constant '1' value labeled by hash, and value which type of hash generated.",
        &["hash", "value"],
    );

    /// Queries.
    REQUESTS = counter(
        "coredns_dns_requests_total",
        "Counter of DNS requests made per zone, protocol and family.",
        &["server", "zone", "view", "proto", "family", "type"],
    );
    /// Replies.
    RESPONSES = counter(
        "coredns_dns_responses_total",
        "Counter of response status codes.",
        &["server", "zone", "view", "rcode", "plugin"],
    );
    /// Queries with DO.
    DO_REQUESTS = counter("coredns_dns_do_requests_total", "Counter of DNS requests with DO bit set per zone.", BLOCK);
    /// Time until the reply.
    REQUEST_DURATION = histogram(
        "coredns_dns_request_duration_seconds",
        "Histogram of the time (in seconds) each request took per zone.",
        TIME,
        BLOCK,
    );
    /// Size of queries.
    REQUEST_SIZE = histogram(
        "coredns_dns_request_size_bytes",
        "Size of the EDNS0 UDP buffer in bytes (64K for TCP) per zone and protocol.",
        SIZE,
        &["server", "zone", "view", "proto"],
    );
    /// Size of replies.
    RESPONSE_SIZE = histogram(
        "coredns_dns_response_size_bytes",
        "Size of the returned response in bytes.",
        SIZE,
        &["server", "zone", "view", "proto"],
    );
    /// HTTP answers.
    HTTPS_RESPONSES = counter(
        "coredns_dns_https_responses_total",
        "Counter of DoH responses per server and http status code.",
        &["server", "status"],
    );
    /// Ends of QUIC streams.
    QUIC_RESPONSES = counter(
        "coredns_dns_quic_responses_total",
        "Counter of DoQ responses per server and QUIC application code.",
        &["server", "status"],
    );

    /// Replies kept.
    CACHE_ENTRIES = gauge("coredns_cache_entries", "The number of elements in the cache.", CACHE_PART);
    /// Queries answered from the cache.
    CACHE_HITS = counter("coredns_cache_hits_total", "The count of cache hits.", CACHE_PART);
    /// Queries that came to the cache.
    CACHE_REQUESTS = counter("coredns_cache_requests_total", "The count of cache requests.", CACHE);
    /// Queries that were not answered from the cache.
    CACHE_MISSES = counter(
        "coredns_cache_misses_total",
        "The count of cache misses. Deprecated, derive misses from cache hits/requests counters.",
        CACHE,
    );
    /// Names fetched before they expired.
    CACHE_PREFETCH = counter("coredns_cache_prefetch_total", "The number of times the cache has prefetched a cached item.", CACHE);
    /// Replies that did not fit their query.
    CACHE_DROPS = counter("coredns_cache_drops_total", "The number responses that are not cached, because the reply is malformed.", CACHE);
    /// Replies given after their end.
    CACHE_SERVED_STALE = counter("coredns_cache_served_stale_total", "The number of requests served from stale cache entries.", CACHE);
    /// Replies that made room.
    CACHE_EVICTIONS = counter("coredns_cache_evictions_total", "The count of cache evictions.", CACHE_PART);

    /// Time that an upstream took.
    PROXY_DURATION = histogram(
        "coredns_proxy_request_duration_seconds",
        "Histogram of the time each request took.",
        TIME,
        &["proxy_name", "to", "rcode"],
    );
    /// Health checks that failed.
    PROXY_HEALTH_FAILURES = counter(
        "coredns_proxy_healthcheck_failures_total",
        "Counter of the number of failed healthchecks.",
        &["proxy_name", "to"],
    );
    /// Queries over a connection that was there.
    PROXY_CONNECTION_HITS = counter(
        "coredns_proxy_conn_cache_hits_total",
        "Counter of connection cache hits per upstream and protocol.",
        &["proxy_name", "to", "proto"],
    );
    /// Queries that needed a new connection.
    PROXY_CONNECTION_MISSES = counter(
        "coredns_proxy_conn_cache_misses_total",
        "Counter of connection cache misses per upstream and protocol.",
        &["proxy_name", "to", "proto"],
    );
    /// Queries while every upstream was down.
    FORWARD_BROKEN = counter(
        "coredns_forward_healthcheck_broken_total",
        "Counter of the number of complete failures of the healthchecks.",
        &[],
    );
    /// Queries refused because too many waited.
    FORWARD_REJECTS = counter(
        "coredns_forward_max_concurrent_rejects_total",
        "Counter of the number of queries rejected because the concurrent queries were at maximum.",
        &[],
    );
    /// Upstreams that led back here.
    FORWARD_LOOPS = counter(
        "sealane_dns_forward_loops_total",
        "Upstreams dropped because they lead back to this server.",
        &[],
    );
    /// Name of the first metric about upstreams, which dashboards still read.
    FORWARD_REQUESTS = counter("coredns_forward_requests_total", "Counter of requests made per upstream.", &["to"]);
    /// As above.
    FORWARD_RESPONSES = counter("coredns_forward_responses_total", "Counter of responses received per upstream.", &["to", "rcode"]);
    /// As above.
    FORWARD_DURATION = histogram(
        "coredns_forward_request_duration_seconds",
        "Histogram of the time each request took.",
        TIME,
        &["to", "rcode"],
    );
    /// As above.
    FORWARD_HEALTH_FAILURES = counter(
        "coredns_forward_healthcheck_failures_total",
        "Counter of the number of failed healthchecks.",
        &["to"],
    );

    /// Time that the health page took.
    HEALTH_DURATION = histogram(
        "coredns_health_request_duration_seconds",
        "Histogram of the time (in seconds) each request took.",
        SLIM_TIME,
        &[],
    );
    /// Failures of the health page.
    HEALTH_FAILURES = counter("coredns_health_request_failures_total", "The number of times the health check failed.", &[]);
    /// Names in hosts files.
    HOSTS_ENTRIES = gauge("coredns_hosts_entries", "The combined number of entries in hosts and Corefile.", &["hostsfile"]);
    /// When hosts files were last read.
    HOSTS_RELOAD = gauge("coredns_hosts_reload_timestamp_seconds", "The timestamp of the last reload of hosts file.", &[]);
    /// Queries answered by following the search path.
    AUTOPATH_SUCCESS = counter("coredns_autopath_success_total", "Counter of requests that did autopath.", &["server"]);
    /// Queries answered by a template.
    TEMPLATE_MATCHES = counter(
        "coredns_template_matches_total",
        "Counter of template regex matches.",
        &["server", "zone", "view", "class", "type"],
    );
    /// Queries refused by a rule.
    ACL_BLOCKED = counter("coredns_acl_blocked_requests_total", "Counter of DNS requests being blocked.", BLOCK);
    /// Queries answered with nothing by a rule.
    ACL_FILTERED = counter("coredns_acl_filtered_requests_total", "Counter of DNS requests being filtered.", BLOCK);
    /// Queries not answered by a rule.
    ACL_DROPPED = counter("coredns_acl_dropped_requests_total", "Counter of DNS requests being dropped.", BLOCK);
    /// Queries let through by the rules.
    ACL_ALLOWED = counter("coredns_acl_allowed_requests_total", "Counter of DNS requests being allowed.", &["server", "view"]);

    /// How old the cluster's state may be.
    STATE_AGE = gauge(
        "sealane_dns_cluster_state_age_seconds",
        "Time since the cluster's state is known to have been up to date.",
        &[],
    );
    /// Time since something was heard.
    WATCH_LAST_EVENT = gauge(
        "sealane_dns_watch_last_event_seconds",
        "Time since the API server was last heard of a resource.",
        &["resource"],
    );
    /// Objects known.
    OBJECTS = gauge("sealane_dns_objects", "Objects that answers are made from.", &["kind"]);
    /// Queries and log lines thrown away.
    DROPPED = counter("sealane_dns_dropped_total", "Queries that got no reply, and log lines that were not written.", &["reason"]);
    /// Replies that were too long for TCP.
    TCP_TRUNCATED = counter("sealane_dns_tcp_truncated_total", "Replies that did not fit into a message over TCP.", BLOCK);
}
