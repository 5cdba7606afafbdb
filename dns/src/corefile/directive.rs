//! The directives, a function each that turns a line with its braces into settings.

use std::net::IpAddr;
use std::time::Duration;

use super::block::Scope;
use super::problem::Result;
use super::token::Token;
use super::tree::Directive;
use super::words::{self, Words};
use crate::config::{AutopathSettings, ChaosSettings, Fallthrough, Reload, ServerTls, Timeouts};
use crate::resolv_conf::search_from_resolv_conf;

pub(super) mod acl;
pub(super) mod cache;
pub(super) mod forward;
pub(super) mod hosts;
pub(super) mod kubernetes;
pub(super) mod observe;
pub(super) mod ratelimit;
pub(super) mod rewrite;
pub(super) mod template;

/// Longest text of an answer of class CH, bytes: that of a string in a TXT record.
const MAX_TEXT: usize = 255;
/// Where the search path of the node is.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// `fallthrough [ZONES…]`.
fn fallthrough(words: &mut Words<'_>) -> Result<Fallthrough> {
    let zones = words::zones(words.all())?;
    Ok(Fallthrough::Zones(match zones.is_empty() {
        true => vec![crate::name::Name::root()],
        false => zones,
    }))
}

/// `bind ADDRESS|INTERFACE… { except ADDRESS|INTERFACE… }`; several add up.
pub(super) fn bind(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    let mut all = Vec::new();
    for token in words.some("an address or the name of an interface")? {
        all.extend(addresses(scope, token)?);
    }
    let mut except = Vec::new();
    scope.properties(directive, &["except"], |scope, words| {
        if words.name.text != "except" {
            return Ok(false);
        }
        for token in words.some("an address or the name of an interface")? {
            except.extend(addresses(scope, token)?);
        }
        Ok(true)
    });
    all.retain(|addr| !except.contains(addr));
    if all.is_empty() {
        return Err(directive.name.bad("'bind' leaves no address to listen on"));
    }
    scope.bind.extend(all);
    Ok(())
}

fn addresses(scope: &Scope<'_, '_>, token: &Token) -> Result<Vec<IpAddr>> {
    if let Ok(addr) = token.text.parse() {
        return Ok(vec![addr]);
    }
    let found = scope.reading.loader.interface(&token.text);
    let found = found.filter(|addresses| !addresses.is_empty());
    found.ok_or_else(|| {
        let text = &token.text;
        token.bad(format!(
            "'{text}' is no IP address and no interface that has one"
        ))
    })
}

/// `bufsize [BYTES]`.
pub(super) fn bufsize(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    let size = match words.next() {
        Some(token) => words::number(token, 512..=4096)?,
        None => 1232,
    };
    scope.plugins.bufsize = Some(size);
    scope.properties(directive, &[], |_, _| Ok(false));
    words.end()
}

/// `loadbalance [round_robin]`.
pub(super) fn loadbalance(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    scope.plugins.loadbalance = true;
    match words.next() {
        None => {}
        Some(token) if token.text == "round_robin" => words.end()?,
        Some(token) if token.text == "weighted" => {
            return Err(words.unsupported("of its policies there is round_robin"));
        }
        Some(token) => {
            let message = format!("unknown policy '{}'; known is: round_robin", token.text);
            return Err(token.bad(message));
        }
    }
    scope.properties(directive, &["prefer"], |_, words| match &*words.name.text {
        "prefer" => Err(words.unsupported("addresses are in any order")),
        _ => Ok(false),
    });
    Ok(())
}

/// `chaos [VERSION [AUTHORS…]]`.
pub(super) fn chaos(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let cut = |text: &str| {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text[..end].to_owned()
    };
    let mut words = Words::of(directive);
    let version = words.next().map(|token| cut(&token.text));
    let mut authors: Vec<String> = words.all().map(|token| cut(&token.text)).collect();
    authors.sort();
    authors.dedup();
    if authors.is_empty() {
        authors.push("The Sealane authors".to_owned());
    }
    scope.plugins.chaos = Some(ChaosSettings {
        version: version
            .unwrap_or_else(|| concat!("Sealane-", env!("CARGO_PKG_VERSION")).to_owned()),
        authors,
    });
    scope.properties(directive, &[], |_, _| Ok(false));
    Ok(())
}

/// `compat coredns`, our own.
pub(super) fn compat(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    Words::of(directive).only("a server: 'coredns'", |token| match token.text.as_str() {
        "coredns" => Ok(()),
        other => Err(token.bad(format!("unknown server '{other}'; known is: coredns"))),
    })?;
    scope.properties(directive, &[], |_, _| Ok(false));
    scope.plugins.compat_coredns = true;
    Ok(())
}

/// `nsid [TEXT…]`; by default the name of this host.
pub(super) fn nsid(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let words: Vec<&str> = directive.args.iter().map(|token| &*token.text).collect();
    scope.plugins.nsid = Some(match words.is_empty() {
        true => scope.reading.loader.host_name(),
        false => words.join(" "),
    });
    scope.properties(directive, &[], |_, _| Ok(false));
    Ok(())
}

/// `autopath [ZONES…] @kubernetes`.
pub(super) fn autopath(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let Some((source, zones)) = directive.args.split_last() else {
        return Err(directive
            .name
            .bad("'autopath' needs a source: '@kubernetes'"));
    };
    if source.text != "@kubernetes" {
        let message = format!(
            "'{}' is no source of search paths; there is @kubernetes",
            source.text
        );
        return Err(source.bad(message));
    }
    let zones = scope.zones_or_own(zones.iter())?;
    let resolv_conf = scope.reading.loader.read(RESOLV_CONF.as_ref());
    scope.plugins.autopath = Some(AutopathSettings {
        zones,
        host_search: search_from_resolv_conf(&resolv_conf.unwrap_or_default()),
    });
    scope.properties(directive, &[], |_, _| Ok(false));
    Ok(())
}

/// `local`.
pub(super) fn local(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    Words::of(directive).end()?;
    scope.plugins.local = true;
    let known = &["localhost_prefix"];
    scope.properties(directive, known, |_, words| match &*words.name.text {
        "localhost_prefix" => Err(words.unsupported("take it out")),
        _ => Ok(false),
    });
    Ok(())
}

/// `multisocket [COUNT]`.
pub(super) fn multisocket(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    if let Some(token) = words.next() {
        words::number(token, 1..=1024)?;
        let message = "'multisocket' has no effect: there is a socket for each worker (--workers)";
        scope.warn(&directive.name, message);
    }
    scope.properties(directive, &[], |_, _| Ok(false));
    words.end()
}

/// `reload [INTERVAL [JITTER]]`.
pub(super) fn reload(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    let mut reload = Reload::default();
    if let Some(token) = words.next() {
        reload.interval = words::duration(token)?;
        if reload.interval < Duration::from_secs(2) {
            return Err(token.bad("the interval of 'reload' is at least 2s"));
        }
    }
    if let Some(token) = words.next() {
        reload.jitter = words::duration(token)?;
        if !reload.jitter.is_zero() && reload.jitter < Duration::from_secs(1) {
            return Err(token.bad("the jitter of 'reload' is 0s or at least 1s"));
        }
    }
    reload.jitter = reload.jitter.min(reload.interval / 2);
    words.end()?;
    scope.properties(directive, &[], |_, _| Ok(false));
    scope.reading.reload.get_or_insert(reload);
    Ok(())
}

/// `timeouts { read|write|idle DURATION; maxtcpqueries NUMBER }`.
pub(super) fn timeouts(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    Words::of(directive).end()?;
    if directive.lines.is_empty() {
        return Err(directive
            .name
            .bad("'timeouts' needs braces with read, write or idle"));
    }
    let mut timeouts = Timeouts::default();
    let known = &["read", "write", "idle", "maxtcpqueries"];
    scope.properties(directive, known, |_, words| {
        let place = match &*words.name.text {
            "read" => &mut timeouts.read,
            "write" => &mut timeouts.write,
            "idle" => &mut timeouts.idle,
            "maxtcpqueries" => {
                let token = words.need("a number")?;
                timeouts.tcp_queries = match token.text.as_str() {
                    "-1" => None,
                    _ => Some(words::number(token, 1..=u32::MAX)?),
                };
                return Ok(true);
            }
            _ => return Ok(false),
        };
        let token = words.need("a duration")?;
        // A number alone is one of seconds.
        let timeout = match token.text.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_other) => words::duration(token)?,
        };
        if !(Duration::from_secs(1)..=Duration::from_secs(86400)).contains(&timeout) {
            return Err(token.bad("timeouts are from 1s to 24h"));
        }
        *place = Some(timeout);
        Ok(true)
    });
    scope.plugins.timeouts = Some(timeouts);
    Ok(())
}

/// `tls CERTIFICATE KEY [AUTHORITIES] { client_auth MODE }`.
pub(super) fn tls(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    if words.left() == 0 {
        return Err(words
            .unsupported("certificates are read from files: tls CERTIFICATE KEY [AUTHORITIES]"));
    }
    let certificate = scope.path(&words.need("a certificate")?.text);
    let key = scope.path(&words.need("the file of the key")?.text);
    let authorities = words.next().map(|token| scope.path(&token.text));
    words.end()?;
    let mut client_ca = None;
    scope.properties(
        directive,
        &["client_auth", "keylog"],
        |_, words| match &*words.name.text {
            "client_auth" => {
                let mode = words.need("a mode")?;
                match mode.text.as_str() {
                    "nocert" => client_ca = None,
                    "require_and_verify" if authorities.is_some() => {
                        client_ca.clone_from(&authorities);
                    }
                    "require_and_verify" => {
                        let message = "clients can only be verified with a file of authorities: \
                                       tls CERTIFICATE KEY AUTHORITIES";
                        return Err(mode.bad(message));
                    }
                    "request" | "require" | "verify_if_given" => {
                        return Err(words.unsupported("there are nocert and require_and_verify"));
                    }
                    other => {
                        let message = format!(
                            "unknown mode '{other}'; known are: nocert, require_and_verify"
                        );
                        return Err(mode.bad(message));
                    }
                }
                Ok(true)
            }
            "keylog" => Err(words.unsupported("keys are not written to files")),
            _ => Ok(false),
        },
    );
    scope.plugins.tls = Some(ServerTls {
        certificate,
        key,
        client_ca,
    });
    Ok(())
}
