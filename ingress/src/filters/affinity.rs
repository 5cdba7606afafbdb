//! Sessions that stay with their endpoint by a cookie (ingress-nginx `affinity: cookie`).
//!
//! The cookie's value is two numbers: which backend the session is at, which is what keeps it on its
//! side of a canary, and where there: a key, of which every replica computes the same endpoint, or
//! one endpoint. Both are keyed hashes or random ([`AffinityKey`]); no address can be read from them.
//!
//! A new session gets a key (`balanced`), and moves when an endpoint that comes takes over its key;
//! or it goes where the balancer sends it and stays with that endpoint (`persistent`). While its
//! endpoint takes no traffic a session's requests go elsewhere. It stays there only if
//! `session-cookie-change-on-failure` says so.
//!
//! [`AffinityKey`]: sealane_config::model::AffinityKey

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{SET_COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Response};
use sealane_config::model::{
    AffinityMode, CookieAffinity, EndpointAddr, PathMatch, RouteRule, SameSite, Scope, ServicePort,
};
use sealane_proxy::balance::{Balancer, Sticky, home};
use sealane_proxy::http::{Body, served_by};

use crate::cookies;
use crate::filters::same_site;

/// What a session's cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket {
    /// The backend that it is at.
    backend: u64,
    place: Place,
}

/// Where a session is at its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the endpoint of this key.
    Key(u64),
    /// At the endpoint of which this is the hash.
    Endpoint(u64),
}

/// A request of a session, on its way.
#[derive(Debug)]
pub(crate) struct Session {
    affinity: Arc<CookieAffinity>,
    port: Arc<ServicePort>,
    /// Where it would rather go.
    pub(crate) sticky: Sticky,
    /// The client has a cookie that says so.
    is_known: bool,
    same_site: Option<SameSite>,
}

/// The backend whose session a request belongs to, as a number.
pub(crate) fn backend(affinity: &CookieAffinity, headers: &HeaderMap) -> Option<u64> {
    Some(Ticket::of(affinity, headers)?.backend)
}

impl Session {
    /// The session of a request to this Service port.
    pub(crate) fn of(
        affinity: &Arc<CookieAffinity>,
        headers: &HeaderMap,
        port: &Arc<ServicePort>,
        balancer: &Balancer,
    ) -> Self {
        let backend = affinity.key.backend(&port.service, port.port);
        let ticket = Ticket::of(affinity, headers).filter(|ticket| ticket.backend == backend);
        let is_balanced = affinity.mode == AffinityMode::Balanced;
        let known = ticket.and_then(|ticket| match ticket.place {
            Place::Key(key) => is_balanced.then_some(Sticky::Key(key)),
            Place::Endpoint(hash) => find(affinity, port, hash).map(Sticky::Endpoint),
        });
        let begun = || match affinity.mode {
            AffinityMode::Balanced => Sticky::Key(balancer.random()),
            AffinityMode::Persistent => Sticky::Anywhere,
        };
        let says_none = affinity.conditional_none && affinity.same_site == Some(SameSite::None);
        let is_misread = || {
            let agent = headers
                .get(USER_AGENT)
                .and_then(|agent| agent.to_str().ok());
            agent.is_some_and(same_site::none_is_misread)
        };
        Self {
            affinity: Arc::clone(affinity),
            port: Arc::clone(port),
            sticky: known.unwrap_or_else(begun),
            is_known: known.is_some(),
            same_site: affinity.same_site.filter(|_| !(says_none && is_misread())),
        }
    }

    /// Tells the client where its session is, if it does not know.
    pub(crate) fn write(&self, response: &mut Response<Body>, rule: &RouteRule, secure: bool) {
        let Some(served) = served_by(response) else {
            return;
        };
        let key = match self.sticky {
            Sticky::Key(key) => {
                let home = home(key, self.port.everywhere_within(Scope::Cluster));
                Some(key).filter(|_| home.is_some_and(|home| home.addr == served))
            }
            Sticky::Endpoint(_) | Sticky::Anywhere => None,
        };
        let is_there = key.is_some() || self.sticky == Sticky::Endpoint(served);
        if self.is_known && (is_there || !self.affinity.change_on_failure) {
            return;
        }
        let of = &self.affinity.key;
        let ticket = Ticket {
            backend: of.backend(&self.port.service, self.port.port),
            place: key.map_or_else(|| Place::Endpoint(of.endpoint(served.socket())), Place::Key),
        };
        let cookie = self.cookie(ticket, rule, secure);
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }

    /// The value of `Set-Cookie` (RFC 6265, 4.1).
    fn cookie(&self, ticket: Ticket, rule: &RouteRule, secure: bool) -> String {
        let affinity = &self.affinity;
        let path = affinity.path.as_deref().unwrap_or_else(|| path(rule));
        let mut text = format!("{}={ticket}; Path={path}", affinity.name);
        // Writing to a String cannot fail.
        if let Some(domain) = &affinity.domain {
            let _ = write!(text, "; Domain={domain}");
        }
        if let Some(expires) = affinity.expires {
            let at = httpdate::fmt_http_date(SystemTime::now() + expires);
            let _ = write!(text, "; Expires={at}");
        }
        if let Some(max_age) = affinity.max_age {
            let _ = write!(text, "; Max-Age={}", max_age.as_secs());
        }
        text.push_str(match self.same_site {
            Some(SameSite::None) => "; SameSite=None",
            Some(SameSite::Lax) => "; SameSite=Lax",
            Some(SameSite::Strict) => "; SameSite=Strict",
            None => "",
        });
        if affinity.secure.unwrap_or(secure) {
            text.push_str("; Secure");
        }
        text.push_str("; HttpOnly");
        text
    }
}

/// The endpoint with this hash.
fn find(affinity: &CookieAffinity, port: &ServicePort, hash: u64) -> Option<EndpointAddr> {
    let endpoints = port.everywhere_within(Scope::Cluster).iter();
    let mut addrs = endpoints.map(|endpoint| endpoint.addr);
    addrs.find(|addr| affinity.key.endpoint(addr.socket()) == hash)
}

/// The path of the rule; a regular expression is no path.
fn path(rule: &RouteRule) -> &str {
    match &rule.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Start(path)
            if is_path(path) =>
        {
            path
        }
        PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Start(_) | PathMatch::Regex(_) => {
            "/"
        }
    }
}

/// It can stand in an attribute of a cookie.
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b';')
}

impl Ticket {
    fn of(affinity: &CookieAffinity, headers: &HeaderMap) -> Option<Self> {
        Self::read(cookies::find(headers, &affinity.name)?)
    }

    fn read(text: &str) -> Option<Self> {
        let (backend, rest) = text.split_at_checked(16)?;
        let (kind, number) = rest.split_at_checked(1)?;
        let hex = |digits: &str| {
            let is_hex = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            is_hex.then(|| u64::from_str_radix(digits, 16).ok())?
        };
        let number = hex(number)?;
        let place = match kind {
            "k" => Place::Key(number),
            "e" => Place::Endpoint(number),
            _ => return None,
        };
        Some(Self {
            backend: hex(backend)?,
            place,
        })
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, number) = match self.place {
            Place::Key(key) => ('k', key),
            Place::Endpoint(hash) => ('e', hash),
        };
        write!(f, "{:016x}{kind}{number:016x}", self.backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a11_a_cookie_says_what_was_written_or_nothing() {
        for place in [Place::Key(1), Place::Endpoint(u64::MAX)] {
            let ticket = Ticket { backend: 7, place };
            assert_eq!(Ticket::read(&ticket.to_string()), Some(ticket));
        }
        let good = "0000000000000007k0000000000000001";
        assert!(Ticket::read(good).is_some());
        for bad in [
            "",
            "k",
            "0000000000000007",
            "0000000000000007k",
            "0000000000000007x0000000000000001",
            "0000000000000007k000000000000001",
            "0000000000000007k00000000000000010",
            "+000000000000007k0000000000000001",
            "00000000000000é7k000000000000001",
            "1700000000.123.45.67|0123456789abcdef",
        ] {
            assert_eq!(Ticket::read(bad), None, "{bad}");
        }
    }
}
