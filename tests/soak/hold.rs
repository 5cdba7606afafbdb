//! Long-lived connections through the gateway, while Ingresses, certificates and pods change.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cluster::{Cluster, allow_descriptors};
use crate::edits::{self, Edits};
use crate::held::{Held, Kept, last_words};
use crate::load::Tally;
use crate::peer::{self, Peer};
use crate::restart::{REPLICAS, Restarts, start_loads, stop_loads};
use crate::rotation::{Rotation, Shown};

/// The code of a Close frame from a server that goes away (RFC 6455, 7.4.1).
const GOING_AWAY: u16 = 1001;

/// How many, how long.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// How long
    #[arg(long, default_value_t = 300)]
    pub(crate) seconds: u64,
    /// WebSockets, half of them over TLS
    #[arg(long, default_value_t = 1_000)]
    pub(crate) sockets: usize,
    /// gRPC streams over TLS
    #[arg(long, default_value_t = 100)]
    pub(crate) streams: usize,
    /// Edits of Ingresses
    #[arg(long, default_value_t = 6_000)]
    pub(crate) edits: u32,
    /// Requests a second, half of them by the cluster IP and half through the gateway
    #[arg(long, default_value_t = 400)]
    pub(crate) rate: u32,
    /// Seconds from one restart of the requests' pods to the next
    #[arg(long, default_value_t = 5)]
    pub(crate) every: u64,
}

/// What came of it.
pub(crate) struct Outcome {
    wanted: Options,
    seconds: f64,
    open: usize,
    kept: Kept,
    edits: Edits,
    shown: Shown,
    loads: Vec<Tally>,
    restarts: u32,
    pods: usize,
    /// What a WebSocket was told at the end of it all.
    told: Option<u16>,
}

impl Outcome {
    /// Everything stayed open, nothing was lost, and all that was to be changed was changed.
    pub(crate) fn passed(&self) -> bool {
        let opened = self.wanted.sockets + self.wanted.streams;
        let mut loads = self.loads.iter();
        self.open == opened
            && self.kept.kept == opened
            && self.kept.lost.is_empty()
            && self.edits.made == self.wanted.edits
            && self.shown.passed()
            && self.shown.rotations as f64 >= self.seconds * 0.5
            && loads.all(|load| load.failures() == 0 && load.good > 0)
            && self.restarts > 0
            && self.pods > 0
            && self.told == Some(GOING_AWAY)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kept {
            kept,
            lost,
            messages,
        } = &self.kept;
        writeln!(
            f,
            "{:.0} seconds: {} WebSockets and {} gRPC streams, {kept} kept, {} lost, {messages} messages",
            self.seconds,
            self.wanted.sockets,
            self.wanted.streams,
            lost.values().sum::<usize>()
        )?;
        for (what, count) in lost.iter().take(10) {
            writeln!(f, "    {count} × {what}")?;
        }
        writeln!(
            f,
            "{} Ingress edits, in force after {}",
            self.edits.made,
            Spread(&self.edits.effects)
        )?;
        writeln!(
            f,
            "{} certificates, {} handshakes, replaced ones shown for {}",
            self.shown.rotations,
            self.shown.handshakes,
            Spread(&self.shown.stale)
        )?;
        for (what, count) in self.shown.failed.iter().take(10) {
            writeln!(f, "    {count} × {what}")?;
        }
        writeln!(f, "{} restarts, {} pods replaced", self.restarts, self.pods)?;
        writeln!(f, "at the end a WebSocket was told {:?}", self.told)?;
        let mut loads = self.loads.iter();
        loads.try_for_each(|load| writeln!(f, "{load}"))
    }
}

/// Half, nearly all, and the longest of some times.
struct Spread<'a>(&'a [Duration]);

impl fmt::Display for Spread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |share: f64| {
            let place = (self.0.len() as f64 * share) as usize;
            let time = self.0.get(place).or(self.0.last());
            time.copied().unwrap_or_default()
        };
        let (half, nearly, most) = (at(0.5), at(0.99), at(1.0));
        write!(f, "p50 {half:.1?}  p99 {nearly:.1?}  most {most:.1?}")
    }
}

/// Runs it on a cluster of its own.
///
/// # Errors
/// The cluster cannot be started, asked or changed, or a connection not be opened.
pub(crate) async fn run(sealane: Option<PathBuf>, options: &Options) -> anyhow::Result<Outcome> {
    allow_descriptors();
    let cluster = Cluster::with(sealane, &peer::manifest()).await?;
    let _peer = Peer::start()?;
    let client = cluster.client.clone();
    edits::publish(&client).await?;
    let rotation = Rotation::start(client.clone(), cluster.https).await?;
    let held = Held::open(
        options.sockets,
        options.streams,
        cluster.http,
        cluster.https,
    );
    let held = held.await.with_context(|| cluster.log())?;
    let open = held.count();
    let loads = start_loads(&cluster, options.rate).await?;
    let restarts = Restarts::start(client.clone(), options.every, REPLICAS);

    let started = Instant::now();
    let time = Duration::from_secs(options.seconds);
    let edits = edits::run(client, cluster.http, options.edits, time);
    let edits = edits.await.with_context(|| cluster.log())?;
    tokio::time::sleep(time.saturating_sub(started.elapsed())).await;
    let seconds = started.elapsed().as_secs_f64();
    let (restarts, pods) = restarts.stop().await?;
    let shown = rotation.stop().await?;
    let kept = held.finish().await;
    let loads = stop_loads(loads)?;
    let told = last_words(cluster.http, || cluster.terminate()).await?;
    Ok(Outcome {
        wanted: *options,
        seconds,
        open,
        kept,
        edits,
        shown,
        loads,
        restarts,
        pods,
        told,
    })
}
