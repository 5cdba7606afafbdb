//! One pod: a worker that brings its containers up in order, writes its status and takes it down.
//!
//! The worker is the only one that writes the pod's status. Each container has a supervisor task
//! that reports to it. Order (B1, B5): network, volumes, init containers one after the other
//! (sidecars as soon as they are started), then all containers. Order of the end (B4): containers at
//! once, then sidecars in reverse; then the pod is deleted from the API.

mod attend;
mod departure;
mod lifecycle;
mod slots;
mod supervisor;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::slots::Slots;
use self::supervisor::{Update, told_to_stop};
use super::context::Context;
use super::report::Reporter;
use super::runs::Runs;
use super::status::{self, Observed};

/// Reports of containers that can wait.
const UPDATES: usize = 64;

/// Before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What kind of container it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs once, before the others.
    Init,
    /// An init container that keeps running (`restartPolicy: Always`).
    Sidecar,
    /// An ordinary container.
    Main,
}

impl Role {
    /// Whether a container is to be started again under the pod's restart policy.
    pub(super) fn restarts(self, policy: &str, code: i32) -> bool {
        match (self, policy) {
            (Self::Sidecar, _) | (Self::Main, "Always") => true,
            (_, "Never") => false,
            (Self::Init | Self::Main, _) => code != 0,
        }
    }

    /// The field of the spec that holds it.
    fn list(self) -> &'static str {
        match self {
            Self::Main => "containers",
            Self::Init | Self::Sidecar => "initContainers",
        }
    }
}

/// A pod's place in the network, shared by its containers.
#[derive(Clone, Debug)]
pub(super) struct Sandbox {
    /// The pod's address.
    pub(super) ip: IpAddr,
    /// Its network namespace, if it has one.
    pub(super) netns: Option<Arc<OwnedFd>>,
}

/// Why the pod comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Somebody deletes it: it goes from the API when it is down.
    Deleted,
    /// It is gone from the API.
    Gone,
    /// The agent ends; the pod stays in the API.
    Leaving,
}

/// What the agent's main loop keeps of a pod.
#[derive(Clone)]
pub(super) struct Handle {
    /// New states of the pod.
    pub(super) pod: watch::Sender<Arc<Pod>>,
    /// Cancelled when the pod is gone from the API.
    pub(super) gone: CancellationToken,
    /// Notified when a ConfigMap or a Secret of the pod's namespace has changed.
    pub(super) refresh: Arc<Notify>,
    /// Its runs.
    pub(super) runs: Arc<Runs>,
}

/// The worker of one pod.
pub(super) struct Worker {
    ctx: Arc<Context>,
    pod: Arc<Pod>,
    pods: watch::Receiver<Arc<Pod>>,
    gone: CancellationToken,
    /// When every pod has to be down because the agent ends.
    shutdown: watch::Receiver<Option<Instant>>,
    runs: Arc<Runs>,
    reporter: Reporter,
    slots: Slots,
    sandbox: Option<Sandbox>,
    ip: Option<IpAddr>,
    volumes_ready: bool,
    refresh: Arc<Notify>,
    /// What volumes are made of has changed since they were made.
    stale: bool,
    /// When to try again what failed.
    retry: Option<Instant>,
    ending: Option<Ending>,
    failure: Option<(String, String)>,
    /// Containers of a pod that is to end: when it has to be down.
    deadline: Option<Instant>,
    since: Timestamp,
    written: Option<PodStatus>,
    /// The pod had ended before the agent saw it: its status stays.
    sealed: bool,
    updates: mpsc::Receiver<Update>,
    sender: mpsc::Sender<Update>,
}

impl Worker {
    /// A worker for a pod that is bound to this node, and the handle to it.
    pub(super) fn new(
        ctx: Arc<Context>,
        pod: Arc<Pod>,
        shutdown: watch::Receiver<Option<Instant>>,
    ) -> (Self, Handle) {
        let (sender, updates) = mpsc::channel(UPDATES);
        let (pods_sender, pods) = watch::channel(Arc::clone(&pod));
        let runs = Arc::new(Runs::default());
        let gone = CancellationToken::new();
        let refresh = Arc::new(Notify::new());
        let reporter = Reporter::new(&ctx.recorder, &pod);
        let ip = pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.as_ref());
        let sealed = slots::ended(&pod);
        let worker = Self {
            slots: Slots::of(&pod, &runs),
            ip: ip.and_then(|ip| ip.parse().ok()),
            ctx,
            pod,
            pods,
            gone: gone.clone(),
            shutdown,
            runs: Arc::clone(&runs),
            reporter,
            sandbox: None,
            volumes_ready: false,
            refresh: Arc::clone(&refresh),
            stale: false,
            retry: None,
            ending: None,
            failure: None,
            deadline: None,
            since: Timestamp::now(),
            written: None,
            sealed,
            updates,
            sender,
        };
        let handle = Handle {
            pod: pods_sender,
            gone,
            refresh,
            runs,
        };
        (worker, handle)
    }

    /// Works until nothing of the pod is left to do.
    pub(super) async fn run(mut self) {
        loop {
            self.notice();
            self.retry = None;
            Box::pin(self.advance()).await;
            Box::pin(self.write_status()).await;
            if self.ending.is_some() && self.slots.idle() && Box::pin(self.leave()).await {
                return;
            }
            self.next().await;
        }
    }

    /// Waits until something has changed.
    async fn next(&mut self) {
        let wake = [self.retry, self.active_deadline()];
        let wake = wake.into_iter().flatten().min();
        let timer = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let gone_seen = self.ending == Some(Ending::Gone);
        let leaving = matches!(self.ending, Some(Ending::Gone | Ending::Leaving));
        let first = tokio::select! {
            update = self.updates.recv() => update,
            // The sender is kept by whoever holds the handle; without one, nothing changes any more.
            Ok(()) = self.pods.changed() => None,
            () = self.gone.cancelled(), if !gone_seen => None,
            () = told_to_stop(&mut self.shutdown), if !leaving => None,
            () = self.refresh.notified() => {
                self.stale = true;
                None
            }
            () = timer => None,
        };
        let mut update = first;
        while let Some(Update {
            role,
            index,
            status,
            done,
        }) = update
        {
            self.slots.update(role, index, status, done);
            update = self.updates.try_recv().ok();
        }
    }

    /// Looks at what changed outside: the pod, the agent, the time.
    fn notice(&mut self) {
        let latest = Arc::clone(&self.pods.borrow_and_update());
        let (old, new) = (&self.pod.metadata, &latest.metadata);
        // Volumes of the downward API show these.
        self.stale |= old.labels != new.labels || old.annotations != new.annotations;
        self.pod = latest;
        if self.gone.is_cancelled() && self.ending != Some(Ending::Gone) {
            self.end(Ending::Gone, Some(Duration::ZERO));
        }
        let shutdown = *self.shutdown.borrow();
        if let Some(latest) = shutdown
            && self.ending.is_none_or(|ending| ending == Ending::Deleted)
        {
            self.end(Ending::Leaving, None);
            self.cut_short(latest);
        }
        if self.pod.metadata.deletion_timestamp.is_some()
            && self.ending.is_none_or(|ending| ending == Ending::Deleted)
        {
            let seconds = self.pod.metadata.deletion_grace_period_seconds;
            let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
            self.end(Ending::Deleted, seconds.map(Duration::from_secs));
        }
        if self
            .active_deadline()
            .is_some_and(|deadline| deadline <= Instant::now())
        {
            let message = "Pod was active on the node longer than the specified deadline";
            self.reporter.normal("DeadlineExceeded", message);
            self.failure = Some(("DeadlineExceeded".to_owned(), message.to_owned()));
            self.cut_short(Instant::now() + self.grace());
        }
    }

    /// Begins the end, or changes its kind. The grace period counts from the first time on.
    fn end(&mut self, ending: Ending, grace: Option<Duration>) {
        let began = self.ending == Some(ending);
        self.ending = Some(ending);
        let changed = ending == Ending::Deleted && self.grace_changed();
        if !began || changed {
            let grace = grace.unwrap_or_else(|| self.grace());
            self.cut_short(Instant::now() + grace);
        }
    }

    /// Sets the time when the pod has to be down; it only ever comes nearer.
    fn cut_short(&mut self, deadline: Instant) {
        let nearer = self.deadline.is_none_or(|known| deadline < known);
        if nearer {
            self.deadline = Some(deadline);
        }
    }

    /// Whether somebody asked for a shorter grace period than before.
    fn grace_changed(&self) -> bool {
        let seconds = self.pod.metadata.deletion_grace_period_seconds;
        let wanted = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let wanted = wanted.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        matches!((wanted, self.deadline), (Some(wanted), Some(known)) if wanted < known)
    }

    fn grace(&self) -> Duration {
        let spec = self.pod.spec.as_ref();
        let grace = spec.and_then(|spec| spec.termination_grace_period_seconds);
        Duration::from_secs(u64::try_from(grace.unwrap_or(30)).unwrap_or(0))
    }

    /// When the pod has run for as long as it may, if that is still to come.
    fn active_deadline(&self) -> Option<Instant> {
        if self.failure.is_some() || self.ending.is_some() || self.slots.finished() {
            return None;
        }
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        let status = self.pod.status.as_ref();
        let start = status.and_then(|status| Some(status.start_time.as_ref()?.0));
        let passed = Timestamp::now().duration_since(start.unwrap_or(self.since));
        let left = jiff::SignedDuration::from_secs(seconds).saturating_sub(passed);
        Some(Instant::now() + Duration::try_from(left).unwrap_or_default())
    }

    /// Writes the status if it differs from what was written last.
    async fn write_status(&mut self) {
        if self.sealed || matches!(self.ending, Some(Ending::Gone | Ending::Leaving)) {
            return;
        }
        let sidecars = self.slots.sidecars();
        let status = status::compute(&Observed {
            pod: &self.pod,
            ip: self.ip,
            host_ip: self.ctx.options.node_ip,
            init: &self.slots.init_statuses(),
            main: &self.slots.main_statuses(),
            sidecars: &sidecars,
            finished: self.is_over(),
            written: self.written.as_ref(),
            failure: self.failure.as_ref(),
            since: self.since,
            now: Timestamp::now(),
        });
        if self.written.as_ref() == Some(&status) {
            return;
        }
        match self.patch_status(&status).await {
            Ok(()) => self.written = Some(status),
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => {
                self.gone.cancel();
                self.retry = Some(Instant::now());
            }
            Err(error) => {
                tracing::warn!(pod = %self.pod.name_any(), %error, "cannot write a pod's status");
                self.retry = Some(Instant::now() + RETRY);
            }
        }
    }

    async fn patch_status(&self, status: &PodStatus) -> Result<(), kube::Error> {
        let mut fields = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
        // What is not there any more has to be taken away by name.
        for (name, absent) in [
            ("reason", status.reason.is_none()),
            ("message", status.message.is_none()),
        ] {
            if absent {
                fields[name] = Value::Null;
            }
        }
        // The uid makes the patch miss another pod of the same name.
        let patch = json!({ "metadata": { "uid": self.pod.uid() }, "status": fields });
        self.api()
            .patch_status(
                &self.pod.name_any(),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await
            .map(drop)
    }

    fn api(&self) -> Api<Pod> {
        let namespace = self.pod.namespace().unwrap_or_default();
        Api::namespaced(self.ctx.client.clone(), &namespace)
    }
}
