//! How endpoints are chosen: `load-balance`, `upstream-hash-by`, `proxy-next-upstream…`.

use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;

use super::{PREFIX, Reader};
use crate::model::{Algorithm, HashBy, HashPart, NextUpstream, RetryOn};

/// nginx's name for the tries of one request, if nothing is said.
const TRIES: u32 = 3;

/// The parts of a request that a hash may be made of, besides those with a name of their own.
const VARIABLES: [(&str, HashPart); 9] = [
    ("request_uri", HashPart::RequestUri),
    ("scheme", HashPart::Scheme),
    ("host", HashPart::Host),
    ("uri", HashPart::Path),
    ("args", HashPart::Query),
    ("query_string", HashPart::Query),
    ("remote_addr", HashPart::Client),
    ("binary_remote_addr", HashPart::Client),
    ("request_method", HashPart::Method),
];

/// What is written about trying another endpoint.
#[derive(Debug, Default)]
pub(super) struct Written {
    on: Option<RetryOn>,
    tries: Option<u32>,
    within: Option<Duration>,
}

pub(super) fn is(name: &str) -> bool {
    is_choice(name) || name.starts_with("proxy-next-upstream")
}

/// What belongs to the endpoints rather than to the path: a canary has its own.
pub(super) fn is_choice(name: &str) -> bool {
    name == "load-balance" || name.starts_with("upstream-hash-by")
}

impl Reader<'_> {
    pub(super) fn balance(&mut self, name: &str, value: &str) {
        match name {
            "load-balance" => {
                let read = match value {
                    "round_robin" => Ok(Algorithm::RoundRobin),
                    "ewma" => Ok(Algorithm::PeakEwma),
                    _ => Err(format!("`{value}` is neither round_robin nor ewma")),
                };
                self.route.overrides.algorithm = self.or_report(name, read);
            }
            "upstream-hash-by" => {
                let read = (!value.is_empty()).then(|| hash_by(value)).transpose();
                let read = self.or_report_as(name, read, "nothing is hashed");
                self.route.hash_by = read.flatten();
            }
            "proxy-next-upstream" => {
                self.next.on = self.or_report(name, conditions(value));
            }
            "proxy-next-upstream-tries" => {
                let read = value.parse();
                let read = read.map_err(|_bad| format!("`{value}` is not a number of tries"));
                self.next.tries = self.or_report(name, read);
            }
            "proxy-next-upstream-timeout" => {
                let read = value.parse::<u32>();
                let read = read.map_err(|_bad| format!("`{value}` is not a number of seconds"));
                let read = read.map(|seconds| Duration::from_secs(seconds.into()));
                self.next.within = self.or_report(name, read);
            }
            _ => self.unknown.push(format!("{PREFIX}{name}")),
        }
    }

    /// Puts what is said about other endpoints into the policy.
    pub(super) fn finish_next_upstream(&mut self) {
        let Written { on, tries, within } = std::mem::take(&mut self.next);
        if on.is_none() && tries.is_none() && within.is_none() {
            return;
        }
        self.route.overrides.next = Some(NextUpstream {
            on: on.unwrap_or_else(|| error_and_timeout(true, true)),
            tries: tries.unwrap_or(TRIES),
            within: within.unwrap_or_default(),
        });
    }
}

fn error_and_timeout(error: bool, timeout: bool) -> RetryOn {
    RetryOn {
        connect_failure: error || timeout,
        refused_stream: error,
        reset: error,
        timeout,
        ..RetryOn::never()
    }
}

/// The reasons to try another endpoint.
fn conditions(text: &str) -> Result<RetryOn, String> {
    let (mut error, mut timeout, mut non_idempotent) = (false, false, false);
    let mut statuses = Vec::new();
    let mut words = text.split_ascii_whitespace().peekable();
    if words.peek().is_none() {
        return Err("no condition is given".to_owned());
    }
    for word in words {
        match word {
            "error" => error = true,
            "timeout" => timeout = true,
            "non_idempotent" => non_idempotent = true,
            // An answer that breaks HTTP's rules is not asked for again.
            "invalid_header" => {}
            "off" => return Ok(RetryOn::never()),
            _ => {
                let status = word
                    .strip_prefix("http_")
                    .and_then(|code| code.parse().ok());
                let status =
                    status.filter(|code| matches!(code, 500 | 502..=504 | 403 | 404 | 429));
                let status: u16 = status.ok_or_else(|| format!("`{word}` is not a condition"))?;
                statuses.push(status..=status);
            }
        }
    }
    Ok(RetryOn {
        statuses: statuses.into(),
        non_idempotent,
        ..error_and_timeout(error, timeout)
    })
}

/// The text that is hashed, in which nginx's variables stand for parts of the request.
fn hash_by(text: &str) -> Result<HashBy, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        if !before.is_empty() {
            parts.push(HashPart::Text(before.into()));
        }
        let (name, behind) = super::redirect::variable(after)?;
        parts.push(part(name)?);
        rest = behind;
    }
    if parts.is_empty() {
        return Err(format!("`{text}` is the same for all requests"));
    }
    if !rest.is_empty() {
        parts.push(HashPart::Text(rest.into()));
    }
    Ok(HashBy(parts.into()))
}

fn part(name: &str) -> Result<HashPart, String> {
    let bad = || format!("`${name}` cannot be hashed");
    if let Some(field) = name.strip_prefix("http_") {
        let field = HeaderName::from_str(&field.replace('_', "-"));
        return field.map(HashPart::Header).map_err(|_bad| bad());
    }
    for (prefix, make) in [
        ("arg_", HashPart::Argument as fn(Box<str>) -> HashPart),
        ("cookie_", HashPart::Cookie),
    ] {
        if let Some(rest) = name.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
            return Ok(make(rest.into()));
        }
    }
    let known = VARIABLES.iter().find(|(known, _)| *known == name);
    known.map(|(_, part)| part.clone()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a17_what_may_be_hashed() {
        let text = |text: &str| HashPart::Text(text.into());
        let header = |name| HashPart::Header(HeaderName::from_static(name));
        for (written, want) in [
            ("$request_uri", Some(vec![HashPart::RequestUri])),
            ("$host$uri", Some(vec![HashPart::Host, HashPart::Path])),
            (
                "${remote_addr}-$http_x_user:$arg_id$cookie_sid!",
                Some(vec![
                    HashPart::Client,
                    text("-"),
                    header("x-user"),
                    text(":"),
                    HashPart::Argument("id".into()),
                    HashPart::Cookie("sid".into()),
                    text("!"),
                ]),
            ),
            ("constant", None),
            ("$upstream_addr", None),
            ("$http_", None),
            ("$cookie_", None),
            ("${host", None),
        ] {
            let read = hash_by(written).ok().map(|HashBy(parts)| parts.to_vec());
            assert_eq!(read, want, "{written}");
        }
    }

    #[test]
    fn ingress_a15_conditions_are_reasons_to_try_again() {
        let read = |text| conditions(text).unwrap();
        let default = read("error timeout");
        assert_eq!(default, error_and_timeout(true, true));
        assert!(default.connect_failure && default.reset && default.timeout);
        assert!(!default.non_idempotent && default.statuses.is_empty());
        assert!(!read("timeout").reset && read("timeout").connect_failure);
        assert!(!read("error").timeout && !read("http_502").connect_failure);
        assert_eq!(read("off"), RetryOn::never());
        let more = read("error http_502 http_429 non_idempotent");
        assert!(more.has_status(502) && more.has_status(429) && !more.has_status(503));
        assert!(more.non_idempotent && more.reset);
        for bad in ["", "http_418", "http_xyz", "errors"] {
            assert!(conditions(bad).is_err(), "{bad}");
        }
    }
}
