//! The recorder of all metrics, and what is read from the system when somebody asks.

use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of histograms of seconds: from a fast answer on the same machine to the longest
/// time-outs.
const SECONDS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

/// How often what was recorded is taken in, so that it does not pile up between scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the recorder. Metrics that were resolved before are lost, so this comes first.
///
/// # Errors
/// There is one already.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .context("the histograms' buckets")?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("metrics are recorded already")?;
    Ok(handle)
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

/// All metrics as text.
pub(super) fn render(handle: &PrometheusHandle) -> String {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // One is the directory's own.
        metrics::gauge!("process_open_fds").set(entries.count().saturating_sub(1) as f64);
    }
    handle.render()
}

/// `VmRSS` of proc_pid_status(5), which is in KiB.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Keeps histograms small; never ends.
pub(super) async fn upkeep(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}
