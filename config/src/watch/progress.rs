//! How far what the API server said has come, in kube-proxy's metrics: their dashboards and alerts
//! go on working where the meaning is the same.
//!
//! A change of endpoints is in force when it is published: nothing is written to the kernel for it.

use super::{Change, Delta};

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
    /// When the changes of endpoints happened.
    triggered: Vec<i64>,
    services: u32,
    endpoints: u32,
}

impl Progress {
    pub(super) fn new(started: i64) -> Self {
        Self {
            started,
            triggered: Vec::new(),
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
                    self.triggered.push(at);
                }
            }
            _ => {}
        }
    }

    /// What was taken in is in force.
    pub(super) fn published(&mut self, now: i64) {
        for at in self.triggered.drain(..) {
            let millis = now.saturating_sub(at).max(0);
            metrics::histogram!(LATENCY).record(millis as f64 / 1000.0);
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

/// Not a list, which says again what is known.
fn is_event<R>(delta: &Delta<R>) -> bool {
    matches!(delta, Delta::Set(..) | Delta::Remove(_))
}

fn took([total, pending]: Names, count: u32) {
    metrics::counter!(total).increment(1);
    metrics::gauge!(pending).set(f64::from(count));
}
