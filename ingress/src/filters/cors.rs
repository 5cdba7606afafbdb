//! Answers to scripts of other origins (the Fetch standard, CORS protocol), in the way of
//! ingress-nginx: the gateway answers preflights itself, and fields of the backend are replaced.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use sealane_config::model::{Cors, CorsOrigins};
use sealane_proxy::http::Body;

/// The fields for an origin that is admitted.
pub(crate) type Granted = Vec<(HeaderName, HeaderValue)>;

/// What an answer to this request is to say; `None` if its origin is not admitted.
pub(crate) fn grant(cors: &Cors, headers: &HeaderMap) -> Option<Granted> {
    let origin = match &cors.origins {
        CorsOrigins::Any => HeaderValue::from_static("*"),
        listed @ CorsOrigins::Listed(_) => {
            let origin = headers.get(ORIGIN)?;
            let admitted = listed.admit(origin.to_str().ok()?);
            admitted.then(|| origin.clone())?
        }
    };
    let mut granted = vec![(ACCESS_CONTROL_ALLOW_ORIGIN, origin)];
    if cors.credentials {
        let yes = HeaderValue::from_static("true");
        granted.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, yes));
    }
    let age = cors.max_age.as_secs().to_string();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, &*cors.methods),
        (ACCESS_CONTROL_ALLOW_HEADERS, &*cors.headers),
        (ACCESS_CONTROL_EXPOSE_HEADERS, &*cors.expose),
        (ACCESS_CONTROL_MAX_AGE, &*age),
    ] {
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_str(value)) {
            granted.push((name, value));
        }
    }
    Some(granted)
}

/// The answer to a preflight of an origin that is admitted.
pub(crate) fn preflight<B>(cors: &Cors, request: &Request<B>) -> Option<Response<Body>> {
    if request.method() != Method::OPTIONS {
        return None;
    }
    // The caller writes what is granted into every answer.
    grant(cors, request.headers())?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Some(response)
}

/// Replaces what the backend said.
pub(crate) fn write(granted: &Granted, headers: &mut HeaderMap) {
    for (name, value) in granted {
        headers.insert(name, value.clone());
        // An answer for one origin is not for a cache to give to another.
        if name == ACCESS_CONTROL_ALLOW_ORIGIN && value != "*" {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}
