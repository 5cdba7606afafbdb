//! Sealane beside its peers, in one run on one machine.
//!
//! An absolute time says little about a shared machine, a ratio to a peer that ran a few seconds
//! before says much. So the peers take turns: A B C A B C, a round each, every proxy on CPU 0, the
//! load generator and the backend on CPU 1. The first column is the CPU time of the proxy process and
//! its children divided by what it served: it stays honest when something else takes time on CPU 1.
//!
//! Everything runs in a network namespace of its own, in which 10.200.0.0/16 is local: the
//! Kubernetes API refuses loopback addresses as endpoints.
#![allow(clippy::print_stdout, reason = "a command whose output is its result")]
#![allow(
    clippy::disallowed_methods,
    reason = "no worker runs here: a thread that sleeps holds nobody up"
)]

mod backend;
mod case;
mod load;
mod names;
mod peers;
mod process;
mod programs;
mod report;
mod services;
mod stage;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;

use case::Case;
use peers::Peer;
use report::{Report, Sample};
use stage::Stage;

/// Measures Sealane beside its peers
#[derive(Debug, Parser)]
struct Options {
    /// What is measured (repeatable) [default: all]
    #[arg(long, value_enum)]
    case: Vec<Case>,
    /// Who is measured, by commas; a peer that does not start is an error
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "sealane,nginx,haproxy"
    )]
    peers: Vec<Peer>,
    /// Rounds; each peer is measured once a round
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load a peer and round
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Seconds of load before the first round
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Two rounds of two seconds, one of warm-up: to see whether it works, not for figures
    #[arg(long)]
    quick: bool,
    /// Where results are written
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The sealane program [default: target/release/sealane, else target/bench-fast/sealane]
    #[arg(long)]
    sealane: Option<PathBuf>,
    /// The envoy program
    #[arg(long, default_value = "envoy")]
    envoy: PathBuf,
    /// The pingora peer, built from benches/peers/pingora
    #[arg(
        long,
        default_value = "benches/peers/pingora/target/release/pingora-peer"
    )]
    pingora: PathBuf,
    /// The CoreDNS program
    #[arg(long, default_value = "target/coredns/bin/coredns")]
    coredns: PathBuf,
}

/// Says that the process is in the namespace already.
const INSIDE: &str = "SEALANE_BENCH_INSIDE";

fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.seconds, options.warm_up) = (2, 2, 1);
    }
    if options.case.is_empty() {
        options.case = Case::ALL.to_vec();
    }
    programs::check(&options, &options.case)?;
    if std::env::var_os(INSIDE).is_none() {
        return stage::enter_namespace(INSIDE);
    }
    run(&options)
}

fn run(options: &Options) -> anyhow::Result<()> {
    if options.rounds == 0 || options.seconds == 0 {
        bail!("--rounds and --seconds are at least 1");
    }
    let stage = Stage::set(options)?;
    let mut report = Report::default();
    for &case in &options.case {
        for variant in case.variants() {
            let samples = measure(&stage, options, case, variant)
                .with_context(|| format!("case {} {}", case.name(), variant.name))?;
            print!("{}", report.add(case, variant, samples));
        }
    }
    report.write(&options.out)
}

/// One table: all peers, round by round.
fn measure(
    stage: &Stage,
    options: &Options,
    case: Case,
    variant: &case::Variant,
) -> anyhow::Result<Vec<(Peer, Vec<Sample>)>> {
    let backend = backend::Backend::start(stage)?;
    let mut running = Vec::new();
    for peer in &options.peers {
        if !peer.knows(case) {
            eprintln!(
                "{}: not measured, {} has no such proxy",
                case.name(),
                peer.name()
            );
            continue;
        }
        let started = peer
            .start(stage, case, variant)
            .with_context(|| format!("{} did not start", peer.name()))?;
        running.push((*peer, started, Vec::new()));
    }
    let warm_up = Duration::from_secs(options.warm_up);
    for (_, proxy, _) in &running {
        if case.needs_warm_up() && !warm_up.is_zero() {
            case.load(stage, variant, proxy, warm_up)?;
        }
    }
    let rounds = if case.needs_warm_up() {
        options.rounds
    } else {
        1
    };
    for round in 1..=rounds {
        for (peer, proxy, samples) in &mut running {
            eprintln!(
                "{} {}: round {round}, {}",
                case.name(),
                variant.name,
                peer.name()
            );
            let sample = case
                .sample(stage, variant, proxy, Duration::from_secs(options.seconds))
                .with_context(|| format!("{} under load", peer.name()))?;
            samples.push(sample);
        }
    }
    let results = running.into_iter().map(|(peer, proxy, samples)| {
        drop(proxy);
        (peer, samples)
    });
    let results = results.collect();
    drop(backend);
    Ok(results)
}
