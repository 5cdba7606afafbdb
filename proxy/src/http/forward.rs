//! A request goes to a Service port and its answer comes back.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version, request};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::upgrade::OnUpgrade;
use sealane_config::Reader;
use sealane_config::model::{AppProtocol, Endpoint, EndpointAddr, ServicePort};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::Body;
use super::exchange::Exchange;
use super::metrics::Metrics;
use super::replay::Original;
use super::retry::{Budget, Retry, is_idempotent};
use super::upgrade::{self, Wanted};
use super::{headers, respond};
use crate::balance::{Balancer, Flight};
use crate::connect::Connector;
use crate::pool::{ConnectError, Lease, Pool};
use crate::{Error, ErrorKind};

/// Endpoints that one request is tried on.
const MAX_ATTEMPTS: usize = 3;

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// What is spoken with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// HTTP/1.1 in plain text.
    Http1,
    /// HTTP/2 in plain text, with prior knowledge.
    Http2,
    /// HTTP/1.1 over TLS; the certificate is not verified.
    Http1Tls,
    /// HTTP/2 over TLS; the certificate is not verified.
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
}

/// What is the same for all requests of an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How long an endpoint may take until the head of its answer is there.
    pub response_timeout: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            response_timeout: Duration::from_secs(60),
        }
    }
}

/// The engine of one worker. Clones share its pools and its state.
#[derive(Clone)]
pub struct Engine {
    inner: Rc<Inner>,
}

struct Inner {
    balancer: Balancer,
    pool: Rc<Pool>,
    budget: Budget,
    metrics: Metrics,
    tunnels: TaskTracker,
    options: EngineOptions,
}

/// One attempt that failed: what the client is told if there is no other, and whether there may be.
struct Failure {
    error: Error,
    retry: Retry,
}

impl Engine {
    /// An engine for the calling worker.
    pub fn new(connector: Connector, options: EngineOptions) -> Self {
        Self {
            inner: Rc::new(Inner {
                balancer: Balancer::new(),
                pool: Rc::new(Pool::new(connector)),
                budget: Budget::new(),
                metrics: Metrics::default(),
                tunnels: TaskTracker::new(),
                options,
            }),
        }
    }

    /// The worker's balancer.
    pub fn balancer(&self) -> &Balancer {
        &self.inner.balancer
    }

    /// Closes idle connections whose time is over or whose endpoint is gone, until `shutdown`.
    /// Run one of these for each engine.
    pub async fn maintain(&self, mut reader: Reader, shutdown: CancellationToken) {
        let mut tick = interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut published = true;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {}
                change = reader.changed(), if published => published = change.is_some(),
            }
            self.inner.pool.sweep();
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
        let metrics = self.inner.metrics.service(&target.port.service);
        self.inner.budget.earn();
        let response = match self.inner.forward(request, target).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(service = %target.port.service, ?error, "request failed");
                respond::error(&error, asked)
            }
        };
        metrics.answered(response.status(), started.elapsed());
        response
    }
}

impl Inner {
    async fn forward(
        &self,
        request: Request<Body>,
        target: &Target,
    ) -> Result<Response<Body>, Error> {
        let (mut parts, body) = request.into_parts();
        let mut upgrade = if target.upstream.is_http2() {
            None
        } else {
            Wanted::take(&mut parts)
        };
        write_request(&mut parts, target.upstream, upgrade.as_ref())?;
        let idempotent = is_idempotent(&parts.method);
        let original = Original::new(body, idempotent);
        let mut tried: Vec<EndpointAddr> = Vec::new();
        let mut fresh = false;
        let mut repeated = false;
        loop {
            let endpoint = self.pick(&target.port, &tried)?;
            let body = original.start_over().ok_or_else(|| {
                Error::new(ErrorKind::UpstreamReset, "the request cannot be sent again")
            })?;
            let attempt = self.attempt(&parts, body, endpoint, target, &mut upgrade, fresh);
            let failure = match attempt.await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let again = match failure.retry {
                Retry::Free => {
                    tried.push(endpoint.addr);
                    tried.len() < MAX_ATTEMPTS && tried.len() < target.port.endpoints.len()
                }
                // The same endpoint will do: it is the connection that was old.
                Retry::Stale => {
                    let safe = idempotent || original.untouched();
                    safe && !std::mem::replace(&mut fresh, true)
                }
                Retry::Broken => {
                    tried.push(endpoint.addr);
                    idempotent
                        && tried.len() < target.port.endpoints.len()
                        && !std::mem::replace(&mut repeated, true)
                        && self.budget.spend()
                }
                Retry::Never => false,
            };
            if !again || original.start_over().is_none() {
                return Err(failure.error);
            }
            self.metrics
                .service(&target.port.service)
                .retries
                .increment(1);
        }
    }

    fn pick<'a>(
        &self,
        port: &'a ServicePort,
        tried: &[EndpointAddr],
    ) -> Result<&'a Arc<Endpoint>, Error> {
        self.balancer
            .pick(&port.endpoints, tried)
            .ok_or_else(|| Error::new(ErrorKind::NoEndpoints, "the Service has no ready endpoint"))
    }

    /// One attempt on one endpoint.
    async fn attempt(
        &self,
        parts: &request::Parts,
        body: Body,
        endpoint: &Arc<Endpoint>,
        target: &Target,
        upgrade: &mut Option<Wanted>,
        fresh: bool,
    ) -> Result<Response<Body>, Failure> {
        let peers = &target.port.endpoints;
        let flight = Flight::start(endpoint);
        let mut lease = match self.pool.lease(endpoint, target.upstream, fresh).await {
            Ok(lease) => lease,
            Err(error) => {
                flight.failed(peers);
                return Err(not_connected(error));
            }
        };
        let request = rebuild(parts, body, endpoint, target.upstream);
        let started = Instant::now();
        let sent = timeout(self.options.response_timeout, lease.sender().send(request)).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let failure = broke(*error, &lease);
                // An idle connection that was closed says nothing about the endpoint.
                if failure.retry == Retry::Broken || failure.retry == Retry::Never {
                    flight.failed(peers);
                }
                return Err(failure);
            }
            Err(_elapsed) => {
                flight.failed(peers);
                return Err(Failure {
                    error: Error::new(
                        ErrorKind::ResponseTimeout,
                        "the endpoint did not answer in time",
                    ),
                    retry: Retry::Never,
                });
            }
        };
        if is_failure(&response) {
            flight.failed(peers);
        } else {
            flight.succeeded(started.elapsed());
        }
        self.answer(response, flight, lease, target, parts, upgrade)
    }

    /// Writes the client's answer from the endpoint's.
    fn answer(
        &self,
        mut response: Response<Incoming>,
        flight: Flight,
        lease: Lease,
        target: &Target,
        parts: &request::Parts,
        upgrade: &mut Option<Wanted>,
    ) -> Result<Response<Body>, Failure> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response, flight, upgrade.take());
        }
        write_response(&mut response, &parts.method);
        let exchange = Exchange::new(flight, lease, Arc::clone(&target.port));
        Ok(response.map(|body| Body::exchange(body, exchange)))
    }

    /// The endpoint agrees to an upgrade.
    fn switch(
        &self,
        mut response: Response<Incoming>,
        flight: Flight,
        wanted: Option<Wanted>,
    ) -> Result<Response<Body>, Failure> {
        let endpoint = response.extensions_mut().remove::<OnUpgrade>();
        let protocol = response.headers().get(http::header::UPGRADE).cloned();
        let (Some(wanted), Some(endpoint), Some(protocol)) = (wanted, endpoint, protocol) else {
            return Err(Failure {
                error: Error::new(
                    ErrorKind::BadResponse,
                    "the endpoint switched protocols without being asked",
                ),
                retry: Retry::Never,
            });
        };
        headers::remove_hop_by_hop(response.headers_mut());
        upgrade::write(response.headers_mut(), protocol);
        wanted.tunnel(endpoint, flight, &self.tunnels);
        Ok(response.map(|_nothing| Body::empty()))
    }
}

/// Turns a client's head into the one that endpoints get.
fn write_request(
    parts: &mut request::Parts,
    upstream: Upstream,
    upgrade: Option<&Wanted>,
) -> Result<(), Error> {
    let trailers = headers::takes_trailers(&parts.headers);
    headers::remove_hop_by_hop(&mut parts.headers);
    parts.headers.remove(CONTENT_LENGTH);
    if let Some(wanted) = upgrade {
        wanted.write(&mut parts.headers);
    }
    if trailers {
        headers::ask_for_trailers(&mut parts.headers, upstream.is_http2());
    }
    if upstream.is_http2() {
        parts.version = Version::HTTP_2;
        parts.uri = absolute(parts, upstream)?;
    } else {
        parts.version = Version::HTTP_11;
    }
    Ok(())
}

/// HTTP/2 has the authority in the target; `Host` goes (RFC 9113, 8.3.1).
fn absolute(parts: &mut request::Parts, upstream: Upstream) -> Result<Uri, Error> {
    let bad = || Error::new(ErrorKind::BadRequest, "Host is not a host and a port");
    let host = parts.headers.remove(HOST).filter(|host| !host.is_empty());
    let authority = match &host {
        Some(host) => Authority::try_from(host.as_bytes()).map_err(|_invalid| bad())?,
        None => Authority::from_static("localhost"),
    };
    let scheme = if upstream == Upstream::Http2Tls {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    let target = parts.uri.path_and_query().cloned();
    Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(target.unwrap_or_else(|| PathAndQuery::from_static("/")))
        .build()
        .map_err(|_invalid| bad())
}

/// The request for one attempt.
fn rebuild(
    parts: &request::Parts,
    body: Body,
    endpoint: &Endpoint,
    upstream: Upstream,
) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.version_mut() = parts.version;
    *request.headers_mut() = parts.headers.clone();
    // A client of HTTP/1.0 need not say which host it means.
    if !upstream.is_http2()
        && !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(&endpoint.addr.to_string())
    {
        request.headers_mut().insert(HOST, host);
    }
    request
}

/// Turns an endpoint's head into the one that the client gets.
fn write_response(response: &mut Response<Incoming>, method: &Method) {
    *response.version_mut() = Version::HTTP_11;
    headers::remove_hop_by_hop(response.headers_mut());
    // hyper frames from the body; where there is none by definition, the length is information.
    let bodiless = *method == Method::HEAD || response.status() == StatusCode::NOT_MODIFIED;
    if !bodiless {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}

/// Answers that count against an endpoint: server errors, except those that say that the request
/// asks for something nobody has, and "slow down".
fn is_failure(response: &Response<Incoming>) -> bool {
    let status = response.status();
    let server_error = status.is_server_error()
        && status != StatusCode::NOT_IMPLEMENTED
        && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED;
    server_error
        || status == StatusCode::TOO_MANY_REQUESTS
        || response
            .headers()
            .get("grpc-status")
            .is_some_and(|code| matches!(code.as_bytes(), b"4" | b"13" | b"14" | b"15"))
}

fn not_connected(error: ConnectError) -> Failure {
    let error = if error.is_timeout() {
        Error::new(
            ErrorKind::ConnectTimeout,
            "no endpoint accepted a connection in time",
        )
    } else {
        tracing::debug!(%error, "no connection to an endpoint");
        Error::new(
            ErrorKind::ConnectFailed,
            "no endpoint could be connected to",
        )
    };
    Failure {
        error,
        retry: Retry::Free,
    }
}

/// A connection ended before the head of the answer was there.
fn broke(error: TrySendError<Request<Body>>, lease: &Lease) -> Failure {
    let unsent = error.message().is_some();
    let error = error.into_error();
    let retry = if unsent {
        // Nothing was written: the connection was already closed when it was taken.
        Retry::Stale
    } else if is_unprocessed(&error) {
        Retry::Free
    } else if error.is_parse() || error.is_body_write_aborted() || error.is_user() {
        Retry::Never
    } else if lease.is_reused() {
        Retry::Stale
    } else {
        Retry::Broken
    };
    let kind = if error.is_parse() {
        ErrorKind::BadResponse
    } else {
        ErrorKind::UpstreamReset
    };
    let detail = if kind == ErrorKind::BadResponse {
        "the endpoint's answer is malformed"
    } else {
        "the endpoint closed the connection before it answered"
    };
    Failure {
        error: Error::with(kind, detail, error),
        retry,
    }
}

/// HTTP/2: the endpoint says that it has not looked at the request (RFC 9113, 8.7).
fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return h2.is_remote()
                && (h2.is_go_away() || h2.reason() == Some(h2::Reason::REFUSED_STREAM));
        }
        source = cause.source();
    }
    false
}
