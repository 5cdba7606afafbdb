//! Where the service is that is asked (`auth-url`).

use std::net::IpAddr;

use super::super::redirect;
use crate::model::{AuthPlace, Backend, Part, ServiceKey, Template};

/// Where the service is, and path and query there.
pub(super) fn url(text: &str) -> Result<(AuthPlace, Template), String> {
    let (tls, rest) = if let Some(rest) = text.strip_prefix("https://") {
        (true, rest)
    } else if let Some(rest) = text.strip_prefix("http://") {
        (false, rest)
    } else {
        return Err(format!("`{text}` is not a URL with http or https"));
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = match path.bytes().next() {
        Some(b'/') => redirect::template(path)?,
        None => redirect::template("/")?,
        Some(b'?') => redirect::template(&format!("/{path}"))?,
        Some(_) => return Err(format!("`{text}` has a fragment")),
    };
    Ok((place(authority, tls)?, path))
}

fn place(authority: &str, tls: bool) -> Result<AuthPlace, String> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => {
            let bad = || format!("`{port}` is not a port");
            (host, port.parse::<u16>().map_err(|_not_a_port| bad())?)
        }
        None => (authority, if tls { 443 } else { 80 }),
    };
    if let Some(service) = service(host) {
        return Ok(AuthPlace::Service {
            backend: Backend { service, port },
            host: authority.into(),
            tls,
        });
    }
    let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-._${}".contains(&b);
    let is_name = host.contains(['.', '$']) && port != 0;
    if is_address || !is_name || !host.bytes().all(is_host) {
        return Err(format!(
            "`{authority}` is neither a Service (NAME.NAMESPACE.svc.cluster.local:PORT) nor the name \
             of a host"
        ));
    }
    let name = redirect::template(host)?;
    let is_of_host = |part: &Part| matches!(part, Part::Text(_) | Part::Host | Part::HostAndPort);
    let is_said = name.0.iter().all(|part| matches!(part, Part::Text(_)));
    // What depends on the request is a host of this gateway, at the ports that it has to the outside.
    if !name.0.iter().all(is_of_host) || !(is_said || matches!(port, 80 | 443)) {
        return Err(format!(
            "`{authority}` takes more than the name of a host of this gateway from the request"
        ));
    }
    Ok(AuthPlace::Host { name, port, tls })
}

/// The Service with this name in the cluster's DNS.
fn service(host: &str) -> Option<ServiceKey> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let host = host.strip_suffix(".cluster.local").unwrap_or(host);
    let (name, namespace) = host.strip_suffix(".svc")?.split_once('.')?;
    let is_label = |text: &str| {
        let is_in_label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !text.is_empty() && text.bytes().all(is_in_label)
    };
    (is_label(name) && is_label(namespace)).then(|| ServiceKey {
        namespace: namespace.into(),
        name: name.into(),
    })
}
