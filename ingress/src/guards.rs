//! What a request passes before it goes to a backend, in ingress-nginx's order: limits, access lists,
//! passwords, and the question to a service. Redirects and CORS preflights were answered before
//! ([`decide`](crate::decide)).

use http::header::{SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode, header};
use sealane_config::model::{Auth, GatewaySettings, PathMatch, RoutePolicy};
use sealane_proxy::http::{Body, Held, respond};
use sealane_proxy::{Error, ErrorKind};

use crate::decide::Decision;
use crate::filters::forwarded::Peer;
use crate::gateway::Inner;

pub(crate) mod basic;
pub(crate) mod external;
pub(crate) mod limits;

/// The answer to a request that does not pass.
type Answer = Box<Response<Body>>;

/// What a request that passed leaves behind until it is answered.
#[derive(Default)]
pub(crate) struct Passed {
    /// Its places among those in flight.
    held: Option<Held>,
    /// Cookies that the service that was asked sets.
    cookies: Vec<HeaderValue>,
    /// They are set whatever the answer is.
    always: bool,
}

impl Passed {
    /// Makes the backend's answer the client's.
    pub(crate) fn finish(self, mut response: Response<Body>) -> Response<Body> {
        if self.always || takes_cookies(response.status()) {
            let headers = response.headers_mut();
            for cookie in self.cookies {
                headers.append(SET_COOKIE, cookie);
            }
        }
        match self.held {
            Some(held) => response.map(|body| body.holding(held)),
            None => response,
        }
    }
}

/// nginx adds fields to answers with these only, unless it is told `always`.
fn takes_cookies(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308
    )
}

/// Lets a request pass, or answers it. A rule that cannot be served as written does nothing of this.
///
/// # Errors
/// The answer.
pub(crate) async fn pass(
    gateway: &Inner,
    peer: &Peer,
    decision: &Decision,
    request: &mut Request<Body>,
) -> Result<Passed, Answer> {
    let rule = &decision.rule;
    let policy = rule.filters.policy.as_ref();
    let Some(policy) = policy.filter(|_| rule.invalid.is_none()) else {
        return Ok(Passed::default());
    };
    let held = match &policy.limits {
        Some(limits) => limits::pass(gateway, limits, peer.ip, request)?,
        None => None,
    };
    let auth = policy.auth.as_ref();
    let auth = auth.filter(|_| !is_open(&rule.path, &gateway.reader.load().gateway));
    let mut passed = match auth {
        // Boxed, because few rules ask for it.
        Some(auth) => {
            Box::pin(authenticate(gateway, peer, decision, policy, auth, request)).await?
        }
        None => {
            admit(policy, peer, request)?;
            Passed::default()
        }
    };
    passed.held = held;
    Ok(passed)
}

/// Rules for these paths ask for no authentication. As in ingress-nginx the rule's path counts and not
/// the request's: a broader rule asks for it.
fn is_open(path: &PathMatch, settings: &GatewaySettings) -> bool {
    match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Start(path) => {
            let open = settings.no_auth_paths.iter();
            open.filter_map(|open| path.strip_prefix(&**open))
                .any(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Regex(_) => false,
    }
}

fn admit(policy: &RoutePolicy, peer: &Peer, request: &Request<Body>) -> Result<(), Answer> {
    if policy.access.admits(peer.ip) {
        return Ok(());
    }
    let error = Error::new(ErrorKind::AccessDenied, "the client may not come in");
    Err(refuse(&error, request))
}

/// Access list, password and service: all of them, or one.
async fn authenticate(
    gateway: &Inner,
    peer: &Peer,
    decision: &Decision,
    policy: &RoutePolicy,
    auth: &Auth,
    request: &mut Request<Body>,
) -> Result<Passed, Answer> {
    let mut refusal = Refusal::default();
    let mut passed = Passed::default();
    let mut is_in = auth.any && policy.access.lists(peer.ip);
    if let Err(response) = admit(policy, peer, request) {
        refusal.note(auth, response)?;
    }
    if let (Some(basic), false) = (&auth.basic, is_in) {
        match gateway
            .options
            .passwords
            .check(basic, request.headers())
            .await
        {
            Ok(()) => is_in = auth.any,
            Err(error) => {
                let mut response = refuse(&error, request);
                if error.kind() == ErrorKind::Unauthorized
                    && let Some(challenge) = basic::challenge(&basic.realm)
                {
                    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                }
                refusal.note(auth, response)?;
            }
        }
    }
    let mut fields = Vec::new();
    if let (Some(asked), false) = (&auth.external, is_in) {
        match external::ask(gateway, peer, decision, asked, request).await {
            Ok(granted) => {
                is_in = auth.any;
                fields = granted.fields;
                passed.cookies = granted.cookies;
                passed.always = asked.always_set_cookie;
            }
            Err(response) => refusal.note(auth, response)?,
        }
    }
    if let (Some(response), false) = (refusal.0, is_in) {
        return Err(response);
    }
    let headers = request.headers_mut();
    if auth.basic.is_some() {
        headers.remove(header::AUTHORIZATION);
    }
    for name in auth
        .external
        .iter()
        .flat_map(|asked| &asked.response_headers)
    {
        headers.remove(name);
    }
    for (name, value) in fields {
        headers.append(name, value);
    }
    Ok(passed)
}

/// The answer if nothing else is enough.
#[derive(Default)]
struct Refusal(Option<Answer>);

impl Refusal {
    /// Notes a refusal. It is final if everything is asked for, or if it does not say that the client
    /// may not come in but that this cannot be found out. A client that could say who it is rather
    /// hears that than that it may not come in, as in nginx.
    fn note(&mut self, auth: &Auth, response: Answer) -> Result<(), Answer> {
        let kind = response.extensions().get::<ErrorKind>().copied();
        let is_denied = kind == Some(ErrorKind::AccessDenied);
        let is_refused = is_denied || kind.is_none_or(|kind| kind == ErrorKind::Unauthorized);
        if !auth.any || !is_refused {
            return Err(response);
        }
        if self.0.is_none() || !is_denied {
            self.0 = Some(response);
        }
        Ok(())
    }
}

/// The answer to a request that may not pass.
fn refuse(error: &Error, request: &Request<Body>) -> Answer {
    let asked = respond::Asked::new(request.version(), request.headers());
    Box::new(respond::error(error, asked))
}
