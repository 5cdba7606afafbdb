//! The backends of a rule, looked up among the Services.

use std::sync::Arc;

use super::host_routes::HostCompiler;
use super::ingress::{BackendRecord, BackendRefRecord, IngressRecord, PortRef};
use super::rank::SourceKey;
use super::service::{ServiceRecord, port_number};
use super::store::ObjectKey;
use crate::model::{
    Backend, Endpoint, Problem, ProblemKind, Protocol, ServiceKey, ServiceKind, ServicePort,
    WeightedBackend,
};

/// Why a backend cannot be used: the reason in the answer, and the problem.
pub(super) struct BadBackend {
    reason: &'static str,
    pub(super) kind: ProblemKind,
    pub(super) message: String,
}

/// Reasons of a backend that is not there, but may come.
const NO_SERVICE: &str = "service not found";
const NO_PORT: &str = "service has no such port";

/// What stands for the backend of a path that is not there, so that somebody else can answer for it;
/// `None` if that is not why it cannot be served.
pub(super) fn absent(
    key: &SourceKey,
    backend: &BackendRecord,
    reason: &'static str,
) -> Option<WeightedBackend> {
    let BackendRecord::Service { name, .. } = backend else {
        return None;
    };
    let is_absent = matches!(reason, NO_SERVICE | NO_PORT);
    is_absent.then(|| WeightedBackend {
        weight: 1,
        backend: of_nobody(&key.sibling(name)),
    })
}

/// Port 0 is that of no Service.
fn of_nobody(service: &ObjectKey) -> Backend {
    Backend {
        service: ServiceKey::from(service),
        port: 0,
    }
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
                of_nobody(&found.service)
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

    /// The port of a backend with its Service's own address as the one endpoint, if it has such an
    /// address (ingress-nginx `service-upstream`).
    pub(super) fn service_upstream(
        &self,
        key: &SourceKey,
        backends: Result<&[WeightedBackend], &&'static str>,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<ServicePort>> {
        let Ok([WeightedBackend { backend, .. }]) = backends else {
            return None;
        };
        let service_key = ObjectKey::new(&backend.service.namespace, &backend.service.name);
        let service = self.services.get(&service_key)?;
        let mut ports = service.ports.iter();
        let port = ports.find(|p| p.protocol == Protocol::Tcp && p.port == backend.port)?;
        let own = service.cluster_ips.first();
        let Some(own) = own.filter(|_| service.kind == ServiceKind::ClusterIp) else {
            let problem = Problem {
                object: key.object(),
                field: "metadata.annotations[nginx.ingress.kubernetes.io/service-upstream]".into(),
                kind: ProblemKind::BadAnnotation,
                message: format!("Service {service_key} has no cluster IP; its endpoints are used"),
            };
            // Each path of the object says the same.
            if !problems.contains(&problem) {
                problems.push(problem);
            }
            return None;
        };
        Some(Arc::new(ServicePort {
            service: backend.service.clone(),
            name: Arc::clone(&port.name),
            port: port.port,
            protocol: port.protocol,
            node_port: port.node_port,
            app_protocol: port.app_protocol,
            endpoints: [Arc::new(Endpoint::at((*own, port.port).into()))].into(),
            local: None,
            everywhere: None,
            policy: Arc::clone(&service.policy),
            http: Arc::clone(&service.http),
        }))
    }

    /// A Service port by number or name. Whether it has endpoints is no question here.
    fn service_port(&self, service_key: &ObjectKey, port: &PortRef) -> Result<Backend, BadBackend> {
        let service = self.service(service_key)?;
        let mut tcp = service.ports.iter().filter(|p| p.protocol == Protocol::Tcp);
        let (found, shown) = match port {
            PortRef::Number(number) => {
                let wanted = port_number(*number);
                (tcp.find(|p| Some(p.port) == wanted), number.to_string())
            }
            PortRef::Name(name) => (tcp.find(|p| p.name == *name), format!("`{name}`")),
        };
        let found = found.ok_or_else(|| BadBackend {
            reason: NO_PORT,
            kind: ProblemKind::MissingPort,
            message: format!("Service {service_key} has no TCP port {shown}"),
        })?;
        Ok(Backend {
            service: ServiceKey::from(service_key),
            port: found.port,
        })
    }

    /// The first port of a Service that is named without one.
    pub(super) fn first_port(&self, service_key: &ObjectKey) -> Result<Backend, BadBackend> {
        let mut ports = self.service(service_key)?.ports.iter();
        let found = ports.find(|port| port.protocol == Protocol::Tcp);
        let found = found.ok_or_else(|| BadBackend {
            reason: NO_PORT,
            kind: ProblemKind::MissingPort,
            message: format!("Service {service_key} has no TCP port"),
        })?;
        Ok(Backend {
            service: ServiceKey::from(service_key),
            port: found.port,
        })
    }

    /// A Service that requests may go to.
    fn service(&self, service_key: &ObjectKey) -> Result<&ServiceRecord, BadBackend> {
        let Some(service) = self.services.get(service_key) else {
            return Err(BadBackend {
                reason: NO_SERVICE,
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
        Ok(service)
    }
}
