//! A request that passed the gate: decided on, changed, handed to the engine, recorded.

use std::rc::Rc;
use std::sync::Arc;

use http::header::STRICT_TRANSPORT_SECURITY;
use http::{Request, Response};
use sealane_config::model::{Mode, RouteRule};
use sealane_proxy::access::Pending;
use sealane_proxy::http::{Body, respond};
use tokio::time::Instant;

use crate::client_auth;
use crate::decide::{Came, Decision, Next, decide};
use crate::filters::forwarded::Peer;
use crate::filters::{cors, mirror, response, underscores, upstream};
use crate::gateway::Inner;
use crate::guards::{self, Passed};

/// Answers a request.
pub(crate) async fn handle(
    gateway: Rc<Inner>,
    peer: Rc<Peer>,
    request: Request<Body>,
) -> Response<Body> {
    let started = Instant::now();
    let asked = respond::Asked::new(request.version(), request.headers());
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
            if let Some(hsts) = hsts {
                let headers = response.headers_mut();
                headers.insert(STRICT_TRANSPORT_SECURITY, hsts);
            }
            (Some(rule), response)
        }
        Err(error) => (None, respond::error(&error, asked)),
    };
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
    decision: Decision,
    line: Option<&mut Pending>,
) -> Response<Body> {
    let asked = respond::Asked::new(request.version(), request.headers());
    if decision.rule.filters.mode == Mode::Compat {
        underscores::drop_fields(request.headers_mut());
    }
    let passed = match &decision.next {
        Next::Redirect(_) | Next::Preflight(_) => Passed::default(),
        Next::Forward(_) | Next::Fail(_) => {
            match guards::pass(gateway, peer, &decision, &mut request).await {
                Ok(passed) => passed,
                Err(response) => return *response,
            }
        }
    };
    // What the answer is compared with is the request as it came.
    let changes = match response::Changes::of(&decision.rule.filters, peer.secure, &request) {
        Ok(changes) => changes,
        Err(error) => return respond::error(&error, asked),
    };
    let mirrored = match &decision.next {
        Next::Forward(_) => mirror::Mirrored::of(gateway, &decision.rule.filters, peer, &request),
        Next::Redirect(_) | Next::Preflight(_) | Next::Fail(_) => None,
    };
    if let Err(error) = decision.rewrite(&mut request) {
        return respond::error(&error, asked);
    }
    let target = match decision.next {
        Next::Redirect(response) | Next::Preflight(response) => return response,
        Next::Fail(error) => return respond::error(&error, asked),
        Next::Forward(target) => target,
    };
    let random = gateway.engine.balancer();
    peer.write(request.headers_mut(), || [random.random(), random.random()]);
    if let Some(line) = line {
        line.identify(request.headers());
    }
    upstream::write(&decision.rule.filters, request.headers_mut());
    if let Some(client) = &decision.client_auth {
        client_auth::write(client, peer.session.as_deref(), request.headers_mut());
    }
    if let Some(mirrored) = mirrored {
        request = mirrored.send(gateway, request);
    }
    let mut response = gateway.engine.forward(request, &target).await;
    if let Some(changes) = changes {
        changes.write(response.headers_mut());
    }
    if let Some(session) = &decision.session {
        session.write(&mut response, &decision.rule, peer.secure);
    }
    passed.finish(response)
}
