//! A small cluster for tests, and answers as text.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::RecordType;
use sealane_config::Snapshot;
use sealane_config::model::{
    AppProtocol, EndpointInfo, Pod, Protocol, Service, ServiceEndpoint, ServiceKey, ServiceKind,
    ServicePort,
};

use crate::answer::Answer;
use crate::lookup::{self, Outcome};
use crate::message::Question;
use crate::settings::DnsSettings;

pub(crate) mod secure;
pub(crate) mod upstream;

/// Builds a synced snapshot, as the compiler would.
pub(crate) struct World {
    snapshot: Snapshot,
}

/// A port as `name/protocol/number`, with an empty name for an unnamed one.
fn port(text: &str) -> (Arc<str>, Protocol, u16) {
    let parts: Vec<&str> = text.split('/').collect();
    let protocol = match parts[1] {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => panic!("protocol {other}"),
    };
    (parts[0].into(), protocol, parts[2].parse().unwrap())
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An endpoint as `address`, `address=hostname`, with `!` in front if it is not ready.
pub(crate) fn endpoint(text: &str, ports: &[&str]) -> ServiceEndpoint {
    let ready = !text.starts_with('!');
    let text = text.trim_start_matches('!');
    let (ip, hostname) = match text.split_once('=') {
        Some((ip, hostname)) => (ip, Some(Box::new(hostname.into()))),
        None => (text, None),
    };
    let info = EndpointInfo {
        hostname,
        pod: Some(format!("pod-{}", ip.replace(['.', ':'], "x")).into()),
        ..EndpointInfo::at(addr(ip))
    };
    ServiceEndpoint {
        info: Arc::new(info),
        ready,
        ports: Arc::new(ports.iter().map(|text| port(text)).collect()),
    }
}

impl World {
    /// A cluster with the namespaces `testns` and `default`, last changed at second 1499347823.
    pub(crate) fn new() -> Self {
        let mut snapshot = Snapshot {
            synced: true,
            changed_at: 1_499_347_823,
            ..Snapshot::default()
        };
        for namespace in ["testns", "default"] {
            snapshot.namespaces.insert_mut(namespace.into(), ());
        }
        Self { snapshot }
    }

    pub(crate) fn not_synced(mut self) -> Self {
        self.snapshot.synced = false;
        self
    }

    fn add(
        mut self,
        name: &str,
        kind: ServiceKind,
        ips: &[&str],
        ports: &[&str],
        endpoints: Vec<ServiceEndpoint>,
    ) -> Self {
        let key = ServiceKey {
            namespace: "testns".into(),
            name: name.into(),
        };
        for ip in ips {
            self.snapshot.cluster_ips.insert_mut(addr(ip), key.clone());
        }
        for endpoint in &endpoints {
            let known = self.snapshot.endpoint_ips.get(&endpoint.addr());
            let mut keys = known.map_or_else(Vec::new, |keys| keys.to_vec());
            keys.push(key.clone());
            keys.sort();
            keys.dedup();
            self.snapshot
                .endpoint_ips
                .insert_mut(endpoint.addr(), keys.into());
        }
        let listed_ports = Arc::new(ports.iter().map(|text| port(text)).collect());
        let ports = ports.iter().map(|text| {
            let (name, protocol, number) = port(text);
            Arc::new(ServicePort {
                service: key.clone(),
                name,
                port: number,
                protocol,
                node_port: None,
                app_protocol: AppProtocol::Detect,
                endpoints: Arc::new([]),
                local: None,
                everywhere: None,
                policy: Arc::default(),
                http: Arc::default(),
            })
        });
        let service = Service {
            key: key.clone(),
            kind,
            cluster_ips: ips.iter().map(|ip| addr(ip)).collect(),
            load_balancer_ips: Vec::new(),
            external_ips: Vec::new(),
            policy: Arc::default(),
            ports: ports.collect(),
            listed_ports,
            endpoints: endpoints.into(),
        };
        self.snapshot.services.insert_mut(key, Arc::new(service));
        self
    }

    /// A Service with cluster IPs in `testns`, ports as `name/protocol/number`.
    pub(crate) fn cluster_ip(self, name: &str, ips: &[&str], ports: &[&str]) -> Self {
        self.add(name, ServiceKind::ClusterIp, ips, ports, Vec::new())
    }

    /// The same with endpoints.
    pub(crate) fn with_endpoints(
        self,
        name: &str,
        ips: &[&str],
        ports: &[&str],
        endpoints: &[&str],
    ) -> Self {
        let endpoints = endpoints.iter().map(|text| endpoint(text, ports)).collect();
        self.add(name, ServiceKind::ClusterIp, ips, ports, endpoints)
    }

    /// A headless Service whose endpoints listen on its ports.
    pub(crate) fn headless(self, name: &str, ports: &[&str], endpoints: &[&str]) -> Self {
        let endpoints = endpoints.iter().map(|text| endpoint(text, ports)).collect();
        self.add(name, ServiceKind::Headless, &[], ports, endpoints)
    }

    /// A pod with this address.
    pub(crate) fn pod(mut self, namespace: &str, ip: &str) -> Self {
        let pod = Pod {
            namespace: namespace.into(),
            name: format!("pod-{}", ip.replace(['.', ':'], "x")).into(),
            host_network: false,
        };
        self.snapshot.pods.insert_mut(addr(ip), Arc::new([pod]));
        self
    }

    /// An ExternalName Service.
    pub(crate) fn external(self, name: &str, target: &str) -> Self {
        let kind = ServiceKind::ExternalName(target.into());
        self.add(name, kind, &[], &[], Vec::new())
    }

    pub(crate) fn build(self) -> Snapshot {
        self.snapshot
    }
}

/// An answer as lines: code, then the records of each section under its name.
pub(crate) fn shown(answer: &Answer) -> Vec<String> {
    let mut lines = vec![format!("{:?}", answer.rcode).to_uppercase()];
    let additional = ("+", &answer.additional);
    for (mark, section) in [("", &answer.answers), ("@", &answer.authority), additional] {
        lines.extend(section.iter().map(|record| format!("{mark}{record}")));
    }
    lines
}

pub(crate) fn question(name: &str, record_type: &str) -> Question {
    let record_type: RecordType = match record_type.strip_prefix("TYPE") {
        Some(number) => number.parse::<u16>().unwrap().into(),
        None => record_type.parse().unwrap(),
    };
    Question::new(name.parse().unwrap(), record_type)
}

/// Asks with these settings; an outcome that is no answer is a line in capitals.
pub(crate) fn ask_with(
    snapshot: &Snapshot,
    settings: &DnsSettings,
    name: &str,
    record_type: &str,
) -> Vec<String> {
    match lookup::answer(snapshot, settings, &question(name, record_type)) {
        Outcome::Done(answer) => shown(&answer),
        Outcome::Stop(answer) => {
            let mut lines = shown(&answer);
            lines[0].push_str(" STOP");
            lines
        }
        Outcome::NotMine => vec!["NOT MINE".into()],
        Outcome::Alias { answer, target } => {
            let mut lines = shown(&answer);
            lines.push(format!("THEN {target}"));
            lines
        }
    }
}

/// SOA record of `cluster.local` in the authority section of [`World`]'s negative answers.
pub(crate) const SOA: &str = "@cluster.local. 30 IN SOA ns.dns.cluster.local. \
    hostmaster.cluster.local. 1499347823 7200 1800 86400 30";

/// Name, type, and the lines of the answer; a lone `NODATA` or `NXDOMAIN` stands for itself with
/// the SOA record.
pub(crate) type Case = (&'static str, &'static str, &'static [&'static str]);

pub(crate) fn check(snapshot: &Snapshot, settings: &DnsSettings, cases: &[Case]) {
    for (name, record_type, expected) in cases {
        let full = match *name {
            "Z" => "cluster.local".to_owned(),
            name => name
                .replace(".S", ".testns.svc.cluster.local")
                .replace(".Z", ".cluster.local"),
        };
        let expected: Vec<String> = match expected {
            ["NODATA"] => vec!["NOERROR".into(), SOA.into()],
            ["NXDOMAIN"] => vec!["NXDOMAIN".into(), SOA.into()],
            lines => {
                let with_code = |line: &&str| {
                    line.replace("$N", &format!("{full}."))
                        .replace("$SOA", &SOA[1..])
                };
                lines.iter().map(with_code).collect()
            }
        };
        let found = ask_with(snapshot, settings, &full, record_type);
        assert_eq!(found, expected, "{full} {record_type}");
    }
}
