//! A run of the gateway under callgrind.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::{Case, client, origin};

/// glibc copies memory by what the processor has, with more instructions or fewer; without these it
/// does so in one way everywhere.
const PLAIN_COPIES: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM";

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Instructions executed.
    pub(crate) instructions: u64,
    /// Calls of the allocator for memory, or for more of it.
    pub(crate) allocations: u64,
}

/// Functions that ask for memory.
const ALLOCATORS: [&str; 3] = ["__rust_alloc", "__rust_alloc_zeroed", "__rust_realloc"];

/// The gateway from start to end, with so many requests between.
pub(crate) fn run(case: Case, requests: u64) -> anyhow::Result<Totals> {
    let folder = tempfile::tempdir()?;
    let profile = folder.path().join("callgrind.out");
    let backend = origin::start()?;
    let mut gateway = Command::new("valgrind")
        .env("GLIBC_TUNABLES", PLAIN_COPIES)
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(std::env::current_exe()?)
        .args(["serve", "--backend", &backend.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("valgrind does not start: install the package of that name")?;
    let asked = ask(case, &mut gateway, requests);
    // It ends with its standard input.
    drop(gateway.stdin.take());
    let ended = gateway.wait()?;
    asked?;
    ensure!(ended.success(), "the gateway ended with {ended}");
    let totals = read(&std::fs::read_to_string(&profile)?);
    ensure!(
        totals.instructions > 0 && totals.allocations > 0,
        "callgrind's output is not what it was: {totals:?}"
    );
    Ok(totals)
}

fn ask(case: Case, gateway: &mut Child, requests: u64) -> anyhow::Result<()> {
    let mut line = String::new();
    let output = gateway.stdout.take().context("it has no output")?;
    BufReader::new(output).read_line(&mut line)?;
    let addr: SocketAddr = line.trim().parse().context("it does not say its address")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(client::ask(case, addr, requests))
}

/// Reads what callgrind has written (Callgrind Format Specification): a function's name stands
/// behind its number where that is used first, `calls=` behind the `cfn=` of who is called.
fn read(profile: &str) -> Totals {
    let mut totals = Totals::default();
    let mut allocators: HashMap<&str, bool> = HashMap::new();
    let mut called = false;
    for line in profile.lines() {
        if let Some(sum) = line
            .strip_prefix("totals:")
            .or(line.strip_prefix("summary:"))
        {
            let sum = sum.trim().parse().unwrap_or(0);
            totals.instructions = totals.instructions.max(sum);
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let count = calls.split(' ').next().and_then(|it| it.parse().ok());
            totals.allocations += count.filter(|_| called).unwrap_or(0);
        } else if let Some((kind, function)) = line.split_once("fn=") {
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            if !name.is_empty() {
                let name = name.rsplit("::").next().unwrap_or(name);
                let name = name.split('\'').next().unwrap_or(name);
                allocators.insert(number, ALLOCATORS.contains(&name));
            }
            if kind == "c" {
                called = allocators.get(number).copied().unwrap_or(false);
            }
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_output_is_read() {
        let profile = "fl=(1) a.rs\nfn=(1) main\n16 5\ncfn=(2) __rustc::__rust_alloc\ncalls=3 0 \n16 90\n\
            cfn=(3) other\ncalls=7 0 \n16 1\n\nfn=(3)\n1 1\ncfn=(2)\ncalls=4 0 \n1 1\n\
            cfn=(4) __rustc::__rust_realloc\ncalls=2 0 \n1 1\ntotals: 98\n";
        let totals = Totals {
            instructions: 98,
            allocations: 9,
        };
        assert_eq!(read(profile), totals);
    }
}
