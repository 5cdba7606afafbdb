//! Connections to one Service port: what the node proxy serves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Version};
use sealane_config::Reader;
use sealane_config::model::{Backend, ClientAddr, Scope, ServicePort, TrafficPolicy};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::engine::{Engine, Target, Upstream};
use super::relay::{ClientStream, Front, PlainHead, Route, is_default};
use super::respond;
use super::serve::{HeadLimits, ServerOptions, serve, serve_relayed};
use crate::{Error, ErrorKind};

/// By which of a Service's addresses a client came, and from where: the traffic policy follows from
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// It dialled a cluster IP: `internalTrafficPolicy` holds.
    #[default]
    ClusterIp,
    /// It is outside the cluster and dialled another address: `externalTrafficPolicy` holds.
    Outside,
    /// It is a pod or the node itself and dialled another address: no policy holds (proxy S6).
    Inside,
}

/// How a client came to a Service port.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dialled {
    /// Which traffic policy holds.
    pub reach: Reach,
    /// The family of the address, which is that of the endpoints (proxy S21). `None`: the one that
    /// the Service prefers.
    pub is_v4: Option<bool>,
    /// The client's address, if endpoints may see it: replies to it pass this node, provided that
    /// with [`Reach::Outside`] the endpoint is on this node.
    pub client: Option<IpAddr>,
}

impl Dialled {
    /// Which endpoints may serve the client, and its address if they may see it.
    pub(crate) fn under(&self, policy: &TrafficPolicy) -> (Scope, Option<IpAddr>) {
        let (scope, keeps_source) = match self.reach {
            Reach::ClusterIp => (policy.internal, true),
            Reach::Outside => (policy.external, policy.external == Scope::Local),
            Reach::Inside => (Scope::Cluster, false),
        };
        (scope, self.client.filter(|_| keeps_source))
    }
}

/// A Service port by name, looked up again for every request: a connection outlives many snapshots.
#[derive(Clone, Debug)]
pub struct ServiceTarget {
    /// Where it is looked up.
    pub reader: Reader,
    /// Service and port.
    pub backend: Backend,
    /// How the client came here.
    pub dialled: Dialled,
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
            dialled: Dialled {
                reach: Reach::Inside,
                ..Dialled::default()
            },
            fixed: Some(port),
        }
    }

    /// The Service port as it is now; `upstream` says what its endpoints speak.
    ///
    /// # Errors
    /// [`ErrorKind::NoService`], [`ErrorKind::NoPort`].
    pub fn resolve(&self, upstream: Upstream) -> Result<Target, Error> {
        if let Some(port) = &self.fixed {
            return Ok(Target::new(Arc::clone(port), upstream));
        }
        let snapshot = self.reader.load();
        let port = match self.dialled.is_v4 {
            Some(is_v4) => snapshot.backend_of_family(&self.backend, is_v4),
            None => snapshot.backend(&self.backend),
        };
        if let Some(port) = port {
            let (scope, source) = self.dialled.under(&port.policy);
            return Ok(Target {
                port: port.clone(),
                upstream,
                scope,
                client: None,
                source,
                sticky: None,
                overrides: None,
                tls: None,
            });
        }
        Err(if snapshot.services.contains_key(&self.backend.service) {
            Error::new(ErrorKind::NoPort, "the Service has no such port")
        } else {
            Error::new(ErrorKind::NoService, "the Service does not exist")
        })
    }
}

/// Answers every request of a connection with an error, as a pod's own proxy.
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
    let options = ServerOptions {
        hop: respond::Hop::Sidecar,
        ..ServerOptions::default()
    };
    serve(stream, &options, handler, shutdown).await;
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
        I: ClientStream + Send + 'static,
    {
        tracing::trace!(%client, service = %target.backend.service, "HTTP connection");
        let head = target.resolve(Upstream::Http1);
        let head = head.map(|target| HeadLimits::of(&target.policy().limits));
        let options = ServerOptions {
            head: head.unwrap_or_default(),
            hop: self.hop(),
            ..ServerOptions::default()
        };
        let engine = self.clone();
        let front = ServiceFront {
            has_log: self.access_log().is_some(),
            client: client.0.ip(),
            target: target.clone(),
        };
        let target = std::rc::Rc::new(target);
        let handler = move |request: Request<Body>| {
            let engine = engine.clone();
            let target = std::rc::Rc::clone(&target);
            async move {
                let Some(log) = engine.access_log() else {
                    return engine.forward_to_service(request, client, &target).await;
                };
                let (line, request) = log.begin(client.0.ip(), request);
                let response = engine.forward_to_service(request, client, &target).await;
                line.answer(response, None)
            }
        };
        let relayed = (self, &front);
        serve_relayed(stream, &options, relayed, handler, shutdown.into()).await;
    }

    async fn forward_to_service(
        &self,
        request: Request<Body>,
        client: ClientAddr,
        target: &ServiceTarget,
    ) -> Response<Body> {
        let upstream =
            if request.version() == Version::HTTP_2 && request.method() != Method::CONNECT {
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
#[derive(Clone)]
struct ServiceFront {
    /// Each request has a line in the access log, which the relay does not write.
    has_log: bool,
    client: IpAddr,
    target: ServiceTarget,
}

impl Front for ServiceFront {
    const STREAMS: bool = false;

    type Route = Target;

    fn route(&self, _: &PlainHead<'_>) -> Option<Target> {
        if self.has_log {
            return None;
        }
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

    fn answered(&self, _: StatusCode, _: Duration) {}
}
