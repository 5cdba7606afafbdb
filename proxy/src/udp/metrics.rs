//! What is counted about UDP. Labels are the Service, nothing that a client chooses.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use sealane_config::model::ServiceKey;

const OPENED: &str = "sealane_udp_flows_opened_total";
const OPEN: &str = "sealane_udp_open_flows";
const DATAGRAMS: &str = "sealane_udp_datagrams_total";
const BYTES: &str = "sealane_udp_bytes_total";
const DROPPED: &str = "sealane_udp_dropped_total";
const NO_LOCAL: &str = "sealane_no_local_endpoints_total";

/// Why a datagram was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing of ours has the address that was dialled.
    NoService,
    /// The Service port has no endpoints.
    NoEndpoints,
    /// It has some, but none on this node, and a policy is `Local` (proxy S5).
    NoLocalEndpoints,
    /// There are too many flows, and none of this worker's can make room.
    TooManyFlows,
    /// No socket to an endpoint or from the Service's address could be made.
    NoSocket,
    /// The endpoint cannot be reached, or nobody listens there.
    Unreachable,
    /// The socket's buffer is full.
    Backlog,
    /// The way to the receiver does not take datagrams of this size.
    TooLarge,
    /// The sender cannot be answered: it has port 0.
    NoSender,
}

impl Lost {
    const ALL: usize = Self::NoSender as usize + 1;

    /// The label `reason`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::NoService => "no_service",
            Self::NoEndpoints => "no_endpoints",
            Self::NoLocalEndpoints => "no_local_endpoints",
            Self::TooManyFlows => "too_many_flows",
            Self::NoSocket => "no_socket",
            Self::Unreachable => "unreachable",
            Self::Backlog => "backlog",
            Self::TooLarge => "too_large",
            Self::NoSender => "no_sender",
        }
    }
}

/// The handles of one worker, resolved once for each Service.
#[derive(Default)]
pub(super) struct Metrics {
    /// `None`: datagrams of which it is not known what they are for.
    known: RefCell<HashMap<Option<ServiceKey>, Rc<ServiceMetrics>>>,
}

impl Metrics {
    pub(super) fn of(&self, service: Option<&ServiceKey>) -> Rc<ServiceMetrics> {
        let mut known = self.known.borrow_mut();
        let new = || Rc::new(ServiceMetrics::new(service));
        Rc::clone(known.entry(service.cloned()).or_insert_with(new))
    }

    /// Lets go of the handles of Services that are gone and have no flows.
    pub(super) fn forget(&self, is_gone: impl Fn(&ServiceKey) -> bool) {
        let mut known = self.known.borrow_mut();
        known.retain(|service, metrics| {
            Rc::strong_count(metrics) > 1 || !service.as_ref().is_some_and(&is_gone)
        });
    }
}

/// The handles of one Service.
pub(super) struct ServiceMetrics {
    labels: [(&'static str, String); 2],
    opened: Counter,
    open: Gauge,
    pub(super) to_endpoint: Direction,
    pub(super) to_client: Direction,
    /// By [`Lost`], made when there is something to count.
    dropped: [OnceCell<Counter>; Lost::ALL],
    no_local: OnceCell<Counter>,
}

/// One direction of a Service.
pub(super) struct Direction {
    datagrams: Counter,
    bytes: Counter,
}

impl Direction {
    fn new(labels: &[(&'static str, String); 2], direction: &'static str) -> Self {
        let [(_, namespace), (_, service)] = labels.clone();
        let labels = [
            ("namespace", namespace),
            ("service", service),
            ("direction", direction.to_owned()),
        ];
        Self {
            datagrams: counter!(DATAGRAMS, &labels),
            bytes: counter!(BYTES, &labels),
        }
    }

    pub(super) fn count(&self, datagrams: usize, bytes: usize) {
        self.datagrams.increment(datagrams as u64);
        self.bytes.increment(bytes as u64);
    }
}

impl ServiceMetrics {
    fn new(service: Option<&ServiceKey>) -> Self {
        describe_counter!(OPENED, "UDP flows that were given an endpoint");
        describe_gauge!(OPEN, "UDP flows that are open");
        describe_counter!(DATAGRAMS, "Datagrams relayed, by direction");
        describe_counter!(BYTES, "Bytes of datagrams relayed, by direction");
        describe_counter!(DROPPED, "Datagrams dropped, by reason");
        let (namespace, name) = match service {
            Some(key) => (key.namespace.to_string(), key.name.to_string()),
            None => (String::new(), String::new()),
        };
        let labels = [("namespace", namespace), ("service", name)];
        Self {
            opened: counter!(OPENED, &labels),
            open: gauge!(OPEN, &labels),
            to_endpoint: Direction::new(&labels, "to_endpoint"),
            to_client: Direction::new(&labels, "to_client"),
            dropped: std::array::from_fn(|_| OnceCell::new()),
            no_local: OnceCell::new(),
            labels,
        }
    }

    /// Counts datagrams that are dropped.
    pub(super) fn dropped(&self, reason: Lost, datagrams: usize) {
        let [(_, namespace), (_, service)] = &self.labels;
        let new = || {
            let (namespace, service) = (namespace.clone(), service.clone());
            let reason = reason.label();
            counter!(DROPPED, "namespace" => namespace, "service" => service, "reason" => reason)
        };
        self.dropped[reason as usize]
            .get_or_init(new)
            .increment(datagrams as u64);
        if reason == Lost::NoLocalEndpoints {
            let new = || {
                let (namespace, service) = (namespace.clone(), service.clone());
                counter!(NO_LOCAL, "namespace" => namespace, "service" => service, "traffic_policy" => "internal")
            };
            self.no_local.get_or_init(new).increment(datagrams as u64);
        }
    }

    /// Counts a flow as open until the returned value is dropped.
    pub(super) fn opened(self: &Rc<Self>) -> Open {
        self.opened.increment(1);
        self.open.increment(1);
        Open(Rc::clone(self))
    }
}

/// An open flow.
pub(super) struct Open(pub(super) Rc<ServiceMetrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.decrement(1);
    }
}
