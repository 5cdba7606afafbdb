//! A run of the gateway under callgrind.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::{Case, client, origin};

/// Instructions of the gateway from start to end, with so many requests between.
pub(crate) fn run(case: Case, requests: u64) -> anyhow::Result<u64> {
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("callgrind.out");
    let backend = origin::start()?;
    let mut gateway = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
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
    total(&counts)
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

/// The sum that callgrind writes at the end.
fn total(counts: &Path) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(counts)?;
    let sums = text.lines().filter_map(|line| {
        let sum = line
            .strip_prefix("totals:")
            .or(line.strip_prefix("summary:"));
        sum?.trim().parse().ok()
    });
    match sums.max() {
        Some(sum) => Ok(sum),
        None => bail!("{} has no total", counts.display()),
    }
}
