//! ClusterIPs and node ports of Services (N3).
//!
//! What is taken is read from the stored Services, within the transaction that takes more, so two
//! Services can never hold the same address, also after a restart and in dry runs. Addresses are
//! handed out from the upper part of the range, as kube-apiserver does, which leaves the lower part
//! to those who ask for a certain address (KEP-3070); .1 and .10 are never handed out unasked.

mod ports;

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use rand::Rng;
use serde_json::{Map, Value, json};

use crate::api::metadata;
use crate::api::server::ApiOptions;
use crate::api::status::{ApiError, Cause};
use crate::api::store::{Key, Transaction};

/// A range of ClusterIPs (IPv4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    network: u32,
    prefix: u8,
}

impl Default for ServiceCidr {
    /// 10.96.0.0/16
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(10, 96, 0, 0).to_bits(),
            prefix: 16,
        }
    }
}

impl ServiceCidr {
    fn size(self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The address at an offset from the start, if it is in the range.
    pub fn address(self, offset: u32) -> Option<Ipv4Addr> {
        (offset < self.size()).then(|| Ipv4Addr::from_bits(self.network + offset))
    }

    fn offset(self, address: Ipv4Addr) -> Option<u32> {
        let offset = address.to_bits().checked_sub(self.network)?;
        (offset > 0 && offset < self.size() - 1).then_some(offset)
    }

    /// Where unasked addresses start (KEP-3070).
    fn dynamic_start(self) -> u32 {
        let band = (self.size() / 16).clamp(16, 256);
        if band < self.size() - 1 { band } else { 1 }
    }
}

impl fmt::Display for ServiceCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.network), self.prefix)
    }
}

impl FromStr for ServiceCidr {
    type Err = String;

    /// Parses `10.96.0.0/16`; prefixes 8 to 28.
    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || format!("\"{text}\" is not an IPv4 range such as 10.96.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(problem)?;
        let address: Ipv4Addr = address.parse().map_err(|_error| problem())?;
        let prefix: u8 = prefix.parse().map_err(|_error| problem())?;
        if !(8..=28).contains(&prefix) {
            return Err(format!("the prefix of {text} is not between 8 and 28"));
        }
        let network = address.to_bits() & !((1_u32 << (32 - prefix)) - 1);
        Ok(Self { network, prefix })
    }
}

/// Gives the Service its addresses and node ports, keeping those it has.
pub(super) fn allocate(
    options: &ApiOptions,
    transaction: &Transaction<'_>,
    stored: Option<&Value>,
    service: &mut Value,
) -> Result<(), ApiError> {
    let name = metadata::text(service, "name").to_owned();
    let own = Key::new(
        "services",
        metadata::text(service, "namespace"),
        name.as_str(),
    );
    let others: Vec<&Value> = transaction
        .list("services", None)
        .filter(|(key, _)| **key != own)
        .map(|(_, other)| &**other)
        .collect();
    let spec = metadata::entry(service, "spec");
    let outcome = if spec_type(spec) == "ExternalName" {
        release(spec);
        Ok(())
    } else {
        let stored = stored.map(|stored| &stored["spec"]);
        let families = check_families(spec);
        families
            .and_then(|()| cluster_ips(options.service_cidr, &others, stored, spec))
            .and_then(|()| ports::allocate(&options.node_ports, &others, stored, spec))
    };
    outcome.map_err(|cause| ApiError::invalid("", "Service", &name, &[cause]))
}

fn spec_type(spec: &Map<String, Value>) -> &str {
    spec.get("type")
        .and_then(Value::as_str)
        .unwrap_or("ClusterIP")
}

/// A name elsewhere has neither address nor node ports.
fn release(spec: &mut Map<String, Value>) {
    for field in [
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "ipFamilyPolicy",
        "internalTrafficPolicy",
        "externalTrafficPolicy",
        "allocateLoadBalancerNodePorts",
    ] {
        spec.remove(field);
    }
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        port.as_object_mut().map(|port| port.remove("nodePort"));
    }
}

/// The embedded cluster has IPv4 Services only.
fn check_families(spec: &mut Map<String, Value>) -> Result<(), Cause> {
    let policy = spec.get("ipFamilyPolicy").and_then(Value::as_str);
    if policy == Some("RequireDualStack") {
        return Err(Cause::invalid(
            "spec.ipFamilyPolicy",
            &"RequireDualStack".into(),
            "this cluster is not configured for dual-stack services",
        ));
    }
    let families = spec
        .get("ipFamilies")
        .map(metadata::strings)
        .unwrap_or_default();
    if let Some(at) = families.iter().position(|family| *family != "IPv4") {
        return Err(Cause::invalid(
            format!("spec.ipFamilies[{at}]"),
            &families[at].into(),
            "not configured on this cluster",
        ));
    }
    spec.entry("ipFamilyPolicy")
        .or_insert_with(|| "SingleStack".into());
    spec.insert("ipFamilies".to_owned(), json!(["IPv4"]));
    Ok(())
}

/// The addresses asked for: `clusterIP` and the first of `clusterIPs`, which mean the same.
fn asked_ips(spec: &Map<String, Value>) -> Vec<&str> {
    let single = spec.get("clusterIP").and_then(Value::as_str);
    let first = spec
        .get("clusterIPs")
        .and_then(|ips| metadata::strings(ips).first().copied());
    [single, first]
        .into_iter()
        .flatten()
        .filter(|ip| !ip.is_empty())
        .collect()
}

fn cluster_ips(
    cidr: ServiceCidr,
    others: &[&Value],
    stored: Option<&Value>,
    spec: &mut Map<String, Value>,
) -> Result<(), Cause> {
    let held = stored
        .and_then(|stored| stored["clusterIP"].as_str())
        .filter(|ip| !ip.is_empty());
    let asked = asked_ips(spec);
    let ip = match (held, asked.first()) {
        (Some(held), _) => {
            if let Some(other) = asked.iter().find(|asked| **asked != held) {
                return Err(Cause::invalid(
                    "spec.clusterIPs[0]",
                    &json!([other]),
                    "may not change once set",
                ));
            }
            held.to_owned()
        }
        (None, Some(asked)) if *asked == "None" => (*asked).to_owned(),
        (None, Some(asked)) => {
            check_ip(cidr, others, asked)?;
            (*asked).to_owned()
        }
        (None, None) => free_ip(cidr, others)?.to_string(),
    };
    spec.insert("clusterIPs".to_owned(), json!([ip]));
    spec.insert("clusterIP".to_owned(), ip.into());
    Ok(())
}

fn check_ip(cidr: ServiceCidr, others: &[&Value], asked: &str) -> Result<(), Cause> {
    let address: Ipv4Addr = asked.parse().map_err(|_error| {
        Cause::invalid(
            "spec.clusterIPs[0]",
            &asked.into(),
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        )
    })?;
    let refuse = |why: &str| {
        Err(Cause::invalid(
            "spec.clusterIPs",
            &json!([asked]),
            &format!("failed to allocate IP {asked}: {why}"),
        ))
    };
    if cidr.offset(address).is_none() {
        return refuse("the provided network does not match the current range");
    }
    if others
        .iter()
        .any(|other| other["spec"]["clusterIP"] == asked)
    {
        return refuse("provided IP is already allocated");
    }
    Ok(())
}

fn free_ip(cidr: ServiceCidr, others: &[&Value]) -> Result<Ipv4Addr, Cause> {
    let taken: BTreeSet<u32> = others
        .iter()
        .filter_map(|other| other["spec"]["clusterIP"].as_str()?.parse().ok())
        .filter_map(|address| cidr.offset(address))
        .collect();
    let reserved = |offset: &u32| matches!(offset, 1 | 10);
    let (low, high) = (cidr.dynamic_start(), cidr.size() - 1);
    let start = rand::rng().random_range(low..high);
    (start..high)
        .chain(low..start)
        .chain((1..low).rev())
        .filter(|offset| !reserved(offset))
        .find(|offset| !taken.contains(offset))
        .and_then(|offset| cidr.address(offset))
        .ok_or_else(|| {
            Cause::invalid(
                "spec.clusterIPs",
                &Value::Null,
                "failed to allocate a serviceIP: range is full",
            )
        })
}
