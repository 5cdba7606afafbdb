//! Plain HTTP to HTTPS.

use http::header::LOCATION;
use http::{HeaderValue, Response, StatusCode, Uri};
use sealane_config::model::Filters;
use sealane_proxy::http::{Body, respond};
use sealane_proxy::{Error, ErrorKind};

/// Certificate authorities ask for these in plain HTTP (RFC 8555, 8.3).
const ACME: &str = "/.well-known/acme-challenge";

/// Whether a request that came in plain HTTP has to come again over HTTPS.
pub(crate) fn wanted(filters: &Filters, has_certificate: bool, path: &str) -> bool {
    let asked = filters.force_ssl_redirect || (filters.ssl_redirect && has_certificate);
    let is_acme = path
        .strip_prefix(ACME)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    asked && !is_acme
}

/// `308 Permanent Redirect` to the same target at `https://host`, which keeps method and body.
///
/// # Errors
/// The request does not say which host it means.
pub(crate) fn to_https(host: &str, port: u16, target: &Uri) -> Result<Response<Body>, Error> {
    if host.is_empty() {
        return Err(Error::new(
            ErrorKind::BadRequest,
            "no Host, so there is nowhere to redirect to",
        ));
    }
    let path = target.path_and_query().map_or("/", |p| p.as_str());
    let location = if port == 443 {
        format!("https://{host}{path}")
    } else {
        format!("https://{host}:{port}{path}")
    };
    let mut response = respond::text(StatusCode::PERMANENT_REDIRECT, "use HTTPS");
    let location = HeaderValue::try_from(location)
        .map_err(|_invalid| Error::new(ErrorKind::BadRequest, "the target cannot be redirected"))?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}
