//! The recorder of all metrics, how they are written down, and what is read from the system when
//! somebody asks.
//!
//! Counters and histograms whose Service nobody uses any more expire. Gauges do not: they are set
//! when something changes, and one that is not set is still true. Writing everything down happens on
//! a thread for control work; what workers count are atomics.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderValue, StatusCode};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use super::histograms::{Histograms, Split};
use super::listener::{self, Answer};

/// Media types.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Histograms that have kube-proxy's bounds.
const NETWORK_PROGRAMMING: &str = "kubeproxy_network_programming_duration_seconds";
const RULES: &str = "kubeproxy_sync_";
/// A histogram that has CoreDNS's bounds.
const NAMES_PROGRAMMING: &str = "coredns_kubernetes_dns_programming_duration_seconds";

/// Upper bounds of histograms of seconds: from a fast answer on the same machine to the longest
/// time-outs.
const SECONDS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

/// Upper bounds of kube-proxy's histograms of the time that writing rules takes: doubled from 1 ms.
const SYNC: [f64; 15] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192, 16.384,
];

/// After this time without a change a counter or histogram goes.
const IDLE: Duration = Duration::from_secs(600);

/// How often histograms are looked through for those that are to go.
const UPKEEP: Duration = Duration::from_secs(60);

/// All metrics of the process; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct MetricsHandle {
    recorded: PrometheusHandle,
    histograms: Histograms,
    /// Those of DNS, which have names and buckets of their own.
    pub(crate) names: sealane_dns::metrics::Metrics,
}

impl From<PrometheusHandle> for MetricsHandle {
    /// With no histograms and none of DNS yet.
    fn from(recorded: PrometheusHandle) -> Self {
        Self {
            recorded,
            histograms: Histograms::default(),
            names: sealane_dns::metrics::Metrics::default(),
        }
    }
}

/// Installs the recorder. Metrics that were resolved before are lost, so this comes first.
///
/// # Errors
/// There is one already.
pub(crate) fn install() -> anyhow::Result<MetricsHandle> {
    let builder = PrometheusBuilder::new().idle_timeout(MetricKindMask::COUNTER, Some(IDLE));
    let others = builder.build_recorder();
    let handle = MetricsHandle::from(others.handle());
    let recorder = Split {
        others,
        histograms: handle.histograms.clone(),
        bounds,
    };
    metrics::set_global_recorder(recorder).context("metrics are recorded already")?;
    Ok(handle)
}

/// Upper bounds of the buckets of a histogram.
fn bounds(name: &str) -> Vec<f64> {
    match name {
        NETWORK_PROGRAMMING => programming(),
        NAMES_PROGRAMMING => names_programming(),
        name if name.starts_with(RULES) => SYNC.to_vec(),
        _ => SECONDS.to_vec(),
    }
}

/// Upper bounds of kube-proxy's histogram of the time until a change takes effect, seconds: by the
/// second up to a minute, then by 5 and by 30 seconds.
fn programming() -> Vec<f64> {
    let whole = (1..60)
        .chain((60..120).step_by(5))
        .chain((120..=300).step_by(30));
    [0.25, 0.5]
        .into_iter()
        .chain(whole.map(f64::from))
        .collect()
}

/// Upper bounds of CoreDNS's histogram of the same: doubled from 1 ms.
fn names_programming() -> Vec<f64> {
    (0..20).map(|power| 0.001 * f64::from(1 << power)).collect()
}

/// Sets what never changes.
pub(super) fn describe(mode: &'static str) {
    use metrics::{Unit, describe_gauge};
    describe_gauge!("sealane_build_info", "1, with the version and the mode");
    describe_gauge!(
        "process_resident_memory_bytes",
        Unit::Bytes,
        "Resident memory"
    );
    describe_gauge!("process_open_fds", "Open file descriptors");
    let version = env!("CARGO_PKG_VERSION");
    metrics::gauge!("sealane_build_info", "version" => version, "mode" => mode).set(1.0);
}

/// How metrics are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exposition {
    is_open_metrics: bool,
    is_compressed: bool,
}

impl Exposition {
    /// What `Accept` and `Accept-Encoding` ask for.
    pub(crate) fn wanted(accept: Option<&HeaderValue>, encoding: Option<&HeaderValue>) -> Self {
        Self {
            is_open_metrics: weight(accept, "application/openmetrics-text")
                > weight(accept, "text/plain"),
            is_compressed: weight(encoding, "gzip") > 0,
        }
    }
}

/// The weight of a member of a list (RFC 9110, 12.4.2), in thousandths; 0 if it is not in there.
fn weight(list: Option<&HeaderValue>, name: &str) -> u32 {
    let list = list.and_then(|list| list.to_str().ok()).unwrap_or_default();
    let weights = list.split(',').filter_map(|member| {
        let mut parts = member.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(name) {
            return None;
        }
        let q = parts.find_map(|part| part.strip_prefix("q="));
        let q: f64 = q.map_or(Some(1.0), |q| q.parse().ok())?;
        Some((q.clamp(0.0, 1.0) * 1000.0) as u32)
    });
    weights.max().unwrap_or(0)
}

/// All metrics.
pub(crate) fn answer(handle: &MetricsHandle, exposition: Exposition) -> Answer {
    let mut text = render(handle);
    let media_type = if exposition.is_open_metrics {
        text = open_metrics(&text);
        OPEN_METRICS
    } else {
        TEXT
    };
    let compressed = exposition.is_compressed.then(|| compress(&text)).flatten();
    let is_compressed = compressed.is_some();
    let body = compressed.unwrap_or_else(|| text.into_bytes());
    let mut answer = listener::answer(StatusCode::OK, body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if is_compressed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

/// The fastest level: text like this shrinks to a tenth anyhow.
fn compress(text: &str) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text.as_bytes()).ok()?;
    encoder.finish().ok()
}

/// The same in OpenMetrics: a counter's family is named without `_total`, no blank lines, an end.
fn open_metrics(text: &str) -> String {
    let mut open = String::with_capacity(text.len() + 8);
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.strip_suffix(" counter"))
        {
            Some(name) => {
                let family = name.strip_suffix("_total").unwrap_or(name);
                // A counter whose samples are not named so is of a type that is not known.
                let kind = if family == name { "unknown" } else { "counter" };
                open.extend(["# TYPE ", family, " ", kind, "\n"]);
            }
            None => match line
                .strip_prefix("# HELP ")
                .and_then(|rest| rest.split_once(' '))
            {
                Some((name, help)) => {
                    let family = name.strip_suffix("_total").unwrap_or(name);
                    open.extend(["# HELP ", family, " ", help, "\n"]);
                }
                None => open.extend([line, "\n"]),
            },
        }
    }
    open.push_str("# EOF\n");
    open
}

/// All metrics as text.
pub(super) fn render(handle: &MetricsHandle) -> String {
    let names = handle.names.render();
    let histograms = handle.histograms.render();
    if !names.is_empty() {
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        let process = sealane_dns::metrics::process(tasks);
        return format!("{}{histograms}{names}{process}", handle.recorded.render());
    }
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // One is the directory's own.
        metrics::gauge!("process_open_fds").set(entries.count().saturating_sub(1) as f64);
    }
    handle.recorded.render() + &histograms
}

/// `VmRSS` of proc_pid_status(5), which is in KiB.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Forgets histograms that are out of use; never ends.
pub(super) async fn upkeep(handle: MetricsHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        handle.histograms.upkeep(IDLE);
    }
}
