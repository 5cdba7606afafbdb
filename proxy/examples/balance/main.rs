//! What the balancer does for a Service with one bad endpoint, against round robin and random
//! choice, in virtual time.
//!
//! `cargo run -p sealane-proxy --example balance [SEED]` prints the table;
//! `cargo test -p sealane-proxy --example balance` asserts what it shows, for many seeds.
#![allow(clippy::print_stdout, reason = "a table is what it is for")]

mod outage;
mod scenario;
mod simulation;

use std::time::Duration;

use outage::Outage;
use scenario::scenarios;
use simulation::{Outcome, POLICIES, simulate};

fn main() {
    let seed = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or(1);
    in_virtual_time(async {
        println!(
            "{:<10} {:<12} {:>8} {:>8} {:>8}  share of each endpoint, the bad one last, and at most",
            "scenario", "policy", "p50", "p99", "failed"
        );
        for scenario in scenarios() {
            for policy in POLICIES {
                let outcome = simulate(&scenario, policy, seed).await;
                let most = scenario.at_most * 100.0;
                println!(
                    "{:<10} {:<12} {outcome} ({most}%)",
                    scenario.name,
                    policy.name()
                );
            }
        }
        println!("\n{}", Outage::simulate(seed).await);
    });
}

/// Runs on a clock that moves only when it is told to.
fn in_virtual_time<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime without I/O").block_on(work)
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>8} {:>8} {:>7.2}% ",
            time(self.p50),
            time(self.p99),
            self.failed * 100.0
        )?;
        self.shares
            .iter()
            .try_for_each(|share| write!(f, " {:>4.1}%", share * 100.0))
    }
}

/// Milliseconds; a request that got no good answer took for ever.
fn time(time: Option<Duration>) -> String {
    time.map_or_else(
        || "never".to_owned(),
        |time| format!("{:.1} ms", time.as_secs_f64() * 1e3),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::Policy;

    const SEEDS: u64 = 5;

    #[test]
    fn proxy_t8_one_bad_endpoint_costs_less_than_with_round_robin_or_random() {
        in_virtual_time(async {
            for scenario in scenarios() {
                for seed in 0..SEEDS {
                    let [ours, others @ ..] = POLICIES;
                    let ours = simulate(&scenario, ours, seed).await;
                    for policy in others {
                        let other = simulate(&scenario, policy, seed).await;
                        let what = format!(
                            "{} against {}, seed {seed}:\n{ours}\n{other}",
                            scenario.name,
                            policy.name()
                        );
                        // None, no good answer, is later than any time.
                        let late = |time: Option<Duration>| time.unwrap_or(Duration::MAX);
                        let better = late(ours.p99) < late(other.p99);
                        // One that refuses a third of its share costs everybody's hundredth.
                        let none = ours.p99.is_none() && other.p99.is_none();
                        assert!(better || none, "{what}");
                        assert!(ours.failed < other.failed * 0.6, "{what}");
                    }
                }
            }
        });
    }

    #[test]
    fn proxy_t8_the_good_endpoints_share_evenly_and_the_bad_one_gets_little() {
        in_virtual_time(async {
            for scenario in scenarios() {
                for seed in 0..SEEDS {
                    let outcome = simulate(&scenario, Policy::Sealane, seed).await;
                    let [good @ .., bad] = &outcome.shares[..] else {
                        panic!("a scenario has endpoints");
                    };
                    let what = format!("{}, seed {seed}: {outcome}", scenario.name);
                    assert!(*bad < scenario.at_most, "{what}");
                    let fair = good.iter().sum::<f64>() / good.len() as f64;
                    for share in good {
                        assert!((share / fair - 1.0).abs() < 0.15, "{what}");
                    }
                }
            }
        });
    }

    #[test]
    fn proxy_t8_an_outage_costs_five_requests_and_a_few_probes() {
        in_virtual_time(async {
            for seed in 0..SEEDS {
                let outage = Outage::simulate(seed).await;
                assert!(
                    (5..20).contains(&outage.lost_before_ejection),
                    "those in flight count, too: {outage}"
                );
                assert!(
                    (2..=4).contains(&outage.probes),
                    "1 s, 2 s, 4 s, 8 s: {outage}"
                );
                // The ejection that is running when the endpoint recovers is at most the fourth.
                assert!(outage.back_after < Duration::from_secs(12), "{outage}");
                assert!(outage.share_afterwards > 0.12, "a fifth is fair: {outage}");
            }
        });
    }

    #[test]
    fn proxy_t8_a_seed_gives_the_same_run_again() {
        in_virtual_time(async {
            let scenario = &scenarios()[0];
            let run = || simulate(scenario, Policy::Sealane, 7);
            let first = run().await.to_string();
            // Whenever it begins.
            for _ in 0..10 {
                tokio::time::advance(Duration::from_micros(1_700)).await;
                assert_eq!(run().await.to_string(), first);
            }
        });
    }
}
