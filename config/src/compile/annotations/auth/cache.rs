//! For which requests, and for how long, an answer of the service holds (`auth-cache-key`,
//! `auth-cache-duration`).

use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::super::redirect;
use crate::model::KeyPart;

/// What requests have to have in common to get the same answer.
pub(super) fn key(text: &str) -> Result<Box<[KeyPart]>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        if !before.is_empty() {
            parts.push(KeyPart::Text(before.into()));
        }
        let (name, behind) = redirect::variable(after)?;
        parts.push(key_part(name).ok_or_else(|| format!("`${name}` is not known here"))?);
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(KeyPart::Text(rest.into()));
    }
    if parts.is_empty() {
        return Err("the key is empty".to_owned());
    }
    Ok(parts.into())
}

fn key_part(name: &str) -> Option<KeyPart> {
    if let Some(field) = name.strip_prefix("http_") {
        let field = HeaderName::try_from(field.replace('_', "-")).ok()?;
        return Some(KeyPart::Field(field));
    }
    if let Some(cookie) = name.strip_prefix("cookie_") {
        return (!cookie.is_empty()).then(|| KeyPart::Cookie(cookie.into()));
    }
    Some(match name {
        "scheme" => KeyPart::Scheme,
        "host" => KeyPart::Host,
        "request_uri" => KeyPart::RequestUri,
        "request_method" => KeyPart::Method,
        "remote_addr" => KeyPart::Client,
        "remote_user" => KeyPart::User,
        _ => return None,
    })
}

/// Lists of statuses, each with a time behind it: `200 202 5m, 401 30s`.
pub(super) fn durations(text: &str) -> Result<Box<[(StatusCode, Duration)]>, String> {
    let mut all = Vec::new();
    for group in text.split(',').map(str::trim).filter(|g| !g.is_empty()) {
        let bad = || format!("`{group}` is not a list of statuses and a time, such as 200 401 5m");
        let (statuses, time) = group.rsplit_once(' ').ok_or_else(bad)?;
        let time = duration(time).ok_or_else(bad)?;
        for status in statuses.split_ascii_whitespace() {
            let status: StatusCode = status.parse().map_err(|_not_a_status| bad())?;
            all.push((status, time));
        }
    }
    if all.is_empty() {
        return Err("there is no time".to_owned());
    }
    Ok(all.into())
}

/// A number of seconds, or with `s`, `m`, `h`, `d`; a day at most.
fn duration(text: &str) -> Option<Duration> {
    const LONGEST: u64 = 24 * 3600;
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let unit = match text.get(digits.len()..)? {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => LONGEST,
        _ => return None,
    };
    let seconds = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (1..=LONGEST)
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}
