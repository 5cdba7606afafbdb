//! Answers that send clients elsewhere: to HTTPS, to other places.

use http::header::LOCATION;
use http::{HeaderValue, Response, StatusCode, Uri};
use sealane_config::model::{Filters, Part, RoutePolicy, Template};
use sealane_proxy::http::{Body, respond};
use sealane_proxy::{Error, ErrorKind};

use crate::decide::Asked;

/// Certificate authorities ask for these in plain HTTP (RFC 8555, 8.3).
const ACME: &str = "/.well-known/acme-challenge";

/// Whether a request that came in plain HTTP has to come again over HTTPS.
pub(crate) fn wanted(filters: &Filters, has_certificate: bool, path: &str) -> bool {
    let asked = filters.force_ssl_redirect || (filters.ssl_redirect && has_certificate);
    asked && !is_challenge(path)
}

/// Whether a path is one at which certificate authorities ask.
pub(crate) fn is_challenge(path: &str) -> bool {
    path.strip_prefix(ACME)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Redirects to the same target at `https://host`: with `308 Permanent Redirect`, which keeps method
/// and body, unless the gateway's settings name another status. As in ingress-nginx one slash at the target's end is left out unless the rule keeps it.
///
/// # Errors
/// The request does not say which host it means.
pub(crate) fn to_https(
    host: &str,
    port: u16,
    target: &Uri,
    filters: &Filters,
    status: u16,
) -> Result<Response<Body>, Error> {
    let host = known(host)?;
    let path = target.path_and_query().map_or("/", |p| p.as_str());
    let keeps = filters.policy.as_ref();
    let keeps = keeps.is_some_and(|policy| policy.preserve_trailing_slash);
    let path = path.strip_suffix('/').filter(|_| !keeps).unwrap_or(path);
    let location = if port == 443 {
        format!("https://{host}{path}")
    } else {
        format!("https://{host}:{port}{path}")
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    answer(status, "use HTTPS", location)
}

/// The answer to a request that the rule sends elsewhere, if it does.
///
/// # Errors
/// The place depends on a host that the request does not name.
pub(crate) fn elsewhere(
    policy: &RoutePolicy,
    asked: &Asked<'_>,
    secure: bool,
    target: &Uri,
) -> Result<Option<Response<Body>>, Error> {
    let scheme = if secure { "https" } else { "http" };
    if let Some(redirect) = &policy.redirect {
        let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND);
        let filling = Filling {
            scheme,
            host: &asked.host,
            authority: asked.authority,
            target,
        };
        let location = fill(&redirect.location, filling)?;
        return answer(status, "moved", location).map(Some);
    }
    let root = policy.app_root.as_ref();
    if let Some(root) = root.filter(|_| asked.path.matched() == "/") {
        // With the port, which need not be the scheme's.
        let location = format!("{scheme}://{}{root}", known(asked.authority)?);
        return answer(StatusCode::FOUND, "moved", location).map(Some);
    }
    Ok(None)
}

/// `302 Found` to a page that a template names.
///
/// # Errors
/// The place depends on a host that the request does not name.
pub(crate) fn to_page(page: &Template, with: Filling<'_>) -> Result<Response<Body>, Error> {
    answer(StatusCode::FOUND, "moved", fill(page, with)?)
}

/// What a [`Template`] is filled with.
#[derive(Clone, Copy)]
pub(crate) struct Filling<'a> {
    pub(crate) scheme: &'a str,
    pub(crate) host: &'a str,
    pub(crate) authority: &'a str,
    pub(crate) target: &'a Uri,
}

/// Fills a template in.
///
/// # Errors
/// It needs a host that the request does not name.
pub(crate) fn fill(template: &Template, with: Filling<'_>) -> Result<String, Error> {
    let target = || with.target.path_and_query().map_or("/", |p| p.as_str());
    let mut text = String::new();
    for part in &template.0 {
        text.push_str(match part {
            Part::Text(text) => text,
            Part::Scheme => with.scheme,
            Part::Host => known(with.host)?,
            Part::HostAndPort => known(with.authority)?,
            Part::Port => port(with.authority),
            Part::RequestUri => target(),
            Part::EscapedRequestUri => {
                escape(target(), &mut text);
                continue;
            }
            Part::Path => with.target.path(),
            Part::Query => with.target.query().unwrap_or(""),
            Part::QuestionMark => with.target.query().map_or("", |_| "?"),
        });
    }
    Ok(text)
}

/// Writes what is not unreserved (RFC 3986, 2.3) as `%XX`.
fn escape(text: &str, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 0xf] {
                out.push(char::from(DIGITS[usize::from(nibble)]));
            }
        }
    }
}

/// The port that an authority names, with its colon, or nothing.
fn port(authority: &str) -> &str {
    // Behind an address in brackets, if there is one.
    let from = authority.find(']').map_or(0, |bracket| bracket + 1);
    let behind = authority.get(from..).unwrap_or_default();
    let at = behind.find(':').unwrap_or(behind.len());
    let port = behind.get(at..).unwrap_or_default();
    if port.len() > 1 { port } else { "" }
}

/// The host, which a redirect has to name.
fn known(host: &str) -> Result<&str, Error> {
    if host.is_empty() {
        return Err(Error::new(
            ErrorKind::BadRequest,
            "no Host, so there is nowhere to redirect to",
        ));
    }
    Ok(host)
}

/// An answer that sends the client to `location`.
///
/// # Errors
/// It cannot be the value of a field.
pub(crate) fn answer(
    status: StatusCode,
    text: &str,
    location: String,
) -> Result<Response<Body>, Error> {
    let mut response = respond::text(status, text);
    let location = HeaderValue::try_from(location)
        .map_err(|_invalid| Error::new(ErrorKind::BadRequest, "the target cannot be redirected"))?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}
