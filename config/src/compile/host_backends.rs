//! The backends of a rule, looked up among the Services.

use super::host_routes::HostCompiler;
use super::ingress::{BackendRecord, BackendRefRecord, IngressRecord, PortRef};
use super::rank::SourceKey;
use super::service::port_number;
use super::store::ObjectKey;
use crate::model::{
    Backend, Problem, ProblemKind, Protocol, ServiceKey, ServiceKind, WeightedBackend,
};

/// Why a backend cannot be used: the reason in the answer, and the problem.
struct BadBackend {
    reason: &'static str,
    kind: ProblemKind,
    message: String,
}

impl HostCompiler<'_> {
    /// The backends of a path, or the reason why it has none.
    pub(super) fn backends(
        &self,
        (key, record): (&SourceKey, &IngressRecord),
        backend: &BackendRecord,
        backend_field: &str,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<WeightedBackend>, &'static str> {
        let mut problem = |bad: BadBackend| {
            problems.push(Problem {
                object: key.object(),
                field: backend_field.to_owned(),
                kind: bad.kind,
                message: bad.message,
            });
            bad.reason
        };
        let resolved = match backend {
            BackendRecord::Refused(reason) => Err(*reason),
            BackendRecord::Weighted(refs) => self.weighted(refs, &mut problem),
            BackendRecord::Service { .. } | BackendRecord::Resource => {
                let backend = self.backend(key, backend);
                let only = |backend| vec![WeightedBackend { weight: 1, backend }];
                backend.map(only).map_err(problem)
            }
        };
        let refused = record.policy.refused.or(self.defaults.refused);
        refused.map_or(resolved, Err)
    }

    /// Backends of an HTTPRoute rule. One that cannot be used keeps its share of the requests, which
    /// are refused (Gateway API, `backendRefs`).
    fn weighted(
        &self,
        refs: &[BackendRefRecord],
        problem: &mut impl FnMut(BadBackend) -> &'static str,
    ) -> Result<Vec<WeightedBackend>, &'static str> {
        let mut backends = Vec::with_capacity(refs.len());
        let mut reason = "no backend has a weight";
        for found in refs.iter().filter(|found| found.weight > 0) {
            let resolved = match &found.refused {
                Some(message) => Err(BadBackend {
                    reason: "backend not allowed",
                    kind: ProblemKind::BadField,
                    message: message.clone(),
                }),
                None => self.service_port(&found.service, &PortRef::Number(found.port)),
            };
            let is_usable = resolved.is_ok();
            let backend = resolved.unwrap_or_else(|bad| {
                reason = problem(bad);
                // Port 0 is that of no Service.
                Backend {
                    service: ServiceKey::from(&found.service),
                    port: 0,
                }
            });
            let weight = found.weight;
            backends.push((is_usable, WeightedBackend { weight, backend }));
        }
        if backends.iter().all(|(is_usable, _)| !is_usable) {
            return Err(reason);
        }
        Ok(backends.into_iter().map(|(_, backend)| backend).collect())
    }

    /// The backend of an Ingress' path.
    fn backend(&self, key: &SourceKey, backend: &BackendRecord) -> Result<Backend, BadBackend> {
        let BackendRecord::Service { name, port } = backend else {
            return Err(BadBackend {
                reason: "resource backend",
                kind: ProblemKind::BadField,
                message: "only Services can be backends".into(),
            });
        };
        self.service_port(&key.sibling(name), port)
    }

    /// A Service port by number or name. Whether it has endpoints is no question here.
    fn service_port(&self, service_key: &ObjectKey, port: &PortRef) -> Result<Backend, BadBackend> {
        let Some(service) = self.services.get(service_key) else {
            return Err(BadBackend {
                reason: "service not found",
                kind: ProblemKind::MissingService,
                message: format!("Service {service_key} does not exist"),
            });
        };
        if let ServiceKind::ExternalName(target) = &service.kind {
            return Err(BadBackend {
                reason: "ExternalName service",
                kind: ProblemKind::BadField,
                message: format!(
                    "Service {service_key} stands for {target}: the gateway does not lead out of \
                     the cluster"
                ),
            });
        }
        let mut tcp = service.ports.iter().filter(|p| p.protocol == Protocol::Tcp);
        let (found, shown) = match port {
            PortRef::Number(number) => {
                let wanted = port_number(*number);
                (tcp.find(|p| Some(p.port) == wanted), number.to_string())
            }
            PortRef::Name(name) => (tcp.find(|p| p.name == *name), format!("`{name}`")),
        };
        let found = found.ok_or_else(|| BadBackend {
            reason: "service has no such port",
            kind: ProblemKind::MissingPort,
            message: format!("Service {service_key} has no TCP port {shown}"),
        })?;
        Ok(Backend {
            service: ServiceKey::from(service_key),
            port: found.port,
        })
    }
}
