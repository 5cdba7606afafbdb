//! What all workers' forwarding for one `forward` line has in common: the list of upstreams, TLS
//! and the number of queries that wait.
//!
//! The list changes while the server runs: files in the form of `resolv.conf` are looked at again,
//! and upstreams that turn out to be this server are dropped ([`super::loops`]). Workers see that by
//! a generation number.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Uri;
use rustls_pki_types::ServerName;
use sealane_config::sockets::HostSockets;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::https::HttpsTarget;
use super::loops::{self, Loops};
use super::stream::TlsClient;
use super::tls::{Tls, TlsError};
use crate::config::{ForwardSettings, MAX_UPSTREAMS, Upstream};
use crate::message::Question;
use crate::metrics::{Metrics, names};
use crate::name::Name;
use crate::resolv_conf::{is_one_of, own_addresses, upstreams_from_resolv_conf};

/// Pause between two looks at the files.
const LOOK: Duration = Duration::from_secs(5);
/// Queries that may wait where `max_concurrent` sets no limit.
pub const MAX_WAITING: usize = 8192;

/// Why forwarding cannot be set up, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum ForwardSetupError {
    /// A file with name servers cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// TLS towards upstreams.
    #[error("TLS towards upstreams")]
    Tls(#[from] TlsError),
    /// A name that no certificate can have.
    #[error("{0:?} is not a name that a certificate can have")]
    ServerName(String),
    /// A URL that cannot be used.
    #[error("{0:?} is not an https URL")]
    Url(String),
    /// Every upstream is this server itself.
    #[error(
        "every upstream of `forward {0}` leads back to this server: queries would go round for ever; \
         name a resolver that is somebody else"
    )]
    OnlyOurselves(Name),
}

/// An upstream as it is reached.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) addr: SocketAddr,
    pub(super) speaks: Speaks,
}

/// What an upstream speaks.
#[derive(Clone, Debug)]
pub(super) enum Speaks {
    /// UDP and TCP.
    Plain,
    /// DNS over TLS.
    Tls(TlsClient),
    /// DNS over HTTPS.
    Https(HttpsTarget),
}

impl Target {
    fn plain(addr: SocketAddr) -> Self {
        Self {
            addr,
            speaks: Speaks::Plain,
        }
    }
}

/// See the module. One a `forward` line, for all workers.
#[derive(Debug)]
pub struct ForwardPlan {
    settings: Arc<ForwardSettings>,
    /// Where this server is reached.
    own: Vec<SocketAddr>,
    /// Upstreams that the settings name.
    fixed: Vec<Target>,
    list: Mutex<List>,
    generation: AtomicU64,
    waiting: AtomicUsize,
    loops: Loops,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct List {
    targets: Arc<[Target]>,
    /// Upstreams that the files name.
    from_files: Vec<SocketAddr>,
    /// Upstreams that lead back here.
    looping: HashSet<SocketAddr>,
}

impl ForwardPlan {
    /// Reads the files that the settings name. `listening` are the addresses at which the server is
    /// reached; upstreams that are among them are dropped.
    ///
    /// # Errors
    /// [`ForwardSetupError`].
    pub fn load(
        settings: Arc<ForwardSettings>,
        listening: &[SocketAddr],
        metrics: Metrics,
    ) -> Result<Arc<Self>, ForwardSetupError> {
        let own = own_addresses(listening);
        let mut tls = None;
        let mut fixed = Vec::new();
        for upstream in &settings.upstreams {
            let target = target(upstream, &settings, &mut tls)?;
            if is_one_of(&own, target.addr) {
                tracing::error!(
                    upstream = %target.addr,
                    "this server is its own upstream: dropped, or queries would go round for ever"
                );
                metrics.counter(&names::FORWARD_LOOPS, &[]).increment();
            } else {
                fixed.push(target);
            }
        }
        let plan = Self {
            list: Mutex::default(),
            generation: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            loops: Loops::default(),
            own,
            fixed,
            metrics,
            settings,
        };
        let mut texts = Vec::new();
        for path in &plan.settings.files {
            let text = std::fs::read_to_string(path);
            texts.push(text.map_err(|source| ForwardSetupError::File {
                path: path.clone(),
                source,
            })?);
        }
        let from_files = texts.iter().flat_map(|text| plan.name_servers(text));
        let from_files: Vec<_> = from_files.collect();
        let mut list = plan.lock();
        list.from_files = from_files;
        plan.publish(&mut list);
        let only_ourselves =
            list.targets.is_empty() && plan.fixed.len() < plan.settings.upstreams.len();
        drop(list);
        match only_ourselves {
            true => Err(plan.only_ourselves()),
            false => Ok(Arc::new(plan)),
        }
    }

    /// The settings.
    pub fn settings(&self) -> &Arc<ForwardSettings> {
        &self.settings
    }

    /// Where it is counted.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The question is one of ours, sent to find out whether an upstream leads back here. It is not
    /// to be forwarded.
    pub fn came_back(&self, question: &Question) -> bool {
        let Some(upstream) = self.loops.came_back(question) else {
            return false;
        };
        let mut list = self.lock();
        if list.looping.insert(upstream) {
            tracing::error!(
                %upstream,
                "the upstream leads back to this server: dropped, or queries would go round for ever"
            );
            self.metrics.counter(&names::FORWARD_LOOPS, &[]).increment();
            self.publish(&mut list);
        }
        true
    }

    /// Keeps the list of upstreams right until `shutdown`: looks for loops, if `loop_zone` names a
    /// zone for which this server forwards, and looks at the files again.
    ///
    /// # Errors
    /// [`ForwardSetupError::OnlyOurselves`]: no upstream is left that is not this server.
    pub async fn watch(
        &self,
        sockets: HostSockets,
        loop_zone: Option<Name>,
        shutdown: CancellationToken,
    ) -> Result<(), ForwardSetupError> {
        let mut probed = HashSet::new();
        loop {
            if let Some(zone) = &loop_zone {
                let fresh = self.not_probed(&mut probed);
                let source = self.settings.source_address;
                let probes = fresh
                    .into_iter()
                    .map(|upstream| loops::probe(&self.loops, &sockets, upstream, source, zone));
                let probes = futures_util::future::join_all(probes);
                if shutdown.run_until_cancelled(probes).await.is_none() {
                    return Ok(());
                }
                let list = self.lock();
                if list.targets.is_empty() && !list.looping.is_empty() {
                    return Err(self.only_ourselves());
                }
            }
            if shutdown.run_until_cancelled(sleep(LOOK)).await.is_none() {
                return Ok(());
            }
            self.look_again().await;
        }
    }

    /// Plain upstreams that were not asked yet whether they lead back here.
    fn not_probed(&self, probed: &mut HashSet<SocketAddr>) -> Vec<SocketAddr> {
        let targets = Arc::clone(&self.lock().targets);
        let plain = targets
            .iter()
            .filter(|target| matches!(target.speaks, Speaks::Plain));
        let fresh = plain.map(|target| target.addr);
        fresh.filter(|addr| probed.insert(*addr)).collect()
    }

    /// Takes over what has changed in the files. One that cannot be read or names nobody leaves
    /// everything as it is.
    async fn look_again(&self) {
        let mut from_files = Vec::new();
        for path in &self.settings.files {
            match tokio::fs::read_to_string(path).await {
                Ok(text) => from_files.extend(self.name_servers(&text)),
                Err(error) => {
                    return warn_unreadable(path, &error);
                }
            }
        }
        let mut list = self.lock();
        if from_files.is_empty() || list.from_files == from_files {
            return;
        }
        tracing::info!(upstreams = ?from_files, "the list of name servers has changed");
        list.from_files = from_files;
        self.publish(&mut list);
    }

    fn name_servers(&self, text: &str) -> Vec<SocketAddr> {
        upstreams_from_resolv_conf(text, &self.own)
    }

    /// Makes the list that workers see.
    fn publish(&self, list: &mut List) {
        let mut targets = self.fixed.clone();
        for &addr in &list.from_files {
            if targets.iter().all(|known| known.addr != addr) {
                targets.push(Target::plain(addr));
            }
        }
        targets.retain(|target| !list.looping.contains(&target.addr));
        targets.truncate(MAX_UPSTREAMS);
        list.targets = targets.into();
        self.generation.fetch_add(1, Relaxed);
    }

    /// Grows with each change of the list.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    pub(super) fn targets(&self) -> Arc<[Target]> {
        Arc::clone(&self.lock().targets)
    }

    /// A place among the queries that wait, if there is one.
    pub(super) fn enter(&self) -> Option<Place<'_>> {
        let limit = match self.settings.max_concurrent {
            0 => MAX_WAITING,
            limit => limit,
        };
        let place = Place(&self.waiting);
        (self.waiting.fetch_add(1, Relaxed) < limit).then_some(place)
    }

    fn only_ourselves(&self) -> ForwardSetupError {
        ForwardSetupError::OnlyOurselves(self.settings.from.clone())
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn warn_unreadable(path: &Path, error: &io::Error) {
    tracing::warn!(path = %path.display(), %error, "name servers stay as they are");
}

/// A place among the queries that wait.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Checks an upstream of the settings. TLS is loaded for the first one that needs it.
fn target(
    upstream: &Upstream,
    settings: &ForwardSettings,
    tls: &mut Option<Tls>,
) -> Result<Target, ForwardSetupError> {
    let addr = match upstream {
        Upstream::Plain(addr) => return Ok(Target::plain(*addr)),
        Upstream::Tls(addr, _) | Upstream::Https(addr, _) => *addr,
    };
    let tls = match tls {
        Some(tls) => tls,
        None => tls.insert(Tls::load(&settings.tls)?),
    };
    let configured = settings.tls.server_name.as_deref();
    let speaks = match upstream {
        Upstream::Plain(_) => Speaks::Plain,
        Upstream::Tls(_, name) => Speaks::Tls(TlsClient {
            config: Arc::clone(&tls.dot),
            name: server_name(name.as_deref().or(configured), addr)?,
        }),
        Upstream::Https(_, url) => {
            let bad = || ForwardSetupError::Url(url.clone());
            let uri: Uri = url.parse().map_err(|_syntax| bad())?;
            let host = uri.host().ok_or_else(bad)?;
            if uri.scheme_str() != Some("https") {
                return Err(bad());
            }
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Speaks::Https(HttpsTarget {
                tls: TlsClient {
                    config: Arc::clone(&tls.https),
                    name: server_name(configured.or(Some(host)), addr)?,
                },
                uri,
            })
        }
    };
    Ok(Target { addr, speaks })
}

/// The name that a certificate must have; its address, if none is known.
fn server_name(
    name: Option<&str>,
    addr: SocketAddr,
) -> Result<ServerName<'static>, ForwardSetupError> {
    let Some(name) = name else {
        return Ok(ServerName::IpAddress(addr.ip().into()));
    };
    ServerName::try_from(name.to_owned())
        .map_err(|_syntax| ForwardSetupError::ServerName(name.to_owned()))
}
