//! Counts the instructions of a request, and compares them with a committed figure.
//!
//! A time depends on the machine and on what else it does. The number of instructions that the gateway
//! executes for a request depends on the program only, so a hot path that has become longer is seen
//! wherever the guard runs. What the kernel does is not counted.
//!
//! The gateway runs as a process of its own under `valgrind --tool=callgrind`, with one worker; client
//! and backend are in this process, and one request follows the other. Two runs of different length are
//! subtracted, so that the start does not count.

mod client;
mod gateway;
mod origin;
mod valgrind;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};

/// Counts the instructions of a request, and compares them with a committed figure
///
/// Examples:
///   cargo run --profile bench-fast -p sealane-bench-guard
///   cargo run --profile bench-fast -p sealane-bench-guard -- --update
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
    #[arg(long, default_value = "benches/guard/counts.json")]
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
    /// HTTP/1.1 with CORS and a rewritten path
    Filters,
    /// HTTP/2, one stream after the other
    Http2,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Filters => "filters",
            Self::Http2 => "http2",
        }
    }
}

/// How far a figure may be from the committed one, in thousandths of that.
const TOLERANCE: u64 = 30;

/// Requests of the two runs.
const SHORT: u64 = 500;
const LONG: u64 = 2500;

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
    let mut known: BTreeMap<String, u64> = match known {
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
            println!("{:8} {count}", case.name());
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

/// Says how a figure compares; false if it is too far off.
fn compare(case: Case, count: u64, expected: u64) -> bool {
    let permille = count as i64 * 1000 / expected as i64 - 1000;
    let (percent, tenth) = (permille / 10, (permille % 10).abs());
    let sign = if (-9..0).contains(&permille) { "-" } else { "" };
    println!(
        "{:8} {count} instructions a request, {expected} expected: {sign}{percent}.{tenth} %",
        case.name()
    );
    let allowed = expected * TOLERANCE / 1000;
    if count > expected + allowed {
        println!(
            "{:8} has become dearer: find out by what (callgrind_annotate), or commit what --update \
             writes and say why it is worth that",
            case.name()
        );
        return false;
    }
    if count + allowed < expected {
        println!(
            "{:8} has become cheaper: commit what --update writes, so that it stays so",
            case.name()
        );
        return false;
    }
    true
}

/// Instructions of one request.
fn count(case: Case) -> anyhow::Result<u64> {
    let short = valgrind::run(case, SHORT)?;
    let long = valgrind::run(case, LONG)?;
    Ok(long.saturating_sub(short) / (LONG - SHORT))
}
