//! Certificates of the gateway, by host.

use std::sync::Arc;

use super::{HostMatch, ObjectRef, Table};

/// A certificate chain and its key, ready to serve.
#[derive(Debug)]
pub struct Certificate {
    /// The Secret that it comes from.
    pub source: ObjectRef,
    /// Chain and signing key.
    pub key: Arc<rustls::sign::CertifiedKey>,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
}

/// Certificates by SNI: exact name, then one-label wildcard, then the default.
#[derive(Clone, Debug, Default)]
pub struct CertificateTable {
    /// Exact host names, lower case.
    pub exact: Table<Arc<str>, Arc<Certificate>>,
    /// Wildcard hosts by the part behind `*.`.
    pub wildcard: Table<Arc<str>, Arc<Certificate>>,
    /// Served when no other matches; the gateway makes a self-signed one if this is `None`.
    pub default: Option<Arc<Certificate>>,
}

impl CertificateTable {
    /// The certificate for a server name, which is lower case.
    pub fn find(&self, sni: &str) -> Option<&Arc<Certificate>> {
        self.exact.get(sni).or_else(|| {
            let (label, rest) = sni.split_once('.')?;
            (!label.is_empty()).then(|| self.wildcard.get(rest))?
        })
    }

    /// The entry for exactly this host; there is none for [`HostMatch::Any`].
    pub fn get(&self, host: &HostMatch) -> Option<&Arc<Certificate>> {
        match host {
            HostMatch::Exact(name) => self.exact.get(name),
            HostMatch::Wildcard(suffix) => self.wildcard.get(suffix),
            HostMatch::Any => None,
        }
    }

    /// Replaces the entry for exactly this host; does nothing for [`HostMatch::Any`].
    pub fn set(&mut self, host: &HostMatch, certificate: Option<Arc<Certificate>>) {
        let (table, name) = match host {
            HostMatch::Exact(name) => (&mut self.exact, name),
            HostMatch::Wildcard(suffix) => (&mut self.wildcard, suffix),
            HostMatch::Any => return,
        };
        if let Some(certificate) = certificate {
            table.insert_mut(Arc::clone(name), certificate);
        } else {
            table.remove_mut(name);
        }
    }
}
