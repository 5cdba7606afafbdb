//! Fields with `_` in their names, which ingress-nginx drops (`enable-underscores-in-headers`): many
//! applications cannot tell them from those with `-`.

use http::{HeaderMap, HeaderName};

/// Drops them.
pub(crate) fn drop_fields(headers: &mut HeaderMap) {
    let is_dropped = |name: &&HeaderName| name.as_str().contains('_');
    let dropped: Vec<HeaderName> = headers.keys().filter(is_dropped).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
}
