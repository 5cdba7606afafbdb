//! From a service, its pods and its slices to the writes that bring the slices up to date.
//!
//! Rules:
//! - One group of slices for each address family and each set of resolved ports, at most 100
//!   endpoints in a slice. A service without endpoints keeps one empty slice for each family.
//! - An endpoint stays in its slice. New ones go into slices that are written anyway, then into the
//!   fullest other slice with room for all of them, then into a new one. Half-empty slices are not
//!   merged; empty ones are used again or deleted.
//! - Make before break: readers join all slices, so an endpoint that moves to another slice is
//!   written there before it leaves the old one. Therefore the writes come in this order: new
//!   slices, slices that lose nothing to others, slices that do (in two steps if they also gain),
//!   deletions. Whoever executes the plan stops at the first failure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::endpoint::{self, Family};
use crate::controllers::ownership::controller_reference;
use crate::controllers::pods;

/// The most endpoints in one slice.
const MOST_ENDPOINTS: usize = 100;
/// Label: the service a slice belongs to.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label: who keeps the slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`] for slices of this controller.
pub(super) const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// Label: the service has no cluster IP.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Annotation: when the change that caused this write happened.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Write {
    /// A new slice.
    Create(Box<EndpointSlice>),
    /// New content of a slice, valid only for the version that was seen.
    Update(Box<EndpointSlice>),
    /// A slice that nobody needs any more.
    Delete(Arc<EndpointSlice>),
}

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

/// A slice while it is worked on.
struct Draft {
    before: Arc<EndpointSlice>,
    ports: Option<Vec<EndpointPort>>,
    endpoints: Vec<Endpoint>,
}

/// Works out the writes, in the order in which they have to be made.
pub(super) fn plan(view: &View<'_>) -> Vec<Write> {
    let spec = view.service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        return view.slices.iter().cloned().map(Write::Delete).collect();
    }
    let mut writes = Writes::default();
    let families = endpoint::families(view.service);
    for family in &families {
        plan_family(view, *family, &mut writes);
    }
    let left_over = view.slices.iter().filter(|slice| {
        !families
            .iter()
            .any(|family| family.as_str() == slice.address_type)
    });
    writes.delete.extend(left_over.cloned());
    writes.ordered()
}

#[derive(Default)]
struct Writes {
    create: Vec<EndpointSlice>,
    /// Before and after.
    update: Vec<(Arc<EndpointSlice>, EndpointSlice)>,
    delete: Vec<Arc<EndpointSlice>>,
}

/// One set of ports and the endpoints that serve it.
struct Group {
    ports: Option<Vec<EndpointPort>>,
    endpoints: Vec<Endpoint>,
}

fn plan_family(view: &View<'_>, family: Family, writes: &mut Writes) {
    let groups = groups(view, family);
    let mut drafts: Vec<Draft> = Vec::new();
    let mut spare: Vec<Arc<EndpointSlice>> = Vec::new();
    let mut by_ports: HashMap<String, Vec<Arc<EndpointSlice>>> = HashMap::new();
    for slice in view
        .slices
        .iter()
        .filter(|slice| slice.address_type == family.as_str())
    {
        let key = port_key(slice.ports.as_deref().unwrap_or_default());
        if groups.contains_key(&key) {
            by_ports.entry(key).or_default().push(slice.clone());
        } else {
            spare.push(slice.clone());
        }
    }
    let mut fresh: Vec<Group> = Vec::new();
    for (key, group) in groups {
        let existing = by_ports.remove(&key).unwrap_or_default();
        fill(group, existing, &mut drafts, &mut fresh);
    }
    // An empty slice may take any content: nobody reads an address from it.
    let (mut empty, full): (Vec<_>, Vec<_>) = spare
        .into_iter()
        .partition(|slice| slice.endpoints.is_empty());
    let (kept, emptied): (Vec<Draft>, Vec<Draft>) = drafts
        .into_iter()
        .partition(|draft| !draft.endpoints.is_empty());
    let mut gone: Vec<Arc<EndpointSlice>> = full;
    for draft in emptied {
        if draft.before.endpoints.is_empty() {
            &mut empty
        } else {
            &mut gone
        }
        .push(draft.before);
    }
    if kept.is_empty() && fresh.is_empty() {
        keep_one(view, family, empty, gone, writes);
        return;
    }
    for draft in kept {
        let Draft {
            before,
            ports,
            endpoints,
        } = draft;
        writes.update(view, before, ports, endpoints);
    }
    for group in fresh {
        match empty.pop() {
            Some(before) => writes.update(view, before, group.ports, group.endpoints),
            None => writes.create.push(slice(view, family, group)),
        }
    }
    writes.delete.extend(empty);
    writes.delete.extend(gone);
}

/// No endpoints at all: one slice stays, empty and without ports.
fn keep_one(
    view: &View<'_>,
    family: Family,
    empty: Vec<Arc<EndpointSlice>>,
    gone: Vec<Arc<EndpointSlice>>,
    writes: &mut Writes,
) {
    let mut slices = empty.into_iter().chain(gone);
    match slices.next() {
        Some(before) => writes.update(view, before, None, Vec::new()),
        None => {
            let group = Group {
                ports: None,
                endpoints: Vec::new(),
            };
            writes.create.push(slice(view, family, group));
        }
    }
    writes.delete.extend(slices);
}

/// The wanted endpoints by their ports.
fn groups(view: &View<'_>, family: Family) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
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

/// Equal for equal sets of ports, in whatever order they stand.
fn port_key(ports: &[EndpointPort]) -> String {
    let mut parts: Vec<String> = ports
        .iter()
        .map(|port| {
            format!(
                "{}|{}|{}|{}",
                port.name.as_deref().unwrap_or_default(),
                port.protocol.as_deref().unwrap_or("TCP"),
                port.port.unwrap_or_default(),
                port.app_protocol.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    parts.sort_unstable();
    parts.join(",")
}

/// Identity of an endpoint: its pod.
fn identity(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref();
    let uid = target.and_then(|target| target.uid.clone());
    uid.or_else(|| endpoint.addresses.first().cloned())
        .unwrap_or_default()
}

/// Spreads the endpoints of a group over its slices; what finds no room becomes new slices.
fn fill(
    group: Group,
    existing: Vec<Arc<EndpointSlice>>,
    drafts: &mut Vec<Draft>,
    fresh: &mut Vec<Group>,
) {
    let mut wanted: HashMap<String, Endpoint> = group
        .endpoints
        .iter()
        .map(|endpoint| (identity(endpoint), endpoint.clone()))
        .collect();
    let mut own: Vec<Draft> = existing
        .into_iter()
        .map(|before| {
            let kept = before
                .endpoints
                .iter()
                .filter_map(|known| wanted.remove(&identity(known)));
            Draft {
                endpoints: kept.collect(),
                ports: before.ports.clone(),
                before,
            }
        })
        .collect();
    // In the pods' order, so that equal input gives equal slices.
    let mut new: Vec<Endpoint> = group
        .endpoints
        .into_iter()
        .filter(|endpoint| wanted.contains_key(&identity(endpoint)))
        .collect();
    place(&mut new, own.iter_mut().filter(|draft| draft.is_changed()));
    if !new.is_empty() && new.len() < MOST_ENDPOINTS {
        let fits = |draft: &&mut Draft| draft.endpoints.len() + new.len() <= MOST_ENDPOINTS;
        let fullest = own
            .iter_mut()
            .filter(fits)
            .max_by_key(|draft| draft.endpoints.len());
        place(&mut new, fullest.into_iter());
    }
    drafts.append(&mut own);
    while !new.is_empty() {
        let rest = new.split_off(new.len().min(MOST_ENDPOINTS));
        fresh.push(Group {
            ports: group.ports.clone(),
            endpoints: std::mem::replace(&mut new, rest),
        });
    }
}

fn place<'a>(new: &mut Vec<Endpoint>, drafts: impl Iterator<Item = &'a mut Draft>) {
    for draft in drafts {
        let room = MOST_ENDPOINTS
            .saturating_sub(draft.endpoints.len())
            .min(new.len());
        draft.endpoints.extend(new.drain(..room));
    }
}

impl Draft {
    fn is_changed(&self) -> bool {
        self.endpoints != self.before.endpoints
    }
}

impl Writes {
    fn update(
        &mut self,
        view: &View<'_>,
        before: Arc<EndpointSlice>,
        ports: Option<Vec<EndpointPort>>,
        endpoints: Vec<Endpoint>,
    ) {
        let mut after = before.as_ref().clone();
        after.metadata.labels = Some(labels(view.service));
        let same_content = after.endpoints == endpoints && same_ports(&after, ports.as_deref());
        if same_content && after.metadata.labels == before.metadata.labels {
            return;
        }
        if !same_content {
            let trigger = trigger(view, &before.endpoints, &endpoints);
            set_trigger(&mut after.metadata, trigger);
            after.ports = ports;
            after.endpoints = endpoints;
        }
        self.update.push((before, after));
    }

    /// Make before break; see the module's rules.
    fn ordered(self) -> Vec<Write> {
        let gains: HashSet<String> = self
            .create
            .iter()
            .chain(self.update.iter().map(|(_, after)| after))
            .flat_map(|slice| slice.endpoints.iter().map(identity))
            .collect();
        let mut writes: Vec<Write> = self
            .create
            .into_iter()
            .map(|slice| Write::Create(Box::new(slice)))
            .collect();
        let mut last = Vec::new();
        for (before, after) in self.update {
            let kept: HashSet<String> = after.endpoints.iter().map(identity).collect();
            let moving: Vec<&Endpoint> = before
                .endpoints
                .iter()
                .filter(|endpoint| {
                    let id = identity(endpoint);
                    !kept.contains(&id) && gains.contains(&id)
                })
                .collect();
            if moving.is_empty() {
                writes.push(Write::Update(Box::new(after)));
                continue;
            }
            let known: HashSet<String> = before.endpoints.iter().map(identity).collect();
            if same_ports(&before, after.ports.as_deref()) && !kept.is_subset(&known) {
                let mut both = after.clone();
                both.endpoints.extend(moving.into_iter().cloned());
                writes.push(Write::Update(Box::new(both)));
            }
            last.push(Write::Update(Box::new(after)));
        }
        writes.append(&mut last);
        writes.extend(self.delete.into_iter().map(Write::Delete));
        writes
    }
}

fn same_ports(slice: &EndpointSlice, ports: Option<&[EndpointPort]>) -> bool {
    port_key(slice.ports.as_deref().unwrap_or_default()) == port_key(ports.unwrap_or_default())
}

fn slice(view: &View<'_>, family: Family, group: Group) -> EndpointSlice {
    let service = view.service;
    let mut metadata = ObjectMeta {
        generate_name: Some(format!("{}-", service.name_any())),
        namespace: service.namespace(),
        labels: Some(labels(service)),
        owner_references: Some(vec![controller_reference(service)]),
        ..ObjectMeta::default()
    };
    let created = service
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|created| created.0);
    let trigger = trigger(view, &[], &group.endpoints).or(created);
    set_trigger(&mut metadata, trigger);
    EndpointSlice {
        metadata,
        address_type: family.as_str().to_owned(),
        endpoints: group.endpoints,
        ports: group.ports,
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    let address = service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref());
    if address == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

/// The earliest of the readiness changes that show in the new endpoints for the first time.
fn trigger(view: &View<'_>, before: &[Endpoint], after: &[Endpoint]) -> Option<Timestamp> {
    let changed: HashSet<String> = after
        .iter()
        .filter(|endpoint| !before.contains(endpoint))
        .map(identity)
        .collect();
    view.pods
        .iter()
        .filter(|pod| {
            pod.metadata
                .uid
                .as_ref()
                .is_some_and(|uid| changed.contains(uid))
        })
        .filter_map(|pod| pods::condition(pod, "Ready")?.last_transition_time.as_ref())
        .map(|time: &Time| time.0)
        .min()
}

fn set_trigger(metadata: &mut ObjectMeta, trigger: Option<Timestamp>) {
    let annotations = metadata.annotations.get_or_insert_with(BTreeMap::new);
    match trigger {
        Some(time) => {
            annotations.insert(TRIGGER_TIME.to_owned(), time.to_string());
        }
        // A time that belongs to an earlier change would make this one look slow.
        None => {
            annotations.remove(TRIGGER_TIME);
        }
    }
    if annotations.is_empty() {
        metadata.annotations = None;
    }
}
