//! The engine of one worker and what it is given to work with.

use std::cell::RefCell;
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use sealane_config::Reader;
use sealane_config::model::{
    AppProtocol, Endpoint, EndpointAddr, HttpPolicy, Scope, ServicePort, UpstreamTls,
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::Body;
use super::relay::{Alarms, Connections};
use super::respond::{self, Hop};
use super::services::{ServiceState, Services, Shared};
use crate::access::{AccessLog, Served};
use crate::admission;
use crate::balance::{Affinity, Balancer, Sticky};
use crate::connect::Connector;
use crate::live::UPKEEP;
use crate::pool::Pool;
use crate::sidecar::Direction;
use crate::{Error, ErrorKind};

/// Envoy's flag for a client that did not wait for its answer.
const CLIENT_GONE: &str = "DC";

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// What is spoken with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// HTTP/1.1 in plain text.
    Http1,
    /// HTTP/2 in plain text, with prior knowledge.
    Http2,
    /// HTTP/1.1 over TLS.
    Http1Tls,
    /// HTTP/2 over TLS.
    Http2Tls,
}

impl Upstream {
    /// What a Service port's `appProtocol` asks for; HTTP/1.1 if it says nothing.
    pub fn of(protocol: AppProtocol) -> Self {
        match protocol {
            AppProtocol::Http2 => Self::Http2,
            AppProtocol::Tls => Self::Http1Tls,
            AppProtocol::Detect | AppProtocol::Http | AppProtocol::Tcp => Self::Http1,
        }
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Http1Tls | Self::Http2Tls)
    }

    pub(crate) fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Http2Tls)
    }
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The Service port.
    pub port: Arc<ServicePort>,
    /// What its endpoints speak.
    pub upstream: Upstream,
    /// Which of its endpoints may take it.
    pub scope: Scope,
    /// The client for which the Service's session affinity holds, where it does.
    pub client: Option<IpAddr>,
    /// The client whose address endpoints are to see instead of ours, as far as
    /// [`Connector::source`] allows it.
    pub source: Option<IpAddr>,
    /// Which of its endpoints it would rather go to.
    pub sticky: Option<Sticky>,
    /// What holds for this request instead of the Service port's own policy.
    pub overrides: Option<Arc<HttpPolicy>>,
    /// How TLS is spoken with endpoints that speak it; `None`: their certificates are not verified.
    pub tls: Option<Arc<UpstreamTls>>,
}

impl Target {
    /// Any endpoint of a Service port in the whole cluster, with nothing asked for that the port's own
    /// policy does not say.
    pub fn new(port: Arc<ServicePort>, upstream: Upstream) -> Self {
        Self {
            port,
            upstream,
            scope: Scope::Cluster,
            client: None,
            source: None,
            sticky: None,
            overrides: None,
            tls: None,
        }
    }

    /// How the request is treated.
    pub fn policy(&self) -> &HttpPolicy {
        self.overrides.as_ref().unwrap_or(&self.port.http)
    }

    /// The endpoints that may take it.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        self.port.within(self.scope)
    }

    /// With those that topology hints leave out: they are what an endpoint that fails is compared
    /// with, and where traffic spills over to.
    pub fn everywhere(&self) -> &[Arc<Endpoint>] {
        self.port.everywhere_within(self.scope)
    }

    /// Nobody may take it because of a traffic policy: there are endpoints, but not on this node.
    pub fn is_cut_off(&self) -> bool {
        self.endpoints().is_empty() && !self.port.endpoints.is_empty()
    }
}

/// What is the same for all requests of an engine.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Retry budgets, queues and limits; one for all workers.
    pub shared: Shared,
    /// Who we are to the clients of [`Engine::serve_service`], for error answers.
    pub hop: Hop,
    /// Clients that stay with their endpoint; one table for all workers.
    pub affinity: Affinity,
    /// The connections of clients; one count for all workers.
    pub connections: admission::Connections,
    /// Which way requests go, for metrics.
    pub direction: Direction,
    /// Where each request gets a line.
    pub access_log: Option<AccessLog>,
    /// Cancelled: WebSockets are told that we go away, and end. It takes two seconds at most, one
    /// to finish a frame and one for the other side to answer.
    pub farewell: CancellationToken,
}

/// The engine of one worker. Clones share its pools and its state.
#[derive(Clone)]
pub struct Engine {
    inner: Rc<Inner>,
}

pub(super) struct Inner {
    pub(super) balancer: Balancer,
    pub(super) pool: Rc<Pool>,
    /// Those on which nothing but HTTP/1.1 without hyper is spoken.
    pub(super) relayed: Rc<Connections>,
    /// For exchanges of which little is watched at first.
    pub(super) alarms: Alarms,
    pub(super) services: Services,
    pub(super) tunnels: TaskTracker,
    pub(super) hop: Hop,
    connections: admission::Connections,
    pub(super) access_log: Option<AccessLog>,
    pub(super) farewell: CancellationToken,
    /// Where a request that failed looks for endpoints that have appeared since it came.
    pub(super) reader: RefCell<Option<Reader>>,
}

impl Engine {
    /// An engine for the calling worker.
    pub fn new(connector: Connector, options: EngineOptions) -> Self {
        Self {
            inner: Rc::new(Inner {
                balancer: Balancer::sharing(options.affinity),
                relayed: Rc::new(Connections::new(connector.clone())),
                alarms: Alarms::default(),
                pool: Rc::new(Pool::new(connector)),
                services: Services::new(options.shared, options.direction),
                tunnels: TaskTracker::new(),
                hop: options.hop,
                connections: options.connections,
                access_log: options.access_log,
                farewell: options.farewell,
                reader: RefCell::new(None),
            }),
        }
    }

    /// What connects to endpoints.
    pub fn connector(&self) -> &Connector {
        self.inner.pool.connector()
    }

    /// The connections of clients, for listeners to admit them.
    pub fn connections(&self) -> &admission::Connections {
        &self.inner.connections
    }

    /// Where each request gets a line.
    pub fn access_log(&self) -> Option<&AccessLog> {
        self.inner.access_log.as_ref()
    }

    pub(super) fn hop(&self) -> Hop {
        self.inner.hop
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The worker's balancer.
    pub fn balancer(&self) -> &Balancer {
        &self.inner.balancer
    }

    /// Keeps the engine in step with the snapshots, until `shutdown`: closes idle connections whose
    /// time is over or whose endpoint is gone, and lets a request that failed be sent to endpoints
    /// that have appeared since it came. Run one of these for each engine.
    pub async fn maintain(&self, mut reader: Reader, shutdown: CancellationToken) {
        *self.inner.reader.borrow_mut() = Some(reader.clone());
        let mut tick = interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut upkeep = interval(UPKEEP);
        let mut published = true;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = upkeep.tick() => self.inner.services.upkeep(),
                _ = tick.tick() => {}
                change = reader.changed(), if published => published = change.is_some(),
            }
            self.inner.pool.sweep();
            self.inner.relayed.sweep();
            self.inner.services.retain(&reader.load());
        }
    }

    /// Waits until all tunnels (upgraded connections) have ended. Call it after the connections
    /// that could open new ones have.
    pub fn drained(&self) -> impl Future<Output = ()> + use<> {
        let tunnels = self.inner.tunnels.clone();
        tunnels.close();
        async move { tunnels.wait().await }
    }

    /// Sends a request that passed the [gate](super::gate) to an endpoint of the target. Whatever
    /// goes wrong becomes an answer.
    pub async fn forward(&self, request: Request<Body>, target: &Target) -> Response<Body> {
        let asked = respond::Asked::new(request.version(), request.headers());
        let started = Instant::now();
        let state = self.inner.services.get(&target.port.service);
        let mut waiting = Waiting(Some(&state));
        let policy = target.policy();
        let limit = policy.timeouts.request;
        let forwarded = match state.admit(&policy.retries) {
            Err(error) => Err(error),
            Ok(admission) if limit.is_zero() => {
                let forward = self.inner.forward(request, target, admission, None);
                forward.await
            }
            // Boxed, because few Services have such a limit.
            Ok(admission) => {
                let deadline = Instant::now() + limit;
                let forward = self
                    .inner
                    .forward(request, target, admission, Some(deadline));
                let forward = Box::pin(timeout_at(deadline, forward)).await;
                forward.unwrap_or_else(|_elapsed| {
                    let detail = "the request took longer than it may";
                    Err(Error::new(ErrorKind::RequestTimeout, detail))
                })
            }
        };
        let response = match forwarded {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(service = %target.port.service, ?error, "request failed");
                state.metrics.failed(error.kind().flag());
                respond::error(&error, asked)
            }
        };
        waiting.0 = None;
        state.metrics.answered(response.status(), started.elapsed());
        response
    }
}

/// The endpoint that gave an answer to a request with [`Target::sticky`]; `None` if none did.
pub fn served_by(response: &Response<Body>) -> Option<EndpointAddr> {
    let served = response.extensions().get::<Served>();
    served.map(|served| served.endpoint)
}

/// A client that waits for the head of its answer. Dropped before that is there, it has gone.
pub(super) struct Waiting<'a>(pub(super) Option<&'a ServiceState>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.0 {
            state.metrics.failed(CLIENT_GONE);
        }
    }
}
