//! Answers of a Service in place of errors (ingress-nginx `custom-http-errors` and `default-backend`).
//!
//! An error, whether the gateway's own or a backend's, is put aside and the Service asked for what
//! goes out instead, with what happened in fields of the question. Its answer goes out as it is: it
//! chooses the status. If it does not answer, or not in time, the error goes out after all; what it
//! answers is never asked about again. gRPC calls are left alone: no page would say to them what
//! their status does.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use sealane_config::model::{ErrorPages, RouteRule};
use sealane_proxy::ErrorKind;
use sealane_proxy::http::{Body, Target, Upstream, respond};
use tokio::time::timeout;

use super::forwarded::Peer;
use crate::aside;
use crate::decide::{Decision, Next};
use crate::gateway::Inner;

const CODE: HeaderName = HeaderName::from_static("x-code");
const FORMAT: HeaderName = HeaderName::from_static("x-format");
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const NAMESPACE: HeaderName = HeaderName::from_static("x-namespace");
const INGRESS: HeaderName = HeaderName::from_static("x-ingress-name");
const SERVICE: HeaderName = HeaderName::from_static("x-service-name");
const PORT: HeaderName = HeaderName::from_static("x-service-port");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long the head of the page may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is kept of a request, for the case that its answer is an error.
pub(crate) struct Page {
    pages: Arc<ErrorPages>,
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
}

impl Page {
    /// For a request as it came; `None` if its errors go out as they are. The request gets its id, so
    /// that whoever is asked for the page is told the same one.
    pub(crate) fn of(
        gateway: &Inner,
        peer: &Peer,
        decision: &Decision,
        request: &mut Request<Body>,
    ) -> Option<Self> {
        let pages = decision.rule.filters.policy.as_ref()?.errors.as_ref()?;
        let is_answered = matches!(decision.next, Next::Redirect(_) | Next::Preflight(_));
        let asked = respond::Asked::new(request.version(), request.headers());
        if is_answered || asked.grpc {
            return None;
        }
        let mut headers = aside::fields(request.headers());
        // It is for the backend, and not every backend gets it.
        headers.remove(AUTHORIZATION);
        let random = gateway.engine.balancer();
        peer.write(&mut headers, || [random.random(), random.random()]);
        if let Some(id) = headers.get(REQUEST_ID) {
            request.headers_mut().insert(REQUEST_ID, id.clone());
        }
        let path = request.uri().path_and_query().cloned();
        let target = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        describe(&mut headers, decision.taken_by(), &target);
        Some(Self {
            pages: Arc::clone(pages),
            method: match *request.method() {
                Method::HEAD => Method::HEAD,
                _ => Method::GET,
            },
            target,
            headers,
        })
    }

    /// What goes out: the answer, or a page in its place.
    pub(crate) async fn instead_of(
        self,
        answer: Response<Body>,
        gateway: &Inner,
    ) -> Response<Body> {
        let kind = answer.extensions().get::<ErrorKind>().copied();
        let is_without = self.pages.without_endpoints && kind.is_some_and(is_without_endpoints);
        if !is_without && !self.pages.replace(answer.status(), kind.is_some()) {
            return answer;
        }
        let target = {
            let snapshot = gateway.reader.load();
            snapshot
                .backend(&self.pages.backend)
                .map(|port| Target::new(Arc::clone(port), Upstream::of(port.app_protocol)))
        };
        let Some(target) = target else { return answer };
        let question = self.question(answer.status(), is_without);
        let page = timeout(PATIENCE, gateway.engine.forward(question, &target)).await;
        let is_page = |page: &Response<Body>| page.extensions().get::<ErrorKind>().is_none();
        let Some(mut page) = page.ok().filter(is_page) else {
            return answer;
        };
        respond::replace(&answer, &mut page);
        let kept: &[HeaderName] = match kind {
            // What the gateway says besides.
            Some(_) => &[WWW_AUTHENTICATE, RETRY_AFTER, SET_COOKIE],
            None => &[WWW_AUTHENTICATE],
        };
        for name in kept {
            for value in answer.headers().get_all(name) {
                page.headers_mut().append(name, value.clone());
            }
        }
        aside::read_out(answer.into_body());
        page
    }

    /// The question for a page. Who answers in an absent Service's place is asked for what was asked
    /// of that.
    fn question(self, status: StatusCode, is_without: bool) -> Request<Body> {
        let mut question = Request::new(Body::empty());
        let query = self.target.query();
        let root = query.and_then(|query| format!("/?{query}").parse::<PathAndQuery>().ok());
        let target = match is_without {
            true => self.target,
            false => root.unwrap_or_else(|| PathAndQuery::from_static("/")),
        };
        *question.method_mut() = self.method;
        *question.uri_mut() = Uri::from(target);
        *question.headers_mut() = self.headers;
        let code = HeaderValue::from(status.as_u16());
        question.headers_mut().insert(CODE, code);
        question
    }
}

/// There is nobody that could have taken the request.
fn is_without_endpoints(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NoEndpoints | ErrorKind::NoService | ErrorKind::NoPort
    )
}

/// Writes what was asked of whom; what a client says of that is not passed on.
fn describe(headers: &mut HeaderMap, rule: &RouteRule, target: &PathAndQuery) {
    let backend = rule.backends.first().map(|weighted| &weighted.backend);
    let port = backend.map(|b| b.port).filter(|port| *port != 0);
    let format = headers.get(ACCEPT).cloned();
    let text = |text: &str| HeaderValue::from_str(text).ok();
    for (name, value) in [
        (FORMAT, format),
        (ORIGINAL_URI, text(target.as_str())),
        (NAMESPACE, text(&rule.source.namespace)),
        (INGRESS, text(&rule.source.name)),
        (SERVICE, backend.and_then(|b| text(&b.service.name))),
        (PORT, port.map(HeaderValue::from)),
    ] {
        match value {
            Some(value) => drop(headers.insert(name, value)),
            None => drop(headers.remove(name)),
        }
    }
}
