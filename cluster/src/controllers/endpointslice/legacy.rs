//! Endpoints objects (`core/v1`, deprecated in favour of slices) with the same content, for old
//! clients and for people who ask for them.
//!
//! Rules: a subset is a set of ports with the addresses that serve all of them; pods that are not
//! ready stand apart; terminating pods are left out, unless `publishNotReadyAddresses` is set; at most
//! 1,000 addresses, then the annotation `over-capacity` says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};
use k8s_openapi::api::discovery::v1::Endpoint;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::endpoint;
use super::plan::{HEADLESS, View, is_headless};
use super::write::{Written, has_seen};
use crate::controllers::error::{Error, during};
use crate::controllers::informer::{Key, Store};
use crate::controllers::patch::merge_diff;
use crate::controllers::queue::Queue;

/// Label: who keeps the object.
pub(super) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
const CONTROLLER: &str = "endpoint-controller";
/// Annotation of an object that does not hold all addresses.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The most addresses in one object.
const MOST_ADDRESSES: usize = 1000;

/// Address → whether it is ready, in the order of the addresses.
type Addresses = BTreeMap<String, (EndpointAddress, bool)>;

/// The object for a service; none if it gets none.
pub(super) fn endpoints(view: &View<'_>) -> Option<Endpoints> {
    let service = view.service;
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let mut labels = service.labels().clone();
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    let (subsets, complete) = subsets(view);
    let annotations =
        (!complete).then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into());
    Some(Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.namespace(),
            labels: Some(labels),
            annotations,
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    })
}

/// The subsets, and whether they hold all addresses.
fn subsets(view: &View<'_>) -> (Vec<EndpointSubset>, bool) {
    let members: Vec<(Endpoint, Vec<EndpointPort>)> = view
        .pods
        .iter()
        .filter_map(|pod| member(view, pod))
        .collect();
    let complete = members.len() <= MOST_ADDRESSES;
    let portless = view
        .service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.ports.as_ref().is_none_or(Vec::is_empty));
    let mut by_port: BTreeMap<String, (Option<EndpointPort>, Addresses)> = BTreeMap::new();
    for (endpoint, ports) in members.into_iter().take(MOST_ADDRESSES) {
        let ports: Vec<Option<EndpointPort>> = if portless {
            vec![None]
        } else {
            ports.into_iter().map(Some).collect()
        };
        for port in ports {
            let (_, addresses) = by_port
                .entry(format!("{port:?}"))
                .or_insert_with(|| (port, Addresses::new()));
            insert(addresses, &endpoint);
        }
    }
    (regroup(by_port), complete)
}

fn member(view: &View<'_>, pod: &Arc<Pod>) -> Option<(Endpoint, Vec<EndpointPort>)> {
    let service: &Service = view.service;
    let publish = service
        .spec
        .as_ref()?
        .publish_not_ready_addresses
        .unwrap_or(false);
    if !endpoint::is_candidate(pod) || (pod.metadata.deletion_timestamp.is_some() && !publish) {
        return None;
    }
    let node = view.nodes.get(pod.spec.as_ref()?.node_name.as_deref()?)?;
    let family = *endpoint::families(service).first()?;
    let endpoint = endpoint::endpoint(service, pod, node, family)?;
    let ports = endpoint::ports(service, pod)
        .into_iter()
        .map(|port| EndpointPort {
            name: port.name.filter(|name| !name.is_empty()),
            port: port.port.unwrap_or_default(),
            protocol: port.protocol,
            app_protocol: port.app_protocol,
        })
        .collect();
    Some((endpoint, ports))
}

fn insert(addresses: &mut Addresses, endpoint: &Endpoint) {
    let Some(ip) = endpoint.addresses.first() else {
        return;
    };
    let ready = endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready);
    let address = EndpointAddress {
        ip: ip.clone(),
        hostname: endpoint.hostname.clone(),
        node_name: endpoint.node_name.clone(),
        target_ref: endpoint.target_ref.clone(),
    };
    addresses.insert(ip.clone(), (address, ready.unwrap_or(false)));
}

/// Joins ports that are served by the same addresses.
fn regroup(by_port: BTreeMap<String, (Option<EndpointPort>, Addresses)>) -> Vec<EndpointSubset> {
    let mut groups: Vec<(Addresses, Vec<EndpointPort>)> = Vec::new();
    for (port, addresses) in by_port.into_values() {
        match groups.iter_mut().find(|(known, _)| *known == addresses) {
            Some((_, ports)) => ports.extend(port),
            None => groups.push((addresses, port.into_iter().collect())),
        }
    }
    groups
        .into_iter()
        .map(|(addresses, ports)| {
            let (ready, waiting): (Vec<_>, Vec<_>) =
                addresses.into_values().partition(|(_, ready)| *ready);
            let list = |some: Vec<(EndpointAddress, bool)>| {
                let list: Vec<EndpointAddress> = some.into_iter().map(|(one, _)| one).collect();
                (!list.is_empty()).then_some(list)
            };
            EndpointSubset {
                addresses: list(ready),
                not_ready_addresses: list(waiting),
                ports: (!ports.is_empty()).then_some(ports),
            }
        })
        .collect()
}

/// Writes the objects.
pub(super) struct Keeper {
    client: Client,
    endpoints: Arc<Store<Endpoints>>,
    written: Arc<Written>,
}

impl Keeper {
    /// A keeper that makes the service due whenever its Endpoints change.
    pub(super) fn new(
        client: Client,
        endpoints: &Arc<Store<Endpoints>>,
        services: &Arc<Store<Service>>,
        queue: &Arc<Queue<Key>>,
    ) -> Self {
        let written = Arc::new(Written::default());
        let (to, shown, known) = (queue.clone(), written.clone(), Arc::downgrade(services));
        endpoints.on_change(move |change| {
            let (Some(known), Some(changed)) = (known.upgrade(), change.latest()) else {
                return;
            };
            let key = Key::of(changed.as_ref());
            for endpoints in change.states() {
                shown.show(&key, endpoints.as_ref(), change.new.is_none());
            }
            // Without a service the object is none of this controller's business.
            if known.get(&key).is_some() {
                to.add(key);
            }
        });
        Self {
            client,
            endpoints: endpoints.clone(),
            written,
        }
    }

    /// Brings the object up to date, unless an own write is still unseen: its event makes the
    /// service due again.
    pub(super) async fn write(&self, key: &Key, wanted: &Endpoints) -> Result<(), Error> {
        if self.written.wait(key).is_some() {
            return Ok(());
        }
        let api = self.api(key);
        let what = format!("Endpoints {key}");
        let result = match self.endpoints.get(key) {
            None => api
                .create(&PostParams::default(), wanted)
                .await
                .map_err(during("create", what)),
            Some(known) => {
                let Some(mut patch) = merge_diff(&content(&known), &content(wanted)) else {
                    return Ok(());
                };
                patch["metadata"]["uid"] = json!(known.uid());
                patch["metadata"]["resourceVersion"] = json!(known.resource_version());
                api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
                    .await
                    .map_err(during("update", what))
            }
        };
        match result {
            Ok(written) => {
                self.written
                    .note(key, &written, || has_seen(&self.endpoints, &written));
                Ok(())
            }
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A service takes its Endpoints along, even those that someone wrote by hand.
    pub(super) async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.written.forget(key);
        if self.endpoints.get(key).is_none() {
            return Ok(());
        }
        let deleted = self
            .api(key)
            .delete(&key.name, &DeleteParams::default())
            .await;
        match deleted.map_err(during("delete", format!("Endpoints {key}"))) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn api(&self, key: &Key) -> Api<Endpoints> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}

/// The fields of the object that this controller owns.
fn content(endpoints: &Endpoints) -> Value {
    let mut annotations = endpoints.annotations().clone();
    annotations.retain(|name, _| name == OVER_CAPACITY);
    json!({
        "metadata": { "labels": endpoints.labels(), "annotations": annotations },
        "subsets": endpoints.subsets,
    })
}
