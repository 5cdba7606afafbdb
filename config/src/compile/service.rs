//! What is kept of a Service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1;

use super::names::Names;
use super::store::ObjectKey;
use crate::model::{
    AppProtocol, EndpointPorts, HttpPolicy, Problem, ProblemKind, Protocol, Scope, ServiceKind,
    TrafficPolicy,
};

/// Marks a Service that another proxy looks after: no cluster IP or node port of it is ours.
const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// Marks a Service as headless for proxies (EndpointSlices copy it from the Service).
const HEADLESS: &str = "service.kubernetes.io/headless";

/// `sessionAffinityConfig.clientIP.timeoutSeconds`: the API's default, and what it allows.
const AFFINITY_SECONDS: i32 = 10_800;
const AFFINITY_RANGE: std::ops::RangeInclusive<i32> = 1..=86_400;

/// The fields of a Service that are used.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceRecord {
    pub(super) created: i64,
    pub(super) kind: ServiceKind,
    pub(super) cluster_ips: Box<[IpAddr]>,
    pub(super) load_balancer_ips: Box<[IpAddr]>,
    pub(super) external_ips: Box<[IpAddr]>,
    pub(super) policy: Arc<TrafficPolicy>,
    pub(super) http: Arc<HttpPolicy>,
    pub(super) ports: Arc<[PortRecord]>,
    /// What DNS needs of them.
    pub(super) listed_ports: EndpointPorts,
    /// `spec.publishNotReadyAddresses`: a terminating endpoint that its slice calls ready is ready.
    pub(super) publish_not_ready: bool,
    /// Connections to its addresses are ours to proxy.
    pub(super) proxied: bool,
    pub(super) problems: Box<[Problem]>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PortRecord {
    pub(super) name: Arc<str>,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) node_port: Option<u16>,
    pub(super) app_protocol: AppProtocol,
}

impl ServiceRecord {
    /// Reads a Service.
    pub fn read(key: &ObjectKey, service: v1::Service, names: &mut Names) -> Self {
        let mut reader = Reader {
            key,
            problems: Vec::new(),
        };
        let labels = service.metadata.labels.unwrap_or_default();
        let annotations = service.metadata.annotations.unwrap_or_default();
        let created = super::created(service.metadata.creation_timestamp.as_ref());
        let mut spec = service.spec.unwrap_or_default();
        let kind = reader.kind(&spec);
        let cluster_ips = match kind {
            ServiceKind::ClusterIp => reader.cluster_ips(&spec),
            ServiceKind::Headless | ServiceKind::ExternalName(_) => Vec::new(),
        };
        let proxied = kind == ServiceKind::ClusterIp
            && !labels.contains_key(SERVICE_PROXY_NAME)
            && !labels.contains_key(HEADLESS);
        let balancers = service
            .status
            .and_then(|status| status.load_balancer?.ingress)
            .unwrap_or_default();
        let external = spec.external_ips.iter().flatten();
        let external_ips = reader.addresses("spec.externalIPs", external);
        let is_exposed = match spec.type_.as_deref() {
            Some("NodePort" | "LoadBalancer") => true,
            _ => kind == ServiceKind::ClusterIp && !external_ips.is_empty(),
        };
        let ports = reader.ports(spec.ports.take().unwrap_or_default(), names);
        let listed = ports.iter();
        let listed = listed.map(|port| (Arc::clone(&port.name), port.protocol, port.port));
        let listed_ports = names.ports(listed.collect());
        Self {
            created,
            cluster_ips: cluster_ips.into(),
            load_balancer_ips: reader.load_balancer_ips(&balancers).into(),
            external_ips: external_ips.into(),
            policy: names.policy(reader.policy(&spec, is_exposed)),
            http: reader.http(&annotations),
            ports: names.service_ports(ports),
            listed_ports,
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            proxied,
            kind,
            problems: reader.problems.into(),
        }
    }
}

impl ServiceRecord {
    /// All addresses that lead to it, cluster IPs first.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let others = self.load_balancer_ips.iter().chain(&self.external_ips);
        self.cluster_ips.iter().chain(others).copied()
    }
}

struct Reader<'a> {
    key: &'a ObjectKey,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, field: String, message: String) {
        self.problems.push(Problem {
            object: self.key.of_kind("Service"),
            field,
            kind: ProblemKind::BadField,
            message,
        });
    }

    fn kind(&mut self, spec: &v1::ServiceSpec) -> ServiceKind {
        if spec.type_.as_deref() == Some("ExternalName") {
            let name = spec.external_name.as_deref().unwrap_or_default();
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            if name.is_empty() {
                self.problem(
                    "spec.externalName".into(),
                    "an ExternalName Service needs the name that it stands for".into(),
                );
            }
            return ServiceKind::ExternalName(name.into());
        }
        if spec.cluster_ip.as_deref() == Some("None") {
            ServiceKind::Headless
        } else {
            ServiceKind::ClusterIp
        }
    }

    fn cluster_ips(&mut self, spec: &v1::ServiceSpec) -> Vec<IpAddr> {
        let one = spec.cluster_ip.iter().cloned().collect();
        let ips = spec.cluster_ips.clone().unwrap_or(one);
        self.addresses("spec.clusterIPs", ips.iter().filter(|ip| !ip.is_empty()))
    }

    fn load_balancer_ips(&mut self, balancers: &[v1::LoadBalancerIngress]) -> Vec<IpAddr> {
        // `ipMode: Proxy` asks that traffic goes through the load balancer (KEP-1860).
        let direct = balancers
            .iter()
            .filter(|balancer| balancer.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|balancer| balancer.ip.as_ref());
        self.addresses("status.loadBalancer.ingress", direct)
    }

    /// `is_exposed`: there are ways in from outside the cluster, which the external policy is for.
    fn policy(&mut self, spec: &v1::ServiceSpec, is_exposed: bool) -> TrafficPolicy {
        let internal = self.scope("internalTrafficPolicy", &spec.internal_traffic_policy);
        let external = self.scope("externalTrafficPolicy", &spec.external_traffic_policy);
        let external = if is_exposed { external } else { Scope::Cluster };
        let is_asked_for =
            external == Scope::Local && spec.type_.as_deref() == Some("LoadBalancer");
        let health = spec.health_check_node_port.filter(|_| is_asked_for);
        TrafficPolicy {
            internal,
            external,
            affinity: self.affinity(spec),
            source_ranges: self.source_ranges(spec),
            health_check_node_port: health.and_then(port_number),
        }
    }

    /// What our annotations ask for (`docs/services.md`).
    fn http(&mut self, annotations: &BTreeMap<String, String>) -> Arc<HttpPolicy> {
        let policy = HttpPolicy::read(annotations, |name, why| {
            let (kind, message) = match why {
                Some(why) => (ProblemKind::BadAnnotation, why),
                None => (
                    ProblemKind::UnknownAnnotation,
                    format!("`{name}` is no setting of a Service and has no effect"),
                ),
            };
            self.problems.push(Problem {
                object: self.key.of_kind("Service"),
                field: format!("metadata.annotations[{name}]"),
                kind,
                message,
            });
        });
        if policy == HttpPolicy::default() {
            return HttpPolicy::shared();
        }
        Arc::new(policy)
    }

    fn scope(&mut self, field: &str, text: &Option<String>) -> Scope {
        match text.as_deref() {
            None | Some("" | "Cluster") => Scope::Cluster,
            Some("Local") => Scope::Local,
            Some(other) => {
                self.problem(
                    format!("spec.{field}"),
                    format!("`{other}` is not one of Cluster, Local; Cluster is used"),
                );
                Scope::Cluster
            }
        }
    }

    fn affinity(&mut self, spec: &v1::ServiceSpec) -> Option<Duration> {
        if spec.session_affinity.as_deref() != Some("ClientIP") {
            return None;
        }
        let config = spec.session_affinity_config.as_ref();
        let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
        let mut seconds = seconds.unwrap_or(AFFINITY_SECONDS);
        if !AFFINITY_RANGE.contains(&seconds) {
            self.problem(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds".into(),
                format!("{seconds} is not within 1 to 86400; {AFFINITY_SECONDS} is used"),
            );
            seconds = AFFINITY_SECONDS;
        }
        Some(Duration::from_secs(u64::from(seconds.unsigned_abs())))
    }

    fn source_ranges(&mut self, spec: &v1::ServiceSpec) -> Option<Box<[IpNet]>> {
        let texts = spec.load_balancer_source_ranges.as_deref();
        let texts = texts.filter(|texts| !texts.is_empty())?;
        let mut ranges = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            // The API server accepts blanks around a range.
            match text.trim().parse::<IpNet>() {
                Ok(range) => ranges.push(range.trunc()),
                Err(_not_a_range) => self.problem(
                    format!("spec.loadBalancerSourceRanges[{index}]"),
                    format!("`{text}` is not an address range such as 192.0.2.0/24"),
                ),
            }
        }
        Some(ranges.into())
    }

    fn addresses<'a>(
        &mut self,
        field: &str,
        texts: impl Iterator<Item = &'a String>,
    ) -> Vec<IpAddr> {
        let mut ips = Vec::new();
        for (index, text) in texts.enumerate() {
            match text.parse() {
                Ok(ip) => ips.push(ip),
                Err(_not_an_address) => self.problem(
                    format!("{field}[{index}]"),
                    format!("`{text}` is not an IP address"),
                ),
            }
        }
        ips
    }

    fn ports(&mut self, ports: Vec<v1::ServicePort>, names: &mut Names) -> Vec<PortRecord> {
        let mut read = Vec::with_capacity(ports.len());
        for (index, port) in ports.into_iter().enumerate() {
            let Some(protocol) = protocol(port.protocol.as_deref()) else {
                self.problem(
                    format!("spec.ports[{index}].protocol"),
                    format!(
                        "protocol {} is none of TCP, UDP and SCTP",
                        port.protocol.unwrap_or_default()
                    ),
                );
                continue;
            };
            let Some(number) = port_number(port.port) else {
                self.problem(
                    format!("spec.ports[{index}].port"),
                    format!("{} is not a port number", port.port),
                );
                continue;
            };
            if protocol == Protocol::Sctp {
                self.problem(
                    format!("spec.ports[{index}].protocol"),
                    "protocol SCTP is answered by DNS only, TCP and UDP are relayed".to_owned(),
                );
            }
            read.push(PortRecord {
                name: names.get(port.name.as_deref().unwrap_or_default()),
                port: number,
                protocol,
                node_port: port.node_port.and_then(port_number),
                app_protocol: app_protocol(port.app_protocol.as_deref()),
            });
        }
        read
    }
}

/// `None` for a protocol that is not supported. TCP is the API's default.
pub(super) fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("TCP" | "") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// `None` for 0 and for what does not fit.
pub(super) fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

/// `appProtocol`: the prefixed names are Kubernetes' own (KEP-3726), the others IANA's or customary.
fn app_protocol(text: Option<&str>) -> AppProtocol {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return AppProtocol::Detect;
    };
    match text.to_ascii_lowercase().as_str() {
        "http" | "kubernetes.io/ws" => AppProtocol::Http,
        "kubernetes.io/h2c" | "h2c" | "http2" | "grpc" => AppProtocol::Http2,
        "https" | "tls" | "kubernetes.io/wss" => AppProtocol::Tls,
        _ => AppProtocol::Tcp,
    }
}
