//! The node agent with a real API server and real processes. This program is executed again as the
//! containers' init, so it has a `main` of its own.

#![allow(
    clippy::print_stdout,
    reason = "a test program reports on standard output"
)]

mod agent {
    pub(crate) mod cases;
    pub(crate) mod streams;
    pub(crate) mod world;
}

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use agent::world::{Mode, World};
use agent::{cases, streams};
use futures_util::FutureExt as _;
use sealane_cluster::runtime::init;

fn main() -> ExitCode {
    if let Some(code) = init::main(std::env::args_os()) {
        return code;
    }
    // As test harnesses do: run only the cases whose name holds the first word.
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let filter = filter.unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut failed = 0;
    for mode in [Mode::Loopback, Mode::Namespaces] {
        let cases: Vec<_> = cases::ALL
            .iter()
            .chain(streams::ALL)
            .filter(|case| case.0.contains(&filter) && case.1.contains(&mode))
            .collect();
        if cases.is_empty() {
            continue;
        }
        let Some(world) = runtime.block_on(World::start(mode)) else {
            continue;
        };
        runtime.block_on(async {
            let runs = cases.iter().map(|(name, _, case)| {
                let world = &world;
                async move {
                    let outcome = AssertUnwindSafe(case(world)).catch_unwind().await;
                    let word = if outcome.is_ok() { "ok" } else { "FAILED" };
                    println!("test {name} ({mode:?}) ... {word}");
                    usize::from(outcome.is_err())
                }
            });
            failed += futures_util::future::join_all(runs)
                .await
                .into_iter()
                .sum::<usize>();
        });
        runtime.block_on(world.stop());
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
