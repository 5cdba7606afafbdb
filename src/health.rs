//! What load balancers and collectors ask a node: the ports and answers of kube-proxy, so that what
//! is set up for it goes on working.
//!
//! - `--healthz-bind-address` (10256): `/healthz` is 503 while a change is overdue in the kernel or the
//!   node is about to go; `/livez` leaves the node out. An API server that is away changes neither.
//! - the `healthCheckNodePort` of each Service that has one: see [`service`].
//! - `--metrics-bind-address` (10249): `/metrics`.
//!
//! Another program may have these ports, as kube-proxy does until it is taken away: that is logged and
//! tried again, and nothing else waits for it.

mod service;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use kube::Client;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use sealane_config::model::Scope;
use sealane_config::{Reader, Snapshot};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Answer, Exposition, MetricsHandle, answer};

/// A change that is not in force after this makes the node unhealthy: kube-proxy's two periods of 30 s.
const OVERDUE: Duration = Duration::from_secs(60);

/// When an address that was taken is tried again.
const RETRY: Duration = Duration::from_secs(5);

const APPLIED: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
const NO_LOCAL: &str = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
const HEALTHZ: &str = "kubeproxy_proxy_healthz_total";
const LIVEZ: &str = "kubeproxy_proxy_livez_total";

/// Flags, with kube-proxy's names and defaults.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HealthOptions {
    /// Address of /healthz and /livez for load balancers; empty for none
    #[arg(long, default_value = "0.0.0.0:10256", value_name = "ADDR")]
    healthz_bind_address: Bind,
    /// Address of /metrics, beside the admin listener's; empty for none
    #[arg(long, default_value = "127.0.0.1:10249", value_name = "ADDR")]
    metrics_bind_address: Bind,
}

/// An address, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bind(Option<SocketAddr>);

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let addr = text.parse();
        addr.map(|addr| Self(Some(addr)))
            .map_err(|_invalid| "give it as IP:PORT, or as nothing".to_owned())
    }
}

/// Serves until `stop`. `applied` tells the last generation that is in force in the kernel.
pub(crate) async fn run(
    options: HealthOptions,
    (reader, applied): (Reader, watch::Receiver<u64>),
    metrics: MetricsHandle,
    client: Client,
    stop: CancellationToken,
) {
    describe();
    let health = Health::new(reader);
    let for_nodes = async {
        if let Some(addr) = options.healthz_bind_address.0 {
            let health = health.clone();
            let respond = move |request: Request<Incoming>, _| {
                let answer = health.respond(request.uri().path());
                async move { answer }
            };
            admin::accept(listen(addr).await, respond).await;
        }
    };
    let for_collectors = async {
        if let Some(addr) = options.metrics_bind_address.0 {
            let health = health.clone();
            let respond = move |request: Request<Incoming>, _| {
                let answer = collect(&request, &health, &metrics);
                async move { answer }
            };
            admin::accept(listen(addr).await, respond).await;
        }
    };
    let all = async {
        tokio::join!(
            health.clone().follow(applied),
            for_nodes,
            for_collectors,
            service::follow(health.clone(), client),
        )
    };
    stop.run_until_cancelled(all).await;
}

fn describe() {
    describe_gauge!(
        APPLIED,
        "When the kernel's rules were last up to date, seconds since the Unix epoch"
    );
    describe_gauge!(
        NO_LOCAL,
        "Services with a policy of Local and endpoints on other nodes only"
    );
    describe_counter!(HEALTHZ, "Answers of /healthz, by status");
    describe_counter!(LIVEZ, "Answers of /livez, by status");
}

/// Binds, as soon as that is possible.
async fn listen(addr: SocketAddr) -> TcpListener {
    let mut is_told = false;
    loop {
        match TcpListener::bind(addr).await {
            Ok(listener) => return listener,
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%addr, %error, "cannot listen for probes, trying again");
                }
                sleep(RETRY).await;
            }
        }
    }
}

fn collect(request: &Request<Incoming>, health: &Health, metrics: &MetricsHandle) -> Answer {
    match request.uri().path() {
        "/metrics" => {
            for (policy, count) in without_local_endpoints(&health.0.reader.load()) {
                gauge!(NO_LOCAL, "traffic_policy" => policy).set(count);
            }
            let headers = request.headers();
            let wanted = Exposition::wanted(headers.get(ACCEPT), headers.get(ACCEPT_ENCODING));
            admin::metrics_answer(metrics, wanted)
        }
        "/healthz" => answer(StatusCode::OK, "ok"),
        _ => answer(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// How many Services have a policy of `Local` and endpoints, but none on this node (proxy S5, S6).
fn without_local_endpoints(snapshot: &Snapshot) -> [(&'static str, f64); 2] {
    let mut counts = [("internal", 0.0), ("external", 0.0)];
    for service in snapshot.services.values() {
        let mut ports = service.ports.iter();
        let is_cut_off = ports.any(|port| {
            let local = port.local.as_ref();
            !port.endpoints.is_empty() && local.is_some_and(|local| local.is_empty())
        });
        let policy = &service.policy;
        for (scope, (_, count)) in [policy.internal, policy.external]
            .into_iter()
            .zip(&mut counts)
        {
            if is_cut_off && scope == Scope::Local {
                *count += 1.0;
            }
        }
    }
    counts
}

/// The node's health; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reader: Reader,
    progress: Mutex<Progress>,
}

/// How far the kernel's rules are behind.
#[derive(Debug, Default)]
struct Progress {
    /// Since when they are.
    behind: Option<Instant>,
    /// When they last were not.
    updated: Option<Timestamp>,
}

impl Health {
    fn new(reader: Reader) -> Self {
        Self(Arc::new(Inner {
            reader,
            progress: Mutex::default(),
        }))
    }

    /// Follows what is published and what is in force, until either ends.
    async fn follow(self, mut applied: watch::Receiver<u64>) {
        let mut reader = self.0.reader.clone();
        loop {
            let in_force = *applied.borrow_and_update();
            self.note(in_force);
            tokio::select! {
                published = reader.changed() => if published.is_none() { return },
                told = applied.changed() => if told.is_err() { return },
            }
        }
    }

    /// This generation is in force.
    fn note(&self, in_force: u64) {
        let snapshot = self.0.reader.load();
        let mut progress = self.progress();
        // As in kube-proxy, a node that is starting is healthy.
        if snapshot.synced && in_force < snapshot.generation {
            progress.behind.get_or_insert_with(Instant::now);
        } else if snapshot.synced {
            let now = Timestamp::now();
            *progress = Progress {
                behind: None,
                updated: Some(now),
            };
            gauge!(APPLIED).set(now.as_millisecond() as f64 / 1000.0);
        }
    }

    /// No change is overdue in the kernel.
    pub(crate) fn is_alive(&self) -> bool {
        let behind = self.progress().behind;
        behind.is_none_or(|since| since.elapsed() < OVERDUE)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        let progress = &self.0.progress;
        progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn respond(&self, path: &str) -> Answer {
        let is_alive = self.is_alive();
        let is_eligible = !self.0.reader.load().node_is_leaving;
        let now = Timestamp::now();
        // A node without changes is as good as one with: the time is that of the question.
        let updated = self.progress().updated.filter(|_| !is_alive);
        let mut body = json!({
            "lastUpdated": updated.unwrap_or(now).to_string(),
            "currentTime": now.to_string(),
        });
        let (name, is_good) = match path {
            "/healthz" => {
                body["nodeEligible"] = is_eligible.into();
                (HEALTHZ, is_alive && is_eligible)
            }
            "/livez" => (LIVEZ, is_alive),
            _ => return answer(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        let answer = verdict(is_good, &body);
        counter!(name, "code" => answer.status().as_u16().to_string()).increment(1);
        answer
    }
}

/// 200 or 503, with a JSON object.
fn verdict(is_good: bool, body: &Value) -> Answer {
    const NOSNIFF: &str = "x-content-type-options";
    let status = if is_good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut answer = answer(status, body.to_string());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    answer
}
