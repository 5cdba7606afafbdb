//! What the backend is told instead of what the client said (ingress-nginx `upstream-vhost` and
//! `x-forwarded-prefix`).

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};
use sealane_config::model::Filters;

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Writes the fields. The prefix is for paths that are rewritten.
pub(crate) fn write(filters: &Filters, headers: &mut HeaderMap) {
    let Some(policy) = &filters.policy else {
        return;
    };
    let prefix = policy.forwarded_prefix.as_ref();
    for (name, text) in [
        (HOST, policy.upstream_host.as_ref()),
        (
            FORWARDED_PREFIX,
            prefix.filter(|_| filters.rewrite.is_some()),
        ),
    ] {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(name, value);
        }
    }
}
