//! A Gateway's listeners to certificates.

use super::findings::Findings;
use super::translate::{is_kind, record};
use super::types::{Listener, TargetRef};
use super::{GatewayApi, GatewaySpec, Spec as _};
use crate::compile::host;
use crate::compile::ingress::{IngressRecord, Origin, TlsRecord};
use crate::compile::store::ObjectKey;
use crate::model::HostMatch;

impl GatewayApi {
    /// The certificates of a Gateway of ours.
    pub(super) fn gateway_record(&self, key: &ObjectKey) -> Option<IngressRecord> {
        let gateway = self.our_gateway(key)?;
        let mut findings = Findings {
            key,
            kind: GatewaySpec::KIND,
            problems: Vec::new(),
        };
        let mut tls = Vec::new();
        for (index, listener) in gateway.spec.listeners.iter().enumerate() {
            tls.extend(findings.listener(index, listener));
        }
        Some(IngressRecord {
            origin: Origin::Gateway,
            tls,
            ..record(gateway.created, Vec::new(), findings.problems)
        })
    }
}

impl Findings<'_> {
    /// The certificate of an HTTPS listener; says what of a listener cannot be served.
    fn listener(&mut self, index: usize, listener: &Listener) -> Option<TlsRecord> {
        let field = format!("spec.listeners[{index}]");
        let allowed = listener.allowed_routes.as_ref();
        let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
        if namespaces.and_then(|namespaces| namespaces.from.as_deref()) == Some("Selector") {
            let message = "selectors of namespaces are not supported: no route is taken; say All or \
                           Same";
            self.add(format!("{field}.allowedRoutes.namespaces"), message);
        }
        let hostname = listener.hostname.as_deref().unwrap_or_default();
        let hostname = match host::parse(hostname) {
            Ok(hostname) => hostname,
            Err(why) => {
                self.add(format!("{field}.hostname"), format!("`{hostname}` {why}"));
                return None;
            }
        };
        match &*listener.protocol {
            "HTTP" => return None,
            "HTTPS" => {}
            other => {
                let message = format!("protocol {other} is not served, only HTTP and HTTPS are");
                self.add(format!("{field}.protocol"), message);
                return None;
            }
        }
        let tls = listener.tls.as_ref();
        let mode = tls
            .and_then(|tls| tls.mode.as_deref())
            .unwrap_or("Terminate");
        let refs = tls.map(|tls| &*tls.certificate_refs).unwrap_or_default();
        let message = match refs {
            _ if mode != "Terminate" => "only mode Terminate is served",
            _ if hostname == HostMatch::Any => {
                "a listener without hostname is served with the default certificate"
            }
            [found] if is_near_secret(found, self.key) => {
                return Some(TlsRecord {
                    index,
                    hosts: vec![hostname],
                    secret: Some(found.name.as_str().into()),
                });
            }
            _ => {
                "one Secret of the Gateway's own namespace is needed; the default certificate is \
                  served"
            }
        };
        self.add(format!("{field}.tls"), message);
        None
    }
}

fn is_near_secret(target: &TargetRef, gateway: &ObjectKey) -> bool {
    let namespace = target.namespace.as_deref();
    is_kind(target, "", "Secret") && namespace.is_none_or(|other| *other == *gateway.namespace)
}
