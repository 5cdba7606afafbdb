//! The ConfigMap with settings of the gateway as a whole, in the words of ingress-nginx.
//!
//! A value that cannot be used is reported and changes nothing, and a key that is not supported is
//! reported, too. As with annotations, what must not be ignored has every rule refused: restrictions
//! of access that are not supported or cannot be read, and snippets of foreign configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::annotations::{access, errors, limits, redirect, switch, tls};
use super::config_maps::ConfigMapState;
use super::header_maps;
use super::store::ObjectKey;
use crate::model::{GatewaySettings, HstsByMode, Problem, ProblemKind, ProxyProtocol};

/// Text pasted into a foreign configuration.
const SNIPPETS: [&str; 3] = ["http-snippet", "location-snippet", "server-snippet"];

/// Keys that restrict who may come in, and are not supported.
const ACCESS: [&str; 4] = [
    "block-referers",
    "block-user-agents",
    "enable-modsecurity",
    "global-auth-url",
];

/// The longest `max-age` that is taken: ten years, seconds.
const LONGEST_HSTS: u64 = 10 * 365 * 24 * 3600;

/// The settings, from `base` and what the ConfigMap `key` says, and what is wrong with that.
pub(super) fn read(
    base: &GatewaySettings,
    key: &ObjectKey,
    state: &ConfigMapState,
) -> (GatewaySettings, Vec<Problem>) {
    let mut reader = Reader {
        key,
        problems: Vec::new(),
        settings: base.clone(),
        hsts: Hsts {
            enabled: None,
            max_age: 31_536_000,
            subdomains: true,
            preload: false,
        },
        appends: None,
        unknown: Vec::new(),
    };
    if let Some(why) = state.problem {
        let kept = match state.good {
            Some(_) => "what it said last stays in force",
            None => "the defaults are in force",
        };
        let message = format!("the ConfigMap {why}: {kept}");
        reader.problem("", ProblemKind::MissingConfigMap, message);
    }
    let empty = BTreeMap::new();
    let data = state.good.as_ref().map_or(&empty, |record| &record.data);
    for (name, value) in data {
        reader.one(name, value.trim());
    }
    reader.finish(data)
}

struct Reader<'a> {
    key: &'a ObjectKey,
    problems: Vec<Problem>,
    settings: GatewaySettings,
    hsts: Hsts,
    /// `compute-full-forwarded-for`, if it is said.
    appends: Option<bool>,
    unknown: Vec<&'a str>,
}

struct Hsts {
    /// `None`: for those that are served as by ingress-nginx.
    enabled: Option<bool>,
    max_age: u64,
    subdomains: bool,
    preload: bool,
}

impl<'a> Reader<'a> {
    fn one(&mut self, name: &'a str, value: &str) {
        match name {
            "use-forwarded-headers"
            | "proxy-real-ip-cidr"
            | "forwarded-for-header"
            | "compute-full-forwarded-for"
            | "sealane-forwarded"
            | "use-proxy-protocol" => self.proxies(name, value),
            "hsts" | "hsts-max-age" | "hsts-include-subdomains" | "hsts-preload" => {
                self.hsts(name, value);
            }
            "ssl-protocols" => self.protocols(name, value),
            "ssl-reject-handshake" => {
                let rejects = self.or_report(name, switch(value));
                put(&mut self.settings.tls.rejects_unknown_names, rejects);
            }
            "http-redirect-code" => {
                let status = self.or_report(name, redirect::status(value));
                put(&mut self.settings.redirect_status, status);
            }
            "limit-req-status-code" => {
                let status = self.or_report(name, refusal(value));
                put(&mut self.settings.rate_limit_status, status);
            }
            "limit-conn-status-code" => {
                let status = self.or_report(name, refusal(value));
                put(&mut self.settings.connection_limit_status, status);
            }
            "no-auth-locations" => {
                let paths = self.or_report(name, paths(value));
                put(&mut self.settings.no_auth_paths, paths);
            }
            "worker-shutdown-timeout" => {
                let grace = self.or_report(name, time(value));
                self.settings.grace = grace.or(self.settings.grace);
            }
            _ if SNIPPETS.contains(&name) || ACCESS.contains(&name) => {
                self.unsupported(name, value)
            }
            _ => self.of_rules(name, value),
        }
    }

    /// Keys that must not be ignored.
    fn unsupported(&mut self, name: &str, value: &str) {
        match value {
            "" | "false" => {}
            _ if SNIPPETS.contains(&name) => {
                let why = "snippets of configuration are refused, because what they would do \
                           cannot be known";
                self.refuse(name, "snippet in the gateway's settings", why);
            }
            _ => {
                let why = "this restriction of access is not supported";
                self.refuse(name, "unsupported access control", why);
            }
        }
    }

    /// Keys about what annotations are about, too.
    fn of_rules(&mut self, name: &'a str, value: &str) {
        match name {
            "ssl-redirect" => {
                let wanted = self.or_report(name, switch(value));
                put(&mut self.settings.rules.ssl_redirect, wanted);
            }
            "force-ssl-redirect" => {
                let wanted = self.or_report(name, switch(value));
                put(&mut self.settings.rules.force_ssl_redirect, wanted);
            }
            "allow-cross-namespace-resources" => {
                let allowed = self.or_report(name, switch(value));
                put(&mut self.settings.rules.cross_namespace, allowed);
            }
            "global-allowed-response-headers" => {
                let names = value.split(',').map(str::trim).filter(|n| !n.is_empty());
                let names = names.map(header_maps::answer_name).collect();
                let names = self.or_report(name, names);
                put(&mut self.settings.rules.allowed_headers, names);
            }
            "custom-http-errors" => {
                let statuses = self.or_report(name, errors::statuses(value));
                put(&mut self.settings.rules.errors.statuses, statuses);
            }
            "disable-proxy-intercept-errors" => {
                let own_only = self.or_report(name, switch(value));
                put(&mut self.settings.rules.errors.own_only, own_only);
            }
            "whitelist-source-range" | "denylist-source-range" | "block-cidrs"
                if value.is_empty() => {}
            "whitelist-source-range" => {
                let networks = self.or_refuse(name, access::networks(value));
                put(&mut self.settings.rules.access.allow, networks);
            }
            "denylist-source-range" => {
                let networks = self.or_refuse(name, access::networks(value));
                put(&mut self.settings.rules.access.deny, networks);
            }
            "block-cidrs" => {
                let networks = self.or_refuse(name, access::networks(value));
                put(&mut self.settings.rules.blocked, networks);
            }
            "proxy-body-size" => {
                let bytes = self.or_report(name, limits::size(value));
                self.settings.rules.overrides.body_bytes = bytes;
            }
            "proxy-connect-timeout" => {
                let limit = self.or_report(name, limits::seconds(value));
                self.settings.rules.overrides.connect_timeout = limit;
            }
            "proxy-send-timeout" => {
                let limit = self.or_report(name, limits::seconds(value));
                self.settings.rules.overrides.send_timeout = limit;
            }
            "proxy-read-timeout" => {
                let limit = self.or_report(name, limits::seconds(value));
                self.settings.rules.overrides.read_timeout = limit;
            }
            _ => self.unknown.push(name),
        }
    }

    fn proxies(&mut self, name: &str, value: &str) {
        match name {
            "proxy-real-ip-cidr" => {
                let networks = self.or_report(name, access::networks(value));
                put(&mut self.settings.proxies.networks, networks);
            }
            "forwarded-for-header" => {
                let header = HeaderName::from_bytes(value.as_bytes());
                let header = header.map_err(|_bad| format!("`{value}` is no name of a header"));
                let header = self.or_report(name, header);
                put(&mut self.settings.proxies.forwarded_for, header);
            }
            "use-proxy-protocol" => {
                let used = self.or_report(name, switch(value));
                let both = used.map(|used| ProxyProtocol {
                    http: used,
                    https: used,
                });
                put(&mut self.settings.proxy_protocol, both);
            }
            "sealane-forwarded" => {
                let written = self.or_report(name, switch(value));
                put(&mut self.settings.proxies.standard, written);
            }
            "use-forwarded-headers" => {
                let believed = self.or_report(name, switch(value));
                put(&mut self.settings.proxies.forwarded, believed);
                // As in ingress-nginx: who says this, and not the other, wants no list.
                self.appends = self.appends.or(believed.map(|_| false));
            }
            _ => self.appends = self.or_report(name, switch(value)),
        }
    }

    fn hsts(&mut self, name: &str, value: &str) {
        let hsts = match name {
            "hsts" => {
                let wanted = self.or_report(name, switch(value));
                self.hsts.enabled = wanted.or(self.hsts.enabled);
                return;
            }
            "hsts-max-age" => {
                let seconds = value.parse().ok().filter(|age| *age <= LONGEST_HSTS);
                let seconds = seconds.ok_or_else(|| {
                    format!("`{value}` is not a number of seconds from 0 to {LONGEST_HSTS}")
                });
                let seconds = self.or_report(name, seconds);
                return put(&mut self.hsts.max_age, seconds);
            }
            "hsts-include-subdomains" => &mut self.hsts.subdomains,
            _ => &mut self.hsts.preload,
        };
        let wanted = switch(value);
        put(hsts, wanted.clone().ok());
        self.or_report(name, wanted);
    }

    /// Versions of TLS in OpenSSL's names, of which the older ones are not spoken.
    fn protocols(&mut self, name: &str, value: &str) {
        let versions = self.or_report(name, tls::versions(value));
        if versions.is_some() {
            let known = ["TLSv1.2", "TLSv1.3"];
            let others = value
                .split_whitespace()
                .filter(|word| !known.contains(word));
            let others: Vec<&str> = others.collect();
            if !others.is_empty() {
                let message = format!("not spoken: {}", others.join(", "));
                self.problem(&field(name), ProblemKind::BadField, message);
            }
        }
        put(&mut self.settings.tls.versions, versions);
    }

    /// The settings once everything is read.
    fn finish(mut self, data: &BTreeMap<String, String>) -> (GatewaySettings, Vec<Problem>) {
        if !self.unknown.is_empty() {
            let message = format!(
                "not supported and without effect: {}",
                self.unknown.join(", ")
            );
            self.problem("data", ProblemKind::UnsupportedSetting, message);
        }
        put(&mut self.settings.proxies.appends, self.appends);
        let value = self.hsts.value();
        self.settings.hsts = HstsByMode {
            strict: (self.hsts.enabled == Some(true)).then(|| value.clone()),
            compat: (self.hsts.enabled != Some(false)).then_some(value),
        };
        let needs = [
            ("use-forwarded-headers", self.settings.proxies.forwarded),
            ("use-proxy-protocol", self.settings.proxy_protocol.https),
        ];
        for (name, is_on) in needs {
            let is_said = data.contains_key(name);
            if is_on && is_said && self.settings.proxies.networks.is_empty() {
                // ingress-nginx believes everybody then, so that anybody can pass for anybody.
                let message = "nobody is trusted, so this has no effect: say in proxy-real-ip-cidr \
                               where the proxies are";
                self.problem(&field(name), ProblemKind::BadField, message.into());
            }
        }
        (self.settings, self.problems)
    }

    /// The value; a bad one is reported, and what holds without the key holds.
    fn or_report<T>(&mut self, name: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| {
            let message = format!("{why}; the default is used");
            self.problem(&field(name), ProblemKind::BadField, message);
        })
        .ok()
    }

    /// The value; with a bad one nothing is served, because what its author meant to keep away would
    /// come in.
    fn or_refuse<T>(&mut self, name: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| self.refuse(name, "bad setting of the gateway", &why))
            .ok()
    }

    fn refuse(&mut self, name: &str, reason: &'static str, why: &str) {
        self.settings.rules.refused = Some(reason);
        let message = format!("{why}: every route answers 503 until it is removed");
        self.problem(&field(name), ProblemKind::UnsupportedSetting, message);
    }

    fn problem(&mut self, field: &str, kind: ProblemKind, message: String) {
        self.problems.push(Problem {
            object: self.key.of_kind("ConfigMap"),
            field: field.into(),
            kind,
            message,
        });
    }
}

impl Hsts {
    fn value(&self) -> HeaderValue {
        let subdomains = if self.subdomains {
            "; includeSubDomains"
        } else {
            ""
        };
        let preload = if self.preload { "; preload" } else { "" };
        let text = format!("max-age={}{subdomains}{preload}", self.max_age);
        HeaderValue::try_from(text)
            .unwrap_or_else(|_impossible| HeaderValue::from_static("max-age=0"))
    }
}

fn field(name: &str) -> String {
    format!("data[{name}]")
}

fn put<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// The status of a refusal, 400 to 599, which ingress-nginx allows for limits.
fn refusal(text: &str) -> Result<u16, String> {
    let status = text.parse().ok();
    status
        .filter(|status| (400..=599).contains(status))
        .ok_or_else(|| format!("`{text}` is not a status from 400 to 599"))
}

/// Paths, separated by commas.
fn paths(text: &str) -> Result<Box<[Box<str>]>, String> {
    let paths = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    let path = |path: &str| match path.starts_with('/') {
        true => Ok(path.into()),
        false => Err(format!("`{path}` is not a path from /")),
    };
    paths.map(path).collect()
}

/// A time as nginx writes it: seconds, or a number with `s`, `m` or `h`.
fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    let bad = |_why| format!("`{text}` is not a time such as 240s or 4m");
    let seconds = limits::seconds(number).map_err(bad)?;
    Ok(seconds * unit)
}
