//! Slices for Endpoints that someone wrote by hand for a service without a selector, so that readers
//! of slices see them too.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::ObjectMeta;
use kube::{Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::endpoint::Family;
use super::legacy;
use super::plan::{MANAGED_BY, SERVICE_NAME};
use super::spread::{Cover, Group, Groups, TRIGGER_TIME, Write, port_key, spread};
use super::write::{Writer, Written};
use crate::controllers::error::Error;
use crate::controllers::informer::{Change, Key, Store};
use crate::controllers::ownership::controller_reference;
use crate::controllers::queue::{Queue, work};

/// Value of [`MANAGED_BY`] for slices of this controller.
const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label: no slices are wanted.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of objects that only serve to elect a leader.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say nothing about the slice.
const NOT_COPIED: [&str; 2] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    TRIGGER_TIME,
];

/// The controller; [`Controller::run`] it after its stores were filled.
pub(in crate::controllers) struct Controller {
    services: Arc<Store<Service>>,
    endpoints: Arc<Store<Endpoints>>,
    slices: Arc<Store<EndpointSlice>>,
    written: Arc<Written>,
    writer: Writer,
    queue: Arc<Queue<Key>>,
}

impl Controller {
    /// Sets the controller up and listens to the stores.
    pub(in crate::controllers) fn new(
        client: Client,
        services: &Arc<Store<Service>>,
        endpoints: &Arc<Store<Endpoints>>,
        slices: &Arc<Store<EndpointSlice>>,
    ) -> Self {
        let queue: Arc<Queue<Key>> = Queue::new();
        let written = Arc::new(Written::default());
        let to = queue.clone();
        services.on_change(move |change| {
            if let Some(service) = change.latest() {
                to.add(Key::of(service.as_ref()));
            }
        });
        let to = queue.clone();
        endpoints.on_change(move |change| {
            if let Some(endpoints) = change.latest() {
                to.add(Key::of(endpoints.as_ref()));
            }
        });
        let (to, shown) = (queue.clone(), written.clone());
        slices.on_change(move |change: Change<'_, EndpointSlice>| {
            for slice in change.states().filter(|slice| is_ours(slice)) {
                if let Some(name) = slice.labels().get(SERVICE_NAME) {
                    let key = Key::new(slice.namespace().unwrap_or_default(), name.clone());
                    shown.show(&key, slice.as_ref(), change.new.is_none());
                    to.add(key);
                }
            }
        });
        Self {
            services: services.clone(),
            endpoints: endpoints.clone(),
            slices: slices.clone(),
            writer: Writer::new(client, slices, &written),
            written,
            queue,
        }
    }

    /// Reconciles until shut down.
    pub(in crate::controllers) async fn run(self, shutdown: CancellationToken) {
        work("endpointslicemirroring", &self.queue, &shutdown, |key| {
            self.reconcile(key)
        })
        .await;
    }

    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        if let Some(wait) = self.written.wait(&key) {
            // The watch event of the own write makes the key due; this is only the safety net.
            return Ok(Some(wait));
        }
        let mut slices = self.slices.in_namespace(&key.namespace);
        slices.retain(|slice| {
            is_ours(slice)
                && slice.labels().get(SERVICE_NAME) == Some(&key.name)
                && slice.metadata.deletion_timestamp.is_none()
        });
        let service = self.services.get(&key);
        let endpoints = self
            .endpoints
            .get(&key)
            .filter(|endpoints| service.is_some_and(|service| is_wanted(&service, endpoints)));
        let writes = match endpoints {
            Some(endpoints) => plan(&endpoints, &slices),
            None => slices.iter().cloned().map(Write::Delete).collect(),
        };
        self.writer.execute(&key, &slices, writes).await?;
        Ok(None)
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice
        .labels()
        .get(MANAGED_BY)
        .is_some_and(|manager| manager == CONTROLLER)
}

/// Whether the Endpoints were written by hand for a service that selects nothing.
pub(super) fn is_wanted(service: &Service, endpoints: &Endpoints) -> bool {
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    let labels = endpoints.labels();
    selector.is_none_or(BTreeMap::is_empty)
        && endpoints.metadata.deletion_timestamp.is_none()
        && labels.get(SKIP).is_none_or(|skip| skip != "true")
        && !labels.contains_key(legacy::MANAGED_BY)
        && !endpoints.annotations().contains_key(LEADER)
}

/// The writes for one Endpoints object.
pub(super) fn plan(endpoints: &Endpoints, slices: &[Arc<EndpointSlice>]) -> Vec<Write> {
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name_any());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    let mut annotations = endpoints.annotations().clone();
    annotations.retain(|name, _| !NOT_COPIED.contains(&name.as_str()));
    let cover = Cover {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", endpoints.name_any())),
            namespace: endpoints.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        keep_one: false,
        trigger: &|_, _| None,
    };
    let subsets = endpoints.subsets.as_deref().unwrap_or_default();
    let wanted = [Family::V4, Family::V6].map(|family| (family, groups(subsets, family)));
    spread(&cover, wanted.into(), slices)
}

fn groups(subsets: &[EndpointSubset], family: Family) -> Groups {
    let mut groups = Groups::new();
    for subset in subsets {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        let ready = subset
            .addresses
            .iter()
            .flatten()
            .map(|address| (address, true));
        let waiting = subset
            .not_ready_addresses
            .iter()
            .flatten()
            .map(|address| (address, false));
        let endpoints = ready
            .chain(waiting)
            .filter(|(address, _)| {
                address
                    .ip
                    .parse::<IpAddr>()
                    .is_ok_and(|ip| Family::of(ip) == family)
            })
            .map(|(address, ready)| endpoint(address, ready));
        let mut endpoints = endpoints.peekable();
        if endpoints.peek().is_some() {
            let group = groups.entry(port_key(&ports)).or_insert_with(|| Group {
                ports: (!ports.is_empty()).then_some(ports),
                endpoints: Vec::new(),
            });
            group.endpoints.extend(endpoints);
        }
    }
    groups
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
