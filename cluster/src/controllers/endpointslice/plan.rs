//! The endpoints that a service's pods give, as a pure function.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::endpoint::{self, Family};
use super::spread::{Cover, Group, Groups, Write, identity, port_key, spread};
use crate::controllers::ownership::controller_reference;
use crate::controllers::pods;

/// Label: the service a slice belongs to.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label: who keeps the slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`] for slices of this controller.
pub(super) const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// Label: the service has no cluster IP.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";

/// What the plan is made of.
pub(super) struct View<'a> {
    /// The service.
    pub(super) service: &'a Service,
    /// The pods that it selects.
    pub(super) pods: &'a [Arc<Pod>],
    /// The nodes by name.
    pub(super) nodes: &'a HashMap<String, Arc<Node>>,
    /// The slices of the service that this controller keeps.
    pub(super) slices: &'a [Arc<EndpointSlice>],
}

/// Works out the writes, in the order in which they have to be made. A service without endpoints
/// keeps one empty slice for each family; an ExternalName service has none.
pub(super) fn plan(view: &View<'_>) -> Vec<Write> {
    let service = view.service;
    let spec = service.spec.as_ref();
    let external = spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    let families = if external {
        Vec::new()
    } else {
        endpoint::families(service)
    };
    let wanted = families
        .into_iter()
        .map(|family| (family, groups(view, family)))
        .collect();
    let cover = Cover {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels(service)),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        keep_one: true,
        trigger: &|before, after| trigger(view, before, after),
    };
    spread(&cover, wanted, view.slices)
}

/// The wanted endpoints by their ports.
fn groups(view: &View<'_>, family: Family) -> Groups {
    let mut groups = Groups::new();
    for pod in view.pods.iter().filter(|pod| endpoint::is_candidate(pod)) {
        let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let Some(node) = name.and_then(|name| view.nodes.get(name)) else {
            continue;
        };
        let Some(endpoint) = endpoint::endpoint(view.service, pod, node, family) else {
            continue;
        };
        let ports = endpoint::ports(view.service, pod);
        let group = groups.entry(port_key(&ports)).or_insert_with(|| Group {
            ports: (!ports.is_empty()).then_some(ports),
            endpoints: Vec::new(),
        });
        group.endpoints.push(endpoint);
    }
    groups
}

/// The service's own labels and those that say whose the slice is.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

/// Whether the service has no cluster IP by its own wish.
pub(super) fn is_headless(service: &Service) -> bool {
    let address = service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref());
    address == Some("None")
}

/// The earliest of the readiness changes that show in the new endpoints for the first time; for the
/// first endpoints of all it may be the service that came last.
fn trigger(view: &View<'_>, before: &[Endpoint], after: &[Endpoint]) -> Option<Timestamp> {
    let changed: HashSet<String> = after
        .iter()
        .filter(|endpoint| !before.contains(endpoint))
        .map(identity)
        .collect();
    let since = view
        .pods
        .iter()
        .filter(|pod| {
            pod.metadata
                .uid
                .as_ref()
                .is_some_and(|uid| changed.contains(uid))
        })
        .filter_map(|pod| pods::condition(pod, "Ready")?.last_transition_time.as_ref())
        .map(|time| time.0)
        .min();
    let created = view
        .service
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|created| created.0);
    if before.is_empty() && view.slices.is_empty() {
        since.max(created)
    } else {
        since
    }
}
