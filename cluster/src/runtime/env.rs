//! A container's environment (B9).
//!
//! Order, the later wins: what every program needs, service variables, `envFrom`, `env`. `$(NAME)` in
//! a value stands for what was defined before it, `$$` for `$`; an unknown name stays as it is
//! written. In commands and arguments it stands for the whole environment.

mod services;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret, Service,
};

pub(super) use services::variables as service_variables;

use crate::api::quantity::Quantity;

/// What environments refer to. `None` under a name: there is no such object.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// By name, in the pod's namespace.
    pub(super) config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// By name, in the pod's namespace.
    pub(super) secrets: BTreeMap<String, Option<Secret>>,
    /// Those of the pod's namespace, and `kubernetes` of `default`.
    pub(super) services: Vec<Service>,
}

/// Where a pod runs.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The pod's address.
    pub(super) pod_ip: IpAddr,
    /// The node's address.
    pub(super) host_ip: IpAddr,
    /// Processors of the node, for limits that are not set.
    pub(super) cpus: u64,
    /// Memory of the node, bytes.
    pub(super) memory: u64,
}

/// A reference that leads nowhere; the message is shown in the pod's status.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EnvError {
    /// No such object.
    #[error("{kind} \"{name}\" not found")]
    NoObject {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// No such key in the object.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// The object's name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field that does not exist.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// A resource that does not exist.
    #[error("unsupported resource: {0}")]
    Resource(String),
}

/// Names of the ConfigMaps and the Secrets that a container's environment needs.
pub(super) fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten() {
        let Some(source) = &source.value_from else {
            continue;
        };
        config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

/// The environment on top of `base`.
///
/// # Errors
/// A reference that is not optional leads nowhere.
pub(super) fn environment(
    base: Vec<(String, String)>,
    pod: &Pod,
    container: &Container,
    place: &Place,
    sources: &Sources,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Environment(base);
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links);
    for (name, value) in service_variables(&sources.services, links.unwrap_or(true)) {
        env.set(&name, value);
    }
    env_from(&mut env, container, sources)?;
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(&env, variable, pod, container, place, sources)? {
            env.set(&variable.name, value);
        }
    }
    Ok(env.0)
}

/// Replaces `$(NAME)` and `$$` in a command's words.
pub(super) fn expand(text: &str, env: &[(String, String)]) -> String {
    let lookup = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Variables in the order of their first definition.
struct Environment(Vec<(String, String)>);

impl Environment {
    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

fn env_from(
    env: &mut Environment,
    container: &Container,
    sources: &Sources,
) -> Result<(), EnvError> {
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            let found = sources.config_maps.get(&reference.name);
            let map = present("configmap", &reference.name, found, reference.optional)?;
            for (key, value) in map.iter().flat_map(|map| map.data.iter().flatten()) {
                env.set(&format!("{prefix}{key}"), value.clone());
            }
        }
        if let Some(reference) = &from.secret_ref {
            let found = sources.secrets.get(&reference.name);
            let secret = present("secret", &reference.name, found, reference.optional)?;
            for (key, value) in secret.iter().flat_map(|s| s.data.iter().flatten()) {
                let value = String::from_utf8_lossy(&value.0).into_owned();
                env.set(&format!("{prefix}{key}"), value);
            }
        }
    }
    Ok(())
}

/// The object, `None` if it may be missing and is.
fn present<'a, T>(
    kind: &'static str,
    name: &str,
    found: Option<&'a Option<T>>,
    optional: Option<bool>,
) -> Result<Option<&'a T>, EnvError> {
    match found.and_then(Option::as_ref) {
        None if optional != Some(true) => Err(EnvError::NoObject {
            kind,
            name: name.to_owned(),
        }),
        object => Ok(object),
    }
}

/// A variable's value; `None` if what it refers to is optional and missing.
fn value(
    env: &Environment,
    variable: &EnvVar,
    pod: &Pod,
    container: &Container,
    place: &Place,
    sources: &Sources,
) -> Result<Option<String>, EnvError> {
    let Some(from) = &variable.value_from else {
        let text = variable.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(text, &env.0)));
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let no_key = |kind, name: &str, key: &str| EnvError::NoKey {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
    };
    if let Some(r) = &from.config_map_key_ref {
        let found = sources.config_maps.get(&r.name);
        let map = present("configmap", &r.name, found, r.optional)?;
        let value = map.and_then(|map| map.data.as_ref()?.get(&r.key).cloned());
        return match value {
            None if r.optional != Some(true) => Err(no_key("ConfigMap", &r.name, &r.key)),
            value => Ok(value),
        };
    }
    if let Some(r) = &from.secret_key_ref {
        let found = sources.secrets.get(&r.name);
        let secret = present("secret", &r.name, found, r.optional)?;
        let value = secret.and_then(|secret| secret.data.as_ref()?.get(&r.key));
        return match value {
            None if r.optional != Some(true) => Err(no_key("Secret", &r.name, &r.key)),
            value => Ok(value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())),
        };
    }
    if let Some(reference) = &from.field_ref {
        return field(reference, pod, place).map(Some);
    }
    if let Some(reference) = &from.resource_field_ref {
        return resource(reference, pod, container, place).map(Some);
    }
    Ok(None)
}

/// A field of the pod (downward API).
///
/// # Errors
/// The API does not offer the field.
pub(super) fn field(
    reference: &ObjectFieldSelector,
    pod: &Pod,
    place: &Place,
) -> Result<String, EnvError> {
    let path = reference.field_path.as_str();
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let keyed = |map: &str, entries: Option<&BTreeMap<String, String>>| {
        let key = path
            .strip_prefix(map)?
            .strip_prefix("['")?
            .strip_suffix("']")?;
        let value = entries.and_then(|entries| entries.get(key));
        Some(value.cloned().unwrap_or_default())
    };
    let text = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => return Ok(listed(meta.labels.as_ref())),
        "metadata.annotations" => return Ok(listed(meta.annotations.as_ref())),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" | "status.podIPs" => Some(place.pod_ip.to_string()),
        "status.hostIP" | "status.hostIPs" => Some(place.host_ip.to_string()),
        _ => {
            return keyed("metadata.labels", meta.labels.as_ref())
                .or_else(|| keyed("metadata.annotations", meta.annotations.as_ref()))
                .ok_or_else(|| EnvError::Field(path.to_owned()));
        }
    };
    Ok(text.unwrap_or_default())
}

/// `key="value"` lines, sorted, with the value quoted.
fn listed(entries: Option<&BTreeMap<String, String>>) -> String {
    let lines = entries.into_iter().flatten();
    lines
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A container's limit or request in units of the divisor, rounded up. What is not limited is limited
/// by the node; what is not requested is requested as much as limited.
pub(super) fn resource(
    reference: &ResourceFieldSelector,
    pod: &Pod,
    container: &Container,
    place: &Place,
) -> Result<String, EnvError> {
    let unknown = || EnvError::Resource(reference.resource.clone());
    let named = |name: &String| {
        let spec = pod.spec.as_ref()?;
        let init = spec.init_containers.iter().flatten();
        let mut all = spec.containers.iter().chain(init);
        all.find(|container| container.name == *name)
    };
    let container = match &reference.container_name {
        Some(name) if !name.is_empty() => named(name).ok_or_else(unknown)?,
        _ => container,
    };
    let (set, name) = reference.resource.split_once('.').ok_or_else(unknown)?;
    let resources = container.resources.as_ref();
    let limit = resources.and_then(|r| r.limits.as_ref()?.get(name));
    let request = resources.and_then(|r| r.requests.as_ref()?.get(name));
    let nano = |text: &str| Quantity::parse(text).map(Quantity::nano);
    let node = match name {
        "cpu" => i128::from(place.cpus),
        "memory" => i128::from(place.memory),
        "ephemeral-storage" => 0,
        _ => return Err(unknown()),
    } * 1_000_000_000;
    let amount = match set {
        "limits" => limit.map_or(Some(node), |quantity| nano(&quantity.0)),
        "requests" => request
            .or(limit)
            .map_or(Some(0), |quantity| nano(&quantity.0)),
        _ => None,
    };
    let amount = amount.ok_or_else(unknown)?;
    let divisor = reference.divisor.as_ref().and_then(|d| nano(&d.0));
    let divisor = divisor.filter(|d| *d > 0).unwrap_or(1_000_000_000);
    Ok((amount / divisor + i128::from(amount % divisor > 0)).to_string())
}
