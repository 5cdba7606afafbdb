//! A request that passed the gate: decided on, changed, handed to the engine, recorded.

use std::rc::Rc;
use std::sync::Arc;

use http::header::STRICT_TRANSPORT_SECURITY;
use http::{Request, Response};
use sealane_config::model::{Mode, RouteRule};
use sealane_proxy::Error;
use sealane_proxy::access::Pending;
use sealane_proxy::http::{Body, respond};
use tokio::time::Instant;

use crate::client_auth;
use crate::decide::{Came, Decision, Next, decide};
use crate::filters::error_pages::Page;
use crate::filters::forwarded::Peer;
use crate::filters::{alternative, cors, mirror, response, underscores, upstream};
use crate::gateway::Inner;
use crate::guards::{self, Passed};

/// Answers a request.
pub(crate) async fn handle(
    gateway: Rc<Inner>,
    peer: Rc<Peer>,
    request: Request<Body>,
) -> Response<Body> {
    let started = Instant::now();
    let version = request.version();
    let asked = respond::Asked::new(version, request.headers());
    let told = peer.behind(&gateway.reader.load().gateway.proxies, request.headers());
    let peer = told.map_or(peer, Rc::new);
    let (mut line, request) = match gateway.engine.access_log() {
        Some(log) => {
            let (line, request) = log.begin(peer.ip, request);
            (Some(line), request)
        }
        None => (None, request),
    };
    let decided = decide(
        &gateway.reader.load(),
        &request,
        Came {
            client: peer.ip,
            secure: peer.secure,
            https_port: gateway.options.https_port,
            session: peer.session.as_deref(),
        },
        gateway.engine.balancer(),
    );
    let (rule, response) = match decided {
        Ok(decision) => {
            let rule = Arc::clone(decision.taken_by());
            let policy = rule.filters.policy.as_ref();
            let cors = policy.and_then(|policy| policy.cors.as_ref());
            let hsts = decision.hsts.clone();
            let granted = cors.and_then(|cors| cors::grant(cors, request.headers()));
            let mut response = follow(&gateway, &peer, request, decision, line.as_mut()).await;
            if let Some(granted) = granted {
                cors::write(&granted, response.headers_mut());
            }
            let own = policy.iter().flat_map(|policy| &policy.headers);
            for (name, value) in own {
                response.headers_mut().insert(name, value.clone());
            }
            if let Some(hsts) = hsts {
                let headers = response.headers_mut();
                headers.insert(STRICT_TRANSPORT_SECURITY, hsts);
            }
            (Some(rule), response)
        }
        Err(error) => (None, respond::error(&error, asked)),
    };
    let mut response = response;
    if gateway.alternative.is_some() {
        let settings = &gateway.reader.load().gateway;
        let field = gateway.alternative.as_ref();
        alternative::write(field, &peer, settings, version, &mut response);
    }
    let source = rule.as_ref().map(|rule| &rule.source);
    gateway
        .metrics
        .route(source)
        .answered(response.status(), started.elapsed());
    let is_unlogged = |rule: &RouteRule| {
        let policy = rule.filters.policy.as_ref();
        policy.is_some_and(|policy| policy.unlogged)
    };
    match line {
        Some(line) if rule.as_deref().is_some_and(is_unlogged) => {
            line.forget();
            response
        }
        Some(line) => line.answer(response, source),
        None => response,
    }
}

async fn follow(
    gateway: &Inner,
    peer: &Peer,
    mut request: Request<Body>,
    mut decision: Decision,
    line: Option<&mut Pending>,
) -> Response<Body> {
    if decision.rule.filters.mode == Mode::Compat {
        underscores::drop_fields(request.headers_mut());
    }
    let page = Page::of(gateway, peer, &decision, &mut request);
    let mut passed = Passed::default();
    let answered = exchange(gateway, peer, request, &mut decision, &mut passed, line).await;
    let mut response = answered.unwrap_or_else(|error| *error);
    if let Some(page) = page {
        // Boxed, because few rules have any.
        response = Box::pin(page.instead_of(response, gateway)).await;
    }
    if let Some(session) = &decision.session {
        session.write(&mut response, &decision.rule, peer.secure);
    }
    passed.finish(response)
}

/// Lets the request pass and has it answered.
///
/// # Errors
/// The answer to one that does not come that far.
async fn exchange(
    gateway: &Inner,
    peer: &Peer,
    mut request: Request<Body>,
    decision: &mut Decision,
    passed: &mut Passed,
    line: Option<&mut Pending>,
) -> Result<Response<Body>, Box<Response<Body>>> {
    let asked = respond::Asked::new(request.version(), request.headers());
    let refuse = |error: Error| Box::new(respond::error(&error, asked));
    if matches!(decision.next, Next::Forward(_) | Next::Fail(_)) {
        *passed = guards::pass(gateway, peer, decision, &mut request).await?;
    }
    let filters = &decision.rule.filters;
    // What the answer is compared with is the request as it came.
    let changes = response::Changes::of(filters, peer.secure, &request).map_err(refuse)?;
    let mirrored = match &decision.next {
        Next::Forward(_) => mirror::Mirrored::of(gateway, filters, peer, &request),
        Next::Redirect(_) | Next::Preflight(_) | Next::Fail(_) => None,
    };
    decision.rewrite(&mut request).map_err(refuse)?;
    let target = match &mut decision.next {
        Next::Redirect(response) | Next::Preflight(response) => {
            let answered = std::mem::replace(response, Response::new(Body::empty()));
            return Ok(answered);
        }
        Next::Fail(error) => return Err(Box::new(respond::error(error, asked))),
        Next::Forward(target) => target,
    };
    let random = gateway.engine.balancer();
    peer.write(request.headers_mut(), || [random.random(), random.random()]);
    if let Some(line) = line {
        line.identify(request.headers());
    }
    upstream::write(filters, request.headers_mut());
    if let Some(client) = &decision.client_auth {
        client_auth::write(client, peer.session.as_deref(), request.headers_mut());
    }
    if let Some(mirrored) = mirrored {
        request = mirrored.send(gateway, request);
    }
    let mut response = gateway.engine.forward(request, target).await;
    if let Some(changes) = changes {
        changes.write(response.headers_mut());
    }
    Ok(response)
}
