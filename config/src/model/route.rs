//! Routes of the gateway: host, then path, then filters, then weighted backends.
//!
//! General enough for Gateway API: an Ingress path is a [`RouteRule`] with one backend.

use std::fmt;
use std::sync::Arc;

use super::{ObjectRef, ServiceKey, ServicePort, Table};

mod affinity;
mod auth;
mod canary;
mod errors;
mod limits;
mod mirror;
mod policy;
mod response;
mod tls;

pub use affinity::{AffinityKey, AffinityMode, CookieAffinity, HashBy, HashPart, SameSite};
pub use auth::{Auth, AuthCache, AuthPlace, BasicAuth, ExternalAuth, KeyPart, PasswordHash, Users};
pub use canary::{Canary, CanaryHeader, CanaryShare, HeaderPattern, HeaderTest};
pub use errors::{ErrorPages, ErrorStatuses};
pub use limits::{Rate, RateLimits};
pub use mirror::Mirror;
pub use policy::{
    AccessList, Cors, CorsOrigins, HttpOverrides, NextUpstream, OriginPattern, Part, Redirect,
    RoutePolicy, Template,
};
pub use response::{AnswerRules, Replacement};
pub use tls::{ClientAuth, ClientVerification, HostTls, SubjectPattern, TlsVersions, UpstreamTls};

/// All hosts of the gateway.
///
/// The host is chosen first: a request whose host has rules never falls through to another
/// host's paths (Ingress: exact name, then one-label wildcard, then the rules without a host).
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// Exact host names, lower case, without port and trailing dot.
    pub exact: Table<Arc<str>, Arc<HostRoutes>>,
    /// Wildcard hosts by the part behind `*.`.
    pub wildcard: Table<Arc<str>, Arc<HostRoutes>>,
    /// Rules without a host.
    pub any: Option<Arc<HostRoutes>>,
    /// Where a request goes that no host took: the oldest `defaultBackend` of an Ingress without rules.
    pub default_rule: Option<Arc<RouteRule>>,
    /// How many hosts have [`HostTls::passthrough`].
    pub passthroughs: usize,
}

impl RouteTable {
    /// The routes of a host, which is lower case and has neither port nor trailing dot.
    pub fn host(&self, host: &str) -> Option<&Arc<HostRoutes>> {
        self.exact
            .get(host)
            .or_else(|| self.wildcard_host(host))
            .or(self.any.as_ref())
    }

    /// The routes of the wildcard that stands for a host, which is as for [`Self::host`].
    pub fn wildcard_host(&self, host: &str) -> Option<&Arc<HostRoutes>> {
        let (label, rest) = host.split_once('.')?;
        (!label.is_empty()).then(|| self.wildcard.get(rest))?
    }

    /// The entry for exactly this host.
    pub fn get(&self, host: &HostMatch) -> Option<&Arc<HostRoutes>> {
        match host {
            HostMatch::Exact(name) => self.exact.get(name),
            HostMatch::Wildcard(suffix) => self.wildcard.get(suffix),
            HostMatch::Any => self.any.as_ref(),
        }
    }

    /// Replaces the entry for exactly this host.
    pub fn set(&mut self, host: &HostMatch, routes: Option<Arc<HostRoutes>>) {
        let passes = |routes: &Arc<HostRoutes>| routes.tls.passthrough.is_some();
        let (before, now) = (
            self.get(host).is_some_and(passes),
            routes.as_ref().is_some_and(passes),
        );
        self.passthroughs = self.passthroughs + usize::from(now) - usize::from(before);
        let (table, name) = match host {
            HostMatch::Exact(name) => (&mut self.exact, name),
            HostMatch::Wildcard(suffix) => (&mut self.wildcard, suffix),
            HostMatch::Any => {
                self.any = routes;
                return;
            }
        };
        if let Some(routes) = routes {
            table.insert_mut(Arc::clone(name), routes);
        } else {
            table.remove_mut(name);
        }
    }
}

/// Which host a [`HostRoutes`] is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostMatch {
    /// This name.
    Exact(Arc<str>),
    /// One label and this suffix (the part behind `*.`).
    Wildcard(Arc<str>),
    /// Any host.
    Any,
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// The rules of one host, best match first.
#[derive(Clone, Debug)]
pub struct HostRoutes {
    /// The host.
    pub host: HostMatch,
    /// Sorted by precedence: the first rule that matches is the answer. Longer paths come before
    /// shorter ones, Exact before Prefix of the same length.
    pub rules: Vec<Arc<RouteRule>>,
    /// What takes requests that no rule matched: `defaultBackend` of an Ingress with rules.
    pub fallback: Option<Arc<RouteRule>>,
    /// A certificate is configured for this host, so plain HTTP is redirected where a rule asks
    /// for `ssl_redirect`.
    pub has_certificate: bool,
    /// What it asks of TLS besides.
    pub tls: HostTls,
}

/// One path of one host and what to do with its requests.
#[derive(Clone, Debug)]
pub struct RouteRule {
    /// The object that it comes from.
    pub source: ObjectRef,
    /// The field of that object, for people: `spec.rules[0].http.paths[1]`.
    pub field: Arc<str>,
    /// Which paths.
    pub path: PathMatch,
    /// What is done to request and response.
    pub filters: Filters,
    /// Where requests go, by weight. Empty: the rule could not be compiled, answer 503 and say
    /// why (`invalid`).
    pub backends: Vec<WeightedBackend>,
    /// Why the rule cannot be served, in a few words for the error answer's reason.
    pub invalid: Option<&'static str>,
    /// What takes some of the requests instead, if anything does.
    pub canary: Option<Arc<Canary>>,
}

impl RouteRule {
    /// The rule, and what takes some of its requests instead.
    pub fn with_canary(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        let canary = self.canary.as_ref().map(|canary| &canary.rule);
        std::iter::once(self).chain(canary)
    }

    /// The field of the object that names the rule's backends, for people.
    pub fn backend_field(&self) -> String {
        let field = &*self.field;
        match field.split_once(".matches[") {
            Some((rule, _)) => format!("{rule}.backendRefs"),
            None if field.ends_with("defaultBackend") => field.to_owned(),
            None => format!("{field}.backend"),
        }
    }
}

/// How a path is matched. Paths are compared in the canonical form of the message gate.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// Equal, case and slashes included.
    Exact(Arc<str>),
    /// By path element: `/foo` matches `/foo`, `/foo/` and `/foo/x`, not `/foobar`. Stored without
    /// a trailing slash; empty matches everything.
    Prefix(Arc<str>),
    /// By character: `/foo` matches `/foobar`, too (ingress-nginx, `ImplementationSpecific`).
    Start(Arc<str>),
    /// A case-insensitive regular expression anchored at the start (ingress-nginx `use-regex` and
    /// `rewrite-target`), run with a step limit.
    Regex(Arc<fancy_regex::Regex>),
}

/// Whose habits hold for an Ingress where its API leaves a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The API's text, and our defaults.
    #[default]
    Strict,
    /// Those of ingress-nginx: its defaults of limits ([`HttpPolicy::compat`](super::HttpPolicy::compat)),
    /// and no field with `_` in its name reaches a backend.
    Compat,
}

/// What is done to requests of a rule.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Whose habits hold.
    pub mode: Mode,
    /// Rewrite of the path.
    pub rewrite: Option<Rewrite>,
    /// Redirect plain HTTP to HTTPS if the host has a certificate.
    pub ssl_redirect: bool,
    /// Redirect plain HTTP to HTTPS always.
    pub force_ssl_redirect: bool,
    /// What the backend speaks.
    pub backend_protocol: BackendProtocol,
    /// What takes the place of the backend's endpoints: its Service's own address, as the one
    /// endpoint of its port.
    pub service_upstream: Option<Arc<ServicePort>>,
    /// How TLS is spoken with a backend that speaks it, if anything is said about that.
    pub upstream_tls: Option<Arc<UpstreamTls>>,
    /// What else is asked, if anything is.
    pub policy: Option<Arc<RoutePolicy>>,
}

/// A rewrite of the path; the query stays.
#[derive(Clone, Debug)]
pub enum Rewrite {
    /// Replace the whole path by a template in which `$1`…`$9` are the groups of the rule's
    /// [`PathMatch::Regex`].
    Template(Arc<str>),
    /// Send the client to the URL that this template comes to, with the query behind it.
    Url(Arc<str>),
}

/// What a backend speaks (ingress-nginx `backend-protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum BackendProtocol {
    /// HTTP/1.1, or HTTP/2 if the Service port's `appProtocol` says so.
    #[default]
    Http,
    /// HTTP/1.1 over TLS, certificate not verified.
    Https,
    /// HTTP/1.1, over TLS for clients that came over TLS; certificates are not verified.
    Auto,
    /// HTTP/2 with prior knowledge.
    Grpc,
    /// HTTP/2 over TLS, certificate not verified.
    Grpcs,
}

/// A backend and its share of the requests.
#[derive(Clone, Debug)]
pub struct WeightedBackend {
    /// Share, relative to the sum over the rule's backends.
    pub weight: u32,
    /// Where to.
    pub backend: Backend,
}

/// A Service port that a rule refers to. Resolved against the snapshot at request time, so that a
/// change of endpoints rebuilds one Service and no route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// The Service.
    pub service: ServiceKey,
    /// The Service's port number (a port that the rule gives by name is resolved when the rule or
    /// the Service is compiled).
    pub port: u16,
}
