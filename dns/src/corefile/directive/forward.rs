//! `forward FROM TO… { … }`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;

use crate::config::{
    ForwardSettings, HealthCheck, MAX_UPSTREAMS, Policy, Protocol, Upstream, UpstreamTls,
};
use crate::corefile::block::Scope;
use crate::corefile::problem::{ProblemKind, Result};
use crate::corefile::token::Token;
use crate::corefile::tree::Directive;
use crate::corefile::words::{self, Words};

const KNOWN: &[&str] = &[
    "except",
    "max_fails",
    "max_connect_attempts",
    "health_check",
    "force_tcp",
    "prefer_udp",
    "tls",
    "tls_servername",
    "expire",
    "max_age",
    "max_idle_conns",
    "read_timeout",
    "doh_method",
    "policy",
    "max_concurrent",
    "next",
    "next_on_nodata",
    "failfast_all_unhealthy_upstreams",
    "failover",
    "resolver",
    "source_address",
];

/// Path of DNS over HTTPS.
const DOH_PATH: &str = "/dns-query";

pub(in crate::corefile) fn read(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    let from = words.need("a zone and upstreams, such as 'forward . /etc/resolv.conf'")?;
    let zones = words::zones([from].into_iter())?;
    let mut forward = ForwardSettings::to(Vec::new());
    if let Some(first) = zones.first() {
        forward.from = first.clone();
    }
    if zones.len() > 1 {
        let first = &forward.from;
        let message = format!(
            "'{}' is several zones, of which only {first} is forwarded",
            from.text
        );
        scope.warn(from, message);
    }
    let upstreams = words.some("upstreams, such as 'forward . /etc/resolv.conf'")?;
    if upstreams.len() > MAX_UPSTREAMS {
        let message = format!(
            "{} upstreams are more than {MAX_UPSTREAMS}, the most that 'forward' takes",
            upstreams.len()
        );
        return Err(directive.name.bad(message));
    }
    for token in upstreams {
        match upstream(scope, token)? {
            To::Server(server) => forward.upstreams.push(server),
            To::File(path) => forward.files.push(path),
        }
    }
    let mut server_name = None;
    scope.properties(directive, KNOWN, |scope, words| {
        if words.name.text == "tls_servername" {
            server_name = Some(words.need("a name")?.text.clone());
            return Ok(true);
        }
        property(&mut forward, scope, words)
    });
    let named = forward
        .upstreams
        .iter()
        .any(|upstream| matches!(upstream, Upstream::Tls(_, Some(_))));
    if named && server_name.is_some() {
        let message =
            "a name of the certificate is given both by 'tls_servername' and by an upstream";
        return Err(directive.name.bad(message));
    }
    forward.tls.server_name = server_name;
    if !forward.max_age.is_zero() && forward.max_age < forward.expire {
        return Err(directive
            .name
            .bad("'max_age' must not be less than 'expire'"));
    }
    scope.plugins.forward.push(Arc::new(forward));
    Ok(())
}

fn property(
    forward: &mut ForwardSettings,
    scope: &Scope<'_, '_>,
    words: &mut Words<'_>,
) -> Result<bool> {
    match &*words.name.text {
        "except" => forward.except.extend(words::zones(words.some("zones")?)?),
        "max_fails" => forward.max_fails = count(words)?,
        "max_connect_attempts" => forward.max_connect_attempts = count(words)?,
        "health_check" => forward.health_check = health_check(words)?,
        "force_tcp" => forward.protocol = Protocol::Tcp,
        // As in CoreDNS `force_tcp` wins.
        "prefer_udp" if forward.protocol == Protocol::Client => {
            forward.protocol = Protocol::PreferUdp;
        }
        "prefer_udp" => {}
        "tls" => forward.tls = tls(scope, words)?,
        "expire" => forward.expire = words::duration(words.need("a duration")?)?,
        "max_age" => forward.max_age = words::duration(words.need("a duration")?)?,
        "max_idle_conns" => forward.max_idle_connections = count(words)? as usize,
        "read_timeout" => {
            let token = words.need("a duration")?;
            forward.read_timeout = words::duration(token)?;
            if forward.read_timeout.is_zero() {
                return Err(token.bad("'read_timeout' must be more than 0"));
            }
        }
        "doh_method" => {
            let method = words.need("a method")?;
            match method.text.as_str() {
                "POST" => {}
                "GET" => return Err(words.unsupported("queries are sent with POST")),
                other => {
                    return Err(method.bad(format!("unknown method '{other}'; known is: POST")));
                }
            }
        }
        "policy" => forward.policy = policy(words.need("a policy")?)?,
        "max_concurrent" => forward.max_concurrent = count(words)? as usize,
        "next" => forward.next.extend(codes(words)?),
        "next_on_nodata" => forward.next_on_nodata = true,
        "failfast_all_unhealthy_upstreams" => forward.failfast_all_unhealthy_upstreams = true,
        "failover" => {
            let first = words.peek();
            let codes = codes(words)?;
            if let (Some(token), true) = (first, codes.contains(&ResponseCode::NoError)) {
                return Err(token.bad("'failover' is for codes of failures, not for NOERROR"));
            }
            forward.failover.extend(codes);
        }
        "resolver" => {
            return Err(words.unsupported("give upstreams as IP addresses"));
        }
        "source_address" => {
            forward.source_address = Some(words::ip(words.need("an IP address")?)?);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn count(words: &mut Words<'_>) -> Result<u32> {
    words::number(words.need("a number")?, 0..=u32::MAX)
}

fn codes(words: &mut Words<'_>) -> Result<Vec<ResponseCode>> {
    words.some("response codes")?.map(words::rcode).collect()
}

fn policy(token: &Token) -> Result<Policy> {
    Ok(match token.text.as_str() {
        "random" => Policy::Random,
        "round_robin" => Policy::RoundRobin,
        "sequential" => Policy::Sequential,
        "latency" => Policy::Latency,
        other => {
            return Err(token.bad(format!(
                "unknown policy '{other}'; known are: random, round_robin, sequential, latency"
            )));
        }
    })
}

/// `INTERVAL [no_rec] [domain NAME]`.
fn health_check(words: &mut Words<'_>) -> Result<HealthCheck> {
    let mut check = HealthCheck {
        interval: words::duration(words.need("an interval")?)?,
        ..HealthCheck::default()
    };
    while let Some(token) = words.next() {
        match token.text.as_str() {
            "no_rec" => check.recursion_desired = false,
            "domain" => check.domain = words::name(words.need("a name after 'domain'")?)?,
            other => {
                let message = format!("unknown option '{other}'; known are: no_rec, domain");
                return Err(token.bad(message));
            }
        }
    }
    if check.interval < Duration::from_millis(10) {
        return Err(words
            .name
            .bad("'health_check' needs an interval of at least 10ms"));
    }
    Ok(check)
}

/// `[CA]`, `CERTIFICATE KEY [CA]`.
fn tls(scope: &Scope<'_, '_>, words: &mut Words<'_>) -> Result<UpstreamTls> {
    let paths: Vec<PathBuf> = words.all().map(|token| scope.path(&token.text)).collect();
    let (identity, ca) = match <[PathBuf; 3]>::try_from(paths) {
        Ok([certificate, key, ca]) => (Some((certificate, key)), Some(ca)),
        Err(paths) => match paths.as_slice() {
            [] => (None, None),
            [ca] => (None, Some(ca.clone())),
            [certificate, key] => (Some((certificate.clone(), key.clone())), None),
            _ => return Err(words.name.bad("'tls' takes [CERTIFICATE KEY] [CA]")),
        },
    };
    Ok(UpstreamTls {
        identity,
        ca,
        server_name: None,
    })
}

enum To {
    Server(Upstream),
    File(PathBuf),
}

/// `[SCHEME://]IP[%NAME][:PORT]`, or a file in the form of `resolv.conf`.
fn upstream(scope: &Scope<'_, '_>, token: &Token) -> Result<To> {
    let (scheme, rest) = match token.text.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => ("dns", &*token.text),
    };
    if scheme == "https" && rest.contains('/') {
        let message = format!("'{}': give no path, it is {DOH_PATH}", token.text);
        return Err(token.bad(message));
    }
    let port = match scheme {
        "dns" => 53,
        "tls" => 853,
        "https" => 443,
        _ => {
            return Err(token.problem(
                ProblemKind::Unsupported,
                format!("'{scheme}://' is no way to forward; there are dns://, tls://, https://"),
            ));
        }
    };
    let Some((addr, name)) = address(rest, port) else {
        return file(scope, token, rest).map(To::File);
    };
    Ok(To::Server(match (scheme, name) {
        ("tls", name) => Upstream::Tls(addr, name),
        ("https", None) => Upstream::Https(addr, format!("https://{}{DOH_PATH}", authority(addr))),
        ("dns", None) => Upstream::Plain(addr),
        _ => {
            let message = format!("'{}': a name behind '%' is for tls:// only", token.text);
            return Err(token.bad(message));
        }
    }))
}

/// An address as in a URL: without the port that is implied.
fn authority(addr: SocketAddr) -> String {
    match (addr.port(), addr.ip()) {
        (443, IpAddr::V4(ip)) => ip.to_string(),
        (443, IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => addr.to_string(),
    }
}

/// An address with the name behind `%` that it may have.
fn address(text: &str, default_port: u16) -> Option<(SocketAddr, Option<String>)> {
    let Some((host, rest)) = text.split_once('%') else {
        return plain_address(text, default_port).map(|addr| (addr, None));
    };
    // The bracket of an IPv6 address closes behind the name, or before it.
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()?),
        None => (rest, default_port),
    };
    let name = name.trim_end_matches(']');
    let ip = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()?;
    (!name.is_empty()).then(|| (SocketAddr::new(ip, port), Some(name.to_owned())))
}

fn plain_address(text: &str, default_port: u16) -> Option<SocketAddr> {
    let alone = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let alone = alone.unwrap_or(text).parse::<IpAddr>().ok();
    alone
        .map(|ip| SocketAddr::new(ip, default_port))
        .or_else(|| text.parse().ok())
        .filter(|addr| addr.port() != 0)
}

fn file(scope: &Scope<'_, '_>, token: &Token, text: &str) -> Result<PathBuf> {
    let path = scope.path(text);
    match scope.reading.loader.probe(&path) {
        Ok(()) => Ok(path),
        Err(error) if text.contains('/') => {
            Err(token.bad(format!("cannot read {}: {error}", path.display())))
        }
        Err(_) => Err(token.bad(format!(
            "'{text}' is neither an IP address nor a file; host names of upstreams are not supported"
        ))),
    }
}
