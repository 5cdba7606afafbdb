//! Services and EndpointSlices.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};

use super::net::{Family, NODE_A, NODE_B, external_prefixes};
use super::probe::Protocol;
use super::world::World;

/// Where the addresses of `externalIPs` begin; those of load balancers are below.
const EXTERNAL: u8 = 120;

/// An endpoint of a pod.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pod: &'static str,
    conditions: Value,
    hints: Map<String, Value>,
}

/// An endpoint that is ready.
pub(super) fn ready(pod: &'static str) -> Endpoint {
    with_conditions(pod, json!({"ready": true, "serving": true}))
}

/// An endpoint that does not pass its readiness probe.
pub(super) fn unready(pod: &'static str) -> Endpoint {
    with_conditions(pod, json!({"ready": false, "serving": false}))
}

/// An endpoint that is ending and still passes its readiness probe.
pub(super) fn terminating(pod: &'static str) -> Endpoint {
    let conditions = json!({"ready": false, "serving": true, "terminating": true});
    with_conditions(pod, conditions)
}

/// An endpoint that is ending and takes nothing any more.
pub(super) fn ended(pod: &'static str) -> Endpoint {
    let conditions = json!({"ready": false, "serving": false, "terminating": true});
    with_conditions(pod, conditions)
}

/// An endpoint with conditions as they are written.
pub(super) fn with_conditions(pod: &'static str, conditions: Value) -> Endpoint {
    Endpoint {
        pod,
        conditions,
        hints: Map::new(),
    }
}

impl Endpoint {
    /// Meant for clients in a zone.
    pub(super) fn for_zone(self, zone: &str) -> Self {
        self.hinted("forZones", zone)
    }

    /// Meant for clients on a node.
    pub(super) fn for_node(self, node: &str) -> Self {
        self.hinted("forNodes", node)
    }

    fn hinted(mut self, kind: &str, name: &str) -> Self {
        self.hints.insert(kind.to_owned(), json!([{"name": name}]));
        self
    }

    fn object(&self, world: &World, family: Family) -> Value {
        let place = world.net.place(self.pod);
        let node = place.node.expect("a pod");
        json!({
            "addresses": [place.ip(family)],
            "conditions": self.conditions,
            "nodeName": node,
            "zone": if node == NODE_A { "z1" } else { "z2" },
            "hints": self.hints,
        })
    }
}

/// An EndpointSlice beside the one of each family.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    /// It has the label that says which Service it belongs to.
    pub(super) labelled: bool,
    /// The addresses of its only endpoint; fully qualified names if the first is no address.
    pub(super) addresses: Vec<String>,
    /// The port of that endpoint.
    pub(super) port: Option<u16>,
}

/// A Service with its endpoints, to be created.
#[derive(Clone, Debug)]
pub(super) struct Service {
    name: String,
    labels: Value,
    spec: Value,
    endpoints: Vec<(Family, Vec<Endpoint>)>,
    slices: Vec<Slice>,
    ip_mode: Option<&'static str>,
}

impl Service {
    /// A Service with a port for each [`Protocol`].
    pub(super) fn new(name: &str) -> Self {
        let ports = json!([
            {"name": "http", "port": 80, "targetPort": 8000},
            {"name": "opaque", "port": 81, "targetPort": 8000, "appProtocol": "tcp"},
            {"name": "datagrams", "port": 81, "targetPort": 8000, "protocol": "UDP"},
        ]);
        Self {
            name: name.to_owned(),
            labels: json!({}),
            spec: json!({"ports": ports}),
            endpoints: Vec::new(),
            slices: Vec::new(),
            ip_mode: None,
        }
    }

    /// With these endpoints.
    pub(super) fn endpoints(mut self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        self.endpoints = vec![(Family::V4, endpoints.into_iter().collect())];
        self
    }

    /// With addresses of both families, and these endpoints for IPv6.
    pub(super) fn dual_stack(mut self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let endpoints = endpoints.into_iter().collect();
        self.endpoints.push((Family::V6, endpoints));
        self.spec("ipFamilyPolicy", "RequireDualStack")
    }

    /// With one more slice.
    pub(super) fn slice(mut self, slice: Slice) -> Self {
        self.slices.push(slice);
        self
    }

    /// With this field in `spec`.
    pub(super) fn spec(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.spec[field] = value.into();
        self
    }

    /// With a label.
    pub(super) fn label(mut self, name: &str, value: &str) -> Self {
        self.labels[name] = value.into();
        self
    }

    /// With node ports.
    pub(super) fn node_ports(self) -> Self {
        self.spec("type", "NodePort")
    }

    /// With node ports, and an address of a load balancer on the way to each node.
    pub(super) fn balanced(self) -> Self {
        self.balanced_by("VIP")
    }

    /// The same with this `ipMode`.
    pub(super) fn balanced_by(mut self, ip_mode: &'static str) -> Self {
        self.ip_mode = Some(ip_mode);
        self.spec("type", "LoadBalancer")
    }

    /// With an external IP on the way to each node.
    pub(super) fn external(self) -> Self {
        self.spec("externalIPs", true)
    }

    /// Writes it to the API.
    pub(super) fn create(mut self, world: &World) -> Made {
        let number = world.number();
        let families: Vec<_> = self.endpoints.iter().map(|(family, _)| *family).collect();
        let led_here = |last: u8| -> Vec<String> {
            let of_node = |node| families.iter().map(move |f| external_ip(node, *f, last));
            let ips = [NODE_A, NODE_B].into_iter().flat_map(of_node);
            ips.map(|ip| ip.to_string()).collect()
        };
        if self.spec["externalIPs"] == true {
            self.spec["externalIPs"] = json!(led_here(EXTERNAL + number));
        }
        let object = world.create(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name, "namespace": "default", "labels": self.labels},
            "spec": self.spec,
        }));
        let made = Made {
            name: self.name,
            number,
            object,
        };
        for (family, endpoints) in &self.endpoints {
            world.create(made.slice(world, *family, endpoints));
        }
        for (slice, number) in self.slices.iter().zip(2..) {
            world.create(made.other_slice(slice, number));
        }
        if let Some(ip_mode) = self.ip_mode {
            let ips = led_here(number);
            world.balance(&made.name, ips, ip_mode);
        }
        made
    }
}

/// A Service that was created.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) name: String,
    number: u8,
    /// As the API server gave it back.
    pub(super) object: Value,
}

impl Made {
    /// The name of its slice of a family.
    pub(super) fn slice_name(&self, family: Family) -> String {
        format!("{}-{family:?}", self.name).to_lowercase()
    }

    /// Its slice of a family.
    fn slice(&self, world: &World, family: Family, endpoints: &[Endpoint]) -> Value {
        let endpoints: Vec<Value> = endpoints.iter().map(|e| e.object(world, family)).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": self.slice_name(family), "namespace": "default",
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": if family == Family::V4 { "IPv4" } else { "IPv6" },
            "endpoints": endpoints,
            "ports": [
                {"name": "http", "port": 8000, "protocol": "TCP"},
                {"name": "opaque", "port": 8000, "protocol": "TCP"},
                {"name": "datagrams", "port": 8000, "protocol": "UDP"},
            ],
        })
    }

    fn other_slice(&self, slice: &Slice, number: usize) -> Value {
        let is_address = slice.addresses[0].parse::<IpAddr>().is_ok();
        let labels = match slice.labelled {
            true => json!({"kubernetes.io/service-name": self.name}),
            false => json!({}),
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{number}", self.name), "namespace": "default",
                "labels": labels,
            },
            "addressType": if is_address { "IPv4" } else { "FQDN" },
            "endpoints": [{"addresses": slice.addresses, "conditions": {"ready": true}}],
            "ports": [
                {"name": "http", "port": slice.port, "protocol": "TCP"},
                {"name": "opaque", "port": slice.port, "protocol": "TCP"},
                {"name": "datagrams", "port": slice.port, "protocol": "UDP"},
            ],
        })
    }

    /// Changes its endpoints.
    pub(super) fn set_endpoints(&self, world: &World, endpoints: &[Endpoint]) {
        let slice = self.slice(world, Family::V4, endpoints);
        let patch = json!({"endpoints": slice["endpoints"]});
        world.patch("EndpointSlice", &self.slice_name(Family::V4), patch);
    }

    /// Changes the Service by a merge patch.
    pub(super) fn patch(&mut self, world: &World, patch: Value) {
        self.object = world.patch("Service", &self.name, patch);
    }

    /// Its first cluster IP and a port.
    pub(super) fn cluster(&self, protocol: Protocol) -> SocketAddr {
        SocketAddr::new(self.cluster_ip(Family::V4), port(protocol))
    }

    /// Its cluster IP of a family.
    pub(super) fn cluster_ip(&self, family: Family) -> IpAddr {
        let ips = self.object["spec"]["clusterIPs"].as_array();
        let ips = ips.into_iter().flatten().filter_map(Value::as_str);
        let mut ips = ips.filter_map(|ip| ip.parse().ok());
        let found = ips.find(|ip: &IpAddr| ip.is_ipv4() == (family == Family::V4));
        found.unwrap_or_else(|| panic!("a cluster IP in {}", self.object))
    }

    /// The node port.
    pub(super) fn node_port(&self, protocol: Protocol) -> u16 {
        let ports = self.object["spec"]["ports"].as_array().unwrap();
        let name = match protocol {
            Protocol::Http => "http",
            Protocol::Opaque => "opaque",
            Protocol::Datagram => "datagrams",
        };
        let mut ports = ports.iter().filter(|port| port["name"] == name);
        let number = ports.next().and_then(|port| port["nodePort"].as_u64());
        number.unwrap_or_else(|| panic!("a node port in {}", self.object)) as u16
    }

    /// An address of a load balancer, whose traffic comes to this node.
    pub(super) fn balancer_ip(&self, node: &str, family: Family) -> IpAddr {
        external_ip(node, family, self.number)
    }

    /// One of its external IPs, whose traffic comes to this node.
    pub(super) fn external_ip(&self, node: &str, family: Family) -> IpAddr {
        external_ip(node, family, EXTERNAL + self.number)
    }
}

fn external_ip(node: &str, family: Family, number: u8) -> IpAddr {
    let prefix = external_prefixes(node)[usize::from(family == Family::V6)];
    format!("{prefix}{number}").parse().unwrap()
}

/// The Service port for a protocol.
pub(super) fn port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Http => 80,
        Protocol::Opaque | Protocol::Datagram => 81,
    }
}
