//! Histograms with fixed buckets.
//!
//! The exporter's keep every value until somebody takes them in: memory that grows with traffic, at
//! least 4 KiB a series, and work for the control threads with each request. Here a value is two
//! additions in memory that is there already.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::formatting::{
    sanitize_metric_name, write_help_line, write_metric_line, write_type_line,
};
use metrics_exporter_prometheus::{LabelSet, PrometheusRecorder};
use tokio::time::Instant;

/// Nanoseconds in a second.
const NANOS: f64 = 1e9;

/// Says which upper bounds the histogram of a name has, rising.
pub(super) type Bounds = fn(&str) -> Vec<f64>;

/// Records histograms here, and everything else in the exporter.
pub(super) struct Split {
    pub(super) others: PrometheusRecorder,
    pub(super) histograms: Histograms,
    pub(super) bounds: Bounds,
}

/// All histograms; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Histograms(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    families: BTreeMap<String, Family>,
}

#[derive(Debug, Default)]
struct Family {
    help: SharedString,
    bounds: Arc<[f64]>,
    series: HashMap<Key, Series>,
}

#[derive(Debug)]
struct Series {
    cells: Arc<Cells>,
    /// How many values there were when it was looked at, and when that was more than before.
    seen: u64,
    changed: Instant,
}

/// What is counted of one series.
#[derive(Debug)]
struct Cells {
    bounds: Arc<[f64]>,
    /// The sum of all values, nanoseconds; then how many are in each bucket, and above all of them.
    cells: Box<[AtomicU64]>,
}

impl Cells {
    fn new(bounds: Arc<[f64]>) -> Self {
        let cells = (0..bounds.len() + 2).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, cells }
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        self.cells.iter().skip(1).map(|count| count.load(Relaxed))
    }
}

impl HistogramFn for Cells {
    fn record(&self, value: f64) {
        let bounds = self.bounds.iter();
        let bucket = bounds.take_while(|&&bound| value > bound).count();
        self.cells[0].fetch_add((value * NANOS) as u64, Relaxed);
        self.cells[bucket + 1].fetch_add(1, Relaxed);
    }
}

impl Histograms {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, key: &Key, bounds: Bounds) -> Arc<Cells> {
        let mut known = self.known();
        let family = known.families.entry(key.name().to_owned()).or_default();
        if family.bounds.is_empty() {
            family.bounds = bounds(key.name()).into();
        }
        let new = || Series {
            cells: Arc::new(Cells::new(Arc::clone(&family.bounds))),
            seen: 0,
            changed: Instant::now(),
        };
        let series = family.series.entry(key.clone()).or_insert_with(new);
        Arc::clone(&series.cells)
    }

    /// Forgets what nobody holds and what has not changed for so long.
    pub(super) fn upkeep(&self, idle: Duration) {
        let now = Instant::now();
        for family in self.known().families.values_mut() {
            family.series.retain(|_, series| {
                let seen = series.cells.counts().sum();
                if seen != std::mem::replace(&mut series.seen, seen) {
                    series.changed = now;
                }
                let is_held = Arc::strong_count(&series.cells) > 1;
                is_held || now.duration_since(series.changed) < idle
            });
        }
    }

    /// All of them as text, format 0.0.4 of Prometheus.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.known().families {
            if family.series.is_empty() {
                continue;
            }
            let name = sanitize_metric_name(name);
            if !family.help.is_empty() {
                write_help_line(&mut text, &name, None, None, &family.help);
            }
            write_type_line(&mut text, &name, None, None, "histogram");
            for (key, series) in &family.series {
                write_series(&name, key, &series.cells, &mut text);
            }
            text.push('\n');
        }
        text
    }
}

fn write_series(name: &str, key: &Key, cells: &Cells, text: &mut String) {
    let labels = LabelSet::from_key_and_global(key, &Default::default());
    let mut total = 0;
    for (bucket, count) in cells.counts().enumerate() {
        total += count;
        let bound = cells.bounds.get(bucket);
        let bound = bound.map_or_else(|| "+Inf".to_owned(), ToString::to_string);
        let bound = Some(("le", bound));
        write_metric_line(text, name, Some("bucket"), &labels, bound, total, None);
    }
    let sum = cells.cells[0].load(Relaxed) as f64 / NANOS;
    let none = None::<(&'static str, &str)>;
    write_metric_line(text, name, Some("sum"), &labels, none, sum, None);
    write_metric_line(text, name, Some("count"), &labels, none, total, None);
}

impl Recorder for Split {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.others.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.others.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, _unit: Option<Unit>, description: SharedString) {
        let mut known = self.histograms.known();
        let family = known.families.entry(key.as_str().to_owned()).or_default();
        family.help = description;
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.others.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.others.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.histograms.register(key, self.bounds))
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    const IDLE: Duration = Duration::from_secs(600);

    fn split() -> Split {
        Split {
            others: PrometheusBuilder::new().build_recorder(),
            histograms: Histograms::default(),
            bounds: |_| vec![0.5, 1.0],
        }
    }

    #[test]
    fn histograms_are_written_with_cumulative_buckets() {
        let split = split();
        metrics::with_local_recorder(&split, || {
            metrics::describe_histogram!("wait_seconds", "How long");
            let wait = || metrics::histogram!("wait_seconds", "to" => "a\"b");
            for value in [0.25, 0.5, 0.75, 7.0] {
                wait().record(value);
            }
            metrics::counter!("other_total").increment(1);
        });
        let expected = "# HELP wait_seconds How long\n# TYPE wait_seconds histogram\n\
             wait_seconds_bucket{to=\"a\\\"b\",le=\"0.5\"} 2\n\
             wait_seconds_bucket{to=\"a\\\"b\",le=\"1\"} 3\n\
             wait_seconds_bucket{to=\"a\\\"b\",le=\"+Inf\"} 4\n\
             wait_seconds_sum{to=\"a\\\"b\"} 8.5\nwait_seconds_count{to=\"a\\\"b\"} 4\n\n";
        assert_eq!(split.histograms.render(), expected);
        let others = split.others.handle().render();
        assert!(others.contains("other_total 1"), "{others}");
    }

    #[tokio::test(start_paused = true)]
    async fn histograms_that_nobody_holds_and_changes_go() {
        let split = split();
        let of = |to: &'static str| {
            metrics::with_local_recorder(&split, || metrics::histogram!("h", "to" => to))
        };
        let is_there = |to: &str| {
            split
                .histograms
                .render()
                .contains(&format!("_sum{{to=\"{to}"))
        };
        let held = of("held");
        of("changed").record(1.0);
        of("idle").record(1.0);
        split.histograms.upkeep(IDLE);
        tokio::time::advance(IDLE / 2).await;
        of("changed").record(1.0);
        split.histograms.upkeep(IDLE);
        tokio::time::advance(IDLE / 2).await;
        split.histograms.upkeep(IDLE);
        assert!(is_there("held") && is_there("changed") && !is_there("idle"));
        held.record(1.0);
        assert!(split.histograms.render().contains("_count{to=\"held\"} 1"));
    }
}
