//! A request that passed the gate, phase by phase: canonical path, rule, filters, backend, engine.

use std::rc::Rc;
use std::sync::Arc;

use http::header::HOST;
use http::{Request, Response};
use sealane_config::Snapshot;
use sealane_config::model::{BackendProtocol, RouteRule, ServicePort};
use sealane_proxy::balance::Balancer;
use sealane_proxy::http::path::CanonicalPath;
use sealane_proxy::http::{Body, Target, Upstream, respond};
use sealane_proxy::{Error, ErrorKind};
use tokio::time::Instant;

use crate::filters::forwarded::Peer;
use crate::filters::{redirect, rewrite};
use crate::gateway::Inner;
use crate::matching;

/// Where a request goes, taken from one snapshot.
struct Route {
    rule: Arc<RouteRule>,
    path: Option<rewrite::Path>,
    next: Next,
}

/// What happens to a request whose rule is known.
enum Next {
    Redirect(Response<Body>),
    Forward(Target),
    Fail(Error),
}

/// Answers a request.
pub(crate) async fn handle(
    gateway: Rc<Inner>,
    peer: Rc<Peer>,
    request: Request<Body>,
) -> Response<Body> {
    let started = Instant::now();
    let asked = respond::Asked::new(request.version(), request.headers());
    let line = gateway
        .options
        .access_log
        .then(|| (request.method().clone(), request.uri().clone()));
    let (rule, response) = match route(&gateway, &peer, &request) {
        Ok(route) => {
            let rule = Arc::clone(&route.rule);
            (
                Some(rule),
                follow(&gateway, &peer, request, route, asked).await,
            )
        }
        Err(error) => (None, respond::error(&error, asked)),
    };
    let source = rule.as_ref().map(|rule| &rule.source);
    gateway
        .metrics
        .route(source)
        .answered(response.status(), started.elapsed());
    if let Some((method, target)) = line {
        tracing::info!(
            target: "access",
            %method,
            %target,
            status = response.status().as_u16(),
            seconds = started.elapsed().as_secs_f64(),
            route = source.map(tracing::field::display),
        );
    }
    response
}

async fn follow(
    gateway: &Inner,
    peer: &Peer,
    mut request: Request<Body>,
    route: Route,
    asked: respond::Asked,
) -> Response<Body> {
    let target = match route.next {
        Next::Redirect(response) => return response,
        Next::Fail(error) => return respond::error(&error, asked),
        Next::Forward(target) => target,
    };
    if let Err(error) = rewrite::apply(&mut request, &route.rule, route.path) {
        return respond::error(&error, asked);
    }
    let random = gateway.engine.balancer();
    peer.write(request.headers_mut(), || [random.random(), random.random()]);
    gateway.engine.forward(request, &target).await
}

/// Decides on a request. The only place that looks at the snapshot, and does so once.
fn route(gateway: &Inner, peer: &Peer, request: &Request<Body>) -> Result<Route, Error> {
    let field = request.headers().get(HOST);
    let field = field.and_then(|host| host.to_str().ok()).unwrap_or("");
    let host = matching::host_name(field);
    // `OPTIONS *` is for the server as a whole: the rule for `/` takes it.
    let path = match request.uri().path() {
        "*" => "/",
        path => path,
    };
    let canonical = CanonicalPath::parse(path)?;
    let snapshot = gateway.reader.load();
    let matched = matching::find(&snapshot.routes, &host, canonical.matched())?;
    let filters = &matched.rule.filters;
    let next = if !peer.secure
        && redirect::wanted(filters, matched.has_certificate, canonical.matched())
    {
        let port = gateway.options.https_port;
        Next::Redirect(redirect::to_https(&host, port, request.uri())?)
    } else {
        match target(&snapshot, &matched.rule, gateway.engine.balancer()) {
            Ok(target) => Next::Forward(target),
            Err(error) => Next::Fail(error),
        }
    };
    let path = rewrite::Path::of(&canonical);
    Ok(Route {
        rule: matched.rule,
        path,
        next,
    })
}

/// The Service port that takes the request, drawn by weight.
fn target(snapshot: &Snapshot, rule: &RouteRule, balancer: &Balancer) -> Result<Target, Error> {
    if let Some(detail) = rule.invalid {
        return Err(Error::new(ErrorKind::InvalidRoute, detail));
    }
    let backend = match rule.backends.as_slice() {
        [only] => Some(only),
        several => balancer
            .pick_weighted(several.iter().map(|b| b.weight))
            .and_then(|index| several.get(index)),
    };
    let Some(weighted) = backend else {
        return Err(Error::new(
            ErrorKind::InvalidRoute,
            "the rule has no backend",
        ));
    };
    let Some(port) = snapshot.backend(&weighted.backend) else {
        let known = snapshot.services.contains_key(&weighted.backend.service);
        return Err(if known {
            Error::new(ErrorKind::NoPort, "the Service has no such port")
        } else {
            Error::new(ErrorKind::NoService, "the Service does not exist")
        });
    };
    Ok(Target {
        port: Arc::clone(port),
        upstream: upstream(rule.filters.backend_protocol, port),
    })
}

/// What the rule says that its backend speaks; if it says nothing, what the Service says.
fn upstream(protocol: BackendProtocol, port: &ServicePort) -> Upstream {
    match protocol {
        BackendProtocol::Http => Upstream::of(port.app_protocol),
        BackendProtocol::Https => Upstream::Http1Tls,

        BackendProtocol::Grpc => Upstream::Http2,
        BackendProtocol::Grpcs => Upstream::Http2Tls,
    }
}
