//! The EndpointSlice controller: where the traffic of a service with a selector may go.

mod endpoint;
mod legacy;
pub(super) mod mirror;
mod plan;
mod spread;
mod withdraw;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::informer::{Change, Key, Store};
use super::ownership;
use super::queue::{Queue, work};

pub use withdraw::withdraw_endpoints;

use plan::{CONTROLLER, MANAGED_BY, SERVICE_NAME, View};
use write::{Writer, Written};

/// The slices that a Service would have if these were its pods: one for each pod and family, for dry
/// runs without a cluster.
pub fn preview_slices(service: &Service, pods: &[Pod], node: &Node) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    for family in endpoint::families(service) {
        for pod in pods.iter().filter(|pod| endpoint::is_candidate(pod)) {
            let name = format!("{}-preview-{}", service.name_any(), slices.len());
            slices.extend(endpoint::endpoint(service, pod, node, family).map(|it| {
                let labels = [(SERVICE_NAME.to_owned(), service.name_any())];
                EndpointSlice {
                    metadata: ObjectMeta {
                        name: Some(name),
                        namespace: service.namespace(),
                        labels: Some(BTreeMap::from(labels)),
                        ..ObjectMeta::default()
                    },
                    address_type: family.as_str().to_owned(),
                    endpoints: vec![it],
                    ports: Some(endpoint::ports(service, pod)),
                }
            }));
        }
    }
    slices
}

/// The controller; [`Controller::run`] it after its stores were filled.
pub(super) struct Controller {
    services: Arc<Store<Service>>,
    pods: Arc<Store<Pod>>,
    nodes: Arc<Store<Node>>,
    slices: Arc<Store<EndpointSlice>>,
    legacy: legacy::Keeper,
    written: Arc<Written>,
    writer: Writer,
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
        endpoints: &Arc<Store<Endpoints>>,
    ) -> Self {
        let queue = Queue::new();
        let written = Arc::new(Written::default());
        listen(&queue, &written, services, pods, nodes, slices);
        Self {
            writer: Writer::new(client.clone(), slices, &written),
            legacy: legacy::Keeper::new(client, endpoints, services, &queue),
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
            self.legacy.delete(&key).await?;
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
        self.writer
            .execute(&key, &slices, plan::plan(&view))
            .await?;
        match legacy::endpoints(&view) {
            Some(endpoints) => self.legacy.write(&key, &endpoints).await?,
            None => self.legacy.delete(&key).await?,
        }
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
                written.show(&service, slice.as_ref(), change.new.is_none());
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
