//! Watches on the Kubernetes API, and the loop that turns them into snapshots.
//!
//! One task a kind lists, watches, and sends what changed. The loop compiles and publishes a change at
//! once, and those that follow it within [`BATCH_WINDOW`] together. Secrets and ConfigMaps are never listed as a whole:
//! each one that is named has a watch of its own, restricted to its name.
//!
//! Nothing is published before every kind was listed once, and half a list never is. While the API
//! server is away, the last snapshot stays; the gauge `sealane_config_staleness_seconds` says how long
//! nothing was heard of a kind.

mod backoff;
mod custom;
mod exchange;
mod failure;
mod follow;
mod progress;
mod source;
#[cfg(test)]
mod tests;
mod watches;
mod wire;

use std::collections::HashSet;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::Publisher;
use crate::compile::{
    Built, Change, Compiler, Delta, GatewayOptions, NodeIdentity, ObjectKey, ServedClasses, Work,
};
use crate::defaults::{BATCH_WINDOW, CERTIFICATE_WAIT, CHANGE_QUEUE};
use crate::model::GatewaySettings;
use progress::Progress;
use watches::Watches;

/// How often staleness is measured and certificates are checked.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(5);

/// What to watch, and which of it is ours. A process watches no more kinds than it uses, so that it
/// can run with a role that allows no more.
///
/// Services and EndpointSlices are always watched. The first snapshot waits for exactly the kinds that
/// are watched; the tables of all others stay empty.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Name of the Node that this process runs on: watched for its topology labels.
    pub node: Option<String>,
    /// Names are answered: watch Namespaces, of which DNS has to know whether they exist, and note
    /// which Services have an address as an endpoint.
    pub names: bool,
    /// Watch only Namespaces that this label selector matches; the others do not exist.
    pub namespace_labels: Option<String>,
    /// Watch pods, so that it is known which have an address.
    pub pods: bool,
    /// Watch only Services, EndpointSlices and pods that this label selector matches.
    pub labels: Option<String>,
    /// Compile what proxies need: who gets connections to which address. Without it ports of
    /// Services have no endpoints, and it takes half of the memory.
    pub traffic: bool,
    /// Watch Ingresses, IngressClasses and the Secrets that Ingresses name, and the kinds of Gateway API
    /// while they are served and may be listed.
    pub ingress: Option<IngressWatch>,
}

/// Which Ingresses are ours.
#[derive(Clone, Debug, Default)]
pub struct IngressWatch {
    /// By their class.
    pub classes: ServedClasses,
    /// Namespace and name of the Secret with the default certificate.
    pub default_certificate: Option<(String, String)>,
    /// The Service for requests that no rule takes, and for errors that the settings leave to it.
    pub default_service: Option<ObjectKey>,
    /// The ConfigMap with settings of the gateway as a whole.
    pub config_map: Option<ObjectKey>,
    /// These settings as they are where the ConfigMap says nothing.
    pub settings: GatewaySettings,
}

/// Everything, but no Node: what `sealane up` watches.
impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            names: true,
            ingress: Some(IngressWatch::default()),
            ..Self::services_only()
        }
    }
}

impl WatchOptions {
    /// Services and their endpoints, nothing else.
    pub fn services_only() -> Self {
        Self {
            node: None,
            names: false,
            namespace_labels: None,
            pods: false,
            labels: None,
            traffic: true,
            ingress: None,
        }
    }

    /// What a DNS server answers from.
    pub fn names_only() -> Self {
        Self {
            names: true,
            traffic: false,
            ..Self::services_only()
        }
    }

    fn compiler(&self) -> Compiler {
        let mut compiler = Compiler::new(self.gateway(), self.identity());
        if !self.traffic {
            compiler = compiler.without_traffic();
        }
        if !self.names {
            compiler = compiler.without_names();
        }
        compiler
    }

    fn identity(&self) -> Option<NodeIdentity> {
        self.node
            .as_deref()
            .map(|name| NodeIdentity { name: name.into() })
    }

    /// What the compiler's gateway half serves: without Ingresses it has nothing to do.
    fn gateway(&self) -> GatewayOptions {
        let ingress = self.ingress.clone().unwrap_or_default();
        let default = ingress.default_certificate;
        GatewayOptions {
            classes: ingress.classes,
            default_certificate: default.map(|(namespace, name)| ObjectKey::new(&namespace, &name)),
            default_service: ingress.default_service,
            config_map: ingress.config_map,
            settings: ingress.settings,
        }
    }
}

/// Watches the API server and publishes snapshots until `shutdown`.
///
/// Problems of the API server are logged and retried, with growing pauses, without end.
pub async fn run(
    client: Client,
    publisher: Publisher,
    options: WatchOptions,
    shutdown: CancellationToken,
) {
    describe_metrics();
    let (sender, mut changes) = mpsc::channel(CHANGE_QUEUE);
    let watches = Watches::start(client, sender, publisher.staleness().clone(), &options);
    let mut state = State {
        unlisted: watches.kinds(),
        watches,
        compiler: options.compiler(),
        publisher,
        give_up_references: None,
        has_published: false,
        rests_until: Instant::now(),
        progress: Progress::new(jiff::Timestamp::now().as_millisecond(), options.names),
    };
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING_PERIOD);
    housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let deadline = state.next_deadline();
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(change) = changes.recv() => state.gather(change, &mut changes).await,
            () = sleep_until(deadline) => {}
            _ = housekeeping.tick() => {
                state.watches.measure_staleness();
                let epoch_seconds = jiff::Timestamp::now().as_second();
                if !state.compiler.check_validity(epoch_seconds) {
                    continue;
                }
            }
        }
        state.publish();
    }
}

fn describe_metrics() {
    progress::describe();
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!(
        "sealane_config_generation",
        "Number of the current snapshot"
    );
    describe_histogram!(
        "sealane_config_publish_seconds",
        Unit::Seconds,
        "Time to compile and publish a batch of changes"
    );
    describe_counter!(
        "sealane_config_work_total",
        "Services and hosts compiled, slices and endpoints read for that"
    );
    describe_gauge!(
        "sealane_config_staleness_seconds",
        Unit::Seconds,
        "Time since the API server was last heard of a kind"
    );
    describe_counter!(
        "sealane_config_relists_total",
        "Complete lists of a kind that were started"
    );
    describe_counter!(
        "sealane_config_events_lost_total",
        "Comparisons with the API server that found other objects than the watch had told of"
    );
    describe_counter!(
        "sealane_config_watch_panics_total",
        "Watches that failed inside and were started over"
    );
    describe_gauge!(
        "sealane_config_problems",
        "Objects' fields that cannot be served as written, by kind of problem"
    );
    describe_gauge!(
        "sealane_certificate_not_after_seconds",
        Unit::Seconds,
        "End of validity of a certificate, since the Unix epoch; 0 once it is no longer served"
    );
}

/// Adds up what compiling took, by unit of work.
fn count(work: Work) {
    let units = [
        ("service", work.services),
        ("slice", work.slices),
        ("endpoint", work.endpoints),
        ("host", work.hosts),
    ];
    for (unit, done) in units {
        metrics::counter!("sealane_config_work_total", "unit" => unit).increment(done as u64);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

struct State {
    watches: Watches,
    compiler: Compiler,
    publisher: Publisher,
    /// Kinds whose first list is not there yet.
    unlisted: HashSet<&'static str>,
    /// When the first snapshot goes without the Secrets and ConfigMaps that are still missing.
    give_up_references: Option<Instant>,
    has_published: bool,
    /// Changes are gathered up to here.
    rests_until: Instant,
    progress: Progress,
}

impl State {
    fn next_deadline(&self) -> Option<Instant> {
        if self.has_published {
            self.compiler.next_deadline()
        } else {
            self.give_up_references
        }
    }

    /// Takes in `first` and what is there with it; after a publication also what follows soon.
    async fn gather(&mut self, first: Change, changes: &mut mpsc::Receiver<Change>) {
        self.take(first);
        for _ in 1..CHANGE_QUEUE {
            let next = if Instant::now() < self.rests_until {
                let next = tokio::time::timeout_at(self.rests_until, changes.recv()).await;
                next.ok().flatten()
            } else {
                changes.try_recv().ok()
            };
            match next {
                Some(change) => self.take(change),
                None => break,
            }
        }
    }

    fn take(&mut self, change: Change) {
        if let Some(kind) = listed_kind(&change) {
            self.unlisted.remove(kind);
        }
        self.progress.took(&change);
        self.compiler.apply(change, Instant::now());
    }

    /// Compiles and publishes what was taken in, if the time has come.
    fn publish(&mut self) {
        self.watches.follow_references(&self.compiler);
        if !self.unlisted.is_empty() {
            return;
        }
        let now = Instant::now();
        if !self.has_published && !self.compiler.references_known() {
            let give_up = *self
                .give_up_references
                .get_or_insert(now + CERTIFICATE_WAIT);
            if now < give_up {
                return;
            }
        }
        let epoch_seconds = jiff::Timestamp::now().as_second();
        let Built {
            mut snapshot,
            work,
            is_changed,
        } = self.compiler.build(now, epoch_seconds);
        self.rests_until = Instant::now() + BATCH_WINDOW;
        if self.has_published && !is_changed {
            self.progress.nothing_changed();
            return;
        }
        snapshot.synced = true;
        let generation = self.publisher.publish(snapshot);
        self.has_published = true;
        let now_millis = jiff::Timestamp::now().as_millisecond();
        self.progress
            .published(now_millis, &self.publisher.current());
        metrics::gauge!("sealane_config_generation").set(generation as f64);
        metrics::histogram!("sealane_config_publish_seconds").record(now.elapsed());
        count(work);
        tracing::debug!(
            generation,
            work.services,
            work.hosts,
            "published a snapshot"
        );
    }
}

/// The kind of which this is the complete list.
fn listed_kind(change: &Change) -> Option<&'static str> {
    match change {
        Change::Services(Delta::ListEnd) => Some("Service"),
        Change::Slices(Delta::ListEnd) => Some("EndpointSlice"),
        Change::Nodes(Delta::ListEnd) => Some("Node"),
        Change::Namespaces(Delta::ListEnd) => Some("Namespace"),
        Change::Pods(Delta::ListEnd) => Some("Pod"),
        Change::Ingresses(Delta::ListEnd) => Some("Ingress"),
        Change::Classes(Delta::ListEnd) => Some("IngressClass"),
        Change::GatewayApi(change) => change.listed_kind(),
        Change::Services(_)
        | Change::Slices(_)
        | Change::Nodes(_)
        | Change::Namespaces(_)
        | Change::Pods(_)
        | Change::Ingresses(_)
        | Change::Classes(_)
        | Change::Secret(..)
        | Change::ConfigMap(..) => None,
    }
}
