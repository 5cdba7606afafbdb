//! Asking a service whether a request may pass (ingress-nginx `auth-url`).
//!
//! The question has the request's fields, what it was for in fields of its own, and no body: that
//! stays where it is, unread, whatever the request's method or version of HTTP. An answer of 2xx lets
//! the request pass, 401 and 403 are the client's answer, and anything else, silence among it, is an
//! error of ours: 500.
//!
//! The service is asked with the engine, so that its endpoints are balanced over, connections to it
//! are kept, and addresses that no endpoint may have are not dialled. It is a Service of the cluster,
//! a host that this gateway serves itself: that host's rule says which Service it is, and the
//! question does not leave the process to come back; or a host [`outside`].

use std::time::Duration;

use http::header::{HOST, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use sealane_config::Snapshot;
use sealane_config::model::{AuthPlace, ExternalAuth, Template};
use sealane_proxy::http::{Body, Target, Upstream, respond};
use sealane_proxy::{Error, ErrorKind};
use tokio::time::timeout;

use super::{Answer, refuse};
use crate::aside;
use crate::decide::{Asked, Came, Decision, Next, decide};
use crate::filters::forwarded::Peer;
use crate::filters::redirect::{self, Filling};
use crate::filters::upstream;
use crate::gateway::Inner;
use outside::Place;

pub(crate) mod answers;
pub(crate) mod outside;

const AUTH_REQUEST_REDIRECT: HeaderName = HeaderName::from_static("x-auth-request-redirect");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What comes with the permission.
#[derive(Clone, Debug, Default)]
pub(super) struct Granted {
    /// For the backend.
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
    /// For the client.
    pub(super) cookies: Vec<HeaderValue>,
}

/// What a service said.
#[derive(Clone, Debug)]
enum Verdict {
    Granted(Granted),
    /// 401, or 403 if that is what it said; with the challenges and cookies of the answer.
    Refused(ErrorKind, Vec<(HeaderName, HeaderValue)>),
}

/// Asks about a request.
///
/// # Errors
/// The client's answer.
pub(super) async fn ask(
    gateway: &Inner,
    peer: &Peer,
    decision: &Decision,
    auth: &ExternalAuth,
    request: &mut Request<Body>,
) -> Result<Granted, Answer> {
    let answers = &gateway.options.answers;
    let key = auth.cache.as_ref();
    let key = key.and_then(|cache| answers.key(cache, auth, &decision.rule, peer, request));
    let known = key.and_then(|key| answers.get(key));
    let verdict = match known {
        Some(verdict) => verdict,
        None => {
            let asked = question(gateway, peer, auth, request).await;
            let (status, verdict) = asked.map_err(|error| {
                tracing::debug!(rule = %decision.rule.source, ?error, "authentication failed");
                refuse(&error, request)
            })?;
            if let (Some(key), Some(cache)) = (key, &auth.cache) {
                answers.keep(key, cache, status, &verdict);
            }
            verdict
        }
    };
    match verdict {
        Verdict::Granted(granted) => Ok(granted),
        Verdict::Refused(kind, fields) => Err(refused(auth, peer, kind, fields, request)),
    }
}

/// The question and what is said to it.
async fn question(
    gateway: &Inner,
    peer: &Peer,
    auth: &ExternalAuth,
    request: &mut Request<Body>,
) -> Result<(StatusCode, Verdict), Error> {
    let (question, addressee) = write(gateway, peer, auth, request)?;
    // The backend is told the same id.
    if let Some(id) = question.headers().get(REQUEST_ID) {
        let id = id.clone();
        request.headers_mut().insert(REQUEST_ID, id);
    }
    let asking = async {
        let target = match addressee {
            Addressee::Known(target) => *target,
            Addressee::Outside(place) => gateway.options.outside.target(&place).await?,
        };
        Ok(gateway.engine.forward(question, &target).await)
    };
    let late = "the service that is asked took too long";
    let answer = timeout(PATIENCE, asking).await;
    let answer = answer.map_err(|_elapsed| Error::new(ErrorKind::AuthFailed, late))??;
    let (parts, body) = answer.into_parts();
    aside::read_out(body);
    if parts.extensions.get::<ErrorKind>().is_some() {
        let detail = "the service that is asked does not answer";
        return Err(Error::new(ErrorKind::AuthFailed, detail));
    }
    let list = |name: &HeaderName| {
        let values = parts.headers.get_all(name).into_iter().cloned();
        values
            .map(|value| (name.clone(), value))
            .collect::<Vec<_>>()
    };
    let verdict = match parts.status {
        status if status.is_success() => Verdict::Granted(Granted {
            fields: auth.response_headers.iter().flat_map(list).collect(),
            cookies: list(&SET_COOKIE).into_iter().map(|(_, v)| v).collect(),
        }),
        StatusCode::UNAUTHORIZED => {
            let fields = [list(&WWW_AUTHENTICATE), list(&SET_COOKIE)].concat();
            Verdict::Refused(ErrorKind::Unauthorized, fields)
        }
        StatusCode::FORBIDDEN => Verdict::Refused(ErrorKind::AccessDenied, list(&SET_COOKIE)),
        _ => {
            let detail = "the service that is asked says neither yes nor no";
            return Err(Error::new(ErrorKind::AuthFailed, detail));
        }
    };
    Ok((parts.status, verdict))
}

/// Who is asked.
enum Addressee {
    /// This one. Boxed, because the other is small.
    Known(Box<Target>),
    /// Whoever the name leads to.
    Outside(Place),
}

/// Writes the question about a request, and where it goes.
fn write(
    gateway: &Inner,
    peer: &Peer,
    auth: &ExternalAuth,
    request: &Request<Body>,
) -> Result<(Request<Body>, Addressee), Error> {
    let asked = Asked::of(request)?;
    let filling = filling(peer, &asked, request.uri());
    let mut headers = aside::fields(request.headers());
    let random = gateway.engine.balancer();
    peer.write(&mut headers, || [random.random(), random.random()]);
    let uri = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let url = format!("{}://{}{uri}", filling.scheme, asked.authority);
    let redirect = match &auth.redirect {
        Some(template) => redirect::fill(template, filling)?,
        None => uri.to_owned(),
    };
    for (name, text) in [
        (ORIGINAL_METHOD, request.method().as_str()),
        (ORIGINAL_URI, uri),
        (ORIGINAL_URL, &*url),
        (AUTH_REQUEST_REDIRECT, &*redirect),
    ] {
        headers.insert(name, value(text)?);
    }
    for (name, template) in &auth.headers {
        headers.insert(name, value(&redirect::fill(template, filling)?)?);
    }
    let path = redirect::fill(&auth.path, filling)?;
    let path = PathAndQuery::try_from(path).map_err(|_invalid| unfit())?;
    let mut question = Request::new(Body::empty());
    *question.method_mut() = auth.method.clone();
    *question.uri_mut() = Uri::from(path);
    *question.headers_mut() = headers;
    let snapshot = gateway.reader.load();
    let addressee = match &auth.place {
        AuthPlace::Service { backend, host, tls } => {
            question.headers_mut().insert(HOST, value(host)?);
            let port = snapshot.backend(backend);
            let port = port.ok_or_else(|| {
                Error::new(
                    ErrorKind::AuthFailed,
                    "the Service that is asked does not exist",
                )
            })?;
            let upstream = match tls {
                true => Upstream::Http1Tls,
                false => Upstream::of(port.app_protocol),
            };
            Addressee::Known(Box::new(Target::new(port.clone(), upstream)))
        }
        AuthPlace::Host { name, port, tls } => {
            let host = redirect::fill(name, filling)?;
            question.headers_mut().insert(HOST, value(&host)?);
            let is_usual = matches!(port, 80 | 443);
            if is_usual && is_own(&snapshot, &question)? {
                let target = own(gateway, &snapshot, peer, &mut question)?;
                Addressee::Known(Box::new(target))
            } else {
                let place = Place::of(name, &host, *port, *tls)?;
                question
                    .headers_mut()
                    .insert(HOST, value(&place.authority())?);
                Addressee::Outside(place)
            }
        }
    };
    Ok((question, addressee))
}

/// Whether a question is for a host of this gateway: one that a rule names.
fn is_own(snapshot: &Snapshot, question: &Request<Body>) -> Result<bool, Error> {
    let host = Asked::of(question)?.host;
    let routes = &snapshot.routes;
    Ok(routes.exact.contains_key(&*host) || routes.wildcard_host(&host).is_some())
}

/// Where a question goes that is for a host of this gateway, whose own rule may rewrite it, and must
/// ask for nothing that the question cannot show.
fn own(
    gateway: &Inner,
    snapshot: &Snapshot,
    peer: &Peer,
    question: &mut Request<Body>,
) -> Result<Target, Error> {
    let came = Came {
        client: peer.ip,
        secure: true,
        https_port: gateway.options.https_port,
        // It is our question: what the client has shown is for the host that it came to.
        session: None,
    };
    let unfit = || {
        let detail = "the host that is asked does not take the question";
        Error::new(ErrorKind::AuthFailed, detail)
    };
    let decision = decide(snapshot, question, came, gateway.engine.balancer());
    let decision = decision.map_err(|_no_rule| unfit())?;
    let policy = decision.rule.filters.policy.as_ref();
    if policy.is_some_and(|policy| policy.auth.is_some()) {
        let detail = "the host that is asked asks for authentication itself";
        return Err(Error::new(ErrorKind::AuthFailed, detail));
    }
    decision.rewrite(question).map_err(|_no_path| unfit())?;
    upstream::write(&decision.rule.filters, question.headers_mut());
    match decision.next {
        Next::Forward(target) => Ok(target),
        Next::Fail(_) | Next::Redirect(_) | Next::Preflight(_) => Err(unfit()),
    }
}

/// The answer to a client that the service refused: where to sign in, or the status.
fn refused(
    auth: &ExternalAuth,
    peer: &Peer,
    kind: ErrorKind,
    fields: Vec<(HeaderName, HeaderValue)>,
    request: &Request<Body>,
) -> Answer {
    let signin = auth.signin.as_ref();
    let location = signin.filter(|_| kind == ErrorKind::Unauthorized);
    let location = location.and_then(|signin| sign_in(signin, peer, request).ok());
    let is_redirect = location.is_some();
    let mut response = match location {
        Some(location) => {
            let mut response = respond::text(StatusCode::FOUND, "sign in");
            response.headers_mut().insert(LOCATION, location);
            Box::new(response)
        }
        None => refuse(
            &Error::new(kind, "the service that was asked says no"),
            request,
        ),
    };
    for (name, value) in fields {
        let is_told = match name {
            SET_COOKIE => is_redirect || auth.always_set_cookie,
            _ => !is_redirect,
        };
        if is_told {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn sign_in(signin: &Template, peer: &Peer, request: &Request<Body>) -> Result<HeaderValue, Error> {
    let asked = Asked::of(request)?;
    value(&redirect::fill(
        signin,
        filling(peer, &asked, request.uri()),
    )?)
}

fn filling<'a>(peer: &Peer, asked: &'a Asked<'_>, target: &'a Uri) -> Filling<'a> {
    Filling {
        scheme: if peer.secure { "https" } else { "http" },
        host: &asked.host,
        authority: asked.authority,
        target,
    }
}

fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_invalid| unfit())
}

fn unfit() -> Error {
    let detail = "the request cannot be asked about";
    Error::new(ErrorKind::BadRequest, detail)
}
