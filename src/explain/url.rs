//! A request to the gateway: certificate, gate, path, host, rule, filters, backend, endpoints. Each
//! decision is asked of the code that serves requests.

mod clients;
mod errors;

use http::header::{HOST, LOCATION};
use http::{Request, StatusCode, Uri};
use sealane_config::Snapshot;
use sealane_config::model::{AccessList, HostRoutes, PathMatch, RouteRule};
use sealane_ingress::decide::{self, Asked, Came, Decision, Next};
use sealane_ingress::{matching, tls};
use sealane_proxy::balance::Balancer;
use sealane_proxy::http::{Body, gate};
use sealane_proxy::{Error, ErrorKind};

use super::backends::Shares;
use super::canary;
use super::model::{Explanation, Mark, Outcome, Phase, Step, Trail};
use super::query::UrlQuery;

/// Hosts that are named where none matches.
const SHOWN_HOSTS: usize = 8;

/// Explains a request. `https_port` is what a redirect would name.
pub(crate) fn explain(snapshot: &Snapshot, query: &UrlQuery, https_port: u16) -> Explanation {
    let mut trail = Trail::default();
    let end = match walk(&mut trail, snapshot, query, https_port) {
        Ok(end) => end,
        Err(error) => End::error(&error),
    };
    let text = match query.method {
        http::Method::GET => query.text.clone(),
        ref method => format!("{method} {}", query.text),
    };
    trail.end(text, end.outcome, end.status, end.summary)
}

/// What a request comes to.
pub(super) struct End {
    pub(super) outcome: Outcome,
    pub(super) status: Option<u16>,
    pub(super) summary: String,
}

impl End {
    /// The answer is an error.
    pub(super) fn error(error: &Error) -> Self {
        let status = error.kind().status();
        let outcome = match error.kind() {
            ErrorKind::NoRoute => Outcome::NotFound,
            _ => Outcome::Error,
        };
        Self {
            outcome,
            status: Some(status.as_u16()),
            summary: format!(
                "answered {status}: {} ({})",
                error.detail(),
                error.kind().label()
            ),
        }
    }
}

fn walk(
    trail: &mut Trail,
    snapshot: &Snapshot,
    query: &UrlQuery,
    https_port: u16,
) -> Result<End, Error> {
    listener(trail, query);
    if query.secure {
        if let Some(rule) = passthrough(snapshot, query) {
            return passed_through(trail, snapshot, rule);
        }
        certificate(trail, snapshot, query);
    }
    let mut request = request(query)?;
    if let Err(error) = gate::admit(&mut request) {
        trail.step(
            Phase::Gate,
            Mark::Failed,
            "the message gate",
            error.detail(),
        );
        return Err(error);
    }
    let asked = match Asked::of(&request) {
        Ok(asked) => asked,
        Err(error) => {
            trail.step(
                Phase::Path,
                Mark::Failed,
                request.uri().path(),
                error.detail(),
            );
            return Err(error);
        }
    };
    path(trail, &request, &asked);
    host(trail, snapshot, &asked);
    clients::explain(trail, snapshot, &asked);
    rules(trail, snapshot, &asked);
    let balancer = Balancer::seeded(0);
    // Nothing is known of a certificate that the client would show: it is one without.
    let session = query.secure.then(|| tls::Session::anonymous(&asked.host));
    let came = Came {
        client: query.client,
        secure: query.secure,
        https_port,
        session: session.as_ref(),
    };
    let decision = decide::decide(snapshot, &request, came, &balancer)?;
    filters(trail, &decision, came, snapshot, &asked);
    drop(asked);
    follow(trail, snapshot, &decision, request, query.secure)
}

fn listener(trail: &mut Trail, query: &UrlQuery) {
    let (what, why) = if query.secure {
        ("HTTPS", "the URL says https")
    } else {
        ("HTTP", "the URL says http")
    };
    trail.step(Phase::Listener, Mark::Chosen, what, why);
}

/// The request as it would come: origin form, the authority in `Host` unless another one was given.
fn request(query: &UrlQuery) -> Result<Request<Body>, Error> {
    let bad = |_error| Error::new(ErrorKind::BadRequest, "the request cannot be written");
    let target = Uri::try_from(query.target.as_str());
    let target = target.map_err(|_bad| {
        Error::new(
            ErrorKind::BadRequest,
            "the target has a character that must be encoded",
        )
    })?;
    let mut request = Request::builder().method(query.method.clone()).uri(target);
    if !query.headers.iter().any(|(name, _)| name == HOST) {
        request = request.header(HOST, query.authority.as_str());
    }
    for (name, value) in &query.headers {
        request = request.header(name, value);
    }
    request.body(Body::empty()).map_err(bad)
}

/// The rule for whose backend a TLS connection is, if the gateway does not end it.
fn passthrough<'a>(snapshot: &'a Snapshot, query: &UrlQuery) -> Option<&'a RouteRule> {
    let host = snapshot
        .routes
        .host(&matching::host_name(&query.authority))?;
    host.tls.passthrough.as_deref()
}

fn passed_through(trail: &mut Trail, snapshot: &Snapshot, rule: &RouteRule) -> Result<End, Error> {
    let what = "no certificate of the gateway's";
    let why = "TLS connections for this host go to the backend as they come: ssl-passthrough";
    let step = trail.step(Phase::Certificate, Mark::Chosen, what, why);
    step.of(&rule.source, &rule.field);
    match rule.invalid {
        Some(detail) => Err(Error::new(ErrorKind::InvalidRoute, detail)),
        None => Ok(Shares::of(trail, snapshot, rule, true).end()),
    }
}

fn certificate(trail: &mut Trail, snapshot: &Snapshot, query: &UrlQuery) {
    let host = matching::host_name(&query.authority).into_owned();
    let is_address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    // RFC 6066, 3: an address is no server name.
    let server_name = (!is_address).then_some(host.as_str());
    let table = &snapshot.certificates;
    let found = tls::certificate(table, server_name);
    let how = match (server_name, found) {
        (None, _) => "the client sends no server name for an address".to_owned(),
        (Some(name), Some(_)) if table.exact.contains_key(name) => {
            format!("configured for {name}")
        }
        (Some(name), Some(_)) if table.find(name).is_some() => {
            let suffix = name.split_once('.').map_or("", |(_, rest)| rest);
            format!("configured for *.{suffix}; there is none for {name}")
        }
        (Some(name), _) => format!("there is none for {name}"),
    };
    let Some(certificate) = found else {
        let why = format!("{how}, and no default certificate");
        let what = "a self-signed certificate";
        trail.step(Phase::Certificate, Mark::Note, what, why);
        return;
    };
    let is_default = table
        .default
        .as_ref()
        .is_some_and(|default| std::sync::Arc::ptr_eq(default, certificate));
    let what = if is_default {
        "the default certificate"
    } else {
        "a certificate"
    };
    let step = trail.step(Phase::Certificate, Mark::Chosen, what, how);
    step.of(&certificate.source, "");
    if certificate.not_after < jiff::Timestamp::now().as_second() {
        step.mark = Mark::Note;
        step.why.push_str("; it has expired, so clients refuse it");
    }
}

fn path(trail: &mut Trail, request: &Request<Body>, asked: &Asked<'_>) {
    let typed = request.uri().path();
    let matched = asked.path.matched();
    if typed == matched {
        return;
    }
    let why = match asked.path.forwarded() {
        forwarded if forwarded == matched => format!("the normal form of {typed}"),
        forwarded => format!("what rules see of {typed}; a backend would get {forwarded}"),
    };
    trail.step(Phase::Path, Mark::Chosen, matched, why);
}

/// Whose rules are tried: exact name, one-label wildcard, rules without a host.
fn host(trail: &mut Trail, snapshot: &Snapshot, asked: &Asked<'_>) {
    let table = &snapshot.routes;
    let name = &*asked.host;
    let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
    let candidates = [
        (Some(name.to_owned()), table.exact.get(name)),
        (wildcard, table.wildcard_host(name)),
        (Some("*".to_owned()), table.any.as_ref()),
    ];
    let chosen = table.host(name);
    for (candidate, routes) in candidates {
        let Some(candidate) = candidate else { continue };
        match (routes, chosen) {
            (Some(routes), Some(chosen)) if std::sync::Arc::ptr_eq(routes, chosen) => {
                trail.step(Phase::Host, Mark::Chosen, shown(&candidate), extent(routes));
            }
            (Some(_), _) => {
                let why = "has rules, but a more exact host goes first and never falls through";
                trail.step(Phase::Host, Mark::Rejected, shown(&candidate), why);
            }
            (None, _) => {
                trail.step(
                    Phase::Host,
                    Mark::Rejected,
                    shown(&candidate),
                    "no rule has this host",
                );
            }
        }
    }
    if chosen.is_none() {
        let mut known: Vec<String> = table.exact.keys().map(ToString::to_string).collect();
        known.extend(table.wildcard.keys().map(|suffix| format!("*.{suffix}")));
        known.sort();
        let count = known.len();
        known.truncate(SHOWN_HOSTS);
        let why = match count {
            0 => "no rule has a host".to_owned(),
            1 => format!("1 host has rules: {}", known.join(", ")),
            _ => format!("{count} hosts have rules: {}", known.join(", ")),
        };
        trail.step(Phase::Host, Mark::Note, "known hosts", why);
    }
}

fn shown(host: &str) -> &str {
    if host == "*" { "any host" } else { host }
}

fn extent(routes: &HostRoutes) -> String {
    let rules = match routes.rules.len() {
        1 => "1 rule".to_owned(),
        count => format!("{count} rules"),
    };
    let tls = if routes.has_certificate {
        "TLS is configured"
    } else {
        "no TLS is configured"
    };
    format!("{rules}, {tls}")
}

/// Every rule that is compared, until one takes the request.
fn rules(trail: &mut Trail, snapshot: &Snapshot, asked: &Asked<'_>) {
    let path = asked.path.matched();
    let table = &snapshot.routes;
    let mut compared = 0;
    let found = matching::find_observed(table, &asked.host, path, |rule, taken| {
        compared += 1;
        let mark = if taken { Mark::Chosen } else { Mark::Rejected };
        of_rule(
            trail.step(
                Phase::Rule,
                mark,
                describe(&rule.path),
                comparison(&rule.path, path, taken),
            ),
            rule,
        );
    });
    let all = table
        .host(&asked.host)
        .map_or(0, |routes| routes.rules.len());
    match found {
        Ok(matched) if !matched_by_path(table.host(&asked.host), &matched.rule) => {
            let why = "no rule's path takes the request, so the default backend does";
            of_rule(
                trail.step(Phase::Rule, Mark::Chosen, "the default backend", why),
                &matched.rule,
            );
        }
        Ok(_) if all > compared => {
            let what = match all - compared {
                1 => "1 more rule of the host".to_owned(),
                left => format!("{left} more rules of the host"),
            };
            let why = "not compared: longer paths go first, and the first that matches takes it";
            trail.step(Phase::Rule, Mark::Note, what, why);
        }
        Ok(_) => {}
        Err(error) => {
            trail.step(Phase::Rule, Mark::Failed, path, error.detail());
        }
    }
}

fn matched_by_path(
    routes: Option<&std::sync::Arc<HostRoutes>>,
    rule: &std::sync::Arc<RouteRule>,
) -> bool {
    let mut rules = routes.into_iter().flat_map(|routes| &routes.rules);
    rules.any(|own| std::sync::Arc::ptr_eq(own, rule))
}

fn of_rule(step: &mut Step, rule: &RouteRule) {
    step.of(&rule.source, &rule.field);
}

/// A path match, as people write it.
pub(super) fn describe(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => format!("Exact {path}"),
        PathMatch::Prefix(prefix) if prefix.is_empty() => "Prefix /".to_owned(),
        PathMatch::Prefix(prefix) => format!("Prefix {prefix}"),
        PathMatch::Start(start) => format!("Start {start}"),
        PathMatch::Regex(regex) => format!("Regex {}", regex.as_str()),
    }
}

fn comparison(rule: &PathMatch, path: &str, taken: bool) -> String {
    match (rule, taken) {
        (PathMatch::Exact(_), true) => "the path is equal".to_owned(),
        (PathMatch::Exact(_), false) => format!("{path} is not equal"),
        (PathMatch::Prefix(prefix), true) if prefix.is_empty() => "takes every path".to_owned(),
        (PathMatch::Prefix(_), true) => "the path's first elements are equal".to_owned(),
        (PathMatch::Prefix(prefix), false) if path.starts_with(&**prefix) => {
            format!("{path} begins with it, but not element by element")
        }
        (PathMatch::Prefix(_), false) => format!("{path} does not begin with it"),
        (PathMatch::Start(_), true) => "the path's first characters are equal".to_owned(),
        (PathMatch::Start(_), false) => format!("{path} does not begin with it"),
        (PathMatch::Regex(_), true) => "the expression matches from the path's start".to_owned(),
        (PathMatch::Regex(_), false) => format!("the expression does not match {path}"),
    }
}

/// What the rule's filters do, and why they do nothing where that could surprise.
fn filters(
    trail: &mut Trail,
    decision: &Decision,
    came: Came<'_>,
    snapshot: &Snapshot,
    asked: &Asked<'_>,
) {
    let rule = &decision.rule;
    let filters = &rule.filters;
    if let Next::Redirect(response) = &decision.next {
        let location = response.headers().get(LOCATION);
        let location = location.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let is_https = response.status() == StatusCode::PERMANENT_REDIRECT && !came.secure;
        let policy = filters.policy.as_ref();
        let why = if rule.field.ends_with("from-to-www-redirect]") {
            "from-to-www-redirect sends requests for this name to the other"
        } else if policy.is_some_and(|policy| policy.redirect.is_some()) && !is_https {
            "permanent-redirect or temporal-redirect sends every request elsewhere"
        } else if !is_https
            && asked.path.matched() == "/"
            && policy.is_some_and(|policy| policy.app_root.is_some())
        {
            "app-root sends requests for / elsewhere"
        } else if !is_https {
            "rewrite-target is a URL, to which requests are sent"
        } else if filters.force_ssl_redirect {
            "force-ssl-redirect sends plain HTTP to HTTPS"
        } else {
            "plain HTTP is sent to HTTPS where the host has TLS (ssl-redirect, on by default)"
        };
        let what = format!("{} {location}", response.status().as_u16());
        let step = trail.step(Phase::Filter, Mark::Chosen, what, why);
        step.of(&rule.source, "metadata.annotations");
        return;
    }
    let has_certificate = snapshot
        .routes
        .host(&asked.host)
        .is_some_and(|r| r.has_certificate);
    if !came.secure && has_certificate && !filters.ssl_redirect {
        let why = "ssl-redirect is off, so plain HTTP is served";
        let step = trail.step(Phase::Filter, Mark::Note, "no redirect to HTTPS", why);
        step.of(
            &rule.source,
            "metadata.annotations[nginx.ingress.kubernetes.io/ssl-redirect]",
        );
    }
    let access = filters.policy.as_ref().map(|policy| &policy.access);
    if access.is_some_and(|access| *access != AccessList::default()) {
        let refused =
            matches!(&decision.next, Next::Fail(error) if error.kind() == ErrorKind::AccessDenied);
        let (mark, why) = if refused {
            (
                Mark::Failed,
                "it is not among those that may come in (--client names another)",
            )
        } else {
            (Mark::Chosen, "it may come in")
        };
        let step = trail.step(Phase::Filter, mark, format!("client {}", came.client), why);
        step.of(&rule.source, "metadata.annotations");
    }
    let auth = filters
        .policy
        .as_ref()
        .and_then(|policy| policy.auth.as_ref());
    if let Some(auth) = auth.filter(|_| rule.invalid.is_none()) {
        let why = "asked of every request before it goes on; explain does not ask";
        for (is_asked, what, field) in [
            (auth.basic.is_some(), "a user and a password", "auth-type"),
            (
                auth.external.is_some(),
                "a service's permission",
                "auth-url",
            ),
        ] {
            if is_asked {
                let field = format!("metadata.annotations[nginx.ingress.kubernetes.io/{field}]");
                let step = trail.step(Phase::Filter, Mark::Note, what, why);
                step.of(&rule.source, &field);
            }
        }
    }
}

fn follow(
    trail: &mut Trail,
    snapshot: &Snapshot,
    decision: &Decision,
    mut request: Request<Body>,
    secure: bool,
) -> Result<End, Error> {
    let rule = &decision.rule;
    if let Next::Redirect(response) = &decision.next {
        let location = response.headers().get(LOCATION);
        let location = location.and_then(|it| it.to_str().ok()).unwrap_or_default();
        return Ok(End {
            outcome: Outcome::Redirected,
            status: Some(response.status().as_u16()),
            summary: format!(
                "answered {}: the client is sent to {location}",
                response.status()
            ),
        });
    }
    if let Some(reason) = rule.invalid {
        let why =
            "the rule keeps its requests, so that no broader rule gets them; see sealane check";
        let step = trail.step(Phase::Backend, Mark::Failed, reason, why);
        step.of(&rule.source, &rule.backend_field());
    }
    let before = request.uri().clone();
    decision.rewrite(&mut request)?;
    if *request.uri() != before {
        let (what, why) = match rule.filters.rewrite {
            Some(_) => (
                request.uri().to_string(),
                "what the backend gets, by rewrite-target",
            ),
            None => (
                request.uri().to_string(),
                "what the backend gets: the path's normal form",
            ),
        };
        let step = trail.step(Phase::Filter, Mark::Chosen, what, why);
        step.of(
            &rule.source,
            "metadata.annotations[nginx.ingress.kubernetes.io/rewrite-target]",
        );
    }
    if let Next::Preflight(response) = &decision.next {
        return Ok(End {
            outcome: Outcome::Served,
            status: Some(response.status().as_u16()),
            summary: "a CORS preflight, answered by the gateway (enable-cors)".to_owned(),
        });
    }
    if let Next::Fail(error) = &decision.next
        && (error.kind() == ErrorKind::AccessDenied || is_unserved(rule))
    {
        return Ok(End::error(error));
    }
    errors::explain(trail, rule);
    Ok(canary::explain(
        trail,
        snapshot,
        rule,
        (request.headers(), secure),
    ))
}

/// No backend of the rule gets anything.
fn is_unserved(rule: &RouteRule) -> bool {
    rule.invalid.is_some() || rule.backends.iter().all(|weighted| weighted.weight == 0)
}
