//! Connections to one Service port: what the node proxy serves.

use http::{Request, Response, Version};
use sealane_config::Reader;
use sealane_config::model::{Backend, ClientAddr, Scope};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::engine::{Engine, Target, Upstream};
use super::respond;
use super::serve::{HeadLimits, ServerOptions, serve};
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
}

impl ServiceTarget {
    /// The Service port as it is now; `upstream` says what its endpoints speak.
    ///
    /// # Errors
    /// [`ErrorKind::NoService`], [`ErrorKind::NoPort`].
    pub fn resolve(&self, upstream: Upstream) -> Result<Target, Error> {
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

impl Engine {
    /// Serves a connection whose every request goes to one Service port, each to an endpoint of its
    /// own. Endpoints are spoken to in the client's version of HTTP. Ends as [`serve()`] does.
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
        let head = target.resolve(Upstream::Http1);
        let head = head.map(|target| HeadLimits::of(&target.port.http.limits));
        let options = ServerOptions {
            head: head.unwrap_or_default(),
            hop: self.hop(),
            ..ServerOptions::default()
        };
        let engine = self.clone();
        let target = std::rc::Rc::new(target);
        let handler = move |request: Request<Body>| {
            let engine = engine.clone();
            let target = std::rc::Rc::clone(&target);
            async move { engine.forward_to_service(request, client, &target).await }
        };
        serve(stream, &options, handler, shutdown).await;
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
