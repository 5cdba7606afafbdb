//! Tables: one of each case as it is done, and one of everything in Markdown.

use std::fmt::Write as _;

use super::Row;
use crate::case::Measure;

/// The table of one case, for a terminal.
pub(super) fn of_case(title: &str, rows: &[Row], measure: Measure) -> String {
    let mut text = format!("\n{title}\n");
    text.push_str(match measure {
        Measure::Cpu => {
            "peer       CPU µs/req    min    max   user    sys    req/s  p50 ms  p99 ms  peak MB  closed  ratio\n"
        }
        Measure::Memory => "peer        idle MB  held MB  KiB a connection  ratio\n",
        Measure::Time => {
            "peer               ms     min     max   p99 ms  CPU ms  count  peak MB  closed  ratio\n"
        }
    });
    for row in rows {
        let line = match measure {
            Measure::Cpu => format!(
                "{:>10.2} {:>6.2} {:>6.2} {:>6.2} {:>6.2} {:>8.0} {:>7} {:>7} {:>8.1} {:>7}",
                row.cost,
                row.lowest(),
                row.highest(),
                row.user,
                row.system,
                row.per_second,
                millis(row.p50_micros),
                millis(row.p99_micros),
                megabytes(row.peak_bytes),
                row.closed,
            ),
            Measure::Memory => format!(
                "{:>8.1} {:>8.1} {:>17.2}",
                megabytes(row.idle_bytes),
                megabytes(row.peak_bytes),
                row.cost
            ),
            Measure::Time => format!(
                "{:>10.2} {:>7.2} {:>7.2} {:>8} {:>7.1} {:>6} {:>8.1} {:>7}",
                row.cost,
                row.lowest(),
                row.highest(),
                millis(row.p99_micros),
                (row.user + row.system) / 1e3,
                row.count,
                megabytes(row.peak_bytes),
                row.closed,
            ),
        };
        let _ = writeln!(text, "{:<10} {line}  {}", row.peer, ratios(row));
    }
    text
}

/// All cases, for a document: what is compared is in bold.
pub(super) fn of_all(rows: &[Row]) -> String {
    let mut text = String::from(
        "| case | peer | cost | lowest–highest | a second | p50 ms | p99 ms | peak MB | Sealane takes |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let takes = row
            .sealane_by(rows)
            .map_or_else(String::new, |ratio| format!("{:.2} ×", ratio.mean));
        let _ = writeln!(
            text,
            "| `{}` {} | {} | **{:.2}** {} | {:.2}–{:.2} | {} | {} | {} | {:.1} | {takes} |",
            row.case,
            row.variant,
            row.peer,
            row.cost,
            row.unit,
            row.lowest(),
            row.highest(),
            grouped(row.per_second),
            millis(row.p50_micros),
            millis(row.p99_micros),
            megabytes(row.peak_bytes),
        );
    }
    text
}

fn ratios(row: &Row) -> String {
    let ratios = row.ratio.iter();
    let ratios: Vec<String> = ratios
        .map(|it| format!("{:.2} {} ({:.2}–{:.2})", it.mean, it.peer, it.low, it.high))
        .collect();
    ratios.join(", ")
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn millis(micros: Option<f64>) -> String {
    micros.map_or_else(|| "-".to_owned(), |micros| format!("{:.2}", micros / 1e3))
}

/// `187,000`; few have no need for it, and none is shown for what has no rate.
fn grouped(per_second: f64) -> String {
    if per_second == 0.0 {
        return "-".to_owned();
    }
    if per_second < 100.0 {
        return format!("{per_second:.1}");
    }
    crate::case::grouped(per_second.round() as usize)
}
