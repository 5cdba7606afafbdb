//! A second backend that takes some requests of a rule (ingress-nginx `canary`).

use std::sync::Arc;

use fancy_regex::Regex;
use http::HeaderName;

use super::RouteRule;

/// The canary of a rule.
#[derive(Clone, Debug)]
pub struct Canary {
    /// What takes the requests: path and filters of the rule that the canary belongs to, with the
    /// canary's own backend.
    pub rule: Arc<RouteRule>,
    /// Which requests.
    pub share: Arc<CanaryShare>,
}

/// Which requests a canary takes. The header is asked first, then the cookie, then the weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CanaryShare {
    /// A header field that decides.
    pub header: Option<CanaryHeader>,
    /// The name of a cookie that decides with `always` and `never`.
    pub cookie: Option<Arc<str>>,
    /// So many requests…
    pub weight: u32,
    /// … of so many; at least 100.
    pub total: u32,
    /// Header, cookie and weight are asked for every request, whatever session it belongs to
    /// (`affinity-canary-behavior: legacy`).
    pub ignores_sessions: bool,
}

/// A header field that decides about a canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryHeader {
    /// Its name.
    pub name: HeaderName,
    /// What of its value decides.
    pub test: HeaderTest,
}

/// How the value of a header field decides about a canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderTest {
    /// `always` and `never`; another value leaves it to what is asked next.
    AlwaysOrNever,
    /// This value is for the canary; another one leaves it to what is asked next.
    Value(Arc<str>),
    /// Values that match are for the canary; others leave it to what is asked next. One that takes
    /// too many steps is not for the canary.
    Pattern(HeaderPattern),
    /// The pattern cannot be read: no value is for the canary.
    Never,
}

/// A regular expression that runs with a step limit. Compared by its text.
#[derive(Clone, Debug)]
pub struct HeaderPattern(pub Arc<Regex>);

impl PartialEq for HeaderPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for HeaderPattern {}
