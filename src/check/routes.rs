//! Ingresses, their classes and certificates: what the compiler takes as it is and a user should
//! know.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use sealane_config::Snapshot;
use sealane_config::model::{Certificate, ObjectRef, RouteRule};

use super::codes;
use super::finding::Collector;
use super::objects::reference;

/// Names the class in the way that came before `spec.ingressClassName`.
const LEGACY_CLASS: &str = "kubernetes.io/ingress.class";

/// A certificate that ends within this many days should have been renewed.
const SOON_DAYS: i64 = 14;

/// Looks at all routes.
pub(super) fn check(collector: &mut Collector<'_>) {
    let state = collector.state;
    for ingress in &state.objects.ingresses {
        let object = reference("Ingress", ingress);
        if class(collector, ingress, &object) {
            without_secret(collector, ingress, &object);
        }
    }
    for rule in rules(&state.snapshot) {
        without_endpoints(collector, rule);
    }
    for certificate in certificates(&state.snapshot) {
        expiry(collector, certificate);
    }
}

/// Whether the Ingress is ours.
fn class(collector: &mut Collector<'_>, ingress: &Ingress, object: &ObjectRef) -> bool {
    let spec = ingress.spec.as_ref();
    let legacy = ingress.annotations().get(LEGACY_CLASS);
    let legacy = legacy.filter(|name| !name.is_empty());
    let field = match legacy {
        Some(_) => format!("metadata.annotations[{LEGACY_CLASS}]"),
        None => "spec.ingressClassName".to_owned(),
    };
    let named = legacy.or(spec.and_then(|spec| spec.ingress_class_name.as_ref()));
    let Some(name) = named else {
        let message = "it has no class, so no controller serves it unless one is told to";
        collector.add(codes::NO_CLASS, object, &field, message.to_owned());
        return false;
    };
    let classes = &collector.state.objects.classes;
    let Some(class) = classes.iter().find(|class| class.name_any() == *name) else {
        let known: Vec<String> = classes.iter().map(|class| class.name_any()).collect();
        let message = format!(
            "there is no IngressClass {name}; there is {}",
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        );
        collector.add(codes::UNKNOWN_CLASS, object, &field, message);
        return false;
    };
    let spec = class.spec.as_ref();
    let controller = spec.and_then(|spec| spec.controller.as_deref());
    let served = &collector.state.objects.served;
    if !controller.is_some_and(|name| served.has(name)) {
        let message = format!(
            "IngressClass {name} is of controller {}, which serves this Ingress",
            controller.unwrap_or("unknown")
        );
        collector.add(codes::FOREIGN_CLASS, object, &field, message);
        return false;
    }
    true
}

/// Entries of `spec.tls` that leave it to the default certificate.
fn without_secret(collector: &mut Collector<'_>, ingress: &Ingress, object: &ObjectRef) {
    let entries = ingress.spec.as_ref().and_then(|spec| spec.tls.as_ref());
    for (index, entry) in entries.into_iter().flatten().enumerate() {
        let secret = entry.secret_name.as_deref().unwrap_or_default();
        if !secret.is_empty() || collector.state.snapshot.certificates.default.is_some() {
            continue;
        }
        let hosts = entry.hosts.iter().flatten();
        let hosts: Vec<&str> = hosts.map(String::as_str).collect();
        let hosts = if hosts.is_empty() {
            "all of its hosts".to_owned()
        } else {
            hosts.join(", ")
        };
        let message = format!("no secretName for {hosts}, and there is no default certificate");
        collector.add(
            codes::NO_CERTIFICATE,
            object,
            &format!("spec.tls[{index}]"),
            message,
        );
    }
}

/// Every rule of every host, each once.
fn rules(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<RouteRule>> {
    let table = &snapshot.routes;
    let hosts = table.exact.values().chain(table.wildcard.values());
    let hosts = hosts.chain(&table.any).map(Arc::as_ref);
    hosts
        .flat_map(|host| host.rules.iter().chain(&host.fallback))
        .chain(&table.default_rule)
}

fn without_endpoints(collector: &mut Collector<'_>, rule: &RouteRule) {
    let snapshot = &collector.state.snapshot;
    if rule.invalid.is_some() {
        return;
    }
    let mut empty = BTreeSet::new();
    for weighted in rule.backends.iter().filter(|backend| backend.weight > 0) {
        let port = snapshot.backend(&weighted.backend);
        if port.is_some_and(|port| port.endpoints.is_empty()) {
            let backend = &weighted.backend;
            empty.insert(format!("{}:{}", backend.service, backend.port));
        }
    }
    for service in empty {
        let field = rule.backend_field();
        let message = format!("Service {service} has no endpoint that is ready: requests get 503");
        collector.add(
            codes::ROUTE_WITHOUT_ENDPOINTS,
            &rule.source,
            &field,
            message,
        );
    }
}

fn certificates(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Certificate>> {
    let table = &snapshot.certificates;
    let hosts = table.exact.values().chain(table.wildcard.values());
    hosts.chain(&table.default)
}

/// A certificate that ends soon. One that has ended is the compiler's business.
fn expiry(collector: &mut Collector<'_>, certificate: &Certificate) {
    let left = certificate.not_after - Timestamp::now().as_second();
    if !(0..SOON_DAYS * 86_400).contains(&left) {
        return;
    }
    let message = format!("it ends in {} days", left / 86_400);
    collector.add(codes::EXPIRES_SOON, &certificate.source, "", message);
}
