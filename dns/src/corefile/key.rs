//! The names before a server block: `[SCHEME://]ZONE[:PORT]`, where the zone may be a CIDR.

use std::net::IpAddr;

use super::problem::{ProblemKind, Result};
use super::token::Token;
use crate::config::{Scheme, ServerKey};
use crate::name::Name;
use crate::settings::reverse_zones;

/// The keys that a word stands for: several for a CIDR that does not end where a label does.
pub(super) fn keys(token: &Token, dns_port: u16) -> Result<Vec<ServerKey>> {
    let (scheme, rest) = scheme(token)?;
    let (host, port) = split_port(rest);
    let port = match port {
        Some(0) => return Err(token.bad(format!("'{}': there is no port 0", token.text))),
        Some(port) => u16::try_from(port)
            .map_err(|_large| token.bad(format!("'{}': ports end at 65535", token.text)))?,
        None => match scheme {
            Scheme::Dns => dns_port,
            Scheme::Tls | Scheme::Quic => 853,
            Scheme::Https => 443,
        },
    };
    let keys = zones(token, host)?;
    let keys = keys
        .into_iter()
        .map(|zone| ServerKey { scheme, zone, port });
    Ok(keys.collect())
}

fn scheme(token: &Token) -> Result<(Scheme, &str)> {
    let Some((scheme, rest)) = token.text.split_once("://") else {
        return Ok((Scheme::Dns, &token.text));
    };
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "dns" => Scheme::Dns,
        "tls" => Scheme::Tls,
        "https" => Scheme::Https,
        "quic" => Scheme::Quic,
        "grpc" | "https3" => {
            let message = format!(
                "{scheme}:// is not supported; there are dns://, tls://, https://, quic://"
            );
            return Err(token.problem(ProblemKind::Unsupported, message));
        }
        _ => {
            let message =
                format!("'{scheme}://' is unknown; known are: dns://, tls://, https://, quic://");
            return Err(token.bad(message));
        }
    };
    Ok((scheme, rest))
}

/// The text without the scheme and the port that it may have.
pub(super) fn without_scheme(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    split_port(rest).0
}

/// A number behind the last colon is a port, also behind a CIDR.
fn split_port(text: &str) -> (&str, Option<u64>) {
    let split = text.rsplit_once(':');
    match split.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

/// The zones that a name or CIDR stands for.
pub(super) fn zones(token: &Token, text: &str) -> Result<Vec<Name>> {
    if text.is_empty() {
        return Err(token.bad(format!("'{}' has no name; the root is '.'", token.text)));
    }
    if let Some((addr, prefix)) = text.split_once('/')
        && let Ok(addr) = addr.parse::<IpAddr>()
    {
        let width = if addr.is_ipv4() { 32 } else { 128 };
        let prefix: Option<u8> = prefix.parse().ok().filter(|&prefix| prefix <= width);
        let prefix = prefix.ok_or_else(|| {
            token.bad(format!(
                "'{text}': the length of the prefix is 0 to {width}"
            ))
        })?;
        return Ok(reverse_zones(addr, prefix));
    }
    let name: std::result::Result<Name, _> = text.parse();
    let name = name.map_err(|error| token.bad(format!("'{text}' is no name: {error}")))?;
    Ok(vec![name.to_lowercase()])
}
