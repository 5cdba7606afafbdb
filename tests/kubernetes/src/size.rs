//! How large a cluster is, and what its Services and EndpointSlices look like.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// Namespaces that the Services are spread over.
const NAMESPACES: usize = 100;

/// Nodes that the endpoints are spread over.
const NODES: usize = 5_000;

/// How many there are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Services, each with one EndpointSlice.
    pub services: usize,
    /// Endpoints of each.
    pub endpoints_each: usize,
}

impl Size {
    /// All endpoints.
    pub fn endpoints(self) -> usize {
        self.services * self.endpoints_each
    }

    /// Names of the namespaces.
    pub fn namespaces() -> impl Iterator<Item = String> {
        (0..NAMESPACES).map(|index| format!("team-{index:03}"))
    }

    /// Namespace and name of a Service.
    pub fn service_name(index: usize) -> (String, String) {
        let namespace = format!("team-{:03}", index % NAMESPACES);
        (namespace, format!("checkout-backend-{index:05}"))
    }

    /// Name of a Service's EndpointSlice, which is in its namespace.
    pub fn slice_name(index: usize) -> String {
        let (_, service) = Self::service_name(index);
        format!("{service}-{}", letters(index, 5))
    }

    /// A Service, as it is created.
    pub fn service(index: usize) -> Value {
        let (namespace, name) = Self::service_name(index);
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "shop"},
            },
            "spec": {
                "selector": {"app.kubernetes.io/name": name},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"}],
            },
        })
    }

    /// Its EndpointSlice, as it is created.
    pub fn slice(self, index: usize) -> Value {
        let (namespace, service) = Self::service_name(index);
        let first = index * self.endpoints_each;
        let endpoints = (first..first + self.endpoints_each)
            .map(|number| endpoint(&namespace, &service, number));
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": Self::slice_name(index),
                "generateName": format!("{service}-"),
                "namespace": namespace,
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
                "labels": {
                    "app.kubernetes.io/name": service,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                    "kubernetes.io/service-name": service,
                },
                "ownerReferences": [{
                    "apiVersion": "v1",
                    "kind": "Service",
                    "name": service,
                    "uid": uid(index + 1_000_000),
                    "controller": true,
                    "blockOwnerDeletion": true,
                }],
            },
            "addressType": "IPv4",
            "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http"}],
        })
    }

    /// The address that the change of this number gives the first endpoint of its slice.
    pub fn changed_address(number: usize) -> Ipv4Addr {
        address(11, number)
    }
}

fn endpoint(namespace: &str, service: &str, number: usize) -> Value {
    let node = number.wrapping_mul(7_919) % NODES;
    json!({
        "addresses": [address(10, number)],
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "nodeName": format!("ip-10-{}-{}-12.eu-central-1.compute.internal", node / 250, node % 250),
        "zone": format!("eu-central-1{}", ["a", "b", "c"][node % 3]),
        "targetRef": {
            "kind": "Pod",
            "name": format!("{service}-{}-{}", letters(number / 25, 10), letters(number, 5)),
            "namespace": namespace,
            "uid": uid(number),
        },
    })
}

fn address(first: u8, number: usize) -> Ipv4Addr {
    let bits = u32::try_from(number + 256).unwrap_or(u32::MAX) & 0x00ff_ffff;
    Ipv4Addr::from(bits | u32::from(first) << 24)
}

/// A scrambled number, the same in every run.
fn scramble(number: usize) -> u64 {
    let mut bits = (number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// As Kubernetes makes the ends of names.
fn letters(number: usize, count: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut bits = scramble(number);
    let mut next = || {
        let letter = ALPHABET[(bits % 27) as usize];
        bits /= 27;
        char::from(letter)
    };
    (0..count).map(|_| next()).collect()
}

fn uid(number: usize) -> String {
    let (high, low) = (scramble(number), scramble(number + 77_777_777));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}
