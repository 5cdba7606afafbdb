//! Copies of requests: `mirror-target`, `mirror-host`, `mirror-request-body`.

use std::sync::Arc;

use super::{Reader, header_value, redirect};
use crate::compile::store::ObjectKey;
use crate::model::{Backend, Mirror, ServiceKey, Template};

/// What an Ingress says, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Written {
    target: Option<Target>,
    host: Option<Arc<str>>,
    without_body: bool,
}

/// A Service of the Ingress' namespace by its name in the cluster, and what it is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    backend: Backend,
    /// As it stands in the URL.
    host: Arc<str>,
    path: Option<Template>,
}

/// Whether an annotation is read here.
pub(super) fn is(name: &str) -> bool {
    matches!(
        name,
        "mirror-host" | "mirror-request-body" | "mirror-target"
    )
}

impl Reader<'_> {
    pub(super) fn mirrored(&mut self, name: &str, value: &str) {
        match name {
            "mirror-target" => self.mirror.target = self.or_report(name, target(self.key, value)),
            "mirror-host" => self.mirror.host = self.or_report(name, header_value(value)),
            _ => {
                let on = self.or_report(name, on_or_off(value));
                self.mirror.without_body = on == Some(false);
            }
        }
    }

    pub(super) fn mirror(&mut self) -> Option<Mirror> {
        let Written {
            target,
            host,
            without_body,
        } = std::mem::take(&mut self.mirror);
        let Target {
            backend,
            host: of_target,
            path,
        } = target?;
        Some(Mirror {
            backend,
            target: path,
            host: host.unwrap_or(of_target),
            with_body: !without_body,
        })
    }
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{text}` is neither on nor off")),
    }
}

/// `http://NAME.NAMESPACE[.svc[.cluster.local]][:PORT][PATH]`. Whoever may write an Ingress may have
/// its requests sent to Services of the same namespace, and nowhere else.
fn target(key: &ObjectKey, text: &str) -> Result<Target, String> {
    let bad = || {
        format!(
            "`{text}` is not http://NAME.{0} or http://NAME.{0}.svc.cluster.local, with a port and a \
             path if wanted: only Services of the Ingress' own namespace get copies",
            key.namespace
        )
    };
    let rest = text.strip_prefix("http://").ok_or_else(bad)?;
    let end = rest.find(['/', '$', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (name, port) = match authority.split_once(':') {
        Some((name, port)) => (name, port.parse().map_err(|_not_a_port| bad())?),
        None => (authority, 80),
    };
    let mut labels = name.splitn(3, '.');
    let (service, namespace, domain) = (labels.next(), labels.next(), labels.next());
    let service = service.filter(|name| is_label(name)).ok_or_else(bad)?;
    let is_known = matches!(domain, None | Some("svc" | "svc.cluster.local"));
    if namespace != Some(&*key.namespace) || !is_known || port == 0 {
        return Err(bad());
    }
    let path = match path {
        "" | "$request_uri" | "/$request_uri" => None,
        _ if path.starts_with('/') => Some(redirect::location(path)?),
        _ => return Err(bad()),
    };
    Ok(Target {
        backend: Backend {
            service: ServiceKey::from(&key.sibling(&service.into())),
            port,
        },
        host: authority.into(),
        path,
    })
}

fn is_label(name: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a17_copies_go_to_services_of_the_own_namespace_only() {
        let key = ObjectKey::new("shop", "site");
        for (text, expected) in [
            ("http://copy.shop", Some(("copy", 80, false))),
            ("http://copy.shop.svc:8080", Some(("copy", 8080, false))),
            (
                "http://copy.shop.svc.cluster.local/$request_uri",
                Some(("copy", 80, false)),
            ),
            ("http://copy.shop$request_uri", Some(("copy", 80, false))),
            ("http://copy.shop/all?path=$uri", Some(("copy", 80, true))),
            ("https://copy.shop", None),
            ("http://copy", None),
            ("http://copy.other", None),
            ("http://copy.shop.example.com", None),
            ("http://127.0.0.1", None),
            ("http://169.254.169.254/latest", None),
            ("http://[::1]", None),
            ("http://user@copy.shop", None),
            ("http://copy.shop:0", None),
            ("http://copy.shop:port", None),
            ("http://copy.shop/$arg_x", None),
            ("http://$host", None),
            ("", None),
        ] {
            let read = target(&key, text).ok();
            let read = read.as_ref().map(|target| {
                assert_eq!(&*target.backend.service.namespace, "shop");
                let name = &*target.backend.service.name;
                (name, target.backend.port, target.path.is_some())
            });
            assert_eq!(read, expected, "{text}");
        }
    }
}
