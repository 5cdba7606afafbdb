//! Where the gateway is reached: fixed, those of a Service, or those of the nodes that it runs on.
//!
//! What has to be asked for is asked for every [`LOOK`] by the leader only: one small request, where a
//! watch would need a privilege more and hardly ever has anything to say.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Client;
use kube::api::{Api, GetParams, ListParams};
use tokio::sync::watch;
use tokio::time::timeout;

use super::lease::Leadership;
use super::{Publish, refusal};
use crate::compile::ObjectKey;
use crate::model::PublishedAddress;

/// How often is looked.
const LOOK: Duration = Duration::from_secs(5);

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses, sorted; `None` while they are not known, and then status is left as it is.
pub(super) type Found = Option<Arc<[PublishedAddress]>>;

/// Keeps `found` up to date.
pub(super) async fn follow(
    client: Client,
    publish: Publish,
    mut leadership: Leadership,
    found: watch::Sender<Found>,
) {
    match publish {
        Publish::Nothing => return,
        Publish::Addresses(addresses) => {
            let sorted: BTreeSet<PublishedAddress> = addresses.into_iter().collect();
            found.send_replace(Some(sorted.into_iter().collect()));
            return;
        }
        Publish::Service(_) | Publish::Nodes { .. } => {}
    }
    let mut has_failed = false;
    loop {
        if leadership.holds() {
            match timeout(PATIENCE, look(&client, &publish)).await {
                Ok(Ok(addresses)) => {
                    has_failed = false;
                    let addresses = addresses.map(|set| set.into_iter().collect());
                    found.send_if_modified(|known| {
                        let is_new = *known != addresses;
                        *known = addresses;
                        is_new
                    });
                }
                Ok(Err(why)) if !std::mem::replace(&mut has_failed, true) => {
                    tracing::warn!("the gateway's addresses cannot be found, trying again: {why}");
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        let pause = timeout(LOOK, leadership.changed());
        if pause.await == Ok(false) {
            return;
        }
    }
}

type Addresses = Option<BTreeSet<PublishedAddress>>;

async fn look(client: &Client, publish: &Publish) -> Result<Addresses, String> {
    match publish {
        Publish::Nothing | Publish::Addresses(_) => Ok(None),
        Publish::Service(key) => {
            let services: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
            let service = services.get_opt(&key.name).await;
            let service = service.map_err(|error| refusal(&error, "get", "services"))?;
            let service = service.ok_or_else(|| missing(key))?;
            Ok(Some(of_service(&service)))
        }
        Publish::Nodes {
            namespace,
            selector,
        } => of_nodes(client, namespace, selector).await.map(Some),
    }
}

fn missing(key: &ObjectKey) -> String {
    format!("Service {key}, whose addresses are to be published, does not exist")
}

/// The addresses under which clients reach a Service, by its type.
fn of_service(service: &Service) -> BTreeSet<PublishedAddress> {
    let mut addresses = BTreeSet::new();
    let Some(spec) = &service.spec else {
        return addresses;
    };
    let ip = |text: &String| Some(PublishedAddress::Ip(text.parse().ok()?));
    let name = |text: &String| PublishedAddress::Hostname(text.as_str().into());
    let external = spec.external_ips.as_deref().unwrap_or_default();
    addresses.extend(external.iter().filter_map(ip));
    match spec.type_.as_deref() {
        Some("ExternalName") => return spec.external_name.iter().map(name).collect(),
        Some("LoadBalancer") => {
            let status = service.status.as_ref();
            let balancer = status.and_then(|status| status.load_balancer.as_ref());
            let entries = balancer.and_then(|balancer| balancer.ingress.as_deref());
            for entry in entries.unwrap_or_default() {
                let by_ip = entry.ip.as_ref().and_then(ip);
                addresses.extend(by_ip.or_else(|| entry.hostname.as_ref().map(name)));
            }
        }
        // Reached from within the cluster only, unless it has other addresses.
        _ if addresses.is_empty() => {
            let cluster = spec.cluster_ips.as_deref().unwrap_or_default();
            addresses.extend(cluster.iter().filter_map(ip));
        }
        _ => {}
    }
    addresses
}

/// The nodes' external addresses, or the internal ones of nodes that have none.
async fn of_nodes(
    client: &Client,
    namespace: &str,
    selector: &str,
) -> Result<BTreeSet<PublishedAddress>, String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(selector).match_any();
    let pods = pods.list(&params).await;
    let pods = pods.map_err(|error| refusal(&error, "list", "pods"))?;
    let serving = pods.items.iter().filter(|pod| is_ready(pod));
    let names: BTreeSet<&String> = serving
        .filter_map(|pod| pod.spec.as_ref()?.node_name.as_ref())
        .collect();
    let nodes: Api<Node> = Api::all(client.clone());
    let mut addresses = BTreeSet::new();
    for name in names {
        let node = nodes.get_with(name, &GetParams::any()).await;
        let node = node.map_err(|error| refusal(&error, "get", "nodes"))?;
        addresses.extend(of_node(&node));
    }
    Ok(addresses)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref());
    let ready =
        |c: &k8s_openapi::api::core::v1::PodCondition| c.type_ == "Ready" && c.status == "True";
    pod.metadata.deletion_timestamp.is_none() && conditions.unwrap_or_default().iter().any(ready)
}

fn of_node(node: &Node) -> Vec<PublishedAddress> {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref());
    let of_type = |kind: &str| -> Vec<PublishedAddress> {
        let wanted = addresses.unwrap_or_default().iter();
        wanted
            .filter(|address| address.type_ == kind)
            .filter_map(|address| address.address.parse::<IpAddr>().ok())
            .map(PublishedAddress::Ip)
            .collect()
    };
    let external = of_type("ExternalIP");
    if external.is_empty() {
        of_type("InternalIP")
    } else {
        external
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn text(addresses: impl IntoIterator<Item = PublishedAddress>) -> Vec<String> {
        let text = |address| match address {
            PublishedAddress::Ip(ip) => ip.to_string(),
            PublishedAddress::Hostname(name) => name.to_string(),
        };
        addresses.into_iter().map(text).collect()
    }

    #[test]
    fn ingress_i21_addresses_of_a_service() {
        let balancer = json!({"loadBalancer": {"ingress": [
            {"hostname": "lb.test"}, {"ip": "203.0.113.9"}, {"ip": "2001:db8::9"}]}});
        let cases: [(&str, Value, Value, &[&str]); 7] = [
            (
                "load balancer",
                json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.5"]}),
                balancer.clone(),
                &["203.0.113.9", "2001:db8::9", "lb.test"],
            ),
            (
                "load balancer that is not there yet",
                json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.5"]}),
                json!({}),
                &[],
            ),
            (
                "load balancer and external address",
                json!({"type": "LoadBalancer", "externalIPs": ["198.51.100.1"]}),
                balancer,
                &["198.51.100.1", "203.0.113.9", "2001:db8::9", "lb.test"],
            ),
            (
                "cluster addresses",
                json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.5", "fd00::5"]}),
                json!({}),
                &["10.96.0.5", "fd00::5"],
            ),
            (
                "external address before cluster address",
                json!({"type": "NodePort", "clusterIPs": ["10.96.0.5"], "externalIPs": ["198.51.100.1"]}),
                json!({}),
                &["198.51.100.1"],
            ),
            (
                "headless",
                json!({"type": "ClusterIP", "clusterIPs": ["None"]}),
                json!({}),
                &[],
            ),
            (
                "external name",
                json!({"type": "ExternalName", "externalName": "edge.test"}),
                json!({}),
                &["edge.test"],
            ),
        ];
        for (name, spec, status, expected) in cases {
            let service = json!({"metadata": {"name": "edge"}, "spec": spec, "status": status});
            let service: Service = serde_json::from_value(service).unwrap();
            assert_eq!(text(of_service(&service)), expected, "{name}");
        }
    }

    #[test]
    fn ingress_i21_addresses_of_a_node() {
        let node = |addresses: Value| -> Node {
            serde_json::from_value(
                json!({"metadata": {"name": "n"}, "status": {"addresses": addresses}}),
            )
            .unwrap()
        };
        let internal = json!({"type": "InternalIP", "address": "192.0.2.1"});
        let external = json!({"type": "ExternalIP", "address": "203.0.113.1"});
        let name = json!({"type": "Hostname", "address": "n"});
        assert_eq!(
            text(of_node(&node(json!([internal, external, name])))),
            ["203.0.113.1"]
        );
        assert_eq!(text(of_node(&node(json!([internal, name])))), ["192.0.2.1"]);
    }
}
