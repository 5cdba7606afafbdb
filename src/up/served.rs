//! Whether the data plane serves what the API has: between a pod's readiness and the first request
//! that it gets there are an EndpointSlice and a snapshot, and "ready" must not be said before.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use sealane_config::compile::ServedClasses;
use sealane_config::model::ServiceKey;
use sealane_config::{Reader, Snapshot};

use super::status::is_ready;

/// Whether the current snapshot has every Service, every ready pod behind the Services that select
/// it, and every host of an Ingress of ours.
///
/// # Errors
/// The API does not answer.
pub(crate) async fn caught_up(
    client: &Client,
    reader: &Reader,
    served: &ServedClasses,
) -> kube::Result<bool> {
    let all = ListParams::default();
    let services: Api<Service> = Api::all(client.clone());
    let pods: Api<Pod> = Api::all(client.clone());
    let ingresses: Api<Ingress> = Api::all(client.clone());
    let classes: Api<IngressClass> = Api::all(client.clone());
    let (services, pods, ingresses, classes) = tokio::try_join!(
        services.list(&all),
        pods.list(&all),
        ingresses.list(&all),
        classes.list(&all)
    )?;
    let snapshot = reader.load();
    let ours: Vec<String> = classes
        .iter()
        .filter(|class| {
            let controller = class
                .spec
                .as_ref()
                .and_then(|spec| spec.controller.as_deref());
            controller.is_some_and(|name| served.has(name))
        })
        .map(|class| class.name_any())
        .collect();
    Ok(snapshot.synced
        && services
            .iter()
            .all(|service| has_service(&snapshot, service, &pods.items))
        && ingresses
            .iter()
            .all(|ingress| has_hosts(&snapshot, ingress, &ours)))
}

fn has_service(snapshot: &Snapshot, service: &Service, pods: &[Pod]) -> bool {
    let namespace = service.namespace().unwrap_or_default();
    let key = ServiceKey {
        namespace: Arc::from(namespace.as_str()),
        name: Arc::from(service.name_any()),
    };
    let Some(compiled) = snapshot.services.get(&key) else {
        return false;
    };
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
        return true;
    };
    let selected = pods.iter().filter(|pod| {
        let labels = pod.labels();
        pod.namespace().as_ref() == Some(&namespace)
            && selector
                .iter()
                .all(|(name, value)| labels.get(name) == Some(value))
    });
    let mut ready =
        selected.filter(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none());
    ready.all(|pod| {
        let address = pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.as_ref());
        let address: Option<IpAddr> = address.and_then(|ip| ip.parse().ok());
        compiled
            .endpoints
            .iter()
            .any(|endpoint| Some(endpoint.addr()) == address && endpoint.ready)
    })
}

fn has_hosts(snapshot: &Snapshot, ingress: &Ingress, ours: &[String]) -> bool {
    let Some(spec) = &ingress.spec else {
        return true;
    };
    let class = spec.ingress_class_name.as_ref();
    if !class.is_some_and(|class| ours.contains(class)) {
        return true;
    }
    let mut hosts = spec
        .rules
        .iter()
        .flatten()
        .filter_map(|rule| rule.host.as_deref());
    hosts.all(|host| match host.strip_prefix("*.") {
        Some(suffix) => snapshot.routes.wildcard.contains_key(suffix),
        None => snapshot.routes.exact.contains_key(host),
    })
}
