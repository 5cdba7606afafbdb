//! From a pod to an endpoint of a service.
//!
//! Rules (API reference, `EndpointConditions`): serving = the pod is ready; terminating = it is being
//! deleted; ready = serving and not terminating, or always with `publishNotReadyAddresses`. Pods
//! without an address, in a terminal phase or on an unknown node are no endpoints.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::controllers::pods;

/// Label of a node: its zone.
pub(super) const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Family of addresses of a slice.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Family {
    /// `addressType: IPv4`.
    V4,
    /// `addressType: IPv6`.
    V6,
}

impl Family {
    /// The word used in `addressType` and `ipFamilies`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The family of an address.
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

/// The families that a service wants endpoints of.
pub(super) fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named = spec
        .and_then(|spec| spec.ip_families.as_ref())
        .into_iter()
        .flatten();
    let named: Vec<Family> = named
        .filter_map(|name| {
            [Family::V4, Family::V6]
                .into_iter()
                .find(|f| f.as_str() == name)
        })
        .collect();
    if !named.is_empty() {
        return named;
    }
    let address = spec.and_then(|spec| spec.cluster_ip.as_deref());
    vec![
        address
            .and_then(|text| text.parse().ok())
            .map_or(Family::V4, Family::of),
    ]
}

/// Whether the pod can be an endpoint at all.
pub(super) fn is_candidate(pod: &Pod) -> bool {
    !pods::is_finished(pod) && !addresses(pod).is_empty()
}

/// `status.podIPs`, or `status.podIP` alone.
fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let several = status
        .pod_ips
        .iter()
        .flatten()
        .map(|address| address.ip.as_str());
    let mut addresses: Vec<IpAddr> = several.filter_map(|text| text.parse().ok()).collect();
    if addresses.is_empty() {
        addresses.extend(
            status
                .pod_ip
                .as_deref()
                .and_then(|text| text.parse::<IpAddr>().ok()),
        );
    }
    addresses
}

/// The pod as an endpoint of this family; none if it has no such address.
pub(super) fn endpoint(
    service: &Service,
    pod: &Pod,
    node: &Node,
    family: Family,
) -> Option<Endpoint> {
    let address = addresses(pod)
        .into_iter()
        .find(|address| Family::of(*address) == family)?;
    let spec = service.spec.as_ref();
    let publish = spec
        .and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or(false);
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = publish || (serving && !terminating);
    let zone = node.labels().get(ZONE_LABEL).cloned();
    let hints = ready
        .then(|| hints(service, node, zone.as_deref()))
        .flatten();
    Some(Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints,
        hostname: hostname(service, pod),
        node_name: node.metadata.name.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.namespace(),
            name: pod.metadata.name.clone(),
            uid: pod.uid(),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    })
}

/// Only a pod whose subdomain names the service is found by its hostname.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.subdomain != service.metadata.name {
        return None;
    }
    spec.hostname.clone().filter(|name| !name.is_empty())
}

/// `spec.trafficDistribution` (KEP-4444, KEP-3015): where the endpoint should be used.
fn hints(service: &Service, node: &Node, zone: Option<&str>) -> Option<EndpointHints> {
    let wish = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let for_zones = || {
        zone.map(|zone| {
            vec![ForZone {
                name: zone.to_owned(),
            }]
        })
    };
    let hints = match wish {
        "PreferClose" | "PreferSameZone" => EndpointHints {
            for_zones: for_zones(),
            for_nodes: None,
        },
        "PreferSameNode" => EndpointHints {
            for_zones: for_zones(),
            for_nodes: Some(vec![ForNode {
                name: node.name_any(),
            }]),
        },
        _ => return None,
    };
    (hints.for_zones.is_some() || hints.for_nodes.is_some()).then_some(hints)
}

/// The service's ports as this pod serves them. Ports that the pod does not have are left out.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let wanted = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    wanted
        .into_iter()
        .flatten()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
                port: Some(target(port, pod)?),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.unwrap_or("TCP")
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => container_ports(pod)
            .find(|own| {
                own.name.as_ref() == Some(name)
                    && protocol(own.protocol.as_deref()) == protocol(port.protocol.as_deref())
            })
            .map(|own| own.container_port),
    }
}

/// Ports of the containers, and of init containers that keep running beside them (KEP-753).
fn container_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let spec = pod.spec.as_ref();
    let sidecars = spec
        .and_then(|spec| spec.init_containers.as_ref())
        .into_iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mains = spec.into_iter().flat_map(|spec| &spec.containers);
    mains
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
}
