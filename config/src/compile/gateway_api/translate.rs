//! One HTTPRoute to the record of an Ingress.

use std::collections::HashSet;
use std::sync::Arc;

use super::findings::Findings;
use super::types::{
    BackendRef, HttpPathMatch, HttpRouteMatch, HttpRouteRule, HttpRouteSpec, ParentRef, TargetRef,
};
use super::{GROUP, GatewayApi, Spec as _, attach};
use crate::compile::annotations::Policy;
use crate::compile::host;
use crate::compile::ingress::{
    BackendRecord, BackendRefRecord, IngressRecord, Origin, PathKind, PathRecord, RuleRecord,
};
use crate::compile::store::ObjectKey;
use crate::model::{Attachment, HostMatch, Parent, Problem, Refusal};

/// What a route does where nothing else is said.
const EVERYTHING: &str = "/";

/// Whether a route refers to Services in one of these namespaces other than its own.
pub(super) fn leads_out(
    key: &ObjectKey,
    spec: &HttpRouteSpec,
    namespaces: impl Fn(&str) -> bool,
) -> bool {
    let mut refs = spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    refs.any(|found| {
        let namespace = found.target.namespace.as_deref();
        namespace.is_some_and(|other| *other != *key.namespace && namespaces(other))
    })
}

/// A record of a route.
pub(super) fn record(
    created: i64,
    rules: Vec<RuleRecord>,
    problems: Vec<Problem>,
) -> IngressRecord {
    IngressRecord {
        origin: Origin::HttpRoute,
        created,
        class: None,
        policy: Policy {
            ssl_redirect: Some(false),
            force_ssl_redirect: Some(false),
            ..Policy::default()
        },
        rules,
        default_backend: None,
        is_catch_all: false,
        tls: Vec::new(),
        status: Default::default(),
        problems,
    }
}

impl GatewayApi {
    /// The rules of an HTTPRoute that a Gateway of ours takes.
    pub(super) fn route_record(&self, key: &ObjectKey) -> Option<(IngressRecord, Attachment)> {
        let route = self.routes.get(key)?;
        let mut findings = Findings {
            key,
            kind: HttpRouteSpec::KIND,
            problems: Vec::new(),
        };
        let hostnames = findings.hostnames(&route.spec.hostnames);
        let mut hosts: Vec<HostMatch> = Vec::new();
        let mut parents = Vec::new();
        for (index, parent) in route.spec.parent_refs.iter().enumerate() {
            let Some(gateway_key) = parent.gateway(key) else {
                continue;
            };
            let Some(gateway) = self.our_gateway(&gateway_key) else {
                continue;
            };
            // Hostnames of which none can be used are not the same as none.
            let found = if hostnames.is_empty() && !route.spec.hostnames.is_empty() {
                Err(Refusal::NoHostname)
            } else {
                attach::hosts(&gateway.spec, &gateway_key, key, parent, &hostnames)
            };
            parents.push(parent.in_status(found.as_ref().err().copied()));
            match found {
                Ok(found) => hosts.extend(found),
                Err(why) => findings.add(format!("spec.parentRefs[{index}]"), why.message()),
            }
        }
        if parents.is_empty() {
            return None;
        }
        let mut seen = HashSet::new();
        hosts.retain(|host| seen.insert(host.clone()));
        let paths = self.paths(&route.spec, &mut findings);
        let rules = hosts.into_iter().flat_map(|host| {
            paths.iter().map(move |(index, paths)| RuleRecord {
                index: *index,
                host: host.clone(),
                paths: paths.clone(),
            })
        });
        let rules = rules.collect();
        let attachment = Attachment {
            generation: route.generation,
            parents,
        };
        let record = record(route.created, rules, findings.problems);
        Some((record, attachment))
    }

    /// The paths of each rule. Of two with the same path the first one counts, but one that can be
    /// served before one that cannot.
    fn paths(
        &self,
        spec: &HttpRouteSpec,
        findings: &mut Findings<'_>,
    ) -> Vec<(usize, Vec<PathRecord>)> {
        let mut all: Vec<(usize, PathRecord)> = Vec::new();
        for (index, rule) in spec.rules.iter().enumerate() {
            let backend = self.backend(index, rule, findings);
            let field = format!("spec.rules[{index}]");
            let everything = [HttpRouteMatch::default()];
            let matches = match &*rule.matches {
                [] => &everything[..],
                matches => matches,
            };
            for (place, found) in matches.iter().enumerate() {
                let field = format!("{field}.matches[{place}]");
                let path = findings.path(&field, place, found, &backend);
                all.extend(path.map(|path| (index, path)));
            }
        }
        // A stable sort: those that cannot be served come last.
        all.sort_by_key(|(_, path)| matches!(path.backend, BackendRecord::Refused(_)));
        let mut taken = HashSet::new();
        all.retain(|(index, path)| {
            let is_first = taken.insert((path.kind, Arc::clone(&path.path)));
            if !is_first && !matches!(path.backend, BackendRecord::Refused(_)) {
                let field = format!("spec.rules[{index}].matches[{}]", path.index);
                findings.add(
                    field,
                    format!("an earlier rule has path {} already", path.path),
                );
            }
            is_first
        });
        let mut rules: Vec<(usize, Vec<PathRecord>)> = Vec::new();
        all.sort_by_key(|(index, path)| (*index, path.index));
        for (index, path) in all {
            match rules.last_mut() {
                Some((last, paths)) if *last == index => paths.push(path),
                _ => rules.push((index, vec![path])),
            }
        }
        rules
    }

    fn backend(
        &self,
        index: usize,
        rule: &HttpRouteRule,
        findings: &mut Findings<'_>,
    ) -> BackendRecord {
        let field = format!("spec.rules[{index}]");
        let has_filters = rule
            .backend_refs
            .iter()
            .any(|found| !found.filters.is_empty());
        if !rule.filters.is_empty() || has_filters {
            let message = "filters are not served yet: requests are answered with 503";
            findings.add(format!("{field}.filters"), message);
            return BackendRecord::Refused("filters are not supported");
        }
        if rule.backend_refs.is_empty() {
            let message = "the rule has no backend: requests are answered with 503";
            findings.add(format!("{field}.backendRefs"), message);
            return BackendRecord::Refused("no backend");
        }
        let refs = rule.backend_refs.iter().enumerate();
        let refs = refs.map(|(place, found)| self.backend_ref(findings.key, place, found));
        BackendRecord::Weighted(refs.collect())
    }

    fn backend_ref(&self, route: &ObjectKey, place: usize, found: &BackendRef) -> BackendRefRecord {
        let target = &found.target;
        let namespace = target.namespace.as_deref().unwrap_or(&route.namespace);
        let is_service = is_kind(target, "", "Service");
        let is_near = *namespace == *route.namespace;
        let refused = if !is_service {
            Some(format!(
                "backendRefs[{place}] is no Service; only Services can be backends"
            ))
        } else if !is_near && !self.is_granted(route, namespace, &target.name) {
            Some(format!(
                "no ReferenceGrant in namespace {namespace} lets HTTPRoutes of namespace {} refer to \
                 Service {}",
                route.namespace, target.name
            ))
        } else if found.port.is_none() {
            Some(format!("backendRefs[{place}] names no port of the Service"))
        } else {
            None
        };
        BackendRefRecord {
            service: ObjectKey::new(namespace, &target.name),
            port: found.port.unwrap_or_default(),
            weight: u32::try_from(found.weight.unwrap_or(1)).unwrap_or_default(),
            refused,
        }
    }

    /// Whether a ReferenceGrant lets a route refer to a Service of another namespace.
    fn is_granted(&self, route: &ObjectKey, namespace: &str, service: &str) -> bool {
        let mut there = self
            .grants
            .iter()
            .filter(|(key, _)| *key.namespace == *namespace);
        there.any(|(_, grant)| {
            let from = grant.spec.from.iter().any(|from| {
                from.group == GROUP
                    && from.kind == HttpRouteSpec::KIND
                    && *from.namespace == *route.namespace
            });
            let to = grant.spec.to.iter().any(|to| {
                to.group.is_empty()
                    && to.kind == "Service"
                    && to
                        .name
                        .as_deref()
                        .is_none_or(|name| name.is_empty() || name == service)
            });
            from && to
        })
    }
}

impl Findings<'_> {
    fn hostnames(&mut self, written: &[String]) -> Vec<HostMatch> {
        let mut hostnames = Vec::with_capacity(written.len());
        for (index, text) in written.iter().enumerate() {
            match host::parse(text) {
                Ok(host) => hostnames.push(host),
                Err(why) => {
                    self.add(
                        format!("spec.hostnames[{index}]"),
                        format!("`{text}` {why}"),
                    );
                }
            }
        }
        hostnames
    }

    /// A match of a rule. One that asks for more than a path is refused where its path leads.
    fn path(
        &mut self,
        field: &str,
        index: usize,
        found: &HttpRouteMatch,
        backend: &BackendRecord,
    ) -> Option<PathRecord> {
        let fallback = HttpPathMatch::default();
        let written = found.path.as_ref().unwrap_or(&fallback);
        let value = written.value.as_deref().unwrap_or(EVERYTHING);
        if !value.starts_with('/') || value.chars().any(|c| c.is_control() || c == ' ') {
            let message = format!("`{value}` is no path: it starts with `/` and has no spaces");
            self.add(format!("{field}.path.value"), message);
            return None;
        }
        let mut refused = None;
        let (kind, path) = match written.kind.as_deref().unwrap_or("PathPrefix") {
            "Exact" => (PathKind::Exact, value),
            "PathPrefix" => (PathKind::Prefix, value),
            other => {
                refused = Some(format!("path matches of type {other}"));
                (PathKind::Prefix, literal_elements(value))
            }
        };
        let more = [
            (!found.headers.is_empty(), "matches of headers"),
            (
                !found.query_params.is_empty(),
                "matches of query parameters",
            ),
            (found.method.is_some(), "matches of the method"),
        ];
        let more = more.into_iter().find(|(is_there, _)| *is_there);
        let refused = refused.or_else(|| Some(more?.1.to_owned()));
        let backend = match refused {
            None => backend.clone(),
            Some(what) => {
                let message = format!(
                    "{what} are not served yet: requests for {path} that no other rule of the route \
                     takes are answered with 503"
                );
                self.add(field.to_owned(), message);
                BackendRecord::Refused("match is not supported")
            }
        };
        Some(PathRecord {
            index,
            kind,
            path: path.into(),
            backend,
        })
    }
}

impl ParentRef {
    fn in_status(&self, refused: Option<Refusal>) -> Parent {
        Parent {
            namespace: self.namespace.as_deref().map(Into::into),
            name: self.name.as_str().into(),
            section_name: self.section_name.as_deref().map(Into::into),
            port: self.port,
            refused,
        }
    }
}

pub(super) fn is_kind(target: &TargetRef, group: &str, kind: &str) -> bool {
    target.group.as_deref().unwrap_or_default() == group
        && target.kind.as_deref().is_none_or(|found| found == kind)
}

/// The path elements before the first one of a pattern that is not literal.
fn literal_elements(pattern: &str) -> &str {
    let special = |c: char| !(c.is_ascii_alphanumeric() || "/-_~".contains(c));
    let literal = pattern.find(special).map_or(pattern, |end| &pattern[..end]);
    match literal.rfind('/') {
        Some(0) | None => EVERYTHING,
        Some(end) => &literal[..end],
    }
}
