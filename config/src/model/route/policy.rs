//! What a route asks of the gateway besides a backend.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::affinity::{CookieAffinity, HashBy};
use super::{AnswerRules, Auth, ErrorPages, Mirror, RateLimits};
use crate::model::{Algorithm, HttpPolicy, RetryOn};

/// What is asked of the gateway for the requests of a rule. The gateway acts in the order of the
/// fields: redirects and CORS preflights come before limits, and those before access lists, as in
/// ingress-nginx.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePolicy {
    /// A redirect to HTTPS keeps the path's trailing slash.
    pub preserve_trailing_slash: bool,
    /// Every request is sent elsewhere.
    pub redirect: Option<Redirect>,
    /// Requests for exactly `/` are sent here.
    pub app_root: Option<Arc<str>>,
    /// Answers to scripts of other origins.
    pub cors: Option<Cors>,
    /// How much a client may ask.
    pub limits: Option<RateLimits>,
    /// Who may come in.
    pub access: AccessList,
    /// What clients have to prove.
    pub auth: Option<Arc<Auth>>,
    /// `Host` as the backend gets it.
    pub upstream_host: Option<Arc<str>>,
    /// `X-Forwarded-Prefix` as the backend gets it, for paths that are rewritten.
    pub forwarded_prefix: Option<Arc<str>>,
    /// Requests of a session stay with their endpoint.
    pub affinity: Option<Arc<CookieAffinity>>,
    /// Requests with the same text go to the same endpoint.
    pub hash_by: Option<HashBy>,
    /// What holds instead of the Service's own policy.
    pub overrides: HttpOverrides,
    /// Fields of all answers, in place of those that they have.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
    /// What is changed of the backend's answers.
    pub answers: AnswerRules,
    /// Who answers in place of errors.
    pub errors: Option<Arc<ErrorPages>>,
    /// Where copies of requests go.
    pub mirror: Option<Mirror>,
    /// Requests get no line in the access log.
    pub unlogged: bool,
}

/// Sends requests elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Where to.
    pub location: Template,
    /// The status, 300 to 308.
    pub status: u16,
}

/// A text in which parts of the request are filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template(pub Box<[Part]>);

/// A part of a [`Template`], named after nginx's variables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// As it stands.
    Text(Box<str>),
    /// `$scheme`: `http` or `https`.
    Scheme,
    /// `$host`: the host without port.
    Host,
    /// `$http_host`: the host, with the port if the client named it.
    HostAndPort,
    /// `:` and the port, if the client named one.
    Port,
    /// `$request_uri`: path and query as they came.
    RequestUri,
    /// `$escaped_request_uri`: the same, to be a value in a query.
    EscapedRequestUri,
    /// `$uri`: the path.
    Path,
    /// `$args`: the query.
    Query,
    /// `$is_args`: `?` if there is a query.
    QuestionMark,
}

/// Addresses of clients that may come in. Those of `deny` are tried first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList {
    /// Who may; empty: everybody.
    pub allow: Box<[IpNet]>,
    /// Who may not.
    pub deny: Box<[IpNet]>,
}

impl AccessList {
    /// These lists, or where one is empty that of `other`.
    pub fn or(self, other: &Self) -> Self {
        let or = |own: Box<[IpNet]>, other: &[IpNet]| match own.is_empty() {
            true => other.into(),
            false => own,
        };
        Self {
            allow: or(self.allow, &other.allow),
            deny: or(self.deny, &other.deny),
        }
    }

    /// A client with this address may come in.
    pub fn admits(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let among = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
        !among(&self.deny) && (self.allow.is_empty() || among(&self.allow))
    }

    /// A client with this address may come in because it is listed, and not because nobody is.
    pub fn lists(&self, client: IpAddr) -> bool {
        !self.allow.is_empty() && self.admits(client)
    }
}

/// Answers to scripts of other origins (the Fetch standard, CORS protocol).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Whose scripts.
    pub origins: CorsOrigins,
    /// `Access-Control-Allow-Methods`.
    pub methods: Arc<str>,
    /// `Access-Control-Allow-Headers`.
    pub headers: Arc<str>,
    /// `Access-Control-Allow-Credentials: true` is sent.
    pub credentials: bool,
    /// `Access-Control-Max-Age`, seconds.
    pub max_age: Duration,
    /// `Access-Control-Expose-Headers`; empty: not sent.
    pub expose: Arc<str>,
}

/// Origins whose scripts may read answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// All, told as `*`.
    Any,
    /// These, told one at a time.
    Listed(Box<[OriginPattern]>),
}

/// An origin, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// This one.
    Exact(Box<str>),
    /// `scheme://*.rest`: one label instead of the star.
    Wildcard {
        /// Up to the star.
        before: Box<str>,
        /// From the dot behind it.
        after: Box<str>,
    },
}

impl CorsOrigins {
    /// Scripts of this origin may read answers.
    pub fn admit(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(patterns) => patterns.iter().any(|pattern| pattern.matches(origin)),
        }
    }
}

impl OriginPattern {
    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.eq_ignore_ascii_case(origin),
            Self::Wildcard { before, after } => {
                let label = origin
                    .get(..before.len())
                    .filter(|begin| begin.eq_ignore_ascii_case(before))
                    .and_then(|_| origin.get(before.len()..origin.len().checked_sub(after.len())?))
                    .filter(|_| {
                        let end = origin.get(origin.len() - after.len()..);
                        end.is_some_and(|end| end.eq_ignore_ascii_case(after))
                    });
                label.is_some_and(|label| {
                    let is_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
                    !label.is_empty() && label.bytes().all(is_label)
                })
            }
        }
    }
}

/// What a route sets of an [`HttpPolicy`]; the rest is the Service's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpOverrides {
    /// Bytes of a request's body; zero: no limit.
    pub body_bytes: Option<u64>,
    /// For a connection to an endpoint.
    pub connect_timeout: Option<Duration>,
    /// For the head of an answer, and for each further piece of its body.
    pub read_timeout: Option<Duration>,
    /// For an endpoint to take each further piece of a request's body.
    pub send_timeout: Option<Duration>,
    /// How an endpoint is chosen.
    pub algorithm: Option<Algorithm>,
    /// When another endpoint is tried.
    pub next: Option<NextUpstream>,
}

/// When a request is sent to another endpoint (ingress-nginx `proxy-next-upstream`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextUpstream {
    /// The reasons.
    pub on: RetryOn,
    /// Endpoints that one request is tried on, the first included; 0: no limit of its own.
    pub tries: u32,
    /// No further one is tried when so much time is over; zero: no limit.
    pub within: Duration,
}

/// Tries of a request for which no other number is said.
const MOST_TRIES: u32 = 16;

impl HttpOverrides {
    /// What is set here, and what else is set in `other`.
    pub fn or(self, other: &Self) -> Self {
        Self {
            body_bytes: self.body_bytes.or(other.body_bytes),
            connect_timeout: self.connect_timeout.or(other.connect_timeout),
            read_timeout: self.read_timeout.or(other.read_timeout),
            send_timeout: self.send_timeout.or(other.send_timeout),
            algorithm: self.algorithm.or(other.algorithm),
            next: self.next.or_else(|| other.next.clone()),
        }
    }

    /// The policy of a Service with these settings in place of its own; `None` if there are none.
    pub fn over(&self, policy: &HttpPolicy) -> Option<HttpPolicy> {
        if *self == Self::default() {
            return None;
        }
        let mut policy = policy.clone();
        if let Some(bytes) = self.body_bytes {
            policy.limits.body_bytes = bytes;
        }
        if let Some(limit) = self.connect_timeout {
            policy.timeouts.connect = limit;
        }
        if let Some(limit) = self.read_timeout {
            policy.timeouts.response = limit;
            policy.timeouts.idle = limit;
        }
        if let Some(limit) = self.send_timeout {
            policy.timeouts.send = limit;
        }
        if let Some(algorithm) = self.algorithm {
            policy.balancing.algorithm = algorithm;
        }
        if let Some(next) = &self.next {
            let retries = &mut policy.retries;
            retries.tries = match next.tries {
                0 => MOST_TRIES,
                tries => tries.min(MOST_TRIES),
            };
            retries.count = retries.tries - 1;
            retries.on = next.on.clone();
            retries.within = next.within;
            retries.elsewhere = true;
        }
        Some(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a7_origins_are_compared_whole_and_a_star_is_one_label() {
        let listed = CorsOrigins::Listed(Box::new([
            OriginPattern::Exact("https://app.example.com:8443".into()),
            OriginPattern::Wildcard {
                before: "https://".into(),
                after: ".example.org".into(),
            },
        ]));
        for (origin, admitted) in [
            ("https://app.example.com:8443", true),
            ("HTTPS://App.Example.com:8443", true),
            ("https://app.example.com", false),
            ("https://a.example.org", true),
            ("https://A.EXAMPLE.ORG", true),
            ("http://a.example.org", false),
            ("https://a.b.example.org", false),
            ("https://example.org", false),
            ("https://.example.org", false),
            ("https://a.example.org.evil.com", false),
            ("https://evil.com/.example.org", false),
            ("xhttps://a.example.org", false),
            ("", false),
            ("é", false),
        ] {
            assert_eq!(listed.admit(origin), admitted, "{origin}");
            assert!(CorsOrigins::Any.admit(origin), "{origin}");
        }
    }

    #[test]
    fn ingress_a6_deny_is_tried_before_allow() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let list = AccessList {
            allow: nets(&["10.0.0.0/8", "2001:db8::/32"]),
            deny: nets(&["10.9.0.0/16"]),
        };
        for (client, admitted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.9.2.3", false),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(list.admits(client.parse().unwrap()), admitted, "{client}");
        }
        assert!(AccessList::default().admits("192.0.2.1".parse().unwrap()));
    }
}
