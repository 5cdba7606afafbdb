//! The node agent's own HTTPS API, for an API server that is not in this process: logs and exec at
//! the paths and with the parameters that kube-apiserver uses towards a kubelet.
//!
//! Who may call is for the cluster to say ("Kubelet authentication/authorization"): a caller shows a
//! client certificate of the cluster's authority, and a SubjectAccessReview decides whether its user
//! may use `nodes/proxy` of this node.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::body::ApiBody;
use super::log::container;
use super::query::Query;
use super::serve::accept;
use super::server::error_response;
use super::status::ApiError;
use super::{exec, log};
use crate::streams::PodStreams;

/// The kubelet's names for the streams of an exec request.
const STREAM_FLAGS: exec::StreamFlags = ["input", "output", "error"];

/// What the kubelet's API needs.
#[derive(Clone)]
pub struct Kubelet {
    /// Asks the API server about pods and callers.
    pub client: Client,
    /// Name of the node.
    pub node: Arc<str>,
    /// The node agent.
    pub streams: Arc<dyn PodStreams>,
}

/// Serves until `shutdown`. `tls` has to verify the client certificates that it is shown.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    kubelet: Kubelet,
    shutdown: CancellationToken,
) {
    let handler = move |request, certificate| {
        let kubelet = kubelet.clone();
        async move {
            match Box::pin(kubelet.respond(request, certificate)).await {
                Ok(response) => response,
                Err(error) => error_response(&error),
            }
        }
    };
    accept(listener, tls, handler, shutdown).await;
}

/// Something of a container.
struct Target<'a> {
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
}

impl Kubelet {
    async fn respond(
        &self,
        request: Request<Incoming>,
        certificate: Option<CertificateDer<'static>>,
    ) -> Result<Response<ApiBody>, ApiError> {
        let caller = certificate.as_ref().and_then(Caller::of);
        let caller = caller.ok_or_else(ApiError::unauthorized)?;
        self.authorize(&caller, request.method()).await?;
        let (parts, _) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let words: Vec<&str> = path.split('/').skip(1).collect();
        match (&parts.method, words.as_slice()) {
            (&Method::GET, ["healthz"]) => Ok(Response::new(ApiBody::full("ok"))),
            (&Method::GET, ["containerLogs", namespace, pod, container]) => {
                let target = Target {
                    namespace,
                    pod,
                    container,
                };
                self.log(&parts, &target).await
            }
            (&Method::GET | &Method::POST, ["exec", namespace, pod, container]) => {
                let target = Target {
                    namespace,
                    pod,
                    container,
                };
                self.exec(parts, &target).await
            }
            _ => Err(ApiError::new(404, "NotFound", "404 page not found")),
        }
    }

    async fn authorize(&self, caller: &Caller, method: &Method) -> Result<(), ApiError> {
        let verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            _ => return Err(method_not_allowed()),
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(caller.user.clone()),
                groups: Some(caller.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some("proxy".to_owned()),
                    name: Some(self.node.to_string()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await;
        let review = review.map_err(unanswered)?;
        if review.status.is_some_and(|status| status.allowed) {
            return Ok(());
        }
        let message = format!(
            "user {:?} may not {verb} nodes/proxy of node {}",
            caller.user, self.node
        );
        Err(ApiError::new(403, "Forbidden", message))
    }

    async fn log(&self, parts: &Parts, target: &Target<'_>) -> Result<Response<ApiBody>, ApiError> {
        let pod = self.pod(target).await?;
        let query = Query::parse(parts.uri.query());
        let options = log::log_options(&pod, Some(target.container), &query)?;
        log::answer(parts, &pod, options, &*self.streams).await
    }

    async fn exec(&self, parts: Parts, target: &Target<'_>) -> Result<Response<ApiBody>, ApiError> {
        let pod = self.pod(target).await?;
        let query = Query::parse(parts.uri.query());
        let container = container(target.pod, &pod, Some(target.container))?;
        let options = exec::exec_options(&query, STREAM_FLAGS, container)?;
        exec::answer(parts, &pod, options, &*self.streams).await
    }

    /// The pod, if it is one of this node.
    async fn pod(&self, target: &Target<'_>) -> Result<Value, ApiError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), target.namespace);
        let pod = pods.get_opt(target.pod).await.map_err(unanswered)?;
        let ours = |pod: &Pod| {
            let spec = pod.spec.as_ref();
            spec.and_then(|spec| spec.node_name.as_deref()) == Some(&self.node)
        };
        let pod = pod.filter(ours).ok_or_else(|| {
            let message = format!("pod {} is not on node {}", target.pod, self.node);
            ApiError::new(404, "NotFound", message)
        })?;
        serde_json::to_value(pod).map_err(|error| ApiError::internal(error.to_string()))
    }
}

/// Who a certificate stands for: the common name is the user, organisations are its groups (X.509
/// client certificates, "Authenticating").
#[derive(Debug, PartialEq, Eq)]
struct Caller {
    user: String,
    groups: Vec<String>,
}

impl Caller {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization();
        let mut groups: Vec<String> = groups
            .filter_map(|group| Some(group.as_str().ok()?.to_owned()))
            .collect();
        groups.push("system:authenticated".to_owned());
        Some(Self { user, groups })
    }
}

fn method_not_allowed() -> ApiError {
    let code = StatusCode::METHOD_NOT_ALLOWED.as_u16();
    ApiError::new(code, "MethodNotAllowed", "method not allowed")
}

fn unanswered(error: kube::Error) -> ApiError {
    ApiError::internal(format!("the API server does not answer: {error}"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_says_who_calls() {
        for (name, group) in [
            (Some("kube-apiserver"), Some("system:masters")),
            (Some("nobody"), None),
            (None, Some("system:masters")),
        ] {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            for (kind, value) in [
                (DnType::CommonName, name),
                (DnType::OrganizationName, group),
            ] {
                if let Some(value) = value {
                    params.distinguished_name.push(kind, value);
                }
            }
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let groups = group.into_iter().chain(["system:authenticated"]);
            let caller = name.map(|name| Caller {
                user: name.to_owned(),
                groups: groups.map(str::to_owned).collect(),
            });
            assert_eq!(Caller::of(certificate.der()), caller);
        }
    }
}
