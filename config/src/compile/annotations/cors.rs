//! Answers to scripts of other origins.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Cors, CorsOrigins, OriginPattern};

const METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const HEADERS: &str = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,\
                       Cache-Control,Content-Type,Range,Authorization";
const MAX_AGE: Duration = Duration::from_secs(1_728_000);

/// ingress-nginx's defaults.
pub(super) fn defaults() -> Cors {
    Cors {
        origins: CorsOrigins::Any,
        methods: METHODS.into(),
        headers: HEADERS.into(),
        credentials: true,
        max_age: MAX_AGE,
        expose: "".into(),
    }
}

/// Origins, separated by commas: `*`, `https://app.example.com`, `https://*.example.com`.
pub(super) fn origins(text: &str) -> Result<CorsOrigins, String> {
    let mut patterns = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        if entry == "*" {
            return Ok(CorsOrigins::Any);
        }
        patterns.push(pattern(entry)?);
    }
    if patterns.is_empty() {
        return Err("the list of origins is empty".to_owned());
    }
    Ok(CorsOrigins::Listed(patterns.into()))
}

fn pattern(entry: &str) -> Result<OriginPattern, String> {
    let bad = || format!("`{entry}` is not an origin such as https://app.example.com");
    let lower = entry.to_ascii_lowercase();
    let (scheme, host) = lower.split_once("://").ok_or_else(bad)?;
    let is_scheme = !scheme.is_empty()
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let is_host = |host: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
        !host.is_empty() && host.bytes().all(allowed)
    };
    match host.strip_prefix("*.") {
        _ if !is_scheme => Err(bad()),
        Some(rest) if is_host(rest) => Ok(OriginPattern::Wildcard {
            before: format!("{scheme}://").into(),
            after: format!(".{rest}").into(),
        }),
        None if is_host(host) => Ok(OriginPattern::Exact(lower.into())),
        Some(_) | None => Err(bad()),
    }
}

/// Names of methods or header fields, separated by commas, or `*`.
pub(super) fn names(text: &str) -> Result<Arc<str>, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_,* ".contains(&b);
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err(format!("`{text}` is not a list of names"));
    }
    Ok(text.into())
}

/// Seconds.
pub(super) fn max_age(text: &str) -> Result<Duration, String> {
    let seconds: u32 = text
        .parse()
        .map_err(|_not_a_number| format!("`{text}` is not a number of seconds"))?;
    Ok(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a7_origins_are_whole_origins() {
        let wildcard = |before: &str, after: &str| OriginPattern::Wildcard {
            before: before.into(),
            after: after.into(),
        };
        for (text, expected) in [
            ("*", Some(CorsOrigins::Any)),
            ("https://a.example, *", Some(CorsOrigins::Any)),
            (
                "https://A.example:8443 , http://*.example.com",
                Some(CorsOrigins::Listed(Box::new([
                    OriginPattern::Exact("https://a.example:8443".into()),
                    wildcard("http://", ".example.com"),
                ]))),
            ),
            ("a.example", None),
            ("https://*", None),
            ("https://a.*.example", None),
            ("https://a.example/path", None),
            ("https://a\".example", None),
            (",", None),
        ] {
            assert_eq!(origins(text).ok(), expected, "{text}");
        }
        assert!(names("X-One, X-Two").is_ok());
        assert!(names("X-One\r\nSet-Cookie: a").is_err());
    }
}
