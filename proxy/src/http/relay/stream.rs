//! Plain requests of HTTP/2: hyper reads them and writes their answers, and between the two they go
//! the relay's way, without being changed field by field.

use std::rc::Rc;
use std::time::Duration;

use http::header::{COOKIE, HOST};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::super::body::{AnswerBody, Body};
use super::super::direct::Connection;
use super::super::engine::{Engine, Inner, Waiting};
use super::super::exchange::Exchange;
use super::super::failure::{self, Failure};
use super::super::forward::record;
use super::super::patience::Limit;
use super::super::serve::HeadLimits;
use super::super::services::{Admission, ServiceState};
use super::super::{gate, respond};
use super::attempts::{Attempt, Sending};
use super::request::{Kind, PlainHead, is_plain_target, look, write};
use super::{Front, Route};
use crate::{clock, scratch};

/// Most fields of a plain request of HTTP/2, with `Host`, which stands for the authority.
const FIELDS: usize = 32;

/// A plain request, and what its endpoint gets.
pub(in super::super) struct Stream<R> {
    route: R,
    sent: Vec<u8>,
    is_head: bool,
    idempotent: bool,
}

/// Reads a request of HTTP/2, if it is plain: what that means is the same as for HTTP/1.1, and it has
/// no body.
pub(in super::super) fn read<F: Front>(
    request: &Request<Incoming>,
    limits: HeadLimits,
    front: &F,
) -> Option<Stream<F::Route>> {
    let (uri, headers) = (request.uri(), request.headers());
    let host = uri.authority()?.as_str();
    let target = uri.path_and_query()?.as_str();
    let has_scheme = uri.scheme() == Some(&Scheme::HTTPS) || uri.scheme() == Some(&Scheme::HTTP);
    let is_fit = request.version() == Version::HTTP_2
        && has_scheme
        && request.body().is_end_stream()
        && headers.len() < FIELDS
        && target.len() <= gate::MAX_TARGET
        && gate::check_size(headers, limits).is_ok();
    let kind = Kind::of(request.method().as_str()).filter(|_| is_fit)?;
    if !gate::is_authority(host.as_bytes()) || !is_plain_target(target.as_bytes()) {
        return None;
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let [first, others @ ..] = &mut fields;
    *first = httparse::Header {
        name: HOST.as_str(),
        value: host.as_bytes(),
    };
    let mut cookies = 0;
    for (field, (name, value)) in others.iter_mut().zip(headers) {
        cookies += u32::from(*name == COOKIE);
        field.name = name.as_str();
        field.value = value.as_bytes();
    }
    let fields = fields.get(..=headers.len())?;
    // A second `Host` is for the gate, and several cookies become one.
    let seen = look(fields).filter(|_| cookies <= 1)?;
    if seen.length.is_some_and(|length| length > 0) {
        return None;
    }
    let head = PlainHead {
        version: Version::HTTP_2,
        host,
        target,
        fields,
    };
    let route = front.route(&head)?;
    let method = request.method();
    // RFC 9110, 8.6: where the method makes one expect a body.
    let expected = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    let mut sent = scratch::take();
    write(
        method.as_str(),
        &head,
        expected.then_some(0),
        front,
        &mut sent,
    );
    Some(Stream {
        route,
        sent,
        is_head: kind == Kind::Head,
        idempotent: kind != Kind::Other,
    })
}

impl<R: Route> Stream<R> {
    /// Sends the request and waits for the head of the answer. Whatever goes wrong becomes one.
    pub(in super::super) async fn answer(self, engine: Engine) -> Response<Body> {
        let engine = engine.inner();
        let started = clock::now();
        let target = self.route.target();
        let state = engine.services.get(&target.port.service);
        let mut waiting = Waiting(Some(&state));
        let answered = match state.admit(&target.policy().retries) {
            Ok(admission) => self.forward(engine, &state, admission, started).await,
            Err(error) => Err(Failure::last(error)),
        };
        let mut response = answered.unwrap_or_else(|Failure { error, .. }| {
            tracing::debug!(service = %target.port.service, ?error, "request failed");
            state.metrics.failed(error.kind().flag());
            let asked = respond::Asked {
                grpc: false,
                http2: true,
            };
            respond::error(&error, asked)
        });
        waiting.0 = None;
        let elapsed = clock::since(started);
        state.metrics.answered(response.status(), elapsed);
        self.route.answered(response.status(), elapsed);
        self.write_fields(response.headers_mut());
        scratch::give_back(self.sent);
        response
    }

    fn write_fields(&self, headers: &mut HeaderMap) {
        let value = |value| HeaderValue::from_bytes(value).ok();
        if let Some((name, text)) = self.route.answer_field()
            && let Some(value) = value(text)
        {
            headers.insert(HeaderName::from_static(name), value);
        }
        if let Some((name, text)) = self.route.added_field()
            && let Some(value) = value(text)
        {
            let field = headers.entry(HeaderName::from_static(name));
            field.or_insert(value);
        }
    }

    async fn forward(
        &self,
        engine: &Inner,
        state: &Rc<ServiceState>,
        admission: Admission,
        started: u64,
    ) -> Result<Response<Body>, Failure> {
        let sending = Sending {
            engine,
            state,
            target: self.route.target(),
            idempotent: self.idempotent,
            has_body: false,
            began: started,
        };
        let mut attempt = async |attempt: Attempt<'_>| {
            let answer = self.attempt(engine, &attempt).await;
            let answer = answer.inspect_err(|failure| attempt.blame(engine, failure))?;
            Ok(match answer.body() {
                AnswerBody::Whole(_) => (answer, None),
                _ => (answer, Some((attempt.flight, attempt.target.clone()))),
            })
        };
        let (answer, more) = sending.run(&mut attempt).await?;
        Ok(answer.map(|body| match (body, more) {
            (body, Some((flight, target))) => {
                let exchange = Exchange::new(flight, None, target, admission, None);
                Body::exchange(body, exchange)
            }
            (AnswerBody::Whole(bytes), None) => Body::full(bytes),
            (_, None) => Body::empty(),
        }))
    }

    async fn attempt(
        &self,
        engine: &Inner,
        attempt: &Attempt<'_>,
    ) -> Result<Response<AnswerBody>, Failure> {
        let target = attempt.target;
        let leasing = Connection::lease(&engine.relayed, target, attempt.endpoint, attempt.fresh);
        let mut connection = leasing.await?;
        let started = Instant::now();
        let limit = match target.policy().timeouts.response {
            Duration::ZERO => Duration::MAX,
            limit => limit,
        };
        let asking = connection.ask(&self.sent, self.is_head);
        let answer = timeout(limit, asking).await;
        let answer = answer.map_err(|_elapsed| failure::timed_out(Limit::Response))??;
        let answer = answer.on(connection);
        record(&answer, &attempt.flight, target, started.elapsed());
        Ok(answer)
    }
}
