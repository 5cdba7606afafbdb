//! Load: wrk for HTTP/1.1 on connections that are kept, h2load for HTTP/2, generators of our own for everything else.

mod changes;
mod connections;
mod dns;
mod edits;
mod h2load;
mod handshakes;
mod paced;
mod starts;
mod tcp;
mod wrk;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::task::JoinSet;

pub(crate) use changes::changes;
pub(crate) use connections::{answers, answers_at, connections, hold};
pub(crate) use dns::{Question, dns, is_answered};
pub(crate) use edits::{Editor, edits};
pub(crate) use h2load::h2load;
pub(crate) use handshakes::handshakes;
pub(crate) use paced::paced;
pub(crate) use starts::{First, Start};
pub(crate) use tcp::{bulk, ping_pong};
pub(crate) use wrk::wrk;

use crate::gate::Gate;

/// What was served, as the client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// Requests, or what stands for one.
    pub(crate) requests: u64,
    /// For so long.
    pub(crate) time: Duration,
    /// Median time of a request.
    pub(crate) p50: Option<Duration>,
    /// 99th percentile.
    pub(crate) p99: Option<Duration>,
    /// Connections that the server closed while they were in use.
    pub(crate) closed: u64,
    /// What each took, if they are few: percentiles are of all rounds, then.
    pub(crate) each: Vec<Duration>,
}

/// So many are few.
const FEW: usize = 10_000;

impl Served {
    /// From the time that each request took.
    fn of(mut taken: Vec<Duration>, time: Duration) -> Self {
        taken.sort_unstable();
        let at = |share: usize| taken.get(taken.len() * share / 100).copied();
        Self {
            requests: taken.len() as u64,
            time,
            p50: at(50),
            p99: at(99),
            closed: 0,
            each: if taken.len() <= FEW {
                taken
            } else {
                Vec::new()
            },
        }
    }
}

/// `clients` at once, each of which is given its number and when all began, and says what its requests
/// took.
///
/// # Errors
/// One of them failed.
async fn together<F>(clients: usize, client: impl Fn(usize, Instant) -> F) -> anyhow::Result<Served>
where
    F: Future<Output = anyhow::Result<Vec<Duration>>> + 'static,
{
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for number in 0..clients {
        tasks.spawn_local(client(number, begun));
    }
    let mut all = Vec::new();
    while let Some(taken) = tasks.join_next().await {
        all.extend(taken??);
    }
    Ok(Served::of(all, begun.elapsed()))
}

/// `clients` that do the same over and over, each waiting for what it asked for.
///
/// # Errors
/// One of them failed.
async fn repeat<F>(
    clients: usize,
    time: Duration,
    gate: &Gate,
    request: impl Fn() -> F + Clone + 'static,
) -> anyhow::Result<Served>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let client = |_, begun: Instant| {
        let (request, gate) = (request.clone(), gate.clone());
        async move {
            let mut taken = Vec::new();
            while begun.elapsed() < time {
                gate.pass();
                let sent = Instant::now();
                request().await?;
                taken.push(sent.elapsed());
            }
            Ok(taken)
        }
    };
    together(clients, client).await
}

/// Stops this thread until it is time to look once more for the effect of what began then: for a tenth of
/// the time that has passed, so that the effect's is known to a tenth, within bounds. The runtime's timers,
/// of whole milliseconds, are too coarse for that.
fn pause_before_look(begun: Instant) {
    const LEAST: Duration = Duration::from_micros(50);
    const MOST: Duration = Duration::from_millis(1);

    std::thread::sleep((begun.elapsed() / 10).clamp(LEAST, MOST));
}

/// A client of an API server.
///
/// # Errors
/// There is no such file, or it names no server.
pub(crate) async fn client(kubeconfig: &Path) -> anyhow::Result<kube::Client> {
    let file = Kubeconfig::read_from(kubeconfig).context("a kubeconfig")?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(file, &options).await?;
    Ok(sealane_config::client::connect(config, "bench").await?)
}

/// Runs something on this thread, local tasks included.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a process that may open sockets may make a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, future)
}
