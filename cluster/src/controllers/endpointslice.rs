//! The EndpointSlice controller: where the traffic of a service with a selector may go.

mod endpoint;
mod plan;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{Error, during};
use super::informer::{Change, Key, Store};
use super::ownership;
use super::patch::merge_diff;
use super::queue::{Queue, work};

use plan::{CONTROLLER, MANAGED_BY, SERVICE_NAME, View, Write};

/// How long own writes may stay unseen before the cache is believed again.
const UNSEEN_TIMEOUT: Duration = Duration::from_secs(60);

/// The controller; [`Controller::run`] it after its stores were filled.
pub(super) struct Controller {
    client: Client,
    services: Arc<Store<Service>>,
    pods: Arc<Store<Pod>>,
    nodes: Arc<Store<Node>>,
    slices: Arc<Store<EndpointSlice>>,
    written: Arc<Written>,
    queue: Arc<Queue<Key>>,
}

impl Controller {
    /// Sets the controller up and listens to the stores.
    pub(super) fn new(
        client: Client,
        services: &Arc<Store<Service>>,
        pods: &Arc<Store<Pod>>,
        nodes: &Arc<Store<Node>>,
        slices: &Arc<Store<EndpointSlice>>,
    ) -> Self {
        let queue = Queue::new();
        let written = Arc::new(Written::default());
        listen(&queue, &written, services, pods, nodes, slices);
        Self {
            client,
            services: services.clone(),
            pods: pods.clone(),
            nodes: nodes.clone(),
            slices: slices.clone(),
            written,
            queue,
        }
    }

    /// Reconciles until shut down.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        work("endpointslice", &self.queue, &shutdown, |key| {
            self.reconcile(key)
        })
        .await;
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(service) = self.services.get(&key) else {
            // The garbage collector deletes the slices through their owner.
            self.written.forget(&key);
            return Ok(None);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        if let Some(wait) = self.written.wait(&key) {
            // The watch event of the own write makes the key due; this is only the safety net.
            return Ok(Some(wait));
        }
        let spec = service.spec.clone().unwrap_or_default();
        let selector = spec.selector.unwrap_or_default();
        if selector.is_empty() && spec.type_.as_deref() != Some("ExternalName") {
            return Ok(None);
        }
        let slices = self.slices_of(&key);
        let mut pods = self.pods.in_namespace(&key.namespace);
        pods.retain(|pod| selects(&selector, pod));
        let nodes: HashMap<String, Arc<Node>> = self
            .nodes
            .all()
            .into_iter()
            .map(|node| (node.name_any(), node))
            .collect();
        let view = View {
            service: &service,
            pods: &pods,
            nodes: &nodes,
            slices: &slices,
        };
        self.execute(&key, &slices, plan::plan(&view)).await?;
        Ok(None)
    }

    fn slices_of(&self, service: &Key) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.slices.in_namespace(&service.namespace);
        slices.retain(|slice| {
            is_ours(slice)
                && slice.labels().get(SERVICE_NAME) == Some(&service.name)
                && slice.metadata.deletion_timestamp.is_none()
        });
        slices
    }

    async fn execute(
        &self,
        key: &Key,
        slices: &[Arc<EndpointSlice>],
        writes: Vec<Write>,
    ) -> Result<(), Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        // The version that the previous step of the same slice left behind.
        let mut versions: HashMap<String, (Value, Option<String>)> = HashMap::new();
        for write in writes {
            match write {
                Write::Create(slice) => {
                    let created = api
                        .create(&PostParams::default(), &slice)
                        .await
                        .map_err(during("create an EndpointSlice of", key));
                    match created {
                        Ok(created) => self.written.note(key, &created, || self.seen(&created)),
                        Err(error) if error.is_namespace_terminating() => return Ok(()),
                        Err(error) => return Err(error),
                    }
                }
                Write::Update(slice) => {
                    let name = slice.name_any();
                    let before = slices.iter().find(|before| before.name_any() == name);
                    let (old, version) = versions.remove(&name).unwrap_or_else(|| {
                        let old = before.map_or(Value::Null, |before| content(before));
                        (old, slice.resource_version())
                    });
                    let updated = update(&api, &slice, &old, version).await?;
                    self.written.note(key, &updated, || self.seen(&updated));
                    versions.insert(name, (content(&slice), updated.resource_version()));
                }
                Write::Delete(slice) => delete(&api, &slice).await?,
            }
        }
        Ok(())
    }

    /// Whether the cache shows this version of the slice or a newer one.
    fn seen(&self, slice: &EndpointSlice) -> bool {
        let Some(known) = self.slices.get(&Key::of(slice)) else {
            return false;
        };
        let (known_version, version) = (known.resource_version(), slice.resource_version());
        known.uid() == slice.uid()
            && known_version
                .zip(version)
                .is_some_and(|(known, version)| !is_older(&known, &version))
    }
}

/// The fields of a slice that this controller owns.
fn content(slice: &EndpointSlice) -> Value {
    json!({
        "metadata": { "labels": slice.labels(), "annotations": slice.annotations() },
        "endpoints": slice.endpoints,
        "ports": slice.ports,
    })
}

async fn update(
    api: &Api<EndpointSlice>,
    slice: &EndpointSlice,
    old: &Value,
    version: Option<String>,
) -> Result<EndpointSlice, Error> {
    let mut patch = merge_diff(old, &content(slice)).unwrap_or_else(|| json!({}));
    patch["metadata"]["uid"] = json!(slice.uid());
    patch["metadata"]["resourceVersion"] = json!(version);
    api.patch(
        &slice.name_any(),
        &PatchParams::default(),
        &Patch::Merge(patch),
    )
    .await
    .map_err(during(
        "update",
        format!("EndpointSlice {}", Key::of(slice)),
    ))
}

async fn delete(api: &Api<EndpointSlice>, slice: &EndpointSlice) -> Result<(), Error> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: slice.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let deleted = api.delete(&slice.name_any(), &params).await;
    match deleted.map_err(during(
        "delete",
        format!("EndpointSlice {}", Key::of(slice)),
    )) {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice
        .labels()
        .get(MANAGED_BY)
        .is_some_and(|manager| manager == CONTROLLER)
}

/// Whether a service's selector matches; an empty one matches nothing.
fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = ownership::labels(&pod.metadata);
    !selector.is_empty()
        && selector
            .iter()
            .all(|(name, value)| labels.get(name) == Some(value))
}

/// Own writes that the watch has not shown: without them a stale cache would lead to a second slice
/// with the same endpoints.
#[derive(Default)]
struct Written {
    unseen: Mutex<HashMap<Key, Unseen>>,
}

/// Unseen writes of one service.
struct Unseen {
    /// Slice uid → the version written.
    versions: HashMap<String, String>,
    /// The last write.
    since: Instant,
}

impl Written {
    /// Notes a write. `seen` is asked under the lock: an event that comes later finds the note.
    fn note(&self, service: &Key, slice: &EndpointSlice, seen: impl FnOnce() -> bool) {
        let (Some(uid), Some(version)) = (slice.uid(), slice.resource_version()) else {
            return;
        };
        let mut unseen = self.lock();
        let unseen = unseen.entry(service.clone()).or_insert_with(|| Unseen {
            versions: HashMap::new(),
            since: Instant::now(),
        });
        unseen.since = Instant::now();
        if seen() {
            unseen.versions.remove(&uid);
        } else {
            unseen.versions.insert(uid, version);
        }
    }

    /// The watch shows this version, or that the slice is gone.
    fn show(&self, service: &Key, slice: &EndpointSlice, gone: bool) {
        let (Some(uid), Some(version)) = (slice.uid(), slice.resource_version()) else {
            return;
        };
        let mut unseen = self.lock();
        let Some(unseen) = unseen.get_mut(service) else {
            return;
        };
        let written = unseen.versions.get(&uid);
        if written.is_some_and(|written| gone || !is_older(&version, written)) {
            unseen.versions.remove(&uid);
        }
    }

    /// How long to wait for own writes; none if all were seen.
    fn wait(&self, service: &Key) -> Option<Duration> {
        let mut all = self.lock();
        let unseen = all.get(service)?;
        let left = UNSEEN_TIMEOUT.saturating_sub(unseen.since.elapsed());
        if unseen.versions.is_empty() || left.is_zero() {
            all.remove(service);
            return None;
        }
        Some(left)
    }

    fn forget(&self, service: &Key) {
        self.lock().remove(service);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Unseen>> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one resource version is older than another (KEP-5504: they are comparable numbers).
fn is_older(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version < than,
        _ => version != than,
    }
}

fn listen(
    queue: &Arc<Queue<Key>>,
    written: &Arc<Written>,
    services: &Arc<Store<Service>>,
    pods: &Arc<Store<Pod>>,
    nodes: &Arc<Store<Node>>,
    slices: &Arc<Store<EndpointSlice>>,
) {
    let to = queue.clone();
    services.on_change(move |change| {
        if let Some(service) = change.latest() {
            to.add(Key::of(service.as_ref()));
        }
    });
    let (to, known) = (queue.clone(), Arc::downgrade(services));
    pods.on_change(move |change| {
        if let (Some(known), true) = (known.upgrade(), matters(&change)) {
            add_selecting(&to, &known, &change);
        }
    });
    let (to, known) = (queue.clone(), Arc::downgrade(services));
    nodes.on_change(move |change| {
        // Heartbeats change nodes all the time; only existence and zone count here.
        let zone = |node: &Arc<Node>| node.labels().get(endpoint::ZONE_LABEL).cloned();
        let same = change.old.is_some()
            && change.new.is_some()
            && change.old.map(zone) == change.new.map(zone);
        if let (Some(known), false) = (known.upgrade(), same) {
            known
                .all()
                .iter()
                .for_each(|service| to.add(Key::of(service.as_ref())));
        }
    });
    let (to, written) = (queue.clone(), written.clone());
    slices.on_change(move |change: Change<'_, EndpointSlice>| {
        for slice in change.states().filter(|slice| is_ours(slice)) {
            if let Some(name) = slice.labels().get(SERVICE_NAME) {
                let service = Key::new(slice.namespace().unwrap_or_default(), name.clone());
                written.show(&service, slice, change.new.is_none());
                to.add(service);
            }
        }
    });
}

/// Whether a change of a pod can change an endpoint.
fn matters(change: &Change<'_, Pod>) -> bool {
    let facts = |pod: &Arc<Pod>| {
        let status = pod.status.as_ref();
        (
            pod.metadata.labels.clone(),
            pod.metadata.uid.clone(),
            pod.metadata.deletion_timestamp.is_some(),
            super::pods::is_ready(pod),
            super::pods::is_finished(pod),
            status.and_then(|status| status.pod_ip.clone()),
            status.and_then(|status| status.pod_ips.clone()),
            pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        )
    };
    change.old.map(facts) != change.new.map(facts)
}

fn add_selecting(queue: &Queue<Key>, services: &Store<Service>, change: &Change<'_, Pod>) {
    let Some(pod) = change.latest() else { return };
    for service in services.in_namespace(&pod.namespace().unwrap_or_default()) {
        let selector = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref());
        let selects = |pod: &Arc<Pod>| selector.is_some_and(|selector| selects(selector, pod));
        if change.states().any(selects) {
            queue.add(Key::of(service.as_ref()));
        }
    }
}

#[cfg(test)]
mod tests;
