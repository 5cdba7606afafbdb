//! A request goes to a Service port and its answer comes back.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode, request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use sealane_config::model::{Endpoint, HttpPolicy, Limits};
use tokio::time::{Instant, sleep};

use super::body::{AnswerBody, Body};
use super::direct::{self, Connection};
use super::engine::{Inner, Target, Upstream};
use super::exchange::Exchange;
use super::failure::{self, Failure, Quality};
use super::patience::{Deadlines, Limit};
use super::replay::{Fault, Original, Rules};
use super::retry::{Attempts, Choice, Verdict, is_idempotent};
use super::serve::HeadLimits;
use super::services::Admission;
use super::upgrade::Wanted;
use super::{gate, headers, heads, patience};
use crate::access::Served;
use crate::balance::Flight;
use crate::pool::{Lease, Reuse, Wish};
use crate::{Error, ErrorKind, clock, scratch};

/// One attempt: what is sent, and where.
struct Attempt<'a> {
    parts: &'a request::Parts,
    original: &'a Original,
    endpoint: &'a Endpoint,
    target: &'a Target,
    upstream: Upstream,
    fresh: bool,
    deadline: Option<Instant>,
}

impl Attempt<'_> {
    /// It can do without hyper.
    fn is_direct(&self) -> bool {
        self.upstream == Upstream::Http1
            && matches!(self.original, Original::Empty)
            && direct::is_fit(self.parts)
    }

    /// Waits for the head of the answer to what was `sent`.
    async fn wait<F: Future>(
        &self,
        mut answer: Pin<&mut F>,
        sent: Instant,
    ) -> Result<F::Output, Limit> {
        let timeouts = &self.target.policy().timeouts;
        let patience = patience::of(&self.parts.headers, timeouts.response);
        let deadlines = Deadlines {
            per_try: timeouts.per_try,
            request: self.deadline,
        };
        let (request, send) = (self.original, timeouts.send);
        if !send.is_zero() && request.complete_since(sent).is_none() {
            // Boxed, because few requests are not complete when they are sent.
            let watched = patience.watch(answer.as_mut(), request, sent, deadlines, send);
            return Box::pin(watched).await;
        }
        let wait = patience.wait(answer.as_mut(), request, sent, deadlines);
        wait.await
    }
}

impl Inner {
    /// `deadline` is when the answer has to be complete.
    pub(super) async fn forward(
        &self,
        request: Request<Body>,
        target: &Target,
        admission: Admission,
        deadline: Option<Instant>,
    ) -> Result<Response<Body>, Error> {
        let policy = target.policy();
        let (mut parts, body) = request.into_parts();
        let wanted = if target.upstream.is_http2() {
            None
        } else {
            Wanted::take(&mut parts, || self.balancer.random())
        };
        if parts.method == Method::CONNECT {
            let detail = "the Service's endpoints are not asked for WebSockets over HTTP/2";
            return Err(Error::new(ErrorKind::MethodNotAllowed, detail));
        }
        let rules = replay_rules(&parts, policy);
        check_limits(&parts.headers, &policy.limits)?;
        heads::write_request(&mut parts, target.upstream, wanted.as_ref())?;
        let mut attempts = Attempts::new(may_repeat(&parts.method, policy), clock::now());
        let original = Original::new(body, &rules, admission.state.shared());
        let mut latest = None;
        loop {
            let current = latest.as_ref().unwrap_or(target);
            let boarded = self.board(current, attempts.tried(), &admission.state);
            let (endpoint, flight) = boarded.await?;
            let body = original.start_over().ok_or_else(|| {
                Error::new(ErrorKind::UpstreamReset, "the request cannot be sent again")
            })?;
            let attempt = Attempt {
                parts: &parts,
                original: &original,
                endpoint,
                target: current,
                upstream: target.upstream,
                fresh: attempts.fresh(),
                deadline,
            };
            let outcome = self.attempt(attempt, body, &flight).await;
            let (reason, outcome) = match outcome {
                Ok((response, lease)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    drop(lease);
                    return self.switch(response, flight, wanted);
                }
                Ok((response, lease)) => {
                    let reason = failure::reason(response.status(), response.headers());
                    if !attempts.is_reason(reason, &policy.retries) {
                        let exchange =
                            Exchange::new(flight, lease, current.clone(), admission, deadline);
                        return Ok(answer(response, exchange, &parts.method));
                    }
                    (reason, Ok((response, lease)))
                }
                Err(failure) => {
                    if let Some(fault) = original.fault() {
                        // The endpoint only saw the consequences.
                        return Err(faulty(fault));
                    }
                    self.blame(&failure, &flight, current, endpoint);
                    (failure.reason, Err(failure.error))
                }
            };
            let newer = self.latest(current);
            let choice = newer.as_ref().unwrap_or(current);
            let verdict = if original.start_over().is_some() {
                let choice = Choice {
                    endpoints: choice.everywhere(),
                    policy: &policy.retries,
                    untouched: original.untouched(),
                    random: self.balancer.random(),
                };
                let spend = || admission.state.spend(&policy.retries);
                attempts.next(reason, endpoint.addr, &choice, spend)
            } else {
                Verdict::Stop
            };
            match (verdict, outcome) {
                (Verdict::Again(pause), _) => {
                    drop(flight);
                    if !pause.is_zero() {
                        Box::pin(sleep(pause)).await;
                    }
                }
                (_, Ok((response, lease))) => {
                    let exchange =
                        Exchange::new(flight, lease, current.clone(), admission, deadline);
                    return Ok(answer(response, exchange, &parts.method));
                }
                (Verdict::Stop, Err(error)) => return Err(error),
                (Verdict::OverBudget, Err(error)) => return Err(failure::over_budget(error)),
            }
            latest = newer.or(latest);
            admission.state.metrics.retries.increment(1);
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
            flight.failed(target.everywhere(), &target.policy().balancing);
        }
    }

    /// The target as it is now, with the endpoints that have appeared meanwhile.
    pub(super) fn latest(&self, target: &Target) -> Option<Target> {
        let reader = self.reader.borrow();
        let snapshot = reader.as_ref()?.load();
        let service = snapshot.services.get(&target.port.service)?;
        let port = service.port(target.port.port, target.port.protocol)?;
        if let [only] = &*target.port.endpoints
            && service.cluster_ips.contains(&only.addr.ip())
        {
            // It goes to the Service's own address, and has no other endpoints.
            return None;
        }
        Some(Target {
            port: Arc::clone(port),
            ..target.clone()
        })
    }

    /// One attempt on one endpoint, up to the head of its answer.
    async fn attempt(
        &self,
        attempt: Attempt<'_>,
        body: Body,
        flight: &Flight,
    ) -> Result<(Response<AnswerBody>, Option<Lease>), Failure> {
        let (endpoint, target) = (attempt.endpoint, attempt.target);
        let (mut response, lease, started) = if attempt.is_direct() {
            let (response, started) = self.ask_directly(attempt).await?;
            (response, None, started)
        } else {
            // Boxed, because it is large, and most requests do without it.
            let (response, lease, started) = Box::pin(self.ask(attempt, body)).await?;
            (response.map(AnswerBody::Incoming), Some(lease), started)
        };
        if self.access_log.is_some() || target.sticky.is_some() {
            let served = Served {
                service: target.port.service.clone(),
                port: target.port.port,
                status: response.status(),
                endpoint: endpoint.addr,
                upstream: started.elapsed(),
            };
            response.extensions_mut().insert(served);
        }
        record(&response, flight, target, started.elapsed());
        Ok((response, lease))
    }

    /// Without hyper. Says when the request was sent.
    async fn ask_directly(
        &self,
        attempt: Attempt<'_>,
    ) -> Result<(Response<AnswerBody>, Instant), Failure> {
        let (parts, endpoint) = (attempt.parts, attempt.endpoint);
        let connecting = Connection::lease(&self.relayed, attempt.target, endpoint, attempt.fresh);
        let mut connection = connecting.await?;
        let mut head = scratch::take();
        direct::write_head(parts, endpoint, &mut head);
        let started = Instant::now();
        let answer = {
            let answer = pin!(connection.ask(&head, parts.method == Method::HEAD));
            attempt.wait(answer, started).await
        };
        scratch::give_back(head);
        let answer = answer.map_err(failure::timed_out)??;
        Ok((answer.on(connection), started))
    }

    /// By hyper. Says when the request was sent.
    async fn ask(
        &self,
        attempt: Attempt<'_>,
        body: Body,
    ) -> Result<(Response<Incoming>, Lease, Instant), Failure> {
        let Attempt {
            parts,
            original,
            endpoint,
            target,
            upstream,
            fresh,
            ..
        } = attempt;
        let reuse = if fresh {
            Reuse::No
        } else if original.is_repeatable() {
            Reuse::Any
        } else {
            Reuse::Young
        };
        let wanted = Wish {
            upstream,
            tls: target.tls.as_ref(),
            client: target.source,
            reuse,
            limit: target.policy().timeouts.connect,
        };
        let lease = self.pool.lease(endpoint, wanted).await;
        let mut lease = lease.map_err(|error| failure::not_connected(&error))?;
        let request = heads::rebuild(parts, body, endpoint, upstream);
        let started = Instant::now();
        let answer = {
            let answer = pin!(lease.sender().send(request));
            attempt.wait(answer, started).await
        };
        match answer {
            Ok(Ok(response)) => Ok((response, lease, started)),
            Ok(Err(error)) => Err(failure::broke(*error, &lease)),
            Err(limit) => Err(failure::timed_out(limit)),
        }
    }

    /// The endpoint agrees to an upgrade.
    fn switch(
        &self,
        mut response: Response<AnswerBody>,
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
        wanted.answer(&mut response, protocol);
        wanted.tunnel(endpoint, flight, &self.tunnels, self.farewell.clone());
        Ok(response.map(|_nothing| Body::empty()))
    }
}

/// Tells the balancer how an endpoint has answered, `elapsed` after it was asked.
pub(super) fn record<B>(
    response: &Response<B>,
    flight: &Flight,
    target: &Target,
    elapsed: Duration,
) {
    let (status, headers) = (response.status(), response.headers());
    match failure::quality(status, headers) {
        Quality::Good => flight.succeeded(elapsed),
        Quality::Open => flight.answered(elapsed),
        Quality::Bad => {
            let (peers, rules) = (target.everywhere(), &target.policy().balancing);
            flight.failed(peers, rules);
            if let Some(wait) = failure::asks_to_wait(status, headers) {
                flight.asked_to_wait(peers, rules, wait);
            }
        }
    }
}

/// What is kept of a request's body: enough to send the request again where that may happen.
fn replay_rules(parts: &request::Parts, policy: &HttpPolicy) -> Rules {
    let may_repeat_call = policy.retries.on.grpc != 0 && failure::is_grpc(&parts.headers);
    Rules {
        keep: may_repeat(&parts.method, policy) || may_repeat_call,
        most_bytes: policy.limits.body_bytes,
    }
}

/// The request may be sent again once it was sent.
fn may_repeat(method: &Method, policy: &HttpPolicy) -> bool {
    is_idempotent(method) || policy.retries.on.non_idempotent
}

/// The Service's own limits, where they are narrower than those of the connection.
fn check_limits(headers: &HeaderMap, limits: &Limits) -> Result<(), Error> {
    let length = headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if limits.body_bytes != 0 && length.is_some_and(|length| length > limits.body_bytes) {
        return Err(faulty(Fault::TooLong));
    }
    let head = HeadLimits::of(limits);
    if head == HeadLimits::default() {
        // The gate has looked.
        return Ok(());
    }
    gate::check_size(headers, head)
}

fn faulty(fault: Fault) -> Error {
    match fault {
        Fault::Broken => Error::new(
            ErrorKind::BadRequest,
            "the request's body is malformed or cut short",
        ),
        Fault::TooSlow => Error::new(ErrorKind::SlowBody, "the request's body comes too slowly"),
        Fault::TooLong => Error::new(
            ErrorKind::BodyTooLarge,
            "the request's body is longer than the Service takes",
        ),
    }
}

/// Writes the client's answer from the endpoint's.
fn answer(
    mut response: Response<AnswerBody>,
    exchange: Exchange,
    method: &Method,
) -> Response<Body> {
    let quality = failure::quality(response.status(), response.headers());
    let exchange = match quality {
        Quality::Open => exchange.leave_open(),
        Quality::Good | Quality::Bad => exchange,
    };
    let exchange = exchange.kept_for(headers::keep_alive_timeout(response.headers()));
    heads::write_response(&mut response, method);
    if *method == Method::HEAD && !response.body().is_end_stream() {
        // An HTTP/2 endpoint that sends a body nevertheless; nobody waits for that.
        return response.map(|_unwanted| Body::empty());
    }
    response.map(|body| Body::exchange(body, exchange))
}
