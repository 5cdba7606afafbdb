//! What is counted about relayed connections. Labels are the Service, nothing that a client chooses.

use std::rc::Rc;

use metrics::{Counter, Gauge, Label, counter, describe_counter, describe_gauge, gauge};
use sealane_config::model::ServiceKey;

use crate::ErrorKind;
use crate::live::{Cache, Series};
use crate::sidecar::Direction;

const OPENED: &str = "sealane_tcp_connections_opened_total";
const OPEN: &str = "sealane_tcp_open_connections";
const FAILED: &str = "sealane_tcp_connect_failures_total";
const NO_LOCAL: &str = "sealane_no_local_endpoints_total";
const BYTES: &str = "sealane_tcp_bytes_total";

/// The handles of one worker, resolved once for each Service.
pub(crate) struct Metrics {
    direction: Direction,
    /// `None` is the world outside.
    known: Cache<Option<ServiceKey>, FlowMetrics>,
}

/// The handles of one Service, or of the world outside, whose labels are empty.
pub(crate) struct FlowMetrics {
    opened: Counter,
    open: Gauge,
    /// Connections of clients for which no upstream could be reached, by reason.
    failed: [(&'static str, Counter); 3],
    /// Connections to a cluster IP whose Service has endpoints, but none on this node, and
    /// `internalTrafficPolicy: Local`.
    pub(crate) no_local_endpoints: Counter,
    pub(crate) to_upstream: Counter,
    pub(crate) to_client: Counter,
}

impl Metrics {
    pub(crate) fn new(direction: Direction) -> Self {
        Self {
            direction,
            known: Cache::default(),
        }
    }

    pub(crate) fn of(&self, service: Option<&ServiceKey>) -> Rc<FlowMetrics> {
        let new = || FlowMetrics::new(service, self.direction);
        self.known.get(&service.cloned(), new)
    }

    /// To be called every [`UPKEEP`](crate::live::UPKEEP).
    pub(crate) fn upkeep(&self) {
        self.known.upkeep();
    }
}

impl Series for FlowMetrics {
    fn keep(&self) {
        for (_, counter) in &self.failed {
            counter.increment(0);
        }
        for counter in [
            &self.opened,
            &self.no_local_endpoints,
            &self.to_upstream,
            &self.to_client,
        ] {
            counter.increment(0);
        }
    }
}

impl FlowMetrics {
    fn new(service: Option<&ServiceKey>, direction: Direction) -> Self {
        describe_counter!(OPENED, "Connections relayed to a Service or to the outside");
        describe_gauge!(OPEN, "Connections that are being relayed");
        describe_counter!(FAILED, "Connections for which no upstream could be reached");
        describe_counter!(
            NO_LOCAL,
            "Connections dropped because a policy is Local and no endpoint is on this node"
        );
        describe_counter!(BYTES, "Bytes relayed, by direction");
        let labels = direction.labels(service);
        let with = |name: &'static str, value: &'static str| {
            let mut labels = labels.clone();
            labels.push(Label::new(name, value));
            labels
        };
        Self {
            to_upstream: counter!(BYTES, with("direction", "to_upstream")),
            to_client: counter!(BYTES, with("direction", "to_client")),
            opened: counter!(OPENED, labels.clone()),
            open: gauge!(OPEN, labels.clone()),
            failed: [
                ErrorKind::NoEndpoints,
                ErrorKind::NoLocalPorts,
                ErrorKind::ConnectFailed,
            ]
            .map(|kind| {
                let reason = kind.label();
                (reason, counter!(FAILED, with("reason", reason)))
            }),
            no_local_endpoints: counter!(NO_LOCAL, with("traffic_policy", "internal")),
        }
    }

    /// Counts a connection of a client for which no upstream could be reached; `reason` is the label
    /// of an [`ErrorKind`].
    pub(crate) fn failed(&self, reason: &'static str) {
        if let Some((_, counter)) = self.failed.iter().find(|(known, _)| *known == reason) {
            counter.increment(1);
        }
    }

    /// Counts a connection as open until the returned value is dropped.
    pub(crate) fn opened(self: &Rc<Self>) -> Open {
        self.opened.increment(1);
        self.open.increment(1);
        Open(Rc::clone(self))
    }
}

/// A connection that is being relayed.
pub(crate) struct Open(Rc<FlowMetrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.decrement(1);
    }
}
