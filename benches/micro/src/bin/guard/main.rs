//! Counts the instructions and the allocations of a request, and compares them with committed figures.
//!
//! A time depends on the machine and on what else it does. The number of instructions that the gateway
//! executes for a request depends on the program only, so a hot path that has become longer is seen
//! wherever the guard runs. What the kernel does is not counted. Instructions may differ by 3 %, since
//! libraries and compilers do; how often memory is asked for may not differ at all.
//!
//! The gateway runs as a process of its own under `valgrind --tool=callgrind`, with one worker; client
//! and backend are in this process, and one request follows the other. Two runs of different length are
//! subtracted, so that the start does not count.
#![allow(clippy::print_stdout, reason = "a command whose output is its result")]

mod client;
mod gateway;
mod origin;
mod valgrind;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// Counts the instructions and allocations of a request, and compares them with committed figures
///
/// Examples:
///   cargo run --profile bench-fast -p sealane-bench-micro --bin guard
///   cargo run --profile bench-fast -p sealane-bench-micro --bin guard -- --update
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// What is counted (repeatable) [default: all]
    #[arg(long, value_enum)]
    case: Vec<Case>,
    /// Writes the figures instead of comparing with them
    #[arg(long)]
    update: bool,
    /// Where the figures are
    #[arg(long, default_value = "benches/micro/counts.json")]
    counts: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves until its standard input ends; run under valgrind
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        backend: std::net::SocketAddr,
    },
}

/// What kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// HTTP/1.1 that is relayed
    Relay,
    /// HTTP/1.1 that is relayed, a connection for each request
    Connection,
    /// HTTP/1.1 with CORS and a rewritten path
    Filters,
    /// HTTP/2, one stream after the other
    Http2,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Connection => "connection",
            Self::Filters => "filters",
            Self::Http2 => "http2",
        }
    }
}

/// How far a figure may be from the committed one, in thousandths of that.
const TOLERANCE: u64 = 30;

/// Requests of the two runs. The start is half a billion instructions, give or take two million for how
/// its maps are seeded, which has to be little beside what the requests take.
const SHORT: u64 = 500;
const LONG: u64 = 20_500;

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if let Some(Command::Serve { backend }) = options.command {
        gateway::serve(backend)?;
        return Ok(ExitCode::SUCCESS);
    }
    let cases = if options.case.is_empty() {
        Case::value_variants().to_vec()
    } else {
        options.case.clone()
    };
    let known = std::fs::read_to_string(&options.counts);
    let mut known: BTreeMap<String, Count> = match known {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("{} is not what --update writes", options.counts.display()))?,
        Err(error) if options.update && error.kind() == std::io::ErrorKind::NotFound => {
            BTreeMap::new()
        }
        Err(error) => {
            let path = options.counts.display();
            return Err(error).context(format!("{path}: give --counts, or make it by --update"));
        }
    };
    let mut good = true;
    for case in cases {
        let count = count(case)?;
        if options.update {
            println!(
                "{:10} {} instructions, {} allocations",
                case.name(),
                count.instructions,
                count.allocations
            );
            known.insert(case.name().to_owned(), count);
            continue;
        }
        let expected = known.get(case.name()).copied();
        let expected = expected.with_context(|| format!("no figure for {}", case.name()))?;
        good &= compare(case, count, expected);
    }
    if options.update {
        let text = serde_json::to_string_pretty(&known)?;
        std::fs::write(&options.counts, text + "\n")?;
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What one request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    instructions: u64,
    allocations: u64,
}

/// Says how a count compares; false if it is too far off.
fn compare(case: Case, count: Count, expected: Count) -> bool {
    let (now, before) = (count.instructions, expected.instructions);
    let percent = (now as f64 / before as f64 - 1.0) * 100.0;
    println!(
        "{:10} {now} instructions, {before} expected ({percent:+.1} %); {} allocations, {} expected",
        case.name(),
        count.allocations,
        expected.allocations
    );
    let allowed = before * TOLERANCE / 1000;
    let advice = if now > before + allowed || count.allocations > expected.allocations {
        "dearer: find out by what (callgrind_annotate), or commit what --update writes and say why it is \
         worth that"
    } else if now + allowed < before || count.allocations < expected.allocations {
        "cheaper: commit what --update writes, so that it stays so"
    } else {
        return true;
    };
    println!("{:10} has become {advice}", case.name());
    false
}

/// What one request takes.
fn count(case: Case) -> anyhow::Result<Count> {
    let short = valgrind::run(case, SHORT)?;
    let long = valgrind::run(case, LONG)?;
    let each = |short: u64, long: u64| {
        let requests = LONG - SHORT;
        (long.saturating_sub(short) + requests / 2) / requests
    };
    Ok(Count {
        instructions: each(short.instructions, long.instructions),
        allocations: each(short.allocations, long.allocations),
    })
}
