//! Connections to one Service port: what the node proxy serves.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Request, Response, StatusCode, Version};
use sealane_config::Reader;
use sealane_config::model::{Backend, ClientAddr, Scope, ServicePort};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::engine::{Engine, Target, Upstream};
use super::relay::{Front, PlainHead, Route, is_default};
use super::respond;
use super::serve::{ServerOptions, serve, serve_relayed};
use crate::{Error, ErrorKind};

/// A Service port by name, looked up again for every request: a connection outlives many snapshots.
#[derive(Clone, Debug)]
pub struct ServiceTarget {
    /// Where it is looked up.
    pub reader: Reader,
    /// Service and port.
    pub backend: Backend,
    /// The client dialled a cluster IP, for which `internalTrafficPolicy` holds. Pods and the node
    /// reach the cluster's endpoints by every other address (proxy S6).
    pub by_cluster_ip: bool,
    /// A port that is not looked up: one of the pod that the proxy is in.
    pub fixed: Option<Arc<ServicePort>>,
}

impl ServiceTarget {
    /// A port that stays as it is.
    pub(crate) fn fixed(reader: Reader, port: Arc<ServicePort>) -> Self {
        Self {
            reader,
            backend: Backend {
                service: port.service.clone(),
                port: port.port,
            },
            by_cluster_ip: false,
            fixed: Some(port),
        }
    }

    /// The Service port as it is now; `upstream` says what its endpoints speak.
    ///
    /// # Errors
    /// [`ErrorKind::NoService`], [`ErrorKind::NoPort`].
    pub fn resolve(&self, upstream: Upstream) -> Result<Target, Error> {
        if let Some(port) = &self.fixed {
            return Ok(Target {
                port: Arc::clone(port),
                upstream,
                scope: Scope::Cluster,
                client: None,
            });
        }
        let snapshot = self.reader.load();
        if let Some(port) = snapshot.backend(&self.backend) {
            let scope = if self.by_cluster_ip {
                port.policy.internal
            } else {
                Scope::Cluster
            };
            return Ok(Target {
                port: port.clone(),
                upstream,
                scope,
                client: None,
            });
        }
        Err(if snapshot.services.contains_key(&self.backend.service) {
            Error::new(ErrorKind::NoPort, "the Service has no such port")
        } else {
            Error::new(ErrorKind::NoService, "the Service does not exist")
        })
    }
}

/// Answers every request of a connection with an error.
pub(crate) async fn refuse<I>(stream: I, error: Error, shutdown: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let error = std::rc::Rc::new(error);
    let handler = move |request: Request<Body>| {
        let error = std::rc::Rc::clone(&error);
        async move {
            let asked = respond::Asked::new(request.version(), request.headers());
            respond::error(&error, asked)
        }
    };
    serve(stream, &ServerOptions::default(), handler, shutdown).await;
}

impl Engine {
    /// Serves a connection whose every request goes to one Service port, each to an endpoint of its
    /// own. Endpoints are spoken to in the client's version of HTTP. Ends as [`super::serve()`] does.
    pub async fn serve_service<I>(
        &self,
        stream: I,
        client: ClientAddr,
        target: ServiceTarget,
        shutdown: CancellationToken,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        tracing::trace!(%client, service = %target.backend.service, "HTTP connection");
        let engine = self.clone();
        let front = ServiceFront {
            client: client.0.ip(),
            target: target.clone(),
        };
        let target = std::rc::Rc::new(target);
        let handler = move |request: Request<Body>| {
            let engine = engine.clone();
            let target = std::rc::Rc::clone(&target);
            async move { engine.forward_to_service(request, client, &target).await }
        };
        let options = ServerOptions::default();
        let relayed = (self, &front);
        serve_relayed(stream, &options, relayed, handler, shutdown).await;
    }

    async fn forward_to_service(
        &self,
        request: Request<Body>,
        client: ClientAddr,
        target: &ServiceTarget,
    ) -> Response<Body> {
        let upstream = if request.version() == Version::HTTP_2 {
            Upstream::Http2
        } else {
            Upstream::Http1
        };
        match target.resolve(upstream) {
            Ok(mut target) => {
                target.client = Some(client.0.ip());
                self.forward(request, &target).await
            }
            Err(error) => {
                let asked = respond::Asked::new(request.version(), request.headers());
                respond::error(&error, asked)
            }
        }
    }
}

/// The relay's view of a connection to one Service port.
struct ServiceFront {
    client: IpAddr,
    target: ServiceTarget,
}

impl Front for ServiceFront {
    type Route = Target;

    fn route(&self, _: &PlainHead<'_>) -> Option<Target> {
        let mut target = self.target.resolve(Upstream::Http1).ok()?;
        target.client = Some(self.client);
        is_default(&target).then_some(target)
    }

    fn passes(&self, _: &str) -> bool {
        true
    }

    fn write_fields(&self, _: &PlainHead<'_>, _: &mut Vec<u8>) {}
}

impl Route for Target {
    fn target(&self) -> &Target {
        self
    }

    fn answered(&self, _: StatusCode, _: Instant) {}
}
