//! Measures the state path on a real API server at the size of a large cluster, and kube-proxy on
//! the same server beside it:
//!
//! ```text
//! cargo run --profile bench-fast -p sealane-test-kubernetes --example scale
//! ```
//!
//! Services, endpoints per Service, and seconds of changes may follow (10000 25 60). The table is
//! printed and written to `target/bench/scale.json`.
//!
//! The state path runs in a process of its own (this program again, as `scale statepath
//! KUBECONFIG`), with the allocator of the `sealane` binary and nothing else, so its memory and CPU
//! are the state path's. A change's latency is counted from before its request is sent, and from its
//! response, to the moment when a reader of the snapshot in that process sees it.

mod figures;
mod kube_proxy;
mod load;
mod state_path;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use sealane_test_kubernetes::{ControlPlane, Options, Size, Unavailable, node, objects};
use serde_json::json;

use figures::{Figures, Usage, percentiles};
use kube_proxy::KubeProxy;
use state_path::StatePath;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Changes a second.
const RATE: u32 = 100;

/// Kinds that the state path watches here.
const KINDS: u64 = 3;

/// How long memory may settle before it is called steady.
const SETTLE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, kubeconfig, rest @ ..] = &arguments[..]
        && mode == "statepath"
    {
        return state_path::run(Path::new(kubeconfig), read(rest)?.0).await;
    }
    let (size, seconds) = read(&arguments)?;
    let options = Options {
        controllers: false,
        api_server_flags: vec!["--enable-admission-plugins=".to_owned()],
        ..Options::default()
    };
    let mut plane = match ControlPlane::start(options).await? {
        Ok(plane) => plane,
        Err(Unavailable(reason)) => bail!(reason),
    };
    let mut figures = Figures::default();
    let begun = Instant::now();
    objects(&client(plane.kubeconfig()).await?, size).await?;
    figures.seconds("load: objects created", begun.elapsed());
    Box::pin(measure_state_path(&mut plane, size, seconds, &mut figures)).await?;
    Box::pin(measure_kube_proxy(&plane, size, seconds, &mut figures)).await?;
    let file = target().join("bench/scale.json");
    figures.finish(&file, size)
}

async fn measure_state_path(
    plane: &mut ControlPlane,
    size: Size,
    seconds: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    for start in ["first", "second", "third"] {
        let mut path = StatePath::start(plane.kubeconfig(), size)?;
        let synced = path.synced()?;
        figures.seconds(
            &format!("sealane: first snapshot, {start} start"),
            synced.first_snapshot,
        );
        figures.seconds("sealane: CPU for it", Usage::of(path.pid())?.cpu);
        // The API server's own Service is there as well.
        if synced.services <= size.services || synced.endpoints <= size.endpoints() {
            bail!("the snapshot is not complete: {synced:?}");
        }
    }
    let mut path = StatePath::start(plane.kubeconfig(), size)?;
    path.synced()?;
    tokio::time::sleep(SETTLE).await;
    let usage = Usage::of(path.pid())?;
    let steady = usage.resident;
    figures.megabytes("sealane: steady memory", steady);
    figures.megabytes("sealane: peak while starting", usage.peak);

    figures::forget_peak(path.pid())?;
    let before = path.relists()?;
    // A restarted API server has no history: every watch gets 410 and lists again.
    plane.kill_api_server();
    plane.compact().await?;
    let begun = Instant::now();
    plane.start_api_server().await?;
    figures.seconds("API server: restart until ready", begun.elapsed());
    let until = Instant::now() + Duration::from_secs(120);
    while path.relists()? < before + KINDS {
        if Instant::now() > until {
            bail!("nothing was listed again");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(SETTLE).await;
    let usage = Usage::of(path.pid())?;
    figures.megabytes("sealane: peak during a full relist", usage.peak);
    figures.ratio("sealane: that peak / steady", usage.peak, steady);
    figures.megabytes("sealane: memory after it", usage.resident);

    let begun = Usage::of(path.pid())?;
    let started = Instant::now();
    let changer = client(plane.kubeconfig()).await?;
    let changes = load::changes(&changer, size, seconds, RATE, 0).await?;
    let took = started.elapsed();
    let seen = path.seen(changes.len())?;
    let used = Usage::of(path.pid())?.cpu - begun.cpu;
    let from = |start: fn(&load::Change) -> u64| {
        let latency = |(change, at): (&load::Change, &u64)| at.saturating_sub(start(change));
        percentiles(changes.iter().zip(&seen).map(latency).collect())
    };
    figures.note(
        "changes a second",
        changes.len() as f64 / took.as_secs_f64(),
    );
    figures.latency(
        "sealane: request sent to snapshot",
        from(|change| change.sent),
    );
    figures.latency(
        "sealane: response to snapshot",
        from(|change| change.answered),
    );
    figures.note(
        "sealane: CPU during changes, %",
        100.0 * used.as_secs_f64() / took.as_secs_f64(),
    );
    figures.megabytes(
        "sealane: memory at the end",
        Usage::of(path.pid())?.resident,
    );
    Ok(())
}

async fn measure_kube_proxy(
    plane: &ControlPlane,
    size: Size,
    seconds: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let changer = client(plane.kubeconfig()).await?;
    node(&changer, kube_proxy::NODE).await?;
    let mut proxy = match KubeProxy::start(plane) {
        Ok(proxy) => proxy,
        Err(error) => {
            eprintln!("kube-proxy is left out: {error:#}");
            return Ok(());
        }
    };
    let synced = proxy.synced()?;
    figures.seconds("kube-proxy: start to first complete sync", synced);
    tokio::time::sleep(SETTLE).await;
    figures.megabytes(
        "kube-proxy: steady memory",
        Usage::of(proxy.pid())?.resident,
    );
    let before = proxy.programming()?;
    let begun = Usage::of(proxy.pid())?;
    let started = Instant::now();
    let changes = load::changes(&changer, size, seconds, RATE, size.services / 2).await?;
    let took = started.elapsed();
    let until = Instant::now() + Duration::from_secs(120);
    let programmed = loop {
        let programmed = proxy.programming()?.since(&before);
        if programmed.count() >= changes.len() as u64 || Instant::now() > until {
            break programmed;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let usage = Usage::of(proxy.pid())?;
    let used = usage.cpu - begun.cpu;
    figures.note("kube-proxy: changes programmed", programmed.count() as f64);
    figures.seconds(
        "kube-proxy: network programming p50, at most",
        programmed.quantile(0.5),
    );
    figures.seconds(
        "kube-proxy: network programming p99, at most",
        programmed.quantile(0.99),
    );
    figures.note(
        "kube-proxy: CPU during changes, %",
        100.0 * used.as_secs_f64() / took.as_secs_f64(),
    );
    figures.megabytes("kube-proxy: peak memory", usage.peak);
    Ok(())
}

/// Services, endpoints of each, and how many seconds changes go on.
fn read(arguments: &[String]) -> anyhow::Result<(Size, usize)> {
    let number = |index: usize, default| match arguments.get(index) {
        Some(text) => text.parse().context("expected SERVICES ENDPOINTS SECONDS"),
        None => Ok(default),
    };
    let size = Size {
        services: number(0, 10_000)?,
        endpoints_each: number(1, 25)?,
    };
    Ok((size, number(2, 60)?))
}

/// A client with the state path's own transport.
async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).context("a kubeconfig")?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(file, &options).await?;
    Ok(sealane_config::client::connect(config, "scale").await?)
}

/// Cargo's target directory: where this program is.
fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let above = program.ancestors().nth(3).unwrap_or(Path::new("target"));
    above.to_owned()
}

/// Nanoseconds of the system's clock, the same in all processes.
fn now() -> u64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(elapsed.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// A line of JSON on standard output, for the parent process.
fn say(value: &serde_json::Value) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    // A parent that is gone ends this process anyway.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

/// An error that the parent shows.
fn fail(why: &str) -> ! {
    say(&json!({"error": why}));
    panic!("{why}");
}
