//! `kubernetes [ZONES…] { … }`.

use std::sync::Arc;

use crate::config::Fallthrough;
use crate::corefile::block::Scope;
use crate::corefile::problem::Result;
use crate::corefile::token::Token;
use crate::corefile::tree::Directive;
use crate::corefile::words::{self, Words};
use crate::name::Name;
use crate::settings::{ApiServerTls, DnsSettings, PodsMode};

const KNOWN: &[&str] = &[
    "endpoint",
    "tls",
    "kubeconfig",
    "namespaces",
    "namespace_labels",
    "labels",
    "pods",
    "endpoint_pod_names",
    "ttl",
    "noendpoints",
    "fallthrough",
    "ignore",
    "multicluster",
    "zonal",
    "startup_timeout",
    "apiserver_qps",
    "apiserver_burst",
    "apiserver_max_inflight",
    "ptr_hostname_only",
];

/// TTL of answers where the Corefile sets none, seconds.
const TTL: u32 = 5;

pub(in crate::corefile) fn read(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let zones = scope.zones_or_own(directive.args.iter())?;
    let (reverse_zones, zones): (Vec<Name>, Vec<Name>) = zones.into_iter().partition(is_reverse);
    if zones.is_empty() {
        let message = "'kubernetes' needs a zone that is no reverse one, such as cluster.local";
        return Err(directive.name.bad(message));
    }
    let mut settings = DnsSettings {
        zones,
        reverse_zones,
        fallthrough: Fallthrough::No,
        ttl: TTL,
        pods: PodsMode::Disabled,
        ..DnsSettings::default()
    };
    scope.properties(directive, KNOWN, |scope, words| {
        property(&mut settings, scope, words)
    });
    if !settings.namespaces.is_empty() && settings.namespace_labels.is_some() {
        let message = "'namespaces' and 'namespace_labels' exclude each other";
        return Err(directive.name.bad(message));
    }
    scope.plugins.kubernetes = Some(Arc::new(settings));
    Ok(())
}

fn is_reverse(zone: &Name) -> bool {
    ["in-addr.arpa", "ip6.arpa"].iter().any(|parent| {
        let parent: Name = parent.parse().expect("a constant that is a name");
        zone.is_within(&parent)
    })
}

fn property(
    settings: &mut DnsSettings,
    scope: &mut Scope<'_, '_>,
    words: &mut Words<'_>,
) -> Result<bool> {
    match &*words.name.text {
        "endpoint" => {
            settings.api.endpoint = Some(words.need("the API server's URL")?.text.clone());
            if let Some(more) = words.next() {
                drop(words.all());
                scope.warn(more, "only the first endpoint of the API server is used");
            }
        }
        "tls" => {
            let need = "three files: certificate, key, authority";
            let mut file = || Ok(scope.path(&words.need(need)?.text));
            settings.api.tls = Some(ApiServerTls {
                certificate: file()?,
                key: file()?,
                ca: file()?,
            });
        }
        "kubeconfig" => {
            let file = scope.path(&words.need("a file")?.text);
            let context = words.next().map(|token| token.text.clone());
            settings.api.kubeconfig = Some((file, context));
        }
        "namespaces" => {
            let names = words.some("names of namespaces")?;
            settings
                .namespaces
                .extend(names.map(|token| token.text.clone()));
        }
        "namespace_labels" => settings.namespace_labels = Some(selector(words)?),
        "labels" => settings.labels = Some(selector(words)?),
        "pods" => settings.pods = pods(words.need("disabled, insecure or verified")?)?,
        "endpoint_pod_names" => settings.endpoint_pod_names = true,
        "ttl" => settings.ttl = words::number(words.need("seconds")?, 0..=3600)?,
        "noendpoints" => settings.no_endpoints = true,
        "fallthrough" => settings.fallthrough = super::fallthrough(words)?,
        "ignore" => {
            let what = words.need("'empty_service'")?;
            if what.text != "empty_service" {
                let message = format!("'{}' cannot be ignored; known is: empty_service", what.text);
                return Err(what.bad(message));
            }
            settings.ignore_empty_service = true;
        }
        "multicluster" => {
            return Err(words.unsupported("names of other clusters are not served yet"));
        }
        "zonal" => return Err(words.unsupported("names of zones are not served yet")),
        "startup_timeout" => {
            settings.startup_timeout = words::duration(words.need("a duration")?)?;
        }
        "ptr_hostname_only" => settings.ptr_hostname_only = true,
        "apiserver_qps" => {
            let token = words.need("a number")?;
            let rate: Option<f32> = token.text.parse().ok();
            if !rate.is_some_and(|rate| rate >= 0.0) {
                return Err(token.bad(format!("'{}' is no number from 0", token.text)));
            }
            no_effect(scope, words.name);
        }
        "apiserver_burst" | "apiserver_max_inflight" => {
            words::number(words.need("a number")?, 0..=i32::MAX)?;
            no_effect(scope, words.name);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn no_effect(scope: &mut Scope<'_, '_>, name: &Token) {
    let message = format!(
        "'{}' has no effect: the API server sees a few watches only",
        name.text
    );
    scope.warn(name, message);
}

/// A label selector, which may have blanks.
fn selector(words: &mut Words<'_>) -> Result<String> {
    let words: Vec<&str> = words
        .some("a label selector")?
        .map(|token| &*token.text)
        .collect();
    Ok(words.join(" "))
}

fn pods(token: &Token) -> Result<PodsMode> {
    Ok(match token.text.as_str() {
        "disabled" => PodsMode::Disabled,
        "insecure" => PodsMode::Insecure,
        "verified" => PodsMode::Verified,
        other => {
            return Err(token.bad(format!(
                "unknown mode '{other}'; known are: disabled, insecure, verified"
            )));
        }
    })
}
