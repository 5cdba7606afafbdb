//! Reads from the Kubernetes API how far the applied objects are, and where they can be reached.

use std::fmt;
use std::net::SocketAddr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use serde::Serialize;

/// How many pods and Deployments are ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Pods that should run and are ready.
    pub(crate) ready: usize,
    /// Pods that should run.
    pub(crate) pods: usize,
    /// What is missing, and why.
    pub(crate) not_ready: Vec<NotReady>,
}

impl Progress {
    /// Nothing is missing.
    pub(crate) fn is_complete(&self) -> bool {
        self.not_ready.is_empty()
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} pods ready", self.ready, self.pods)?;
        if let Some(first) = self.not_ready.first() {
            write!(f, "; waiting for {first}")?;
        }
        Ok(())
    }
}

/// An object that is not ready, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NotReady {
    /// Kind.
    pub(crate) kind: &'static str,
    /// Namespace.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
    /// A reason of the Kubernetes API, as in `ImagePullBackOff`.
    pub(crate) reason: String,
    /// The reason's message.
    pub(crate) message: String,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.to_ascii_lowercase();
        write!(
            f,
            "{kind} {}/{}: {}",
            self.namespace, self.name, self.reason
        )?;
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        Ok(())
    }
}

/// Something that can be reached from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Route {
    /// The URL, with the gateway's port.
    pub(crate) url: String,
    /// The Service behind it, as `namespace/name:port`.
    pub(crate) service: String,
    /// A command that tries it, without an entry in /etc/hosts.
    pub(crate) command: String,
}

/// How far Deployments and their pods are.
///
/// # Errors
/// The API does not answer.
pub(crate) async fn progress(client: &Client) -> kube::Result<Progress> {
    let all = ListParams::default();
    let pods: Api<Pod> = Api::all(client.clone());
    let deployments: Api<Deployment> = Api::all(client.clone());
    let (pods, deployments) = tokio::try_join!(pods.list(&all), deployments.list(&all))?;
    let mut progress = Progress::default();
    for pod in &pods.items {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if pod.metadata.deletion_timestamp.is_some() || phase == Some("Succeeded") {
            continue;
        }
        progress.pods += 1;
        if is_ready(pod) {
            progress.ready += 1;
        } else {
            progress.not_ready.push(why_pod(pod));
        }
    }
    for deployment in &deployments.items {
        progress.not_ready.extend(why_deployment(deployment));
    }
    Ok(progress)
}

/// The pod's condition `Ready`.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn why_pod(pod: &Pod) -> NotReady {
    let status = pod.status.as_ref();
    let containers = status.into_iter().flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        init.chain(status.container_statuses.iter().flatten())
    });
    let (reason, message) = containers
        .filter_map(why_container)
        .next()
        .unwrap_or_else(|| {
            let condition = status
                .and_then(|status| status.conditions.as_ref())
                .and_then(|conditions| {
                    conditions
                        .iter()
                        .find(|c| c.status != "True" && c.reason.is_some())
                });
            match condition {
                Some(condition) => (
                    condition.reason.clone().unwrap_or_default(),
                    condition.message.clone().unwrap_or_default(),
                ),
                None => ("Pending".to_owned(), String::new()),
            }
        });
    NotReady {
        kind: "Pod",
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        reason,
        message,
    }
}

fn why_container(status: &ContainerStatus) -> Option<(String, String)> {
    let state = status.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        return Some((
            waiting.reason.clone().unwrap_or_default(),
            waiting.message.clone().unwrap_or_default(),
        ));
    }
    let terminated = state
        .terminated
        .as_ref()
        .filter(|ended| ended.exit_code != 0)?;
    Some((
        terminated.reason.clone().unwrap_or_default(),
        format!("exit code {}", terminated.exit_code),
    ))
}

fn why_deployment(deployment: &Deployment) -> Option<NotReady> {
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let seen = status.observed_generation == deployment.metadata.generation;
    let available = status.available_replicas.unwrap_or(0);
    let updated = status.updated_replicas.unwrap_or(0);
    if seen && available >= wanted && updated >= wanted {
        return None;
    }
    Some(NotReady {
        kind: "Deployment",
        namespace: deployment.namespace().unwrap_or_default(),
        name: deployment.name_any(),
        reason: "NotAvailable".to_owned(),
        message: format!("{available} of {wanted} replicas"),
    })
}

/// Where Ingresses and node ports can be reached from the host.
///
/// # Errors
/// The API does not answer.
pub(crate) async fn routes(
    client: &Client,
    http: SocketAddr,
    https: SocketAddr,
) -> kube::Result<Vec<Route>> {
    let all = ListParams::default();
    let ingresses: Api<Ingress> = Api::all(client.clone());
    let services: Api<Service> = Api::all(client.clone());
    let (ingresses, services) = tokio::try_join!(ingresses.list(&all), services.list(&all))?;
    let mut routes = Vec::new();
    for ingress in &ingresses.items {
        ingress_routes(ingress, http, https, &mut routes);
    }
    for service in &services.items {
        let spec = service.spec.clone().unwrap_or_default();
        for port in spec.ports.iter().flatten() {
            if let Some(node_port) = port.node_port {
                let url = format!("http://127.0.0.1:{node_port}/");
                routes.push(Route {
                    command: format!("curl {url}"),
                    url,
                    service: format!(
                        "{}/{}:{}",
                        service.namespace().unwrap_or_default(),
                        service.name_any(),
                        port.port
                    ),
                });
            }
        }
    }
    Ok(routes)
}

fn ingress_routes(ingress: &Ingress, http: SocketAddr, https: SocketAddr, routes: &mut Vec<Route>) {
    let Some(spec) = &ingress.spec else { return };
    let namespace = ingress.namespace().unwrap_or_default();
    let with_tls: Vec<&String> = spec
        .tls
        .iter()
        .flatten()
        .flat_map(|tls| tls.hosts.iter().flatten())
        .collect();
    for rule in spec.rules.iter().flatten() {
        for path in rule.http.iter().flat_map(|http| &http.paths) {
            let service = backend(&namespace, &path.backend);
            let host = rule.host.as_deref().unwrap_or("localhost");
            let path = path.path.as_deref().unwrap_or("/");
            let mut add = |scheme: &str, at: SocketAddr, insecure: &str| {
                let url = format!("{scheme}://{host}:{}{path}", at.port());
                let resolve = format!("--resolve {host}:{}:{} ", at.port(), at.ip());
                let resolve = if host == "localhost" { "" } else { &resolve };
                routes.push(Route {
                    command: format!("curl {insecure}{resolve}{url}"),
                    url,
                    service: service.clone(),
                });
            };
            add("http", http, "");
            if with_tls.iter().any(|name| *name == host) {
                add("https", https, "-k ");
            }
        }
    }
}

fn backend(namespace: &str, backend: &IngressBackend) -> String {
    let Some(service) = &backend.service else {
        return "?".to_owned();
    };
    let port = service.port.clone().unwrap_or_default();
    let port = port
        .number
        .map(|number| number.to_string())
        .or(port.name)
        .unwrap_or_default();
    format!("{namespace}/{}:{port}", service.name)
}
