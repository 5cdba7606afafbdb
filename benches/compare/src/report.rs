//! What was measured, as a table, as JSON and as a chart.

mod against;
mod chart;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

pub(crate) use against::{Comparison, read};

use crate::case::{Case, Measure, Variant};
use crate::load::Served;
use crate::peers::Peer;
use crate::process::Usage;

/// One peer in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Microseconds of CPU a request.
    user: f64,
    system: f64,
    /// KiB a connection that is held.
    held: f64,
    /// Requests, or what stands for one.
    count: u64,
    per_second: f64,
    p50: f64,
    p99: f64,
    /// What one took, microseconds: the geometric mean.
    middle: f64,
    /// Connections that it closed on clients.
    closed: u64,
    /// The most memory, bytes.
    peak: u64,
    /// Memory before the load, bytes.
    idle: u64,
    /// Microseconds that each took, if they are few.
    each: Vec<f64>,
}

impl Sample {
    /// Of a round of load.
    pub(crate) fn load(before: Usage, after: Usage, served: Served) -> Self {
        let requests = served.requests.max(1) as f64;
        let each = |before: Duration, after: Duration| {
            after.saturating_sub(before).as_secs_f64() * 1e6 / requests
        };
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let known = |time: Option<Duration>| time.map_or(f64::NAN, micros);
        Self {
            middle: geometric_mean(served.each.iter().copied().map(micros)),
            user: each(before.user, after.user),
            system: each(before.system, after.system),
            held: 0.0,
            count: served.requests,
            per_second: served.requests as f64 / served.time.as_secs_f64(),
            p50: known(served.p50),
            p99: known(served.p99),
            closed: served.closed,
            peak: after.peak,
            idle: before.resident,
            each: served.each.into_iter().map(micros).collect(),
        }
    }

    /// Of connections that were held.
    pub(crate) fn memory(idle: u64, held: u64, connections: usize) -> Self {
        Self {
            held: held.saturating_sub(idle) as f64 / 1024.0 / connections as f64,
            peak: held,
            idle,
            ..Self::default()
        }
    }

    /// The same with CPU that was measured otherwise.
    pub(crate) fn with_cost_of(self, cost: Self) -> Self {
        Self {
            user: cost.user,
            system: cost.system,
            count: self.count + cost.count,
            peak: cost.peak,
            ..self
        }
    }

    /// The starts of a round as one: the geometric mean of their times, the median of what else they took.
    pub(crate) fn of_starts(starts: &[Self]) -> Self {
        let of = |value: fn(&Self) -> f64| median(starts.iter().map(value));
        Self {
            user: of(|s| s.user),
            system: of(|s| s.system),
            count: starts.iter().map(|s| s.count).sum(),
            per_second: of(|s| s.per_second),
            p50: of(|s| s.p50),
            p99: of(|s| s.p99),
            middle: geometric_mean(starts.iter().map(|s| s.middle)),
            peak: starts.iter().map(|s| s.peak).max().unwrap_or(0),
            each: starts.iter().flat_map(|s| s.each.clone()).collect(),
            ..Self::default()
        }
    }

    /// What one took.
    pub(crate) fn taken(&self) -> Duration {
        Duration::from_secs_f64(self.middle / 1e6)
    }

    /// What peers are compared by.
    fn cost(&self, measure: Measure) -> f64 {
        match measure {
            Measure::Cpu => self.user + self.system,
            Measure::Memory => self.held,
            Measure::Time => self.middle / 1e3,
        }
    }
}

/// One line of a table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    case: String,
    variant: String,
    peer: String,
    /// What peers are compared by: the median of the rounds that count.
    cost: f64,
    /// Of what.
    unit: String,
    /// That of each round, in the order in which they were.
    #[serde(default)]
    rounds: Vec<f64>,
    /// Microseconds of CPU a request.
    user: f64,
    system: f64,
    /// Requests of all rounds.
    count: u64,
    per_second: f64,
    p50_micros: Option<f64>,
    p99_micros: Option<f64>,
    closed: u64,
    idle_bytes: u64,
    peak_bytes: u64,
    /// This cost by that of each other peer.
    ratio: Vec<Ratio>,
}

/// How the costs of two peers compare: round by round, so that what the machine did meanwhile was done
/// to both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Ratio {
    peer: String,
    /// The geometric mean of the rounds' ratios, or of times the ratio of their medians: in both the one by
    /// the other is the inverse of the other by the one.
    mean: f64,
    /// The first and the third quartile of the rounds' ratios.
    low: f64,
    high: f64,
}

impl Ratio {
    fn of(measure: Measure, rounds: &[(&Sample, &Sample)], peer: Peer) -> Self {
        let ratios = rounds
            .iter()
            .map(|(our, their)| our.cost(measure) / their.cost(measure));
        let ratios: Vec<f64> = ratios.collect();
        let at = |share| quantile(ratios.iter().copied(), share);
        let mean = match measure {
            Measure::Cpu | Measure::Memory => geometric_mean(ratios.iter().copied()),
            // Peers have no load at the same time here, so that a round in which one of them stalled says
            // nothing of the other.
            Measure::Time => {
                let of = |cost: fn(&(&Sample, &Sample)) -> f64| median(rounds.iter().map(cost));
                of(|(our, _)| our.cost(Measure::Time)) / of(|(_, their)| their.cost(Measure::Time))
            }
        };
        Self {
            peer: peer.name().to_owned(),
            mean,
            low: at(25),
            high: at(75),
        }
    }
}

impl Row {
    /// The least that a round cost.
    fn lowest(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The most that a round cost.
    fn highest(&self) -> f64 {
        self.rounds.iter().copied().fold(0.0, f64::max)
    }

    /// Sealane's cost in this case by this one, if it is another's.
    fn sealane_by<'r>(&self, rows: &'r [Self]) -> Option<&'r Ratio> {
        let mut same = rows
            .iter()
            .filter(|row| (&row.case, &row.variant) == (&self.case, &self.variant));
        let ours = same.find(|row| row.peer == "sealane")?;
        ours.ratio.iter().find(|ratio| ratio.peer == self.peer)
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds the results of one case and returns its table.
    pub(crate) fn add(
        &mut self,
        case: Case,
        variant: &Variant,
        results: &[(Peer, Vec<Sample>)],
    ) -> String {
        let measure = case.measure();
        let rows: Vec<Row> = results
            .iter()
            .map(|(peer, samples)| row(case, variant, *peer, samples, results))
            .collect();
        let text = table::of_case(&format!("{} {}", case.name(), variant.name), &rows, measure);
        self.rows.extend(rows);
        text
    }

    /// Compares this run with an earlier one.
    ///
    /// # Errors
    /// They have no ratio in common.
    pub(crate) fn against(&self, earlier: &[Row]) -> anyhow::Result<Comparison> {
        against::compare(earlier, &self.rows)
    }

    /// Writes `compare.json`, `compare.md` and `compare.svg`.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let json = serde_json::to_string_pretty(&self.rows)?;
        for (name, text) in [
            ("compare.json", json),
            ("compare.md", table::of_all(&self.rows)),
            ("compare.svg", chart::chart(&self.rows)),
        ] {
            let path = dir.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
            println!("{}", path.display());
        }
        Ok(())
    }
}

fn row(
    case: Case,
    variant: &Variant,
    peer: Peer,
    samples: &[Sample],
    results: &[(Peer, Vec<Sample>)],
) -> Row {
    let measure = case.measure();
    let counting = counting(case, results);
    let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
    let of_counting =
        |value: &dyn Fn(&Sample) -> f64| median(counting.iter().map(|it| value(&samples[*it])));
    let known = |value: f64| value.is_finite().then_some(value);
    let p99 = match measure {
        // A round has too few for one of its own.
        Measure::Time => quantile(samples.iter().flat_map(|s| &s.each).copied(), 99),
        Measure::Cpu | Measure::Memory => of(|s| s.p99),
    };
    Row {
        case: case.name().to_owned(),
        variant: variant.name.clone(),
        peer: peer.name().to_owned(),
        cost: of_counting(&|s| s.cost(measure)),
        unit: measure.unit().to_owned(),
        rounds: samples.iter().map(|s| s.cost(measure)).collect(),
        user: of_counting(&|s| s.user),
        system: of_counting(&|s| s.system),
        count: samples.iter().map(|s| s.count).sum(),
        per_second: of(|s| s.per_second),
        p50_micros: known(of(|s| s.p50)),
        p99_micros: known(p99),
        closed: samples.iter().map(|s| s.closed).sum(),
        idle_bytes: samples.iter().map(|s| s.idle).min().unwrap_or(0),
        peak_bytes: samples.iter().map(|s| s.peak).max().unwrap_or(0),
        ratio: results
            .iter()
            .filter(|(other, _)| *other != peer)
            .map(|(other, theirs)| {
                let rounds = counting.iter().map(|it| (&samples[*it], &theirs[*it]));
                Ratio::of(measure, &rounds.collect::<Vec<_>>(), *other)
            })
            .collect(),
    }
}

/// The rounds that count: the half in which the machine was fastest, by what all peers took together. When
/// others are at work on it, it is slower for minutes, and not by the same for what is spent in the
/// kernel and outside of it. Where the time of changes is compared all rounds count: it depends on when
/// a change comes, as kube-proxy works once a second, and less on the machine.
fn counting(case: Case, results: &[(Peer, Vec<Sample>)]) -> Vec<usize> {
    let measure = case.measure();
    let rounds = results.iter().map(|(_, samples)| samples.len());
    let rounds = rounds.min().unwrap_or(0);
    let taken = |round: usize| -> f64 {
        let costs = results.iter().map(|(_, of)| of[round].cost(measure).ln());
        costs.sum()
    };
    let mut counting: Vec<usize> = (0..rounds).collect();
    if measure != Measure::Time || case.is_start() {
        counting.sort_by(|a, b| taken(*a).total_cmp(&taken(*b)));
        counting.truncate(rounds.div_ceil(2));
    }
    counting
}

/// What `share` per cent of the values are below.
fn quantile(values: impl Iterator<Item = f64>, share: usize) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
        .get(values.len() * share / 100)
        .copied()
        .unwrap_or(f64::NAN)
}

/// Not a number if there are none.
fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0_u32);
    for value in values {
        sum += value.ln();
        count += 1;
    }
    (sum / f64::from(count)).exp()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    quantile(values, 50)
}

#[cfg(test)]
mod tests;
