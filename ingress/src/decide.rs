//! What happens to a request that passed the gate, decided from one snapshot: canonical path, rule,
//! filters, backend. Nothing here waits or changes anything, so that the same decision can be asked
//! for without a request (`sealane explain`).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderValue, Request, Response, StatusCode};
use sealane_config::Snapshot;
use sealane_config::model::{
    BackendProtocol, ClientAuth, Filters, HttpPolicy, Mode, RouteRule, ServicePort, WeightedBackend,
};
use sealane_proxy::balance::{Balancer, Sticky};
use sealane_proxy::http::path::CanonicalPath;
use sealane_proxy::http::{Body, Target, Upstream};
use sealane_proxy::{Error, ErrorKind};

use crate::canary;
use crate::client_auth::{self, Refusal};
use crate::filters::affinity;
use crate::filters::{cors, hash, redirect, rewrite};
use crate::matching::{self, Matched};
use crate::tls::Session;

/// What happens to a request, taken from one snapshot.
#[derive(Debug)]
pub struct Decision {
    /// The rule whose path takes it.
    pub rule: Arc<RouteRule>,
    /// The canary that takes it instead of the rule's own backends.
    pub canary: Option<Arc<RouteRule>>,
    /// What the rule comes to.
    pub next: Next,
    /// `Strict-Transport-Security` of the answer, whatever it is.
    pub hsts: Option<HeaderValue>,
    /// Clients of the host show certificates.
    pub client_auth: Option<Arc<ClientAuth>>,
    path: Option<rewrite::Path>,
    /// The session that it belongs to.
    pub(crate) session: Option<affinity::Session>,
}

/// What happens to a request whose rule is known.
#[derive(Debug)]
pub enum Next {
    /// It is sent elsewhere with this answer.
    Redirect(Response<Body>),
    /// A browser asked whether a script may send a request; this is the answer.
    Preflight(Response<Body>),
    /// It goes to an endpoint of this Service port.
    Forward(Target),
    /// It is answered with this error.
    Fail(Error),
}

impl Decision {
    /// The rule whose backends take it.
    pub fn taken_by(&self) -> &Arc<RouteRule> {
        self.canary.as_ref().unwrap_or(&self.rule)
    }

    /// Writes the path that the backend gets into a request that is forwarded.
    ///
    /// # Errors
    /// The result is not a path, or the rule's pattern took too many steps.
    pub fn rewrite(&self, request: &mut Request<Body>) -> Result<(), Error> {
        match self.next {
            Next::Forward(_) => rewrite::apply(request, &self.rule, self.path.as_ref()),
            Next::Redirect(_) | Next::Preflight(_) | Next::Fail(_) => Ok(()),
        }
    }
}

/// Host and path as rules are compared with them.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The host, as from [`matching::host_name`].
    pub host: Cow<'a, str>,
    /// Host and port, as they came.
    pub authority: &'a str,
    /// The canonical path.
    pub path: CanonicalPath<'a>,
}

impl<'a> Asked<'a> {
    /// Of a request that passed the gate.
    ///
    /// # Errors
    /// The path has no normal form ([`ErrorKind::BadRequest`]).
    pub fn of<B>(request: &'a Request<B>) -> Result<Self, Error> {
        let field = request.headers().get(HOST);
        let field = field.and_then(|host| host.to_str().ok()).unwrap_or("");
        // `OPTIONS *` is for the server as a whole: the rule for `/` takes it.
        let path = match request.uri().path() {
            "*" => "/",
            path => path,
        };
        Ok(Self {
            host: matching::host_name(field),
            authority: field,
            path: CanonicalPath::parse(path)?,
        })
    }
}

/// How a request came, trusted proxies believed.
#[derive(Clone, Copy, Debug)]
pub struct Came<'a> {
    /// From this client.
    pub client: IpAddr,
    /// Over TLS.
    pub secure: bool,
    /// The port that a redirect to HTTPS names.
    pub https_port: u16,
    /// What the client has shown in a TLS handshake with us, if there was one.
    pub session: Option<&'a Session>,
}

/// Decides on a request. The only place that looks at the snapshot's routes, and does so once.
///
/// # Errors
/// The request is bad, no rule takes it, or the rules cannot be tried.
pub fn decide<B>(
    snapshot: &Snapshot,
    request: &Request<B>,
    came: Came<'_>,
    balancer: &Balancer,
) -> Result<Decision, Error> {
    let asked = Asked::of(request)?;
    let matched = matching::find(&snapshot.routes, &asked.host, asked.path.matched())?;
    let version = request.version();
    let client = matched.client_auth.as_deref();
    client_auth::belongs(snapshot, &asked.host, client, came.session, version)?;
    if matched.passes_through && came.session.is_some() {
        let detail = "TLS connections for the host are passed through, and this one is another's";
        return Err(Error::new(ErrorKind::Misdirected, detail));
    }
    let answered = match client {
        Some(client) => answer_to_client(snapshot, client, request, &asked, &matched, came)?,
        None => answer(snapshot, request, &asked, &matched, came)?,
    };
    let (mut canary, mut session) = (None, None);
    let next = if let Some(next) = answered {
        next
    } else {
        canary = canary::choose(snapshot, &matched.rule, request.headers(), balancer);
        let rule = canary.unwrap_or(&matched.rule);
        match draw(snapshot, rule, came.secure, balancer) {
            Ok(mut target) => {
                session = prefer(&mut target, rule, request, &asked, came, balancer);
                Next::Forward(target)
            }
            Err(error) => Next::Fail(error),
        }
    };
    Ok(Decision {
        path: rewrite::Path::of(&asked.path),
        canary: canary.map(Arc::clone),
        hsts: hsts(snapshot, &matched, came.secure).cloned(),
        rule: matched.rule,
        session,
        next,
        client_auth: matched.client_auth,
    })
}

/// As [`answer`], for a host whose clients show certificates. They are looked at first, but what came
/// over plain HTTP may be redirected to where there are any.
fn answer_to_client<B>(
    snapshot: &Snapshot,
    client: &ClientAuth,
    request: &Request<B>,
    asked: &Asked<'_>,
    matched: &Matched,
    came: Came<'_>,
) -> Result<Option<Next>, Error> {
    if !came.secure {
        let answered = answer(snapshot, request, asked, matched, came)?;
        if answered.is_some() || client_auth::is_for_challenges(&matched.rule) {
            return Ok(answered);
        }
    }
    let refused = match client_auth::admit(client, came.session) {
        Ok(()) if came.secure => return answer(snapshot, request, asked, matched, came),
        Ok(()) => return Ok(None),
        Err(refused) => refused,
    };
    Ok(Some(match (refused, &client.error_page) {
        (Refusal::Certificate(_), Some(page)) => {
            let filling = redirect::Filling {
                scheme: if came.secure { "https" } else { "http" },
                host: &asked.host,
                authority: asked.authority,
                target: request.uri(),
            };
            Next::Redirect(redirect::to_page(page, filling)?)
        }
        // Before limits and the like, which are for clients that could come in.
        (Refusal::Certificate(error) | Refusal::Error(error), _) => return Err(error),
    }))
}

/// What the gateway answers by itself, if it does: redirects, then preflights, then refusals. A rule
/// that cannot be served as written does nothing of that.
fn answer<B>(
    snapshot: &Snapshot,
    request: &Request<B>,
    asked: &Asked<'_>,
    matched: &Matched,
    came: Came<'_>,
) -> Result<Option<Next>, Error> {
    let filters = &matched.rule.filters;
    let path = asked.path.matched();
    if !came.secure && redirect::wanted(filters, matched.has_certificate, path) {
        let status = snapshot.gateway.redirect_status;
        let (host, port) = (&asked.host, came.https_port);
        let response = redirect::to_https(host, port, request.uri(), filters, status)?;
        return Ok(Some(Next::Redirect(response)));
    }
    if matched.rule.invalid.is_some() {
        return Ok(None);
    }
    let policy = filters.policy.as_ref();
    if let Some(policy) = policy {
        if let Some(response) = redirect::elsewhere(policy, asked, came.secure, request.uri())? {
            return Ok(Some(Next::Redirect(response)));
        }
        let cors = policy.cors.as_ref();
        if let Some(response) = cors.and_then(|cors| cors::preflight(cors, request)) {
            return Ok(Some(Next::Preflight(response)));
        }
    }
    if let Some(url) = rewrite::url(&matched.rule, path, request.uri().query())? {
        let response = redirect::answer(StatusCode::FOUND, "moved", url)?;
        return Ok(Some(Next::Redirect(response)));
    }
    let Some(policy) = policy else {
        return Ok(None);
    };
    // If something else may be enough, that is still to be seen.
    let is_final = policy.auth.as_ref().is_none_or(|auth| !auth.any);
    if is_final && !policy.access.admits(came.client) {
        let error = Error::new(ErrorKind::AccessDenied, "the client may not come in");
        return Ok(Some(Next::Fail(error)));
    }
    Ok(None)
}

/// Has the request go where its session is, or where those like it go. Returns the session.
fn prefer<B>(
    target: &mut Target,
    rule: &RouteRule,
    request: &Request<B>,
    asked: &Asked<'_>,
    came: Came<'_>,
    balancer: &Balancer,
) -> Option<affinity::Session> {
    let policy = rule.filters.policy.as_ref()?;
    if let Some(affinity) = &policy.affinity {
        let session = affinity::Session::of(affinity, request.headers(), &target.port, balancer);
        target.sticky = Some(session.sticky);
        return Some(session);
    }
    let by = policy.hash_by.as_ref()?;
    target.sticky = hash::key(by, request, asked, came).map(Sticky::Key);
    None
}

/// `Strict-Transport-Security` of the answer.
fn hsts<'a>(snapshot: &'a Snapshot, matched: &Matched, secure: bool) -> Option<&'a HeaderValue> {
    let mode = matched.rule.filters.mode;
    let is_sent = secure && matched.has_certificate;
    is_sent.then(|| snapshot.gateway.hsts.of(mode)).flatten()
}

/// What happens to a request that needs nothing but a backend.
pub(crate) struct PlainDecision {
    pub(crate) rule: Arc<RouteRule>,
    pub(crate) target: Target,
    pub(crate) hsts: Option<HeaderValue>,
}

/// The same for a request that needs nothing but a backend: its path is canonical, and its rule
/// neither redirects nor changes anything. `None` for every other request, errors included.
pub(crate) fn decide_plain(
    snapshot: &Snapshot,
    host: &str,
    path: &str,
    secure: bool,
    balancer: &Balancer,
) -> Option<PlainDecision> {
    let path = CanonicalPath::parse(path).ok()?;
    if rewrite::Path::of(&path).is_some() {
        return None;
    }
    let host = matching::host_name(host);
    let matched = matching::find(&snapshot.routes, &host, path.matched()).ok()?;
    // A filter that is added has to be thought of here.
    let Filters {
        mode: _,
        rewrite,
        ssl_redirect: _,
        force_ssl_redirect: _,
        backend_protocol: _,
        service_upstream: _,
        upstream_tls: _,
        policy,
    } = &matched.rule.filters;
    let filters = &matched.rule.filters;
    let redirected = !secure && redirect::wanted(filters, matched.has_certificate, path.matched());
    // A canary looks at the request's fields.
    let asks = matched.client_auth.is_some() || matched.rule.canary.is_some();
    let asks = asks || (secure && matched.passes_through);
    if rewrite.is_some() || redirected || policy.is_some() || asks {
        return None;
    }
    Some(PlainDecision {
        target: draw(snapshot, &matched.rule, secure, balancer).ok()?,
        hsts: hsts(snapshot, &matched, secure).cloned(),
        rule: matched.rule,
    })
}

/// The Service port that takes the request, drawn by weight.
pub(crate) fn draw(
    snapshot: &Snapshot,
    rule: &RouteRule,
    secure: bool,
    balancer: &Balancer,
) -> Result<Target, Error> {
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
    target(snapshot, rule, weighted, secure)
}

/// The Service port behind one backend of a rule, for a client that came over TLS or not.
///
/// # Errors
/// [`ErrorKind::NoService`], [`ErrorKind::NoPort`].
pub fn target(
    snapshot: &Snapshot,
    rule: &RouteRule,
    weighted: &WeightedBackend,
    secure: bool,
) -> Result<Target, Error> {
    let own = rule.filters.service_upstream.as_ref();
    let Some(port) = own.or_else(|| snapshot.backend(&weighted.backend)) else {
        let known = snapshot.services.contains_key(&weighted.backend.service);
        return Err(if known {
            Error::new(ErrorKind::NoPort, "the Service has no such port")
        } else {
            Error::new(ErrorKind::NoService, "the Service does not exist")
        });
    };
    let upstream = upstream(rule.filters.backend_protocol, port, secure);
    Ok(Target {
        overrides: overrides(&rule.filters, &port.http),
        tls: rule.filters.upstream_tls.clone(),
        ..Target::new(Arc::clone(port), upstream)
    })
}

/// What holds in place of the Service's own policy, if anything does.
fn overrides(filters: &Filters, own: &Arc<HttpPolicy>) -> Option<Arc<HttpPolicy>> {
    let habits = match filters.mode {
        Mode::Strict => None,
        Mode::Compat if Arc::ptr_eq(own, &HttpPolicy::shared()) => {
            Some(HttpPolicy::shared_compat())
        }
        Mode::Compat => Some(Arc::new(own.compat())),
    };
    let policy = filters.policy.as_ref();
    let said = policy.and_then(|policy| policy.overrides.over(habits.as_ref().unwrap_or(own)));
    said.map(Arc::new).or(habits)
}

/// What the rule says that its backend speaks; if it says nothing, what the Service says.
fn upstream(protocol: BackendProtocol, port: &ServicePort, secure: bool) -> Upstream {
    match protocol {
        BackendProtocol::Auto if secure => Upstream::Http1Tls,
        BackendProtocol::Auto => Upstream::Http1,
        BackendProtocol::Http => Upstream::of(port.app_protocol),
        BackendProtocol::Https => Upstream::Http1Tls,
        BackendProtocol::Grpc => Upstream::Http2,
        BackendProtocol::Grpcs => Upstream::Http2Tls,
    }
}
