//! Objects by themselves and with each other: what neither the API server nor the compiler can see.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use sealane_config::model::ObjectRef;

use super::codes;
use super::finding::Collector;
use crate::manifests::{Fault, Named};
use crate::state::{Origin, Template};

/// Names the Service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Looks at all objects.
pub(super) fn check(collector: &mut Collector<'_>) {
    let state = collector.state;
    if let Origin::Files {
        implied_namespaces,
        templates,
        ..
    } = &state.origin
    {
        duplicates(collector);
        for name in implied_namespaces {
            let object = Named {
                kind: "Namespace".to_owned(),
                namespace: None,
                name: name.clone(),
            };
            let message = format!("objects are in namespace {name}, which no file makes");
            collector.add_plain(codes::IMPLIED_NAMESPACE, object, message);
        }
        for service in with_selector(&state.objects.services) {
            selected_by_templates(collector, service, templates);
        }
    } else {
        for service in with_selector(&state.objects.services) {
            endpoints(collector, service);
        }
    }
    orphans(collector);
}

/// The object that a finding is about.
pub(super) fn reference(kind: &'static str, object: &impl kube::Resource) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: object.namespace().unwrap_or_default().into(),
        name: object.name_any().into(),
    }
}

/// The same object in two manifests.
fn duplicates(collector: &mut Collector<'_>) {
    let mut seen = HashMap::new();
    for manifest in collector.state.places.manifests() {
        let named = manifest.named();
        let key = (named.kind, named.namespace, named.name);
        let Some(first) = seen.get(&key) else {
            seen.insert(key, manifest);
            continue;
        };
        let (file, line) = (first.file.display(), first.line(""));
        let message = format!("the same object is at {file}:{line}");
        let error = manifest.problem(Fault::Refused, "metadata.name", message);
        collector.add_manifest(codes::DUPLICATE, &error);
    }
}

fn with_selector(services: &[Service]) -> impl Iterator<Item = &Service> {
    services.iter().filter(|service| {
        let spec = service.spec.as_ref();
        let selector = spec.and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| !selector.is_empty()) && !is_alias(service)
    })
}

fn is_alias(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
}

fn selector(service: &Service) -> String {
    let spec = service.spec.as_ref();
    let selector = spec.and_then(|spec| spec.selector.as_ref());
    let pairs = selector.into_iter().flatten();
    let pairs: Vec<String> = pairs
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(",")
}

fn ports(service: &Service) -> impl Iterator<Item = (usize, &ServicePort)> {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|spec| spec.ports.as_ref());
    ports.into_iter().flatten().enumerate()
}

/// Files: pod templates behind a Service, and their named ports.
fn selected_by_templates(collector: &mut Collector<'_>, service: &Service, templates: &[Template]) {
    let object = reference("Service", service);
    let selected: Vec<&Template> = templates
        .iter()
        .filter(|template| template.is_selected_by(service))
        .collect();
    if selected.is_empty() {
        let mut message = format!(
            "no pod template in these files has the labels {}",
            selector(service)
        );
        if let Some(near) = nearest(service, templates) {
            let labels: Vec<String> = near
                .labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let (kind, name) = (&near.owner.kind, &near.owner.name);
            message.push_str(&format!(
                "; those of {kind} {name} are {}",
                labels.join(",")
            ));
        }
        collector.add(codes::NO_PODS, &object, "spec.selector", message);
        return;
    }
    for (index, port) in ports(service) {
        let Some(IntOrString::String(name)) = &port.target_port else {
            continue;
        };
        for template in &selected {
            let names: BTreeSet<&str> = template
                .containers()
                .flat_map(|container| container.ports.iter().flatten())
                .filter(|own| protocol(own.protocol.as_ref()) == protocol(port.protocol.as_ref()))
                .filter_map(|own| own.name.as_deref())
                .collect();
            if names.contains(name.as_str()) {
                continue;
            }
            let owner = &template.owner;
            let known: Vec<&str> = names.into_iter().collect();
            let known = if known.is_empty() {
                "it names no port".to_owned()
            } else {
                format!("its ports are named {}", known.join(", "))
            };
            let message = format!(
                "no container of {} {} has a port named `{name}`: {known}",
                owner.kind, owner.name
            );
            let field = format!("spec.ports[{index}].targetPort");
            collector.add(codes::NO_TARGET_PORT, &object, &field, message);
        }
    }
}

fn protocol(text: Option<&String>) -> &str {
    text.map_or("TCP", String::as_str)
}

/// The template of the namespace that shares a label's name with the selector, if there is one.
fn nearest<'t>(service: &Service, templates: &'t [Template]) -> Option<&'t Template> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref()?;
    let namespace = service.namespace()?;
    let shared = |template: &&Template| {
        let names = template.labels.keys();
        names.filter(|name| selector.contains_key(*name)).count()
    };
    let same = templates.iter().filter(|t| t.namespace == namespace);
    same.max_by_key(shared).filter(|best| shared(best) > 0)
}

/// Cluster: endpoints behind a Service, and behind each of its ports.
fn endpoints(collector: &mut Collector<'_>, service: &Service) {
    let object = reference("Service", service);
    let services = &collector.state.snapshot.services;
    let key = sealane_config::model::ServiceKey {
        namespace: Arc::clone(&object.namespace),
        name: Arc::clone(&object.name),
    };
    let Some(compiled) = services.get(&key) else {
        return;
    };
    let all = &compiled.endpoints;
    if all.is_empty() {
        let message = format!("no pod has the labels {}", selector(service));
        collector.add(codes::NO_ENDPOINTS, &object, "spec.selector", message);
        return;
    }
    if !all.iter().any(|endpoint| endpoint.ready) {
        let message = format!("none of its {} endpoints is ready", all.len());
        collector.add(codes::NONE_READY, &object, "", message);
    }
    for (index, port) in ports(service) {
        let name = port.name.as_deref().unwrap_or_default();
        let has_it = all
            .iter()
            .any(|endpoint| endpoint.ports.iter().any(|(own, ..)| &**own == name));
        if has_it {
            continue;
        }
        let target = match &port.target_port {
            Some(IntOrString::String(name)) => format!("a container port named `{name}`"),
            Some(IntOrString::Int(number)) => format!("port {number}"),
            None => format!("port {}", port.port),
        };
        let message = format!("none of its {} endpoints has {target}", all.len());
        let field = format!("spec.ports[{index}].targetPort");
        collector.add(codes::NO_TARGET_PORT, &object, &field, message);
    }
}

/// Slices whose Service is not there.
fn orphans(collector: &mut Collector<'_>) {
    let objects = &collector.state.objects;
    let services: HashSet<(Option<String>, String)> = objects
        .services
        .iter()
        .map(|service| (service.namespace(), service.name_any()))
        .collect();
    for slice in &objects.slices {
        let Some(message) = orphaned(slice, &services) else {
            continue;
        };
        let field = format!("metadata.labels[{SERVICE_NAME}]");
        let object = reference("EndpointSlice", slice);
        collector.add(codes::ORPHAN_SLICE, &object, &field, message);
    }
}

fn orphaned(slice: &EndpointSlice, services: &HashSet<(Option<String>, String)>) -> Option<String> {
    let name = slice
        .labels()
        .get(SERVICE_NAME)
        .filter(|name| !name.is_empty());
    let Some(name) = name else {
        return Some(format!(
            "it has no label {SERVICE_NAME}: no Service uses it"
        ));
    };
    let key = (slice.namespace(), name.clone());
    (!services.contains(&key)).then(|| format!("there is no Service {name} in its namespace"))
}
