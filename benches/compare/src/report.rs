//! What was measured, as a table, as JSON and as a chart.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::case::{Case, Variant};
use crate::load::Served;
use crate::peers::Peer;
use crate::process::Usage;

/// One peer in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// CPU per request, microseconds: what the peers are compared by. Of memory, KiB a connection.
    cost: f64,
    user: f64,
    system: f64,
    per_second: f64,
    p50: f64,
    p99: f64,
    /// Connections that it closed on clients.
    closed: u64,
    /// The most memory, bytes.
    peak: u64,
    /// Memory before the load, bytes.
    idle: u64,
    /// What stands for a request, if it is not one.
    memory: bool,
}

impl Sample {
    /// Of a round of load.
    pub(crate) fn load(before: Usage, after: Usage, served: Served) -> Self {
        let requests = served.requests.max(1) as f64;
        let each = |before: Duration, after: Duration| {
            after.saturating_sub(before).as_secs_f64() * 1e6 / requests
        };
        let user = each(before.user, after.user);
        let system = each(before.system, after.system);
        let micros = |time: Option<Duration>| time.map_or(f64::NAN, |t| t.as_secs_f64() * 1e6);
        Self {
            cost: user + system,
            user,
            system,
            per_second: served.requests as f64 / served.time.as_secs_f64(),
            p50: micros(served.p50),
            p99: micros(served.p99),
            closed: served.closed,
            peak: after.peak,
            idle: before.resident,
            memory: false,
        }
    }

    /// Of connections that were held.
    pub(crate) fn memory(idle: u64, held: u64, connections: usize) -> Self {
        Self {
            cost: held.saturating_sub(idle) as f64 / 1024.0 / connections as f64,
            peak: held,
            idle,
            memory: true,
            ..Self::default()
        }
    }
}

/// One line of a table.
#[derive(Clone, Debug, Serialize)]
struct Row {
    case: &'static str,
    variant: &'static str,
    peer: &'static str,
    /// Microseconds of CPU a request, or KiB a connection.
    cost: f64,
    cost_min: f64,
    cost_max: f64,
    user: f64,
    system: f64,
    per_second: f64,
    p50_micros: Option<f64>,
    p99_micros: Option<f64>,
    closed: u64,
    idle_bytes: u64,
    peak_bytes: u64,
    /// This cost by that of each other peer.
    ratio: Vec<(&'static str, f64)>,
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
        results: Vec<(Peer, Vec<Sample>)>,
    ) -> String {
        let costs: Vec<(Peer, f64)> = results
            .iter()
            .map(|(peer, samples)| (*peer, median(samples.iter().map(|s| s.cost))))
            .collect();
        let memory = results
            .iter()
            .flat_map(|(_, samples)| samples)
            .any(|s| s.memory);
        let rows: Vec<Row> = results
            .iter()
            .map(|(peer, samples)| row(case, variant, *peer, samples, &costs))
            .collect();
        let text = table(case, variant, &rows, memory);
        self.rows.extend(rows);
        text
    }

    /// Writes `compare.json` and `compare.svg`.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let json = serde_json::to_string_pretty(&self.rows)?;
        for (name, text) in [("compare.json", json), ("compare.svg", chart(&self.rows))] {
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
    costs: &[(Peer, f64)],
) -> Row {
    let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
    let cost = of(|s| s.cost);
    let all = || samples.iter().map(|s| s.cost);
    let known = |value: f64| value.is_finite().then_some(value);
    Row {
        case: case.name(),
        variant: variant.name,
        peer: peer.name(),
        cost,
        cost_min: all().fold(f64::INFINITY, f64::min),
        cost_max: all().fold(0.0, f64::max),
        user: of(|s| s.user),
        system: of(|s| s.system),
        per_second: of(|s| s.per_second),
        p50_micros: known(of(|s| s.p50)),
        p99_micros: known(of(|s| s.p99)),
        closed: samples.iter().map(|s| s.closed).sum(),
        idle_bytes: samples.iter().map(|s| s.idle).min().unwrap_or(0),
        peak_bytes: samples.iter().map(|s| s.peak).max().unwrap_or(0),
        ratio: costs
            .iter()
            .filter(|(other, _)| *other != peer)
            .map(|(other, theirs)| (other.name(), cost / theirs))
            .collect(),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn table(case: Case, variant: &Variant, rows: &[Row], memory: bool) -> String {
    let mut text = format!("\n{} {}\n", case.name(), variant.name);
    if memory {
        text.push_str("peer       idle MB  held MB  KiB a connection\n");
    } else {
        text.push_str(
            "peer      CPU µs/req    min    max   user    sys    req/s  p50 ms  p99 ms  peak MB  closed  ratio\n",
        );
    }
    for row in rows {
        let ratio: Vec<String> = row
            .ratio
            .iter()
            .map(|(other, ratio)| format!("{ratio:.2} {other}"))
            .collect();
        let (idle, peak) = (row.idle_bytes as f64 / 1e6, row.peak_bytes as f64 / 1e6);
        let millis = |micros: Option<f64>| {
            micros.map_or_else(|| "-".to_owned(), |micros| format!("{:.2}", micros / 1e3))
        };
        let _ = if memory {
            writeln!(
                text,
                "{:<9} {idle:>8.1} {peak:>8.1} {:>17.2}",
                row.peer, row.cost
            )
        } else {
            writeln!(
                text,
                "{:<9} {:>10.2} {:>6.2} {:>6.2} {:>6.2} {:>6.2} {:>8.0} {:>7} {:>7} {peak:>8.1} {:>7}  {}",
                row.peer,
                row.cost,
                row.cost_min,
                row.cost_max,
                row.user,
                row.system,
                row.per_second,
                millis(row.p50_micros),
                millis(row.p99_micros),
                row.closed,
                ratio.join(", ")
            )
        };
    }
    text
}

/// Bars, a group for each case, as long as the cost beside the group's highest.
fn chart(rows: &[Row]) -> String {
    const BAR: f64 = 420.0;
    let mut body = String::new();
    let mut y = 10;
    let mut group = None;
    for row in rows {
        let this = (row.case, row.variant);
        if group != Some(this) {
            group = Some(this);
            y += 24;
            let _ = writeln!(
                body,
                r#"<text x="10" y="{y}" font-weight="bold">{} {}</text>"#,
                row.case, row.variant
            );
        }
        let same = |other: &&Row| (other.case, other.variant) == this;
        let most = rows
            .iter()
            .filter(same)
            .fold(0.0, |most: f64, r| most.max(r.cost));
        let width = if most > 0.0 {
            row.cost / most * BAR
        } else {
            0.0
        };
        let colour = if row.peer == "sealane" {
            "#0b7285"
        } else {
            "#adb5bd"
        };
        y += 20;
        let _ = writeln!(
            body,
            r#"<text x="10" y="{}">{}</text><rect x="90" y="{}" width="{width:.0}" height="14" fill="{colour}"/><text x="{:.0}" y="{}">{:.2}</text>"#,
            y,
            row.peer,
            y - 12,
            96.0 + width,
            y,
            row.cost
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"620\" height=\"{}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <text x=\"10\" y=\"18\">CPU µs a request (idle-memory: KiB a connection), median; shorter is better</text>\n{body}</svg>\n",
        y + 20
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cost: f64) -> Sample {
        Sample {
            cost,
            ..Sample::default()
        }
    }

    #[test]
    fn a_ratio_is_of_medians() {
        let mut report = Report::default();
        let variant = &Case::Http1.variants()[0];
        let ours = [1.0, 9.0, 2.0].map(sample).to_vec();
        let theirs = [4.0, 4.0, 80.0].map(sample).to_vec();
        let text = report.add(
            Case::Http1,
            variant,
            vec![(Peer::Sealane, ours), (Peer::Nginx, theirs)],
        );
        assert_eq!(report.rows[0].ratio, [("nginx", 0.5)]);
        assert!(
            text.contains("0.50 nginx") && text.contains("2.00 sealane"),
            "{text}"
        );
        let svg = chart(&report.rows);
        assert_eq!(svg.matches("<rect").count(), 2);
    }
}
