//! How far what the API server said has come, in kube-proxy's metrics: their dashboards and alerts
//! go on working where the meaning is the same.
//!
//! A change of endpoints is in force when it is published: nothing is written to the kernel for it.

use std::sync::Arc;

use super::{Change, Delta};
use crate::compile::ObjectKey;
use crate::model::{ServiceKey, ServiceKind};
use crate::snapshot::Snapshot;

/// CoreDNS's, of endpoints whose names DNS answers.
const NAMES_LATENCY: &str = "coredns_kubernetes_dns_programming_duration_seconds";
const LATENCY: &str = "kubeproxy_network_programming_duration_seconds";
const QUEUED: &str = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds";

/// Names of the total and the pending changes of a kind.
type Names = [&'static str; 2];
const SERVICES: Names = [
    "kubeproxy_sync_proxy_rules_service_changes_total",
    "kubeproxy_sync_proxy_rules_service_changes_pending",
];
const ENDPOINTS: Names = [
    "kubeproxy_sync_proxy_rules_endpoint_changes_total",
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
];

/// Changes of endpoints that are timed in one publication.
const TIMED: usize = 1024;

pub(super) fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_histogram!(
        LATENCY,
        Unit::Seconds,
        "Time from a change in the cluster to its effect on new connections"
    );
    describe_histogram!(
        NAMES_LATENCY,
        Unit::Seconds,
        "Time from a change of endpoints to its effect on answers"
    );
    describe_gauge!(
        QUEUED,
        Unit::Seconds,
        "When a change was last passed on, since the Unix epoch"
    );
    for [total, pending] in [SERVICES, ENDPOINTS] {
        describe_counter!(total, "Changes that were taken in");
        describe_gauge!(
            pending,
            "Changes that were taken in and are not in force yet"
        );
    }
}

/// What was taken in since the last publication.
#[derive(Debug)]
pub(super) struct Progress {
    /// Changes from before, milliseconds since the Unix epoch, say nothing about us.
    started: i64,
    /// When the changes of endpoints happened, and to whose.
    triggered: Vec<(i64, ObjectKey)>,
    /// Names of Services are answered from the state.
    has_dns: bool,
    services: u32,
    endpoints: u32,
}

impl Progress {
    pub(super) fn new(started: i64, has_dns: bool) -> Self {
        Self {
            started,
            triggered: Vec::new(),
            has_dns,
            services: 0,
            endpoints: 0,
        }
    }

    pub(super) fn took(&mut self, change: &Change) {
        match change {
            Change::Services(delta) if is_event(delta) => {
                self.services += 1;
                took(SERVICES, self.services);
            }
            Change::Slices(delta) if is_event(delta) => {
                self.endpoints += 1;
                took(ENDPOINTS, self.endpoints);
                if let Delta::Set(_, Ok(Some(slice))) = delta
                    && let Some(at) = slice.triggered.0
                    && at >= self.started
                    && self.triggered.len() < TIMED
                {
                    self.triggered.push((at, slice.service().clone()));
                }
            }
            _ => {}
        }
    }

    /// What was taken in is in force.
    pub(super) fn published(&mut self, now: i64, snapshot: &Snapshot) {
        for (at, service) in self.triggered.drain(..) {
            let seconds = now.saturating_sub(at).max(0) as f64 / 1000.0;
            metrics::histogram!(LATENCY).record(seconds);
            if let Some(kind) = kind(snapshot, &service).filter(|_| self.has_dns) {
                metrics::histogram!(NAMES_LATENCY, "service_kind" => kind).record(seconds);
            }
        }
        metrics::gauge!(QUEUED).set(now as f64 / 1000.0);
        self.nothing_changed();
    }

    /// What was taken in made no difference.
    pub(super) fn nothing_changed(&mut self) {
        self.triggered.clear();
        for (count, [_, pending]) in [
            (&mut self.services, SERVICES),
            (&mut self.endpoints, ENDPOINTS),
        ] {
            if std::mem::take(count) > 0 {
                metrics::gauge!(pending).set(0.0);
            }
        }
    }
}

/// The kind of a Service in CoreDNS's words. Slices that say when they were triggered are written by
/// the controller for Services with a selector.
fn kind(snapshot: &Snapshot, service: &ObjectKey) -> Option<&'static str> {
    let key = ServiceKey {
        namespace: Arc::clone(&service.namespace),
        name: Arc::clone(&service.name),
    };
    match snapshot.services.get(&key)?.kind {
        ServiceKind::ClusterIp => Some("cluster_ip"),
        ServiceKind::Headless => Some("headless_with_selector"),
        ServiceKind::ExternalName(_) => None,
    }
}

/// Not a list, which says again what is known.
fn is_event<R>(delta: &Delta<R>) -> bool {
    matches!(delta, Delta::Set(..) | Delta::Remove(_))
}

fn took([total, pending]: Names, count: u32) {
    metrics::counter!(total).increment(1);
    metrics::gauge!(pending).set(f64::from(count));
}
