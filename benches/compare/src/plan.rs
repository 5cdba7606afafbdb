//! What will be measured, and how long that takes at least.

use std::time::Duration;

use crate::Options;
use crate::case::{Case, Measure, Variant};
use crate::peers::Peer;

/// All of a run.
pub(crate) struct Plan {
    pub(crate) tables: Vec<Table>,
    pub(crate) rounds: usize,
    /// Load in a round, for each peer.
    pub(crate) load: Duration,
    /// Before that in each round, with nobody else at it, for throughput and times; only where CPU is
    /// compared.
    pub(crate) alone: Duration,
    pub(crate) warm_up: Duration,
}

/// One table: peers that are measured in turn.
pub(crate) struct Table {
    pub(crate) case: Case,
    pub(crate) variant: Variant,
    pub(crate) peers: Vec<Peer>,
}

/// How often a run goes through the cases, each time with a part of the rounds: what others do on the
/// machine lasts for minutes.
pub(crate) const PASSES: usize = 3;

impl Table {
    /// The rounds of one pass.
    pub(crate) fn rounds(&self, of_all: usize, pass: usize) -> usize {
        (self.case.rounds(of_all) + PASSES - 1 - pass) / PASSES
    }

    pub(crate) fn name(&self) -> String {
        let name = format!("{} {}", self.case.name(), self.variant.name);
        name.trim_end().to_owned()
    }
}

impl Plan {
    pub(crate) fn new(options: &Options, cases: &[Case], peers: &[Peer]) -> Self {
        let is_asked_for = !options.peers.is_empty();
        let mut tables = Vec::new();
        for case in cases {
            let usual = [Peer::Sealane, Peer::Nginx];
            for variant in case.variants(options.quick) {
                let is_measured = |peer: &Peer| {
                    let is_usual = is_asked_for || !case.is_scaling() || usual.contains(peer);
                    is_usual && peer.knows(*case) && peer.can(&variant)
                };
                let peers = peers.iter().copied().filter(is_measured).collect();
                tables.push(Table {
                    case: *case,
                    variant,
                    peers,
                });
            }
        }
        Self {
            tables,
            rounds: options.rounds,
            load: Duration::from_secs(options.seconds),
            alone: Duration::from_secs(1),
            warm_up: Duration::from_secs(options.warm_up),
        }
    }

    /// What starting a peer takes, with its warm-up: a guess.
    pub(crate) fn start(&self, case: Case) -> Duration {
        let guess = match case {
            Case::ScalingHosts | Case::Edits | Case::Dns | Case::EndpointsChange => 8,
            _ => 2,
        };
        Duration::from_secs(guess) + self.warm_up
    }

    /// What a round takes for one peer; that of a start is a guess.
    pub(crate) fn round(&self, case: Case) -> Duration {
        if case.is_start() {
            Duration::from_secs(4)
        } else if case.measure() == Measure::Cpu {
            self.alone + self.load
        } else {
            self.load
        }
    }

    /// What everything takes.
    pub(crate) fn time(&self) -> Duration {
        let passes = self.tables.iter().flat_map(|table| {
            let rounds = (0..PASSES).map(|pass| table.rounds(self.rounds, pass));
            rounds
                .filter(|rounds| *rounds > 0)
                .map(|rounds| self.pass(table, rounds))
        });
        passes.sum()
    }

    fn pass(&self, table: &Table, rounds: usize) -> Duration {
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        let peers = u32::try_from(table.peers.len()).unwrap_or(u32::MAX);
        let round = self.round(table.case);
        let start = if table.case.is_start() {
            // The one that does not count.
            round
        } else {
            self.start(table.case)
        };
        (start + round * rounds) * peers
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn the_passes_have_all_rounds_of_a_case() {
        for case in Case::value_variants() {
            for variant in case.variants(false) {
                let table = Table {
                    case: *case,
                    variant,
                    peers: Vec::new(),
                };
                for of_all in [1, 2, 6, 7] {
                    let passes = [0, 1, 2].map(|pass| table.rounds(of_all, pass));
                    let all = case.rounds(of_all);
                    assert_eq!(passes.iter().sum::<usize>(), all, "{case:?}");
                    assert!(
                        of_all > 1 || all == 1,
                        "{case:?}: {all} rounds to have a look"
                    );
                    // As evenly as they can be shared.
                    assert!(passes[0] - passes[2] <= 1, "{case:?}: {passes:?}");
                }
            }
        }
    }
}
