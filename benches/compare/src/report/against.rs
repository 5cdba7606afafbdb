//! This run beside an earlier one: do both say the same about who takes how much of whom?

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::Row;

/// Ratios of two runs may differ by this factor.
const AGREE: f64 = 1.1;

/// Every ratio that both runs have.
pub(crate) struct Comparison {
    /// How many there are.
    pub(crate) compared: usize,
    /// A line for each that is apart.
    pub(crate) apart: Vec<String>,
}

/// Reads the rows of an earlier run.
///
/// # Errors
/// The file is not there, or is none of this program's.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<Row>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not what an earlier run wrote", file.display()))
}

/// Compares the ratio of every two peers in every case.
///
/// # Errors
/// The runs have no ratio in common.
pub(super) fn compare(earlier: &[Row], now: &[Row]) -> anyhow::Result<Comparison> {
    let earlier = ratios(earlier);
    let before: HashMap<&str, f64> = earlier.iter().map(|(name, at)| (&**name, *at)).collect();
    let mut comparison = Comparison {
        compared: 0,
        apart: Vec::new(),
    };
    for (name, now) in ratios(now) {
        let Some(before) = before.get(&*name) else {
            continue;
        };
        comparison.compared += 1;
        let factor = (now / before).max(before / now);
        // What is not a number is apart as well.
        if factor.is_nan() || factor > AGREE {
            comparison.apart.push(format!(
                "{name}: {before:.2} before, {now:.2} now ({:+.0} %)",
                (now / before - 1.0) * 100.0
            ));
        }
    }
    ensure!(comparison.compared > 0, "the runs have no ratio in common");
    Ok(comparison)
}

/// Each ratio once, however the peers were ordered: of Sealane to the others, and of these by name.
fn ratios(rows: &[Row]) -> Vec<(String, f64)> {
    let mut ratios = Vec::new();
    for row in rows {
        let (case, variant, peer) = (&row.case, &row.variant, &row.peer);
        for other in &row.ratio {
            if peer == "sealane" || *peer < other.peer && other.peer != "sealane" {
                let name = format!("{case} {variant}: {peer} / {}", other.peer);
                ratios.push((name.replace(" :", ":"), other.mean));
            }
        }
    }
    ratios
}

#[cfg(test)]
mod tests {
    use super::super::Ratio;
    use super::*;

    /// What is measured of peers that cost so much.
    fn case(case: &str, costs: &[(&str, f64)]) -> Vec<Row> {
        let row = |&(peer, cost): &(&str, f64)| {
            let others = costs.iter().filter(|(other, _)| *other != peer);
            let ratio = others.map(|(other, theirs)| Ratio {
                peer: (*other).to_owned(),
                mean: cost / theirs,
                low: 0.0,
                high: 0.0,
            });
            Row {
                case: case.to_owned(),
                peer: peer.to_owned(),
                cost,
                ratio: ratio.collect(),
                ..Row::default()
            }
        };
        costs.iter().map(row).collect()
    }

    #[test]
    fn ratios_that_are_apart_are_listed_however_costs_and_order_changed() {
        let http1 = [("sealane", 10.0), ("nginx", 20.0), ("haproxy", 10.0)];
        let earlier = [
            case("http1", &http1),
            case("tls", &[("sealane", 10.0), ("nginx", 20.0)]),
            case("body", &[("sealane", 10.0)]),
        ]
        .concat();
        // Not in the other run.
        let dns = case("dns", &[("sealane", 1.0), ("coredns", 9.0)]);
        // A slower machine: the ratio is the same.
        let tls = case("tls", &[("nginx", 42.0), ("sealane", 20.0)]);
        let http1 = [("sealane", 10.0), ("haproxy", 10.9), ("nginx", 16.0)];
        let now = [tls, case("http1", &http1), dns.clone()].concat();
        let comparison = compare(&earlier, &now).expect("they have ratios in common");
        assert_eq!(comparison.compared, 4);
        assert_eq!(
            comparison.apart,
            [
                "http1: sealane / nginx: 0.50 before, 0.62 now (+25 %)",
                "http1: haproxy / nginx: 0.50 before, 0.68 now (+36 %)",
            ]
        );
        let nothing = compare(&earlier, &dns);
        assert!(nothing.is_err(), "agreement about nothing is none");
    }

    #[test]
    fn a_ratio_that_is_no_number_does_not_agree() {
        let rows = case("http1", &[("sealane", f64::NAN), ("nginx", 1.0)]);
        let comparison = compare(&rows, &rows).expect("a ratio");
        assert_eq!(comparison.apart.len(), 1);
    }
}
