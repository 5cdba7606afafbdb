//! Node ports.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use rand::Rng;
use serde_json::{Map, Value};

use crate::api::status::Cause;

/// Protocol and number of a node port.
type NodePort = (String, u16);

pub(super) fn allocate(
    range: &RangeInclusive<u16>,
    others: &[&Value],
    stored: Option<&Value>,
    spec: &mut Map<String, Value>,
) -> Result<(), Cause> {
    let kind = super::spec_type(spec).to_owned();
    let wants = match kind.as_str() {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    };
    let held = stored.map(node_ports).unwrap_or_default();
    let was_exposed = stored.is_some_and(|stored| stored["type"] != "ClusterIP");
    if kind == "ClusterIP" && was_exposed {
        spec.remove("externalTrafficPolicy");
        spec.remove("allocateLoadBalancerNodePorts");
    }
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else {
        return Ok(());
    };
    if kind == "ClusterIP" {
        // kube-apiserver drops the ports of the former type unless the client changed them.
        for port in ports.iter_mut().filter_map(Value::as_object_mut) {
            port.remove("nodePort");
        }
        return Ok(());
    }
    keep_held(stored, ports);
    let taken: BTreeSet<NodePort> = others
        .iter()
        .flat_map(|other| node_ports(&other["spec"]))
        .collect();
    check_asked(range, &taken, &held, ports)?;
    if wants {
        fill(range, &taken, ports)?;
    }
    Ok(())
}

fn protocol(port: &Value) -> &str {
    port["protocol"].as_str().unwrap_or("TCP")
}

fn number(port: &Value) -> Option<u16> {
    let number = port["nodePort"].as_u64().filter(|number| *number > 0)?;
    u16::try_from(number).ok()
}

fn node_ports(spec: &Value) -> BTreeSet<NodePort> {
    let ports = spec["ports"].as_array().into_iter().flatten();
    ports
        .filter_map(|port| Some((protocol(port).to_owned(), number(port)?)))
        .collect()
}

/// A port that does not say its node port keeps the one it had.
fn keep_held(stored: Option<&Value>, ports: &mut [Value]) {
    let before = stored
        .and_then(|stored| stored["ports"].as_array())
        .into_iter()
        .flatten();
    for old in before {
        let Some(held) = number(old) else { continue };
        let asked = ports.iter().any(|port| number(port) == Some(held));
        let same = ports.iter_mut().find(|port| {
            number(port).is_none() && port["port"] == old["port"] && protocol(port) == protocol(old)
        });
        if let Some(port) = same.filter(|_| !asked) {
            port["nodePort"] = held.into();
        }
    }
}

fn check_asked(
    range: &RangeInclusive<u16>,
    taken: &BTreeSet<NodePort>,
    held: &BTreeSet<NodePort>,
    ports: &[Value],
) -> Result<(), Cause> {
    let mut own = BTreeSet::new();
    for (at, port) in ports.iter().enumerate() {
        let Some(asked) = port["nodePort"].as_u64().filter(|asked| *asked > 0) else {
            continue;
        };
        let field = format!("spec.ports[{at}].nodePort");
        let refuse = |why: &str| Err(Cause::invalid(field.as_str(), &asked.into(), why));
        let Some(number) = u16::try_from(asked).ok().filter(|n| range.contains(n)) else {
            return refuse(&format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            ));
        };
        let node_port = (protocol(port).to_owned(), number);
        if !own.insert(node_port.clone())
            || (taken.contains(&node_port) && !held.contains(&node_port))
        {
            return refuse("provided port is already allocated");
        }
    }
    Ok(())
}

/// Gives a node port to each port without one. TCP and UDP of one port share the number.
fn fill(
    range: &RangeInclusive<u16>,
    taken: &BTreeSet<NodePort>,
    ports: &mut [Value],
) -> Result<(), Cause> {
    for at in 0..ports.len() {
        if number(&ports[at]).is_some() {
            continue;
        }
        let sibling = ports
            .iter()
            .filter(|other| {
                other["port"] == ports[at]["port"] && protocol(other) != protocol(&ports[at])
            })
            .find_map(number);
        let own: BTreeSet<u16> = ports.iter().filter_map(number).collect();
        let free = |number: &u16| {
            !taken.contains(&(protocol(&ports[at]).to_owned(), *number))
                && (!own.contains(number) || sibling == Some(*number))
        };
        let start = rand::rng().random_range(range.clone());
        let chosen = sibling
            .into_iter()
            .chain(start..=*range.end())
            .chain(*range.start()..start)
            .find(free);
        let Some(chosen) = chosen else {
            return Err(Cause::invalid(
                format!("spec.ports[{at}].nodePort"),
                &0.into(),
                "failed to allocate a nodePort: range is full",
            ));
        };
        ports[at]["nodePort"] = chosen.into();
    }
    Ok(())
}
