//! One leader among many candidates, by a Lease (`coordination.k8s.io/v1`).
//!
//! The rules are those of client-go's leader election:
//!
//! - The holder renews its Lease; a candidate takes it over once it has seen it unchanged for as long
//!   as the Lease says. Only the time since the candidate itself last saw a change counts, by its own
//!   monotonic clock: the times written in the Lease are for people, and the clocks of two machines
//!   are never compared.
//! - Every write carries the `resourceVersion` that it is based on, so that of two candidates the API
//!   server lets one through (409 for the other).
//! - A holder that could not renew for [`LeaseOptions::renew_deadline`], counted from before the
//!   request that last worked was sent, no longer leads; that is over before anybody else can begin.
//!   [`Leadership::holds`] looks at the clock each time, so that a process that was stopped and wakes
//!   up knows it before it does anything.
//! - At the end the holder gives the Lease up by clearing `holderIdentity`, and the next one need not
//!   wait.
//!
//! client-go's usual 15 s would mean 15 s and more without a leader after a crash; with the defaults
//! here a candidate notices at most [`RETRY`] (and its jitter) late that the Lease changed last, so the
//! next one leads at most 12.5 s after the end of the last one.

#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::refusal;

/// How long a Lease lasts that nobody renews: short enough for a new leader within 15 s.
const DURATION: Duration = Duration::from_secs(10);

/// How long a holder leads on without a renewal that worked. The rest of [`DURATION`] is for requests
/// under way when the holder gives up.
const RENEW_DEADLINE: Duration = Duration::from_secs(7);

/// Pause between attempts to acquire or renew: three renewals can fail before leadership is lost.
const RETRY: Duration = Duration::from_secs(2);

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(3);

/// How long giving the Lease up may hold up the end of the process.
const RELEASE: Duration = Duration::from_secs(2);

/// Status code for a write that is based on an old version.
const CONFLICT: u16 = 409;

/// A Lease and who wants it.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are; no two candidates may have the same.
    pub identity: String,
    /// How long the Lease lasts after its last renewal.
    pub duration: Duration,
    /// How long we lead without a renewal that worked; less than `duration`.
    pub renew_deadline: Duration,
    /// Pause between attempts.
    pub retry: Duration,
}

impl LeaseOptions {
    /// A Lease with the usual times. `instance` is for people, such as the name of the pod; what makes
    /// the identity unique is added to it.
    pub fn new(namespace: &str, name: &str, instance: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: format!("{instance}_{:016x}", rand::random::<u64>()),
            duration: DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry: RETRY,
        }
    }
}

/// Tells whether we lead; clones tell the same.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// Whether we lead at this moment. To be asked right before every write.
    pub fn holds(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until leadership begins or ends; `false` once the election is over for good.
    pub async fn changed(&mut self) -> bool {
        let before = self.0.borrow_and_update().is_some();
        loop {
            if self.0.changed().await.is_err() {
                return false;
            }
            if self.0.borrow_and_update().is_some() != before {
                return true;
            }
        }
    }
}

/// Takes part in the election until `shutdown`, and gives the Lease up then.
///
/// Cancel `shutdown` only when nothing is written any more that only the leader may write.
pub fn elect(
    client: Client,
    options: LeaseOptions,
    shutdown: CancellationToken,
) -> (Leadership, impl Future<Output = ()> + Send) {
    let (until, receiver) = watch::channel(None);
    let candidate = Candidate {
        leases: Api::namespaced(client, &options.namespace),
        options,
        until,
        seen: None,
        failures: 0,
    };
    (Leadership(receiver), candidate.run(shutdown))
}

/// The Lease as last seen, and since when it is like that.
#[derive(Debug)]
struct Seen {
    lease: Lease,
    since: Instant,
}

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    /// The Lease is ours, renewed just now.
    Held,
    /// Somebody else has it, until then at least as far as can be seen.
    Other(Instant),
    /// Somebody else was faster, or the Lease changed meanwhile.
    Raced,
}

struct Candidate {
    leases: Api<Lease>,
    options: LeaseOptions,
    until: watch::Sender<Option<Instant>>,
    seen: Option<Seen>,
    failures: u64,
}

impl Candidate {
    async fn run(mut self, shutdown: CancellationToken) {
        describe_metrics();
        while let Some(next) = shutdown.run_until_cancelled(self.step()).await {
            let expires = *self.until.borrow();
            let next = expires.map_or(next, |expires| next.min(expires));
            let sleep = tokio::time::sleep_until(next);
            if shutdown.run_until_cancelled(sleep).await.is_none() {
                break;
            }
            if expires.is_some_and(|expires| expires <= Instant::now()) {
                self.follow("the lease could not be renewed in time");
            }
        }
        let led = self.until.borrow().is_some();
        self.follow("shutting down");
        if led {
            self.release().await;
        }
    }

    /// One attempt; returns when the next one is due.
    async fn step(&mut self) -> Instant {
        let started = Instant::now();
        let attempt = timeout(ATTEMPT, self.attempt()).await;
        let retry = self.options.retry;
        match attempt {
            Ok(Ok(Attempt::Held)) => {
                self.failures = 0;
                self.lead(started + self.options.renew_deadline);
                started + retry
            }
            Ok(Ok(Attempt::Other(until))) => {
                self.failures = 0;
                self.follow("another one has the lease");
                let jittered = retry.mul_f64(rand::random_range(1.0..1.2));
                // Not a moment later than it may be taken over.
                (Instant::now() + jittered).min(until.max(started + retry / 4))
            }
            Ok(Ok(Attempt::Raced)) => Instant::now() + retry / 4,
            Ok(Err(error)) => {
                self.failed(Some(&error));
                started + retry
            }
            Err(_elapsed) => {
                self.failed(None);
                started + retry
            }
        }
    }

    async fn attempt(&mut self) -> Result<Attempt, kube::Error> {
        if !self.is_ours() && !self.look().await? {
            return self.create().await;
        }
        let Some(seen) = &self.seen else {
            return Ok(Attempt::Raced);
        };
        if !self.is_ours() && holder(&seen.lease).is_some() {
            let free = seen.since + lasts(&seen.lease).unwrap_or(self.options.duration);
            if Instant::now() < free {
                return Ok(Attempt::Other(free));
            }
        }
        let mut lease = seen.lease.clone();
        lease.spec = Some(self.claim(lease.spec.as_ref()));
        let written = self
            .leases
            .replace(&self.options.name, &PostParams::default(), &lease)
            .await;
        self.written(written).await
    }

    /// Whether the Lease as last seen is ours.
    fn is_ours(&self) -> bool {
        let holder = self.seen.as_ref().and_then(|seen| holder(&seen.lease));
        holder == Some(&self.options.identity)
    }

    /// Reads the Lease; `false` if there is none.
    async fn look(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.leases.get_opt(&self.options.name).await? else {
            self.seen = None;
            return Ok(false);
        };
        let since = match &self.seen {
            Some(seen) if seen.lease.spec == lease.spec => seen.since,
            _ => Instant::now(),
        };
        self.seen = Some(Seen { lease, since });
        Ok(true)
    }

    async fn create(&mut self) -> Result<Attempt, kube::Error> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.options.name.clone()),
                namespace: Some(self.options.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(self.claim(None)),
        };
        let written = self.leases.create(&PostParams::default(), &lease).await;
        self.written(written).await
    }

    async fn written(
        &mut self,
        written: Result<Lease, kube::Error>,
    ) -> Result<Attempt, kube::Error> {
        match written {
            Ok(lease) => {
                let since = Instant::now();
                self.seen = Some(Seen { lease, since });
                Ok(Attempt::Held)
            }
            Err(kube::Error::Api(status)) if status.code == CONFLICT => {
                // What changed it may be a claim of our own whose answer was lost.
                self.look().await?;
                Ok(Attempt::Raced)
            }
            Err(error) => Err(error),
        }
    }

    /// What the Lease says when it is ours.
    fn claim(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(jiff::Timestamp::now()));
        let mine = Some(self.options.identity.clone());
        let mut spec = before.cloned().unwrap_or_default();
        if spec.holder_identity != mine {
            let transitions = spec.lease_transitions.unwrap_or_default();
            spec.lease_transitions = Some(match before {
                Some(_) => transitions.saturating_add(1),
                None => transitions,
            });
            spec.acquire_time.clone_from(&now);
            spec.holder_identity = mine;
        }
        spec.lease_duration_seconds = i32::try_from(self.options.duration.as_secs()).ok();
        spec.renew_time = now;
        spec
    }

    fn lead(&self, until: Instant) {
        if self.until.send_replace(Some(until)).is_none() {
            let (namespace, name) = (&self.options.namespace, &self.options.name);
            tracing::info!(
                identity = self.options.identity,
                "leading: Lease {namespace}/{name}"
            );
            self.gauge(1.0);
        }
    }

    fn follow(&self, why: &str) {
        if self.until.send_replace(None).is_some() {
            let (namespace, name) = (&self.options.namespace, &self.options.name);
            tracing::info!("no longer leading by Lease {namespace}/{name}: {why}");
        }
        self.gauge(0.0);
    }

    fn gauge(&self, value: f64) {
        metrics::gauge!("sealane_leader", "lease" => self.options.name.clone()).set(value);
    }

    /// Logs the first failure of a row.
    fn failed(&mut self, error: Option<&kube::Error>) {
        let (namespace, name) = (&self.options.namespace, &self.options.name);
        let why = error.map_or_else(
            || "the API server does not answer".to_owned(),
            |error| {
                refusal(
                    error,
                    "get, create and update",
                    "leases.coordination.k8s.io",
                )
            },
        );
        if self.failures == 0 {
            tracing::warn!("Lease {namespace}/{name} cannot be kept, trying again: {why}");
        }
        self.failures += 1;
    }

    /// Lets the next one begin at once. It is no harm if this fails: the Lease runs out.
    async fn release(&self) {
        let give_up = async {
            let name = &self.options.name;
            let Some(mut lease) = self.leases.get_opt(name).await? else {
                return Ok(());
            };
            if holder(&lease) != Some(&self.options.identity) {
                return Ok(());
            }
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
            }
            let params = PostParams::default();
            self.leases.replace(name, &params, &lease).await.map(drop)
        };
        match timeout(RELEASE, give_up).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("the lease could not be given up: {error}"),
            Err(_elapsed) => tracing::debug!("the lease could not be given up in time"),
        }
    }
}

fn describe_metrics() {
    metrics::describe_gauge!("sealane_leader", "1 while this process leads by the Lease");
}

/// Who has the Lease; an empty name is nobody.
fn holder(lease: &Lease) -> Option<&String> {
    let holder = lease.spec.as_ref()?.holder_identity.as_ref();
    holder.filter(|identity| !identity.is_empty())
}

/// How long the Lease says that it lasts.
fn lasts(lease: &Lease) -> Option<Duration> {
    let seconds = lease.spec.as_ref()?.lease_duration_seconds?;
    let seconds = u64::try_from(seconds).ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}
