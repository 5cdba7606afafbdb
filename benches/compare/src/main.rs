//! Sealane beside its peers, in one run on one machine.
//!
//! An absolute time says little about a shared machine, a ratio to a peer that ran a moment before says
//! much. So all peers have their load at once and are let at it in turn, for a twentieth of a second
//! each: A B C C B A ([`gate`]), every proxy on CPU 0, the load generators and the backend on CPU 1. A
//! ratio is the mean of those of the rounds in which the machine was fastest, half of them; the rounds are
//! spread over the run. The first column is the CPU time of the proxy process and its children divided
//! by what it served: it stays honest when something else takes time on CPU 1. Throughput and times are
//! of a second in each round in which a peer is alone.
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
mod cluster;
mod gate;
mod load;
mod names;
mod peers;
mod plan;
mod process;
mod programs;
mod progress;
mod report;
mod services;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};

use case::{Case, Measure};
use gate::Gate;
use peers::Peer;
use plan::{PASSES, Plan, Table};
use progress::Progress;
use report::{Comparison, Report, Sample};
use stage::Stage;

/// Measures Sealane beside its peers
///
/// All cases with all peers take about 70 minutes. Tables are printed as cases are
/// done; compare.json, compare.md and compare.svg in the directory of --out have all of them.
#[derive(Debug, Parser)]
struct Options {
    /// What is measured, by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    case: Vec<Case>,
    /// Who is measured, by commas; a peer that is not there or does not start is an error [default: all
    /// that are there; how a proxy scales is measured beside nginx only]
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Rounds; cases that vary most have two or three times as many, unless it is one
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Seconds of load a peer and round
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Seconds of load before the first round
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// One round of one second and small states, in about four minutes: to see whether everything
    /// works, not for figures
    #[arg(long)]
    quick: bool,
    /// TCP's congestion control of all that is measured: costs of long answers depend on it
    #[arg(long, default_value = "cubic", value_name = "NAME")]
    congestion_control: String,
    /// An earlier run's compare.json: ratios of two peers that are apart from it by more than 10 % are
    /// listed, and the exit code is 1 if there are any
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Where results are written
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The sealane program [default: target/release/sealane, else target/bench-fast/sealane]
    #[arg(long)]
    sealane: Option<PathBuf>,
    /// The envoy program
    #[arg(long, default_value = "target/envoy/envoy")]
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

fn main() -> anyhow::Result<ExitCode> {
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.seconds, options.warm_up) = (1, 1, 0);
    }
    if options.rounds == 0 || options.seconds == 0 {
        bail!("--rounds and --seconds are at least 1");
    }
    let cases = match &options.case[..] {
        [] => Case::value_variants(),
        cases => cases,
    };
    let peers = programs::check(&options, cases)?;
    // Before all the work, not after.
    let earlier = options.against.as_deref().map(report::read).transpose()?;
    if std::env::var_os(INSIDE).is_none() {
        return stage::enter_namespace(INSIDE);
    }
    let plan = Plan::new(&options, cases, &peers);
    let (report, failed) = run(&options, &plan)?;
    report.write(&options.out)?;
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    match earlier {
        Some(earlier) => said(&report.against(&earlier)?),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Prints how a run and an earlier one compare.
fn said(comparison: &Comparison) -> anyhow::Result<ExitCode> {
    for line in &comparison.apart {
        println!("{line}");
    }
    let (apart, all) = (comparison.apart.len(), comparison.compared);
    println!("{apart} of {all} ratios are apart by more than 10 %");
    Ok(if apart == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Measures everything; what failed is told and named, and the rest goes on.
fn run(options: &Options, plan: &Plan) -> anyhow::Result<(Report, Vec<String>)> {
    let stage = Stage::set(options)?;
    let mut report = Report::default();
    let mut failed = Vec::new();
    let mut progress = Progress::new(plan.time());
    let mut measured: Vec<Samples> = plan.tables.iter().map(|_| Vec::new()).collect();
    for pass in 0..PASSES {
        for (table, samples) in plan.tables.iter().zip(&mut measured) {
            let rounds = table.rounds(plan.rounds, pass);
            if rounds == 0 || failed.contains(&table.name()) {
                continue;
            }
            let more = if table.case.is_start() {
                starts(&stage, plan, table, rounds, &mut progress)
            } else {
                loads(&stage, plan, table, rounds, &mut progress)
            };
            match more {
                Ok(more) => add(samples, more),
                Err(error) => {
                    eprintln!("{}: {error:#}", table.name());
                    failed.push(table.name());
                    continue;
                }
            }
            if (pass + 1..PASSES).all(|later| table.rounds(plan.rounds, later) == 0) {
                print!("{}", report.add(table.case, &table.variant, samples));
            }
        }
    }
    Ok((report, failed))
}

/// Adds the rounds of one pass to those before it.
fn add(samples: &mut Samples, more: Samples) {
    if samples.is_empty() {
        *samples = more;
        return;
    }
    for ((_, before), (_, more)) in samples.iter_mut().zip(more) {
        before.extend(more);
    }
}

type Samples = Vec<(Peer, Vec<Sample>)>;

/// One table: all peers under load, round by round.
fn loads(
    stage: &Stage,
    plan: &Plan,
    table: &Table,
    rounds: usize,
    progress: &mut Progress,
) -> anyhow::Result<Samples> {
    let (case, variant) = (table.case, &table.variant);
    let backend = backend::Backend::start(stage)?;
    let mut running = Vec::new();
    for peer in &table.peers {
        progress.begin(&format!("{}: {} starts", table.name(), peer.name()));
        let started = peer
            .start(stage, case, variant)
            .with_context(|| format!("{} did not start", peer.name()))?;
        if !plan.warm_up.is_zero() && case.measure() != Measure::Memory {
            case.load(stage, variant, &started, plan.warm_up, &Gate::new(true))?;
        }
        progress.end(plan.start(case));
        running.push((*peer, started, Vec::new()));
    }
    let is_alternated = case.measure() == Measure::Cpu;
    for round in 1..=rounds {
        progress.begin(&format!("{}: round {round}", table.name()));
        for turn in 0..running.len() {
            let time = if is_alternated { plan.alone } else { plan.load };
            if case.needs_cluster() {
                // A change concerns all that watch, and kube-proxy is at work for most of a second.
                for (at, (_, proxy, _)) in running.iter().enumerate() {
                    proxy.program.pause(at != turn);
                }
            }
            let (peer, proxy, samples) = &mut running[turn];
            let sample = case
                .sample(stage, variant, proxy, time)
                .with_context(|| format!("{} under load", peer.name()))?;
            samples.push(sample);
            progress.end(time);
        }
        if is_alternated {
            let proxies = running.iter().map(|(peer, it, _)| (*peer, it)).collect();
            let costs = case.costs(stage, variant, proxies, plan.load)?;
            for ((_, _, samples), cost) in running.iter_mut().zip(costs) {
                let alone = samples.pop().unwrap_or_default();
                samples.push(alone.with_cost_of(cost));
                progress.end(plan.load);
            }
        }
        // ABC CBA: who comes first has no part in it.
        running.reverse();
    }
    running.sort_by_key(|(peer, ..)| table.peers.iter().position(|it| it == peer));
    let results = running.into_iter().map(|(peer, proxy, samples)| {
        drop(proxy);
        (peer, samples)
    });
    let results = results.collect();
    drop(backend);
    Ok(results)
}

/// What starts in less is started more than once in a round, and their mean counts: the same noise is a
/// larger part of its time. How long it takes to end is not in it.
const QUICK: Duration = Duration::from_secs(4);

/// How often at most.
const STARTS: usize = 5;

/// One table of what is started in each round. The first round is not counted: it reads from disk.
fn starts(
    stage: &Stage,
    plan: &Plan,
    table: &Table,
    rounds: usize,
    progress: &mut Progress,
) -> anyhow::Result<Samples> {
    let mut results: Samples = table.peers.iter().map(|it| (*it, Vec::new())).collect();
    for round in 0..=rounds {
        for (peer, samples) in &mut results {
            progress.begin(&format!("{}: start {round}, {}", table.name(), peer.name()));
            let mut starts: Vec<Sample> = Vec::new();
            while starts.len() < STARTS
                && starts.iter().map(Sample::taken).sum::<Duration>() < QUICK
            {
                let sample = peer
                    .sample_start(stage, table.case, &table.variant)
                    .with_context(|| peer.name())?;
                starts.push(sample);
            }
            progress.end(plan.round(table.case));
            if round > 0 {
                samples.push(Sample::of_starts(&starts));
            }
        }
    }
    Ok(results)
}
