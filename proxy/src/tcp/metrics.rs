//! What is counted about relayed connections. Labels are the Service, nothing that a client chooses.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use sealane_config::model::ServiceKey;

const OPENED: &str = "sealane_tcp_connections_opened_total";
const OPEN: &str = "sealane_tcp_open_connections";
const FAILED: &str = "sealane_tcp_connect_failures_total";
const NO_LOCAL: &str = "sealane_no_local_endpoints_total";
const BYTES: &str = "sealane_tcp_bytes_total";

/// The handles of one worker, resolved once for each Service.
#[derive(Default)]
pub(crate) struct Metrics {
    /// `None` is the world outside.
    known: RefCell<HashMap<Option<ServiceKey>, Rc<FlowMetrics>>>,
}

/// The handles of one Service, or of the world outside, whose labels are empty.
pub(crate) struct FlowMetrics {
    opened: Counter,
    open: Gauge,
    /// Connections of clients for which no upstream could be reached.
    pub(crate) failed: Counter,
    /// Connections to a cluster IP whose Service has endpoints, but none on this node, and
    /// `internalTrafficPolicy: Local`.
    pub(crate) no_local_endpoints: Counter,
    pub(crate) to_upstream: Counter,
    pub(crate) to_client: Counter,
}

impl Metrics {
    pub(crate) fn of(&self, service: Option<&ServiceKey>) -> Rc<FlowMetrics> {
        let key = service.cloned();
        let mut known = self.known.borrow_mut();
        let new = || Rc::new(FlowMetrics::new(service));
        Rc::clone(known.entry(key).or_insert_with(new))
    }
}

impl FlowMetrics {
    fn new(service: Option<&ServiceKey>) -> Self {
        describe_counter!(OPENED, "Connections relayed to a Service or to the outside");
        describe_gauge!(OPEN, "Connections that are being relayed");
        describe_counter!(FAILED, "Connections for which no upstream could be reached");
        describe_counter!(
            NO_LOCAL,
            "Connections dropped because a policy is Local and no endpoint is on this node"
        );
        describe_counter!(BYTES, "Bytes relayed, by direction");
        let (namespace, name) = match service {
            Some(key) => (key.namespace.to_string(), key.name.to_string()),
            None => (String::new(), String::new()),
        };
        let labels = [("namespace", namespace), ("service", name)];
        let bytes = |direction| {
            let [namespace, service] = labels.clone().map(|(_, value)| value);
            counter!(BYTES, "namespace" => namespace, "service" => service, "direction" => direction)
        };
        Self {
            to_upstream: bytes("to_upstream"),
            to_client: bytes("to_client"),
            opened: counter!(OPENED, &labels),
            open: gauge!(OPEN, &labels),
            failed: counter!(FAILED, &labels),
            no_local_endpoints: {
                let [namespace, service] = labels.clone().map(|(_, value)| value);
                counter!(NO_LOCAL, "namespace" => namespace, "service" => service, "traffic_policy" => "internal")
            },
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
