//! The annotations of an Ingress, `nginx.ingress.kubernetes.io/…`.
//!
//! What is not supported is reported, never ignored in silence. Where ignoring it would open what
//! its author meant to close (snippets of foreign configuration, access lists, authentication), the
//! Ingress is not served at all: its paths answer 503.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::store::ObjectKey;
use crate::model::{
    BackendProtocol, CanaryShare, Cors, Problem, ProblemKind, Redirect, RoutePolicy, Template,
};

pub(super) mod access;
mod affinity;
mod auth;
mod balance;
mod canary;
mod cors;
pub(super) mod errors;
mod further_names;
pub(super) mod limits;
mod mirror;
mod rate;
pub(super) mod redirect;
mod response;
pub(super) mod tls;

pub(super) use tls::{ClientRecord, PASSTHROUGH, TlsPolicy, UpstreamRecord};

use auth::AuthRecord;
pub(super) use auth::{BasicRecord, UserForm, is_of_message};
use errors::ErrorRecord;
pub(super) use further_names::FurtherNames;

pub(super) const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Text pasted into a foreign configuration: what it does cannot be known.
const SNIPPETS: [&str; 6] = [
    "auth-snippet",
    "configuration-snippet",
    "http-snippet",
    "modsecurity-snippet",
    "server-snippet",
    "stream-snippet",
];

/// Annotations that restrict who may come in, and are not supported.
const ACCESS: [&str; 1] = ["enable-modsecurity"];

/// Annotations about buffers and versions of nginx: bodies are passed on as they come, and what a
/// connection speaks is agreed on with each side.
const WITHOUT_EFFECT: [&str; 9] = [
    "client-body-buffer-size",
    "connection-proxy-header",
    "http2-push-preload",
    "proxy-buffer-size",
    "proxy-buffering",
    "proxy-buffers-number",
    "proxy-http-version",
    "proxy-max-temp-file-size",
    "proxy-request-buffering",
];

/// An annotation, by its name without the prefix, that is accepted and changes nothing.
pub fn is_without_effect(name: &str) -> bool {
    WITHOUT_EFFECT.contains(&name)
}

/// What the annotations of an Ingress say, for all of its paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// Some path is a regular expression, so all paths of the host are.
    pub(super) regex: bool,
    pub(super) rewrite: Option<Arc<str>>,
    /// `None` of these: what holds for the whole gateway.
    pub(super) ssl_redirect: Option<bool>,
    pub(super) force_ssl_redirect: Option<bool>,
    pub(super) backend_protocol: BackendProtocol,
    /// It is the canary of other Ingresses with the same hosts and paths, and takes these of their
    /// requests.
    pub(super) canary: Option<Arc<CanaryShare>>,
    /// What clients have to prove, if anything.
    pub(super) auth: Option<Arc<AuthRecord>>,
    /// The ConfigMap with fields of answers.
    pub(super) custom_headers: Option<ObjectKey>,
    /// Who answers in place of errors, if anything is said of that.
    pub(super) errors: Option<Arc<ErrorRecord>>,
    /// What else is asked of the gateway, if anything is.
    pub(super) route: Option<Arc<RoutePolicy>>,
    /// What is asked of TLS, if anything is. Boxed, because that is rare.
    pub(super) tls: Option<Box<TlsPolicy>>,
    /// What else the hosts are called, if anything. Boxed, because that is rare.
    pub(super) names: Option<Box<FurtherNames>>,
    /// Requests go to the cluster IPs of Services instead of their endpoints.
    pub(super) service_upstream: bool,
    /// Why none of the paths is served.
    pub(super) refused: Option<&'static str>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            regex: false,
            rewrite: None,
            ssl_redirect: None,
            force_ssl_redirect: None,
            backend_protocol: BackendProtocol::Http,
            canary: None,
            auth: None,
            custom_headers: None,
            errors: None,
            route: None,
            tls: None,
            names: None,
            service_upstream: false,
            refused: None,
        }
    }
}

impl Policy {
    /// Reads the annotations and appends what is wrong with them to `problems`.
    pub(super) fn read(
        key: &ObjectKey,
        uid: &str,
        annotations: &BTreeMap<String, String>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut reader = Reader {
            key,
            problems,
            policy: Self::default(),
            route: RoutePolicy::default(),
            cors: cors::defaults(),
            cors_enabled: false,
            limits: rate::Written::default(),
            redirects: response::Redirects::default(),
            mirror: mirror::Written::default(),
            permanent: (None, 301),
            temporal: (None, 302),
            canary: canary::Written::default(),
            affinity: affinity::Written::default(),
            next: balance::Written::default(),
            auth: auth::Draft::default(),
            errors: ErrorRecord::default(),
            tls: tls::Draft::default(),
            names: FurtherNames::default(),
            unknown: Vec::new(),
            without_effect: Vec::new(),
        };
        let mut of_main = Vec::new();
        let is_canary = annotations
            .get(&format!("{PREFIX}canary"))
            .is_some_and(|value| switch(value.trim()) == Ok(true));
        for (name, value) in annotations {
            let Some(short) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let value = value.trim();
            // Snippets have lines, and are refused for what they are.
            if value.contains(char::is_control) && !SNIPPETS.contains(&short) {
                reader.control_character(short);
            } else if is_canary && !canary::is_own(short) {
                of_main.push(name.clone());
            } else {
                reader.one(short, value);
            }
        }
        let why = "without effect at a canary, because what the Ingress says that it is the canary \
                   of holds for it";
        reader.report(why, &of_main);
        reader.policy.tls = reader.finish_tls(annotations);
        let unknown = std::mem::take(&mut reader.unknown);
        reader.report("not supported and without effect", &unknown);
        let without_effect = std::mem::take(&mut reader.without_effect);
        let why = "without effect, because there is nothing of that kind here";
        reader.report(why, &without_effect);
        reader.finish(uid)
    }
}

impl Policy {
    /// The Secrets that the annotations of an Ingress name; those of other namespaces only if that is
    /// allowed.
    pub(super) fn secrets(
        &self,
        ingress: &ObjectKey,
        cross_namespace: bool,
    ) -> impl Iterator<Item = &ObjectKey> {
        let users = self.auth.iter().filter_map(|auth| auth.basic.as_ref());
        let own = Arc::clone(&ingress.namespace);
        users
            .map(|basic| &basic.secret)
            .filter(move |secret| cross_namespace || secret.namespace == own)
    }
}

impl Policy {
    /// The same for ConfigMaps.
    pub(super) fn config_maps(
        &self,
        ingress: &ObjectKey,
        cross_namespace: bool,
    ) -> impl Iterator<Item = &ObjectKey> {
        let asked = self.auth.iter();
        let asked = asked.filter_map(|auth| auth.question_headers.as_ref());
        let own = Arc::clone(&ingress.namespace);
        asked
            .chain(&self.custom_headers)
            .filter(move |map| cross_namespace || map.namespace == own)
    }
}

struct Reader<'a> {
    key: &'a ObjectKey,
    problems: &'a mut Vec<Problem>,
    policy: Policy,
    route: RoutePolicy,
    cors: Cors,
    cors_enabled: bool,
    limits: rate::Written,
    redirects: response::Redirects,
    mirror: mirror::Written,
    /// Where to, if said, and the status.
    permanent: (Option<Template>, u16),
    temporal: (Option<Template>, u16),
    canary: canary::Written,
    affinity: affinity::Written,
    next: balance::Written,
    auth: auth::Draft,
    errors: ErrorRecord,
    tls: tls::Draft,
    names: FurtherNames,
    unknown: Vec<String>,
    without_effect: Vec<String>,
}

impl Reader<'_> {
    fn one(&mut self, name: &str, value: &str) {
        match name {
            "rewrite-target" => self.rewrite(value),
            "use-regex" => self.policy.regex |= self.switch(name, value, false),
            "ssl-redirect" => self.policy.ssl_redirect = self.or_report(name, switch(value)),
            "force-ssl-redirect" => {
                self.policy.force_ssl_redirect = self.or_report(name, switch(value));
            }
            "backend-protocol" => self.backend_protocol(value),
            "custom-headers" => {
                let read = auth::object(self.key, "ConfigMap", value);
                self.policy.custom_headers = self.or_refuse(name, read);
            }
            "service-upstream" => {
                self.policy.service_upstream = self.switch(name, value, false);
            }
            _ if further_names::is(name) => self.further_names(name, value),
            _ if canary::is(name) => self.canary(name, value),
            _ if affinity::is(name) => self.affinity(name, value),
            _ if balance::is(name) => self.balance(name, value),
            _ if SNIPPETS.contains(&name) => {
                self.policy.refused = Some("snippet annotation");
                let message = "snippets of configuration are refused, because what they would do \
                               cannot be known: the Ingress answers 503 until it is removed";
                self.problem(name, ProblemKind::RefusedAnnotation, message.into());
            }
            _ if ACCESS.contains(&name) => {
                self.policy.refused = Some("unsupported access control");
                let message = "this restriction of access is not supported: the Ingress answers \
                               503 rather than let everyone in";
                self.problem(name, ProblemKind::RefusedAnnotation, message.into());
            }
            _ if WITHOUT_EFFECT.contains(&name) => {
                self.without_effect.push(format!("{PREFIX}{name}"));
            }
            _ if errors::is(name) => self.errors(name, value),
            _ if mirror::is(name) => self.mirrored(name, value),
            _ if rate::is(name) => self.rate(name, value),
            _ if response::is(name) => self.answer(name, value),
            _ if tls::is(name) => self.tls(name, value),
            _ if name == "enable-cors" || name.starts_with("cors-") => self.cors(name, value),
            _ if auth::is(name) => self.auth(name, value),
            _ => self.of_route(name, value),
        }
    }

    fn of_route(&mut self, name: &str, value: &str) {
        match name {
            "preserve-trailing-slash" => {
                self.route.preserve_trailing_slash = self.switch(name, value, false);
            }
            "permanent-redirect" => {
                self.permanent.0 = self.or_refuse(name, redirect::location(value));
            }
            "permanent-redirect-code" => {
                let code = self.or_report(name, redirect::status(value));
                self.permanent.1 = code.unwrap_or(self.permanent.1);
            }
            "temporal-redirect" => {
                self.temporal.0 = self.or_refuse(name, redirect::location(value));
            }
            "temporal-redirect-code" => {
                let code = self.or_report(name, redirect::status(value));
                self.temporal.1 = code.unwrap_or(self.temporal.1);
            }
            "enable-access-log" => self.route.unlogged = !self.switch(name, value, true),
            "app-root" => self.route.app_root = self.or_report(name, redirect::app_root(value)),
            "whitelist-source-range" | "allowlist-source-range" => {
                let networks = self.or_refuse(name, access::networks(value));
                self.route.access.allow = networks.unwrap_or_default();
            }
            "denylist-source-range" => {
                let networks = self.or_refuse(name, access::networks(value));
                self.route.access.deny = networks.unwrap_or_default();
            }
            "upstream-vhost" => {
                self.route.upstream_host = self.or_report(name, header_value(value));
            }
            "x-forwarded-prefix" => {
                self.route.forwarded_prefix = self.or_report(name, header_value(value));
            }
            "proxy-body-size" => {
                self.route.overrides.body_bytes = self.or_report(name, limits::size(value));
            }
            "proxy-connect-timeout" => {
                self.route.overrides.connect_timeout = self.or_report(name, limits::seconds(value));
            }
            "proxy-send-timeout" => {
                self.route.overrides.send_timeout = self.or_report(name, limits::seconds(value));
            }
            "proxy-read-timeout" => {
                self.route.overrides.read_timeout = self.or_report(name, limits::seconds(value));
            }
            _ => self.unknown.push(format!("{PREFIX}{name}")),
        }
    }

    fn cors(&mut self, name: &str, value: &str) {
        match name {
            "enable-cors" => self.cors_enabled = self.switch(name, value, false),
            "cors-allow-credentials" => self.cors.credentials = self.switch(name, value, true),
            "cors-allow-origin" => {
                if let Some(origins) = self.or_refuse(name, cors::origins(value)) {
                    self.cors.origins = origins;
                }
            }
            "cors-allow-methods" => {
                if let Some(methods) = self.or_report(name, cors::names(value)) {
                    self.cors.methods = methods;
                }
            }
            "cors-allow-headers" => {
                if let Some(headers) = self.or_report(name, cors::names(value)) {
                    self.cors.headers = headers;
                }
            }
            "cors-expose-headers" => {
                if let Some(expose) = self.or_report(name, cors::names(value)) {
                    self.cors.expose = expose;
                }
            }
            "cors-max-age" => {
                if let Some(max_age) = self.or_report(name, cors::max_age(value)) {
                    self.cors.max_age = max_age;
                }
            }
            _ => self.unknown.push(format!("{PREFIX}{name}")),
        }
    }

    /// The policy once everything is read.
    fn finish(mut self, uid: &str) -> Policy {
        self.route.limits = self.limits();
        self.policy.canary = self.canary_share();
        self.policy.names = self.finish_names();
        self.finish_affinity(uid);
        self.finish_next_upstream();
        self.answers();
        self.route.mirror = self.mirror();
        self.finish_auth();
        if self.errors != ErrorRecord::default() {
            self.policy.errors = Some(Arc::new(std::mem::take(&mut self.errors)));
        }
        // A temporal redirect wins.
        let redirects = [self.temporal, self.permanent];
        self.route.redirect = redirects
            .into_iter()
            .find_map(|(location, status)| Some((location?, status)))
            .map(|(location, status)| Redirect { location, status });
        self.route.cors = self.cors_enabled.then_some(self.cors);
        self.policy.route = (self.route != RoutePolicy::default()).then(|| Arc::new(self.route));
        self.policy
    }

    /// A line break or the like has no place in any value: somebody tried to write something else.
    fn control_character(&mut self, name: &str) {
        self.policy.refused = Some("control character in an annotation");
        let message = "the value has a control character, such as a line break: the Ingress answers \
                       503 until it is removed";
        self.problem(name, ProblemKind::RefusedAnnotation, message.into());
    }

    /// The value; a bad one is reported, and what holds without the annotation holds.
    fn or_report<T>(&mut self, name: &str, read: Result<T, String>) -> Option<T> {
        self.or_report_as(name, read, "the default is used")
    }

    /// The same, with what holds in words.
    fn or_report_as<T>(&mut self, name: &str, read: Result<T, String>, instead: &str) -> Option<T> {
        read.map_err(|why| {
            let message = format!("{why}; {instead}");
            self.problem(name, ProblemKind::BadAnnotation, message);
        })
        .ok()
    }

    /// The value; with a bad one the Ingress is not served, because what its author meant to keep
    /// away would come in.
    fn or_refuse<T>(&mut self, name: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| {
            self.policy.refused = Some("bad annotation");
            let message = format!("{why}: the Ingress answers 503 until it is mended");
            self.problem(name, ProblemKind::RefusedAnnotation, message);
        })
        .ok()
    }

    fn rewrite(&mut self, target: &str) {
        if target.is_empty() {
            return;
        }
        self.policy.regex = true;
        self.policy.rewrite = if redirect::is_url(target) {
            self.or_refuse("rewrite-target", redirect::rewrite(target))
        } else {
            Some(target.into())
        };
    }

    fn backend_protocol(&mut self, value: &str) {
        self.policy.backend_protocol = match value.to_ascii_uppercase().as_str() {
            "HTTP" => BackendProtocol::Http,
            "HTTPS" => BackendProtocol::Https,
            "GRPC" => BackendProtocol::Grpc,
            "GRPCS" => BackendProtocol::Grpcs,
            "AUTO_HTTP" => BackendProtocol::Auto,
            "FCGI" => {
                self.policy.refused = Some("unsupported backend protocol");
                let message = "FastCGI backends are not supported";
                self.problem(
                    "backend-protocol",
                    ProblemKind::RefusedAnnotation,
                    message.into(),
                );
                BackendProtocol::Http
            }
            _ => {
                let message = format!(
                    "`{value}` is not one of HTTP, HTTPS, AUTO_HTTP, GRPC, GRPCS; HTTP is used"
                );
                self.problem("backend-protocol", ProblemKind::BadAnnotation, message);
                BackendProtocol::Http
            }
        };
    }

    /// A truth value; if it is none, that is reported.
    fn switch(&mut self, name: &str, value: &str, default: bool) -> bool {
        switch(value).unwrap_or_else(|why| {
            let message = format!("{why}; {default} is used");
            self.problem(name, ProblemKind::BadAnnotation, message);
            default
        })
    }

    fn problem(&mut self, name: &str, kind: ProblemKind, message: String) {
        self.problems.push(Problem {
            object: self.key.of_kind("Ingress"),
            field: format!("metadata.annotations[{PREFIX}{name}]"),
            kind,
            message,
        });
    }

    fn report(&mut self, what: &str, names: &[String]) {
        if names.is_empty() {
            return;
        }
        self.problems.push(Problem {
            object: self.key.of_kind("Ingress"),
            field: "metadata.annotations".into(),
            kind: ProblemKind::UnknownAnnotation,
            message: format!("{what}: {}", names.join(", ")),
        });
    }
}

/// A truth value in the spellings that ingress-nginx takes.
pub(super) fn switch(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(format!("`{value}` is neither true nor false")),
    }
}

/// A name as of a cookie (RFC 6265, 4.1.1: `token`).
fn token(text: &str) -> Result<Arc<str>, String> {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || !text.bytes().all(is_tchar) {
        return Err(format!("`{text}` is not the name of a cookie"));
    }
    Ok(text.into())
}

/// A text that can be the value of a header field.
fn header_value(text: &str) -> Result<Arc<str>, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("`{text}` cannot be the value of a header field"));
    }
    Ok(text.into())
}
