//! What is kept of an Ingress.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::networking::v1;

use super::annotations::Policy;
use super::host;
use super::ingress_status::StatusRecord;
use super::store::ObjectKey;
use crate::model::{HostMatch, Problem, ProblemKind};

/// Names the class in the way that came before `spec.ingressClassName`.
const LEGACY_CLASS: &str = "kubernetes.io/ingress.class";

/// The fields of an Ingress that are used, or what a Gateway or an HTTPRoute comes to in their terms.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressRecord {
    pub(super) origin: Origin,
    pub(super) created: i64,
    pub(super) class: Option<Arc<str>>,
    pub(super) policy: Policy,
    pub(super) rules: Vec<RuleRecord>,
    pub(super) default_backend: Option<BackendRecord>,
    /// Written without any rule: its default backend is for all hosts.
    pub(super) is_catch_all: bool,
    pub(super) tls: Vec<TlsRecord>,
    pub(super) status: StatusRecord,
    pub(super) problems: Vec<Problem>,
}

/// Which kind of object a record was made of; its problems name that kind's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Ingress,
    Gateway,
    HttpRoute,
}

/// A rule: a host and its paths.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RuleRecord {
    /// Place in `spec.rules`.
    pub(super) index: usize,
    pub(super) host: HostMatch,
    pub(super) paths: Vec<PathRecord>,
}

/// A path of a rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PathRecord {
    /// Place in the rule's `http.paths`.
    pub(super) index: usize,
    pub(super) kind: PathKind,
    /// As written, `/` if empty.
    pub(super) path: Arc<str>,
    pub(super) backend: BackendRecord,
}

/// `pathType`, in the order of precedence among paths of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum PathKind {
    Exact,
    Prefix,
    ImplementationSpecific,
}

impl PathKind {
    pub(super) const ALL: [Self; 3] = [Self::Exact, Self::Prefix, Self::ImplementationSpecific];
}

/// A backend as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum BackendRecord {
    Service {
        name: Arc<str>,
        port: PortRef,
    },
    /// A backend that is not a Service.
    Resource,
    /// Several, by weight.
    Weighted(Arc<[BackendRefRecord]>),
    /// Nothing, for this reason, which is a problem of its own.
    Refused(&'static str),
}

/// A backend of an HTTPRoute.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BackendRefRecord {
    pub(super) service: ObjectKey,
    pub(super) port: i32,
    pub(super) weight: u32,
    /// Why it is not to be used, if that is so.
    pub(super) refused: Option<String>,
}

/// A Service port by number or name.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PortRef {
    Number(i32),
    Name(Arc<str>),
}

/// An entry of `spec.tls`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TlsRecord {
    /// Place in `spec.tls`.
    pub(super) index: usize,
    pub(super) hosts: Vec<HostMatch>,
    /// `None`: the default certificate.
    pub(super) secret: Option<Arc<str>>,
}

impl IngressRecord {
    /// Reads an Ingress. What cannot be used is left out and becomes a problem.
    pub fn read(key: &ObjectKey, ingress: v1::Ingress) -> Self {
        let mut reader = Reader {
            key,
            problems: Vec::new(),
        };
        let status = StatusRecord::read(&ingress);
        let class = ingress_class(&ingress).map(Into::into);
        let annotations = ingress.metadata.annotations.unwrap_or_default();
        let spec = ingress.spec.unwrap_or_default();
        Self {
            origin: Origin::Ingress,
            created: super::created(ingress.metadata.creation_timestamp.as_ref()),
            class,
            policy: Policy::read(key, &status.uid, &annotations, &mut reader.problems),
            is_catch_all: spec.rules.as_ref().is_none_or(Vec::is_empty)
                && spec.default_backend.is_some(),
            rules: reader.rules(
                spec.rules.unwrap_or_default(),
                spec.default_backend.is_some(),
            ),
            default_backend: spec.default_backend.map(backend),
            tls: reader.tls(spec.tls.unwrap_or_default()),
            status,
            problems: reader.problems,
        }
    }

    /// Whether only the status differs, on which no route depends.
    pub(super) fn routes_like(&self, other: &Self) -> bool {
        let Self {
            origin: _,
            created,
            class,
            policy,
            rules,
            default_backend,
            is_catch_all,
            tls,
            status: _,
            problems,
        } = self;
        (created, is_catch_all) == (&other.created, &other.is_catch_all)
            && (class, policy, rules) == (&other.class, &other.policy, &other.rules)
            && (default_backend, tls, problems)
                == (&other.default_backend, &other.tls, &other.problems)
    }

    /// The field that a path comes from.
    pub(super) fn path_field(&self, rule: &RuleRecord, path: &PathRecord) -> String {
        let (rule, path) = (rule.index, path.index);
        match self.origin {
            Origin::Ingress => format!("spec.rules[{rule}].http.paths[{path}]"),
            Origin::Gateway | Origin::HttpRoute => format!("spec.rules[{rule}].matches[{path}]"),
        }
    }

    /// The field with the backend of the path from `path_field`.
    pub(super) fn backend_field(&self, path_field: &str) -> String {
        match (self.origin, path_field.split_once(".matches")) {
            (Origin::HttpRoute, Some((rule, _))) => format!("{rule}.backendRefs"),
            (Origin::Ingress | Origin::Gateway | Origin::HttpRoute, _) => {
                format!("{path_field}.backend")
            }
        }
    }

    /// The field that names the Secret of `tls`.
    pub(super) fn secret_field(&self, tls: &TlsRecord) -> String {
        match self.origin {
            Origin::Gateway => format!("spec.listeners[{}].tls.certificateRefs", tls.index),
            Origin::Ingress | Origin::HttpRoute => format!("spec.tls[{}].secretName", tls.index),
        }
    }

    /// Names of the Services that it routes to, sorted.
    pub(super) fn service_names(&self) -> Arc<[Arc<str>]> {
        let name = |backend: &BackendRecord| match backend {
            BackendRecord::Service { name, .. } => Some(Arc::clone(name)),
            BackendRecord::Resource | BackendRecord::Weighted(_) | BackendRecord::Refused(_) => {
                None
            }
        };
        let names: BTreeSet<Arc<str>> = self.backends().filter_map(name).collect();
        names.into_iter().collect()
    }

    /// All of its hosts, those of its rules and those of its certificates; with repetitions.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &HostMatch> {
        let rules = self.rules.iter().map(|rule| &rule.host);
        rules.chain(self.tls.iter().flat_map(|tls| &tls.hosts))
    }

    /// All of its backends; with repetitions.
    pub(super) fn backends(&self) -> impl Iterator<Item = &BackendRecord> {
        let paths = self.rules.iter().flat_map(|rule| &rule.paths);
        paths.map(|path| &path.backend).chain(&self.default_backend)
    }
}

/// The name of an Ingress' class: from the annotation, which came first and is read first, or from
/// the field.
pub fn ingress_class(ingress: &v1::Ingress) -> Option<&str> {
    let annotations = ingress.metadata.annotations.as_ref();
    let legacy = annotations.and_then(|annotations| annotations.get(LEGACY_CLASS));
    let field = ingress
        .spec
        .as_ref()
        .and_then(|spec| spec.ingress_class_name.as_ref());
    let class = legacy.filter(|class| !class.is_empty()).or(field);
    class.map(String::as_str)
}

struct Reader<'a> {
    key: &'a ObjectKey,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, field: String, message: String) {
        self.problems.push(Problem {
            object: self.key.of_kind("Ingress"),
            field,
            kind: ProblemKind::BadField,
            message,
        });
    }

    fn rules(&mut self, rules: Vec<v1::IngressRule>, has_default: bool) -> Vec<RuleRecord> {
        let mut read = Vec::with_capacity(rules.len());
        for (index, rule) in rules.into_iter().enumerate() {
            let text = rule.host.unwrap_or_default();
            let host = match host::parse(&text) {
                Ok(host) => host,
                Err(why) => {
                    self.problem(
                        format!("spec.rules[{index}].host"),
                        format!("`{text}` {why}"),
                    );
                    continue;
                }
            };
            if rule.http.is_none() && !has_default {
                let message = "the rule has no paths and the Ingress has no defaultBackend: the host answers 404";
                self.problem(format!("spec.rules[{index}]"), message.into());
            }
            let paths = rule.http.map(|http| http.paths).unwrap_or_default();
            let paths = paths.into_iter().enumerate();
            read.push(RuleRecord {
                index,
                host,
                paths: paths
                    .filter_map(|(place, path)| self.path(index, place, path))
                    .collect(),
            });
        }
        read
    }

    fn path(&mut self, rule: usize, index: usize, path: v1::HTTPIngressPath) -> Option<PathRecord> {
        let field = format!("spec.rules[{rule}].http.paths[{index}]");
        let kind = match path.path_type.as_str() {
            "Exact" => PathKind::Exact,
            "Prefix" => PathKind::Prefix,
            "ImplementationSpecific" => PathKind::ImplementationSpecific,
            other => {
                self.problem(
                    format!("{field}.pathType"),
                    format!("`{other}` is not one of Exact, Prefix, ImplementationSpecific"),
                );
                return None;
            }
        };
        let text = path.path.filter(|path| !path.is_empty());
        let text = text.unwrap_or_else(|| "/".into());
        if text.chars().any(|c| c.is_control() || c == ' ') {
            let message = "a path cannot have spaces or control characters";
            self.problem(format!("{field}.path"), message.into());
            return None;
        }
        Some(PathRecord {
            index,
            kind,
            path: text.into(),
            backend: backend(path.backend),
        })
    }

    fn tls(&mut self, entries: Vec<v1::IngressTLS>) -> Vec<TlsRecord> {
        let mut read = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let written = entry.hosts.unwrap_or_default();
            let names_hosts = !written.is_empty();
            let mut hosts = Vec::new();
            for (place, text) in written.into_iter().enumerate() {
                match host::parse(&text) {
                    Ok(host) => hosts.push(host),
                    Err(why) => self.problem(
                        format!("spec.tls[{index}].hosts[{place}]"),
                        format!("`{text}` {why}"),
                    ),
                }
            }
            // Without hosts an entry is for all hosts of the Ingress; one whose hosts are all bad is not.
            if names_hosts && hosts.is_empty() {
                continue;
            }
            read.push(TlsRecord {
                index,
                hosts,
                secret: entry
                    .secret_name
                    .filter(|name| !name.is_empty())
                    .map(Into::into),
            });
        }
        read
    }
}

fn backend(backend: v1::IngressBackend) -> BackendRecord {
    let Some(service) = backend.service else {
        return BackendRecord::Resource;
    };
    let port = service.port.unwrap_or_default();
    BackendRecord::Service {
        name: service.name.into(),
        port: match port.name.filter(|name| !name.is_empty()) {
            Some(name) => PortRef::Name(name.into()),
            None => PortRef::Number(port.number.unwrap_or_default()),
        },
    }
}
