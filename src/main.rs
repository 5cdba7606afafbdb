//! The `sealane` command: picks the subcommand, sets up what all of them share, and turns the
//! outcome into an exit code.

mod admin;
mod check;
mod classes;
mod cli;
mod cluster_client;
mod dns;
mod echo;
mod exit;
mod explain;
mod gateway;
mod gateway_settings;
mod health;
mod init;
mod log;
mod manifests;
mod migrate;
mod mode;
mod node;
mod output;
mod panics;
mod serve;
mod sidecar;
mod signal;
mod state;
mod up;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use self::cli::{Cli, Command};
use self::exit::Failure;

/// glibc's allocator keeps what a burst of large bodies needed; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Which log messages are shown unless `RUST_LOG` says otherwise.
const DEFAULT_LOG: &str = "warn,sealane=info";

/// The same for commands whose output says all that there is to say.
const QUIET_LOG: &str = "error";

fn main() -> ExitCode {
    // A container's first process is this program too; it must stay tiny and single-threaded.
    if let Some(code) = sealane_cluster::runtime::init::main(std::env::args_os()) {
        return code;
    }
    // Half-used huge pages cost about a tenth more memory with the state of a large cluster. A kernel
    // that does not know the switch works without it.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let cli = Cli::parse_from(dns::args::translate(std::env::args_os()));
    let log = match cli.command {
        Command::Check(_) | Command::Explain(_) | Command::Migrate(_) => QUIET_LOG,
        Command::Up(_)
        | Command::Node(_)
        | Command::Gateway(_)
        | Command::Dns(_)
        | Command::Init(_)
        | Command::Sidecar(_)
        | Command::Echo(_) => DEFAULT_LOG,
    };
    log::start(log);
    exit::report(run(cli.command))
}

fn run(command: Command) -> Result<(), Failure> {
    let metrics = || {
        let handle = admin::install_metrics()?;
        panics::count();
        anyhow::Ok(handle)
    };
    match command {
        Command::Up(options) => up::run(*options, metrics()?),
        Command::Node(options) => node::run(*options, metrics()?),
        Command::Gateway(options) => gateway::run(*options, metrics()?),
        Command::Dns(options) => dns::run(*options, metrics()?),
        Command::Sidecar(options) => sidecar::run(*options, metrics()?),
        Command::Init(options) => init::run(&options),
        Command::Check(options) => block_on(check::run(options)),
        Command::Explain(options) => block_on(explain::run(*options)),
        Command::Migrate(options) => block_on(migrate::run(options)),
        Command::Echo(options) => block_on(echo::run(options)),
    }
}

fn block_on<E>(work: impl Future<Output = Result<(), E>>) -> Result<(), Failure>
where
    Failure: From<E>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    Ok(runtime.block_on(work)?)
}
