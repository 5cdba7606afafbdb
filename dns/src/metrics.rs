//! Metrics with CoreDNS's names, labels and buckets, so that dashboards and alerts go on working.
//!
//! A [`Metrics`] is shared by the whole process. Whoever counts gets a handle for one series, which
//! nobody else writes to: counting is a load and a store, without a lock and without a cache line
//! that two workers fight for. When somebody asks for all metrics, the handles of a series are added
//! up. A handle that is dropped, say because the configuration was replaced, leaves its count behind,
//! so counters never go back; a gauge goes with its handle.
//!
//! A series exists from the time when its handle was made, which for labels that depend on a query is
//! its first use. Every label has a bounded number of values: what comes from the wire is mapped to a
//! fixed list first ([`labels`]).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub mod labels;
pub mod names;
mod process;
mod queries;
mod upstream;

pub use process::process;
pub(crate) use queries::StatusMetrics;
pub use queries::{Observed, QueryMetrics, Writer};
pub use upstream::{CacheMetrics, ForwardMetrics, Part, UpstreamMetrics};

/// A metric: its series differ in the labels' values.
#[derive(Debug)]
pub struct Family {
    /// Name.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Names of labels.
    pub labels: &'static [&'static str],
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many values lie below each of some bounds.
    Histogram(Buckets),
}

/// Bounds of a histogram.
#[derive(Clone, Copy, Debug)]
pub struct Buckets {
    /// Upper bounds, ascending, in the unit in which values are observed.
    pub bounds: &'static [u64],
    /// How many of that unit make one of the unit in which it is written down.
    pub unit: f64,
}

/// All metrics of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Families>>);

type Families = BTreeMap<&'static str, Collected>;

#[derive(Debug)]
struct Collected {
    family: &'static Family,
    /// By the labels' values.
    series: BTreeMap<Vec<String>, Series>,
}

/// One series.
#[derive(Debug, Default)]
struct Series {
    /// What handles counted that are gone.
    gone: Vec<u64>,
    cells: Vec<Arc<[AtomicU64]>>,
}

/// The numbers of one handle: one for a counter or gauge; for a histogram a count for each bound, one
/// for what is above them, and the sum. Only one thread at a time can have it.
#[derive(Debug)]
struct Cells {
    numbers: Arc<[AtomicU64]>,
    not_shared: PhantomData<Cell<()>>,
}

/// Handle of a counter.
#[derive(Debug)]
pub struct Counter(Cells);

/// Handle of a gauge.
#[derive(Debug)]
pub struct Gauge(Cells);

/// Handle of a histogram.
#[derive(Debug)]
pub struct Histogram {
    cells: Cells,
    bounds: &'static [u64],
}

impl Cells {
    fn add(&self, index: usize, count: u64) {
        // Nobody else writes, so nothing can be lost between the two.
        let number = &self.numbers[index];
        number.store(number.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }
}

impl Counter {
    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts several.
    pub fn add(&self, count: u64) {
        self.0.add(0, count);
    }

    /// What this handle has counted.
    pub fn get(&self) -> u64 {
        self.0.numbers[0].load(Ordering::Relaxed)
    }
}

impl Gauge {
    /// This is the value now.
    pub fn set(&self, value: f64) {
        self.0.numbers[0].store(value.to_bits(), Ordering::Relaxed);
    }
}

impl Histogram {
    /// Takes a value in, in the unit of the bounds.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.cells.add(bucket, 1);
        self.cells.add(self.bounds.len() + 1, value);
    }

    /// Takes in a time, for histograms whose bounds are nanoseconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Metrics {
    /// A handle of a counter.
    pub fn counter(&self, family: &'static Family, labels: &[&str]) -> Counter {
        Counter(self.cells(family, labels, 1))
    }

    /// A handle of a gauge. The values of all handles of a series are added up.
    pub fn gauge(&self, family: &'static Family, labels: &[&str]) -> Gauge {
        Gauge(self.cells(family, labels, 1))
    }

    /// A handle of a histogram.
    pub fn histogram(&self, family: &'static Family, labels: &[&str]) -> Histogram {
        let bounds = match family.kind {
            Kind::Histogram(buckets) => buckets.bounds,
            Kind::Counter | Kind::Gauge => &[],
        };
        let cells = self.cells(family, labels, bounds.len() + 2);
        Histogram { cells, bounds }
    }

    fn cells(&self, family: &'static Family, labels: &[&str], width: usize) -> Cells {
        debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        let numbers: Arc<[AtomicU64]> = (0..width).map(|_| AtomicU64::new(0)).collect();
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let collected = families.entry(family.name).or_insert_with(|| Collected {
            family,
            series: BTreeMap::new(),
        });
        let labels = labels.iter().map(|&value| value.to_owned()).collect();
        let series = collected.series.entry(labels).or_default();
        series.fold();
        series.cells.push(Arc::clone(&numbers));
        Cells {
            numbers,
            not_shared: PhantomData,
        }
    }

    /// Both are clones of one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// All metrics in Prometheus's text format 0.0.4.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for collected in families.values_mut() {
            collected.render(&mut out);
        }
        out
    }
}

impl Series {
    /// Takes over what handles counted that are gone.
    fn fold(&mut self) {
        let gone = &mut self.gone;
        self.cells.retain(|numbers| {
            let is_held = Arc::strong_count(numbers) > 1;
            if !is_held {
                // Makes what was counted before the drop visible here.
                std::sync::atomic::fence(Ordering::Acquire);
                gone.resize(numbers.len(), 0);
                for (gone, number) in gone.iter_mut().zip(numbers.iter()) {
                    *gone += number.load(Ordering::Relaxed);
                }
            }
            is_held
        });
    }

    /// The numbers of all handles, and of those that are gone.
    fn sum(&self) -> Vec<u64> {
        let mut sum = self.gone.clone();
        for numbers in &self.cells {
            sum.resize(numbers.len(), 0);
            for (sum, number) in sum.iter_mut().zip(numbers.iter()) {
                *sum = sum.wrapping_add(number.load(Ordering::Relaxed));
            }
        }
        sum
    }

    /// The values of all handles of a gauge.
    fn level(&self) -> f64 {
        let values = self.cells.iter();
        let values = values.map(|numbers| f64::from_bits(numbers[0].load(Ordering::Relaxed)));
        values.sum()
    }
}

impl Collected {
    fn render(&mut self, out: &mut String) {
        let Family { name, help, .. } = self.family;
        let kind = match self.family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        self.series.values_mut().for_each(Series::fold);
        if let Kind::Gauge = self.family.kind {
            self.series.retain(|_, series| !series.cells.is_empty());
        }
        if self.series.is_empty() {
            return;
        }
        out.extend(["# HELP ", name, " ", help, "\n"]);
        out.extend(["# TYPE ", name, " ", kind, "\n"]);
        for (values, series) in &self.series {
            let labels = Labels {
                names: self.family.labels,
                values,
            };
            let name = Sample { name, labels };
            match self.family.kind {
                Kind::Counter => name.write(out, "", None, series.sum()[0] as f64),
                Kind::Gauge => name.write(out, "", None, series.level()),
                Kind::Histogram(buckets) => name.histogram(out, buckets, &series.sum()),
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Labels<'a> {
    names: &'static [&'static str],
    values: &'a [String],
}

#[derive(Clone, Copy)]
struct Sample<'a> {
    name: &'static str,
    labels: Labels<'a>,
}

impl Sample<'_> {
    fn histogram(self, out: &mut String, buckets: Buckets, numbers: &[u64]) {
        let bounds = buckets.bounds.iter();
        let bounds = bounds.map(|&bound| (bound as f64 / buckets.unit).to_string());
        let bounds = bounds.chain(["+Inf".to_owned()]);
        let mut below = 0;
        for (bound, count) in bounds.zip(numbers) {
            below += count;
            self.write(out, "_bucket", Some(&bound), below as f64);
        }
        let sum = numbers.last().copied().unwrap_or_default();
        self.write(out, "_sum", None, sum as f64 / buckets.unit);
        self.write(out, "_count", None, below as f64);
    }

    /// One line. Writing to a string cannot fail.
    fn write(self, out: &mut String, suffix: &str, bound: Option<&str>, value: f64) {
        out.extend([self.name, suffix]);
        let labels = self.labels;
        let pairs = labels.names.iter().copied();
        let pairs = pairs.zip(labels.values.iter().map(String::as_str));
        let pairs = pairs.chain(bound.map(|bound| ("le", bound)));
        let mut separator = "{";
        for (name, value) in pairs {
            out.extend([separator, name, "=\""]);
            for char in value.chars() {
                match char {
                    '\\' => out.push_str("\\\\"),
                    '"' => out.push_str("\\\""),
                    '\n' => out.push_str("\\n"),
                    char => out.push(char),
                }
            }
            out.push('"');
            separator = ",";
        }
        if separator == "," {
            out.push('}');
        }
        let _ = writeln!(out, " {value}");
    }
}

#[cfg(test)]
mod tests;
