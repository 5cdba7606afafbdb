//! A Corefile in force: its ports, its listeners, and what replaces it.
//!
//! The file is looked at again and again, or when SIGUSR1 or SIGHUP arrive. One that is not as it was
//! is read, its new ports are bound, and only then anything changes. If one of these fails, what was
//! in force stays in force with all its ports, and that is said once for each state of the file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng as _;
use sealane_config::Reader;
use sealane_dns::DnsConfig;
use sealane_dns::config::{Reload, Scheme};
use sealane_dns::corefile::Problem;
use sealane_dns::metrics::{Gauge, Metrics, names};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::files::{Loaded, Source};
use super::listeners::{Bound, Listeners};
use super::ports::{BoundPorts, Ports};
use crate::admin::Pending;
use crate::exit::Failure;

/// How long queries are answered after SIGTERM where no `health` says how long.
const LAMEDUCK: Duration = Duration::from_secs(5);

/// Everything that a Corefile needs, bound and not served yet.
pub(crate) struct Prepared {
    source: Source,
    config: Arc<DnsConfig>,
    digest: String,
    listeners: Listeners,
    ports: Ports,
    bound: Bound,
    bound_ports: BoundPorts,
}

/// What the rest of the process sees of it; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Lameduck(Arc<Mutex<Duration>>);

impl Lameduck {
    fn set(&self, config: &DnsConfig) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = lameduck(config);
    }

    /// How long queries are still answered once the process is to end.
    pub(crate) fn get(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lameduck(config: &DnsConfig) -> Duration {
    let blocks = config.blocks.iter();
    let health = blocks.filter_map(|block| block.plugins.health);
    health
        .map(|health| health.lameduck)
        .max()
        .unwrap_or(LAMEDUCK)
}

/// What a Corefile says, with the digest of it.
///
/// # Errors
/// It cannot be read, or something is wrong with it.
pub(crate) fn load(source: &Source) -> Result<(Arc<DnsConfig>, String), Failure> {
    let unreadable = |error| Failure::Input(vec![format!("{}: {error}", source.path.display())]);
    let Loaded { digest, outcome } = source.load().map_err(unreadable)?;
    let (config, warnings) = outcome.map_err(|problems| Failure::Input(lines(&problems)))?;
    warn(&warnings);
    Ok((config, digest))
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn warn(warnings: &[Problem]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

impl Prepared {
    /// Binds everything that a Corefile needs.
    ///
    /// # Errors
    /// What cannot be bound, with the block that wants it.
    pub(crate) fn bind(
        source: Source,
        (config, digest): (Arc<DnsConfig>, String),
        listeners: Listeners,
        ports: Ports,
    ) -> Result<Self, Failure> {
        let (bound, bound_ports) = match (listeners.bind(&config), ports.bind(&config)) {
            (Ok(bound), Ok(bound_ports)) => (bound, bound_ports),
            (names, others) => {
                let problems = [names.err(), others.err()];
                return Err(Failure::Input(
                    problems.into_iter().flatten().flatten().collect(),
                ));
            }
        };
        Ok(Self {
            source,
            config,
            digest,
            listeners,
            ports,
            bound,
            bound_ports,
        })
    }

    /// The first address of each way in, by the name of the way.
    pub(crate) fn addresses(&self) -> BTreeMap<&'static str, SocketAddr> {
        let mut addresses = BTreeMap::new();
        for (listener, addr) in self.bound.seats() {
            let name = match listener.scheme {
                Scheme::Dns => "dns",
                Scheme::Tls => "tls",
                Scheme::Https => "https",
                Scheme::Quic => "quic",
            };
            addresses.entry(name).or_insert(addr);
        }
        addresses.extend(self.bound_ports.addresses());
        addresses
    }

    /// How long queries are answered once the process is to end, also after changes.
    pub(crate) fn lameduck(&self) -> Lameduck {
        Lameduck(Arc::new(Mutex::new(lameduck(&self.config))))
    }

    /// Serves it and what replaces it until `stop`. `pending` is given back when the listeners
    /// serve.
    ///
    /// # Errors
    /// A port of probes cannot be used.
    pub(crate) async fn run(
        self,
        mut reader: Reader,
        metrics: Metrics,
        lameduck: Lameduck,
        pending: Pending,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let Self {
            source,
            config,
            digest,
            mut listeners,
            mut ports,
            bound,
            bound_ports,
        } = self;
        // Without a handler they would end the process.
        let listen = |kind| signal(kind).ok();
        let asked = [SignalKind::user_defined1(), SignalKind::hangup()].map(listen);
        ports.serve(bound_ports)?;
        let opened = wait_for_state(&mut reader, &config);
        if stop.run_until_cancelled(opened).await.is_none() {
            return Ok(());
        }
        listeners.serve(bound).await;
        drop(pending);
        for (listener, addr) in listeners.seats() {
            tracing::info!("{listener} on {addr}");
        }
        let mut serving = Serving {
            asked,
            source,
            reload: config.reload,
            version: Version::of(&metrics, &digest),
            in_force: digest,
            seen: Seen::default(),
            listeners,
            ports,
            metrics,
            lameduck,
        };
        stop.run_until_cancelled(serving.follow()).await;
        Ok(())
    }
}

/// Queries wait in the sockets until the cluster's state is there, but not for longer than the
/// `kubernetes` plugins allow: then their names fail, and all others are answered.
async fn wait_for_state(reader: &mut Reader, config: &DnsConfig) {
    let timeouts = config
        .kubernetes()
        .map(|kubernetes| kubernetes.startup_timeout);
    let Some(timeout) = timeouts.max() else {
        return;
    };
    let synced = async { while !reader.load().synced && reader.changed().await.is_some() {} };
    if tokio::time::timeout(timeout, synced).await.is_err() {
        tracing::warn!(
            "the cluster's state is not there after {timeout:?}; its names fail until it is"
        );
    }
}

/// What is in force.
struct Serving {
    /// Signals that ask for a reload.
    asked: [Option<Signal>; 2],
    source: Source,
    reload: Option<Reload>,
    version: Version,
    /// Digest of the configuration in force.
    in_force: String,
    /// What was said of others.
    seen: Seen,
    listeners: Listeners,
    ports: Ports,
    metrics: Metrics,
    lameduck: Lameduck,
}

/// A file that cannot be served.
#[derive(Default, PartialEq, Eq)]
struct Seen {
    digest: String,
    complaints: Vec<String>,
}

/// The digest in force, as a metric.
struct Version {
    _gauge: Gauge,
}

impl Version {
    fn of(metrics: &Metrics, digest: &str) -> Self {
        let gauge = metrics.gauge(&names::RELOAD_VERSION, &["sha512", digest]);
        gauge.set(1.0);
        Self { _gauge: gauge }
    }
}

impl Serving {
    /// Looks at the file again and again.
    async fn follow(&mut self) {
        loop {
            let [user, hangup] = &mut self.asked;
            tokio::select! {
                () = received(user) => {}
                () = received(hangup) => {}
                () = pause(self.reload) => {
                    if self.is_in_force() {
                        continue;
                    }
                }
            }
            self.reload().await;
        }
    }

    /// The file is what is in force.
    fn is_in_force(&mut self) -> bool {
        // One that cannot be read now is looked at by `reload`, and so is one that could not be
        // served: a port may be free by now.
        let loaded = self.source.load();
        let is_in_force = loaded.is_ok_and(|loaded| loaded.digest == self.in_force);
        if is_in_force {
            self.seen = Seen::default();
        }
        is_in_force
    }

    /// Reads the file, and puts it in force if it can be.
    async fn reload(&mut self) {
        let (digest, outcome) = match self.source.load() {
            Ok(loaded) => (
                loaded.digest,
                loaded.outcome.map_err(|problems| lines(&problems)),
            ),
            Err(error) => {
                let complaint = format!("{}: {error}", self.source.path.display());
                (String::new(), Err(vec![complaint]))
            }
        };
        let bound = outcome.and_then(|(config, warnings)| {
            let bound = self.listeners.bind(&config)?;
            let ports = self.ports.bind(&config)?;
            Ok((config, warnings, bound, ports))
        });
        let complaints = match bound {
            Ok((config, warnings, bound, ports)) => match self.ports.serve(ports) {
                Ok(()) => {
                    warn(&warnings);
                    self.listeners.serve(bound).await;
                    self.lameduck.set(&config);
                    self.reload = config.reload;
                    self.version = Version::of(&self.metrics, &digest);
                    self.in_force.clone_from(&digest);
                    tracing::info!("serves the new {}", self.source.path.display());
                    Vec::new()
                }
                Err(error) => vec![error.to_string()],
            },
            Err(complaints) => complaints,
        };
        let seen = Seen { digest, complaints };
        if !seen.complaints.is_empty() && seen != self.seen {
            self.metrics.counter(&names::RELOAD_FAILED, &[]).increment();
            for complaint in &seen.complaints {
                tracing::error!("{complaint}");
            }
            tracing::error!(
                "goes on with the old {}: the new one cannot be served",
                self.source.path.display()
            );
        }
        self.seen = seen;
    }
}

/// The next time that the signal arrives.
async fn received(signal: &mut Option<Signal>) {
    let received = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if received.is_none() {
        std::future::pending().await
    }
}

/// The pause between two looks: the interval, up to half of the jitter more or less.
async fn pause(reload: Option<Reload>) {
    let Some(Reload { interval, jitter }) = reload else {
        return std::future::pending().await;
    };
    let offset = rand::rng().random_range(0.0..=1.0);
    tokio::time::sleep(interval - jitter / 2 + jitter.mul_f64(offset)).await;
}
