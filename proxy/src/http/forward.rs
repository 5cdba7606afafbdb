//! A request goes to a Service port and its answer comes back.

use std::pin::pin;
use std::sync::Arc;

use http::header::UPGRADE;
use http::{Method, Request, Response, StatusCode, request};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use sealane_config::model::{Endpoint, EndpointAddr};
use tokio::time::Instant;

use super::body::Body;
use super::engine::{Inner, Target, Upstream};
use super::exchange::Exchange;
use super::failure::{self, Failure};
use super::replay::Original;
use super::retry::{Retry, is_idempotent};
use super::upgrade::{self, Wanted};
use super::{headers, heads, patience};
use crate::balance::Flight;
use crate::pool::Lease;
use crate::{Error, ErrorKind};

/// Endpoints that one request is tried on.
const MAX_ATTEMPTS: usize = 5;

/// What decides whether a request is tried again.
pub(super) struct Attempts {
    idempotent: bool,
    /// Endpoints that it need not be tried on again.
    tried: Vec<EndpointAddr>,
    /// A connection turned out to be stale, so the next one is new.
    fresh: bool,
    /// An attempt that may have had an effect was repeated.
    repeated: bool,
}

impl Attempts {
    pub(super) fn new(idempotent: bool) -> Self {
        Self {
            idempotent,
            tried: Vec::new(),
            fresh: false,
            repeated: false,
        }
    }

    /// Endpoints that it need not be tried on again.
    pub(super) fn tried(&self) -> &[EndpointAddr] {
        &self.tried
    }

    /// The next attempt takes a new connection.
    pub(super) fn fresh(&self) -> bool {
        self.fresh
    }

    /// There is an endpoint to try it on.
    fn untried(&self, target: &Target) -> bool {
        let mut endpoints = target.endpoints().iter();
        endpoints.any(|e| !self.tried.contains(&e.addr))
    }
}

/// One attempt: what is sent, and where.
struct Attempt<'a> {
    parts: &'a request::Parts,
    original: &'a Original,
    endpoint: &'a Endpoint,
    target: &'a Target,
    upstream: Upstream,
    fresh: bool,
}

impl Inner {
    pub(super) async fn forward(
        &self,
        request: Request<Body>,
        target: &Target,
    ) -> Result<Response<Body>, Error> {
        let (mut parts, body) = request.into_parts();
        let wanted = if target.upstream.is_http2() {
            None
        } else {
            Wanted::take(&mut parts)
        };
        heads::write_request(&mut parts, target.upstream, wanted.as_ref())?;
        let mut attempts = Attempts::new(is_idempotent(&parts.method));
        let original = Original::new(body, attempts.idempotent);
        let mut latest = None;
        loop {
            let current = latest.as_ref().unwrap_or(target);
            let endpoint = self.pick(current, &attempts.tried)?;
            let body = original.start_over().ok_or_else(|| {
                Error::new(ErrorKind::UpstreamReset, "the request cannot be sent again")
            })?;
            let flight = Flight::start(endpoint);
            let attempt = Attempt {
                parts: &parts,
                original: &original,
                endpoint,
                target: current,
                upstream: target.upstream,
                fresh: attempts.fresh,
            };
            let attempt = self.attempt(attempt, body, &flight);
            let failure = match attempt.await {
                Ok((response, lease)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    drop(lease);
                    return self.switch(response, flight, wanted);
                }
                Ok((response, lease)) => {
                    return Ok(answer(response, flight, lease, current, &parts.method));
                }
                Err(failure) => failure,
            };
            if original.is_broken() {
                // The endpoint only saw the consequences.
                let detail = "the request's body is malformed or cut short";
                return Err(Error::new(ErrorKind::BadRequest, detail));
            }
            self.blame(&failure, &flight, current, endpoint);
            let newer = self.latest(current);
            let choice = newer.as_ref().unwrap_or(current);
            let untouched = original.untouched();
            let again = self.again(&failure, &mut attempts, untouched, endpoint, choice);
            if !again || original.start_over().is_none() {
                return Err(failure.error);
            }
            latest = newer.or(latest);
            self.metrics
                .service(&target.port.service)
                .retries
                .increment(1);
        }
    }

    /// Counts a failure against the endpoint.
    pub(super) fn blame(
        &self,
        failure: &Failure,
        flight: &Flight,
        target: &Target,
        endpoint: &Endpoint,
    ) {
        if failure.is_connect() {
            let (client, port) = (target.client, &target.port);
            self.balancer.not_connected(client, port, endpoint);
        }
        if failure.blame {
            flight.failed(target.endpoints(), &target.port.http.balancing);
        }
    }

    pub(super) fn pick<'a>(
        &self,
        target: &'a Target,
        tried: &[EndpointAddr],
    ) -> Result<&'a Arc<Endpoint>, Error> {
        let (client, port) = (target.client, &target.port);
        let picked = self
            .balancer
            .pick_for(client, port, target.endpoints(), tried);
        picked.ok_or_else(|| {
            let detail = if target.is_cut_off() {
                "the Service has no ready endpoint on this node, and its policy is Local"
            } else {
                "the Service has no ready endpoint"
            };
            Error::new(ErrorKind::NoEndpoints, detail)
        })
    }

    /// The target as it is now, with the endpoints that have appeared meanwhile.
    pub(super) fn latest(&self, target: &Target) -> Option<Target> {
        let reader = self.reader.borrow();
        let snapshot = reader.as_ref()?.load();
        let service = snapshot.services.get(&target.port.service)?;
        let port = service.port(target.port.port, target.port.protocol)?;
        Some(Target {
            port: Arc::clone(port),
            ..target.clone()
        })
    }

    /// Whether the request is tried once more; the rules are in [`super::retry`]. `untouched` says that
    /// nothing of its body was sent.
    pub(super) fn again(
        &self,
        failure: &Failure,
        attempts: &mut Attempts,
        untouched: bool,
        endpoint: &Endpoint,
        target: &Target,
    ) -> bool {
        match failure.retry {
            Retry::Free => {
                attempts.tried.push(endpoint.addr);
                attempts.tried.len() < MAX_ATTEMPTS && attempts.untried(target)
            }
            // The same endpoint will do: it is the connection that was old.
            Retry::Stale => {
                let safe = attempts.idempotent || untouched;
                safe && !std::mem::replace(&mut attempts.fresh, true)
            }
            Retry::Broken => {
                attempts.tried.push(endpoint.addr);
                attempts.idempotent
                    && attempts.untried(target)
                    && !std::mem::replace(&mut attempts.repeated, true)
                    && self.budget.spend()
            }
            Retry::Never => false,
        }
    }

    /// One attempt on one endpoint, up to the head of its answer.
    async fn attempt(
        &self,
        attempt: Attempt<'_>,
        body: Body,
        flight: &Flight,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        let Attempt {
            parts,
            original,
            endpoint,
            target,
            upstream,
            fresh,
        } = attempt;
        let lease = self.pool.lease(endpoint, upstream, target.source, fresh);
        let lease = lease.await;
        let mut lease = lease.map_err(|error| failure::not_connected(&error))?;
        let request = heads::rebuild(parts, body, endpoint, upstream);
        let started = Instant::now();
        let answer = {
            let mut answer = pin!(lease.sender().send(request));
            let patience = patience::of(&parts.headers, self.options.response_timeout);
            patience.wait(answer.as_mut(), original, started).await
        };
        let response = match answer {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(failure::broke(*error, &lease)),
            None => return Err(failure::timed_out()),
        };
        if failure::is_failure(&response) {
            flight.failed(target.endpoints(), &target.port.http.balancing);
        } else {
            flight.succeeded(started.elapsed());
        }
        Ok((response, lease))
    }

    /// The endpoint agrees to an upgrade.
    fn switch(
        &self,
        mut response: Response<Incoming>,
        flight: Flight,
        wanted: Option<Wanted>,
    ) -> Result<Response<Body>, Error> {
        let endpoint = response.extensions_mut().remove::<OnUpgrade>();
        let protocol = response.headers().get(UPGRADE).cloned();
        let (Some(wanted), Some(endpoint), Some(protocol)) = (wanted, endpoint, protocol) else {
            return Err(Error::new(
                ErrorKind::BadResponse,
                "the endpoint switched protocols without being asked",
            ));
        };
        headers::remove_hop_by_hop(response.headers_mut());
        upgrade::write(response.headers_mut(), protocol);
        wanted.tunnel(endpoint, flight, &self.tunnels);
        Ok(response.map(|_nothing| Body::empty()))
    }
}

/// Writes the client's answer from the endpoint's.
fn answer(
    mut response: Response<Incoming>,
    flight: Flight,
    lease: Lease,
    target: &Target,
    method: &Method,
) -> Response<Body> {
    heads::write_response(&mut response, method);
    let exchange = Exchange::new(flight, lease, target.clone());
    if *method == Method::HEAD && !response.body().is_end_stream() {
        // An HTTP/2 endpoint that sends a body nevertheless; nobody waits for that.
        return response.map(|_unwanted| Body::empty());
    }
    response.map(|body| Body::exchange(body, exchange))
}
