//! What a request passes before it goes to a backend, in ingress-nginx's order: limits, then access
//! lists. Redirects and CORS preflights were answered before ([`decide`](crate::decide)).

use http::{Request, Response};
use sealane_config::model::RouteRule;
use sealane_proxy::http::{Body, Held, respond};
use sealane_proxy::{Error, ErrorKind};

use crate::filters::forwarded::Peer;
use crate::gateway::Inner;

pub(crate) mod limits;

/// Lets a request pass, with what it holds until it is answered, or answers it. A rule that cannot be served as written does nothing of this.
///
/// # Errors
/// The answer.
pub(crate) fn pass(
    gateway: &Inner,
    peer: &Peer,
    rule: &RouteRule,
    request: &mut Request<Body>,
) -> Result<Option<Held>, Box<Response<Body>>> {
    let policy = rule.filters.policy.as_ref();
    let Some(policy) = policy.filter(|_| rule.invalid.is_none()) else {
        return Ok(None);
    };
    let held = match &policy.limits {
        Some(limits) => limits::pass(gateway, limits, peer.ip, request)?,
        None => None,
    };
    if !policy.access.admits(peer.ip) {
        let error = Error::new(ErrorKind::AccessDenied, "the client may not come in");
        let asked = respond::Asked::new(request.version(), request.headers());
        return Err(Box::new(respond::error(&error, asked)));
    }
    Ok(held)
}
