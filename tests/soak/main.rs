//! Long runs against a whole cluster: `sealane up` with real pods, under load.
//!
//! `cargo run --example soak -- restart` restarts all pods of a Service every five seconds while
//! requests go to it by its cluster IP and through the gateway; `-- hold` keeps WebSockets and gRPC
//! streams open meanwhile, and edits Ingresses; `-- soak` adds thousands of idle connections and a
//! thousand endpoint updates a second, and watches memory and descriptors. Each ends with a table
//! and a verdict, and with 1 if something was lost. docs/soak.md has more.
//!
//! `cargo test --example soak` runs short forms of all of them.
#![allow(clippy::print_stdout, reason = "a table is what it is for")]

mod churn;
mod cluster;
mod edits;
mod held;
mod hold;
mod idle;
mod load;
mod namespace;
mod peer;
mod restart;
mod rotation;
mod samples;
mod soak;
mod tls;
mod zero;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Long runs of `sealane up` under load.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    run: Run,
    /// The program [default: `sealane` of the same build]
    #[arg(long, global = true, value_name = "FILE")]
    sealane: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Run {
    /// All pods restart again and again, and no request is lost
    Restart(restart::Options),
    /// A Service is scaled to zero and back: refused at once, served at once
    Zero,
    /// WebSockets and gRPC streams stay open while Ingresses, certificates and pods change
    Hold(hold::Options),
    /// Restarts with idle connections and endpoint updates, and nothing grows
    Soak(soak::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let passed = match arguments.run {
        Run::Restart(options) => {
            let outcome = restart::run(arguments.sealane, &options).await?;
            println!("{outcome}");
            outcome.passed()
        }
        Run::Zero => {
            let outcome = zero::run(arguments.sealane).await?;
            println!("{outcome}");
            outcome.passed()
        }
        Run::Hold(options) => {
            let outcome = hold::run(arguments.sealane, &options).await?;
            println!("{outcome}");
            outcome.passed()
        }
        Run::Soak(options) => {
            let outcome = soak::run(arguments.sealane, &options).await?;
            println!("{outcome}");
            outcome.passed()
        }
    };
    println!("{}", if passed { "passed" } else { "FAILED" });
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each run has a cluster of its own, and one at a time is enough for a machine.
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// Whether the machine can do it. If not, the test says why it is skipped, or fails where
    /// everything is required.
    fn possible() -> bool {
        let possible = rustix::process::geteuid().is_root();
        let required = std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|what| what == "all");
        let reason = "only root may enter the namespace of a pod";
        assert!(possible || !required, "required, but {reason}");
        if !possible {
            eprintln!("skipped: {reason}");
        }
        possible
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn reliability_f1_f11_no_request_is_lost_while_all_pods_restart_again_and_again() {
        if !possible() {
            return;
        }
        let _turn = TURN.lock().await;
        let options = restart::Options {
            seconds: 20,
            rate: 300,
            every: 5,
            replicas: restart::REPLICAS,
        };
        let outcome = restart::run(None, &options).await.expect("a run");
        assert!(outcome.passed(), "{outcome}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ingress_u5_no_request_fails_while_ten_pods_are_updated() {
        if !possible() {
            return;
        }
        let _turn = TURN.lock().await;
        let options = restart::Options {
            seconds: 15,
            rate: 300,
            every: 10,
            replicas: 10,
        };
        let outcome = restart::run(None, &options).await.expect("a run");
        assert!(outcome.passed(), "{outcome}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn proxy_s4_s24_scaled_to_zero_is_refused_at_once_and_back_is_served_at_once() {
        if !possible() {
            return;
        }
        let _turn = TURN.lock().await;
        let outcome = zero::run(None).await.expect("a run");
        assert!(outcome.passed(), "{outcome}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ingress_u1_u6_u7_long_connections_stay_open_while_everything_around_them_changes() {
        if !possible() {
            return;
        }
        let _turn = TURN.lock().await;
        let options = hold::Options {
            seconds: 30,
            sockets: 200,
            streams: 20,
            edits: 600,
            rate: 100,
            every: 5,
        };
        let outcome = hold::run(None, &options).await.expect("a run");
        assert!(outcome.passed(), "{outcome}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn proxy_t11_a_short_soak_loses_nothing() {
        if !possible() {
            return;
        }
        let _turn = TURN.lock().await;
        let options = soak::Options {
            seconds: 20,
            idle: 200,
            updates: 100,
            rate: 100,
            every: 5,
        };
        let outcome = soak::run(None, &options).await.expect("a run");
        // Memory settles in minutes only.
        assert!(outcome.lost_nothing(), "{outcome}");
    }
}
