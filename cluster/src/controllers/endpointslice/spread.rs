//! From wanted endpoints and known slices to the writes that bring the slices up to date.
//!
//! Rules:
//! - One group of slices for each address family and each set of resolved ports, at most 100
//!   endpoints in a slice.
//! - An endpoint stays in its slice. New ones go into slices that are written anyway, then into the
//!   fullest other slice with room for all of them, then into a new one. Half-empty slices are not
//!   merged; empty ones are used again or deleted.
//! - Make before break: readers join all slices, so an endpoint that moves to another slice is
//!   written there before it leaves the old one. Therefore the writes come in this order: new
//!   slices, slices that lose nothing to others, slices that do (in two steps if they also gain),
//!   deletions. Whoever executes them stops at the first failure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use kube::api::ObjectMeta;

use super::endpoint::Family;

/// The most endpoints in one slice.
const MOST_ENDPOINTS: usize = 100;
/// Annotation: when the change that caused this write happened.
pub(super) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

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

/// One set of ports and the endpoints that serve it.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// The ports; none if there are none.
    pub(super) ports: Option<Vec<EndpointPort>>,
    /// The endpoints.
    pub(super) endpoints: Vec<Endpoint>,
}

/// The wanted endpoints of one family, by [`port_key`].
pub(super) type Groups = BTreeMap<String, Group>;

/// Tells when the change from the first to the second list of endpoints happened.
pub(super) type Trigger<'a> = dyn Fn(&[Endpoint], &[Endpoint]) -> Option<Timestamp> + 'a;

/// What slices have in common besides endpoints.
pub(super) struct Cover<'a> {
    /// Metadata of a new slice; its labels and annotations are kept on all slices.
    pub(super) metadata: ObjectMeta,
    /// Whether one empty slice for each family stays when there are no endpoints.
    pub(super) keep_one: bool,
    /// For the annotation with the trigger time.
    pub(super) trigger: &'a Trigger<'a>,
}

/// A slice while it is worked on.
struct Draft {
    before: Arc<EndpointSlice>,
    ports: Option<Vec<EndpointPort>>,
    endpoints: Vec<Endpoint>,
}

#[derive(Default)]
struct Writes {
    create: Vec<EndpointSlice>,
    /// Before and after.
    update: Vec<(Arc<EndpointSlice>, EndpointSlice)>,
    delete: Vec<Arc<EndpointSlice>>,
}

/// Works out the writes, in the order in which they have to be made. Slices of families that are not
/// wanted are deleted.
pub(super) fn spread(
    cover: &Cover<'_>,
    wanted: Vec<(Family, Groups)>,
    slices: &[Arc<EndpointSlice>],
) -> Vec<Write> {
    let mut writes = Writes::default();
    let mut rest = slices.to_vec();
    for (family, groups) in wanted {
        let (own, others) = rest
            .into_iter()
            .partition(|slice| slice.address_type == family.as_str());
        rest = others;
        spread_family(cover, family, groups, own, &mut writes);
    }
    writes.delete.append(&mut rest);
    writes.ordered()
}

fn spread_family(
    cover: &Cover<'_>,
    family: Family,
    groups: Groups,
    slices: Vec<Arc<EndpointSlice>>,
    writes: &mut Writes,
) {
    let mut drafts: Vec<Draft> = Vec::new();
    let mut spare: Vec<Arc<EndpointSlice>> = Vec::new();
    let mut by_ports: HashMap<String, Vec<Arc<EndpointSlice>>> = HashMap::new();
    for slice in slices {
        let key = port_key(slice.ports.as_deref().unwrap_or_default());
        if groups.contains_key(&key) {
            by_ports.entry(key).or_default().push(slice);
        } else {
            spare.push(slice);
        }
    }
    let mut fresh: Vec<Group> = Vec::new();
    for (key, group) in groups {
        let existing = by_ports.remove(&key).unwrap_or_default();
        fill(group, existing, &mut drafts, &mut fresh);
    }
    // An empty slice may take any content: nobody reads an address from it.
    let (mut empty, mut gone): (Vec<_>, Vec<_>) = spare
        .into_iter()
        .partition(|slice| slice.endpoints.is_empty());
    let (kept, emptied): (Vec<Draft>, Vec<Draft>) = drafts
        .into_iter()
        .partition(|draft| !draft.endpoints.is_empty());
    for draft in emptied {
        if draft.before.endpoints.is_empty() {
            &mut empty
        } else {
            &mut gone
        }
        .push(draft.before);
    }
    let nothing = kept.is_empty() && fresh.is_empty();
    if nothing && cover.keep_one {
        keep_one(cover, family, empty, gone, writes);
        return;
    }
    for draft in kept {
        let Draft {
            before,
            ports,
            endpoints,
        } = draft;
        writes.update(cover, before, ports, endpoints);
    }
    for group in fresh {
        match empty.pop() {
            Some(before) => writes.update(cover, before, group.ports, group.endpoints),
            None => writes.create.push(slice(cover, family, group)),
        }
    }
    writes.delete.extend(empty);
    writes.delete.extend(gone);
}

/// No endpoints at all: one slice stays, empty and without ports.
fn keep_one(
    cover: &Cover<'_>,
    family: Family,
    empty: Vec<Arc<EndpointSlice>>,
    gone: Vec<Arc<EndpointSlice>>,
    writes: &mut Writes,
) {
    let mut slices = empty.into_iter().chain(gone);
    match slices.next() {
        Some(before) => writes.update(cover, before, None, Vec::new()),
        None => writes.create.push(slice(cover, family, Group::default())),
    }
    writes.delete.extend(slices);
}

/// Equal for equal sets of ports, in whatever order they stand.
pub(super) fn port_key(ports: &[EndpointPort]) -> String {
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

/// Identity of an endpoint: its pod, or its address if it has none.
pub(super) fn identity(endpoint: &Endpoint) -> String {
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
    // In the given order, so that equal input gives equal slices.
    let mut new: Vec<Endpoint> = group
        .endpoints
        .into_iter()
        .filter(|endpoint| wanted.remove(&identity(endpoint)).is_some())
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
        let endpoints = std::mem::replace(&mut new, rest);
        fresh.push(Group {
            ports: group.ports.clone(),
            endpoints,
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
        cover: &Cover<'_>,
        before: Arc<EndpointSlice>,
        ports: Option<Vec<EndpointPort>>,
        endpoints: Vec<Endpoint>,
    ) {
        let mut after = before.as_ref().clone();
        let trigger = before
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(TRIGGER_TIME));
        let mut trigger = trigger.cloned();
        if after.endpoints != endpoints || !same_ports(&after, ports.as_deref()) {
            trigger = (cover.trigger)(&before.endpoints, &endpoints).map(|time| time.to_string());
            after.ports = ports;
            after.endpoints = endpoints;
        }
        cover.put_on(&mut after.metadata, trigger);
        if after != *before {
            self.update.push((before, after));
        }
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

impl Cover<'_> {
    /// A trigger time that belongs to an earlier change would make this one look slow, so it is
    /// removed when none is known.
    fn put_on(&self, metadata: &mut ObjectMeta, trigger: Option<String>) {
        metadata.labels.clone_from(&self.metadata.labels);
        let mut annotations = self.metadata.annotations.clone().unwrap_or_default();
        annotations.extend(trigger.map(|time| (TRIGGER_TIME.to_owned(), time)));
        metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    }
}

fn same_ports(slice: &EndpointSlice, ports: Option<&[EndpointPort]>) -> bool {
    port_key(slice.ports.as_deref().unwrap_or_default()) == port_key(ports.unwrap_or_default())
}

fn slice(cover: &Cover<'_>, family: Family, group: Group) -> EndpointSlice {
    let mut metadata = cover.metadata.clone();
    let trigger = (cover.trigger)(&[], &group.endpoints).map(|time| time.to_string());
    cover.put_on(&mut metadata, trigger);
    EndpointSlice {
        metadata,
        address_type: family.as_str().to_owned(),
        endpoints: group.endpoints,
        ports: group.ports,
    }
}
