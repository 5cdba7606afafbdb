//! The certificate of a host: from the oldest Ingress that has one for it, by an entry of `spec.tls`
//! that names the host, one without hosts, or one whose certificate is good for it.
//!
//! What is no good is reported and not served; the host keeps what it had from a Secret of the same
//! namespace, and the default certificate takes over where there was nothing.

use std::sync::Arc;

use super::host_routes::{HostCompiler, Source};
use super::ingress::{IngressRecord, TlsRecord};
use super::rank::SourceKey;
use super::secrets::SecretState;
use super::store::ObjectKey;
use crate::model::{Certificate, HostMatch, ObjectRef, Problem, ProblemKind};

/// What a host gets in the certificate table.
pub(super) enum CertificateChoice {
    /// Nothing: the default certificate.
    None,
    /// This one.
    Use(Arc<Certificate>),
    /// What it has, if that came from the namespace of this Secret, of which there is no good version.
    KeepFrom(ObjectRef),
}

impl HostCompiler<'_> {
    /// The default certificate from its Secret.
    pub(super) fn default_certificate(
        &self,
        secret: &ObjectKey,
    ) -> (Option<Arc<Certificate>>, Vec<Problem>) {
        let Some(state) = self.secrets.get(secret) else {
            return (None, Vec::new());
        };
        let good = state.good.as_ref();
        let invalid = good.and_then(|loaded| loaded.invalid_at(self.epoch_seconds));
        let found = state
            .certificate_problem()
            .map(|p| (p.kind, p.message.clone()));
        let found = found.or_else(|| Some((ProblemKind::CertificateTime, invalid?.into())));
        let problem = found.map(|(kind, message)| Problem {
            object: secret.of_kind("Secret"),
            field: String::new(),
            kind,
            message,
        });
        (
            good.map(|loaded| Arc::clone(&loaded.certificate)),
            problem.into_iter().collect(),
        )
    }

    /// The certificate of a host, and whether one is configured at all.
    pub(super) fn certificate(
        &self,
        host: &HostMatch,
        sources: &[&Source<'_>],
        problems: &mut Vec<Problem>,
    ) -> (CertificateChoice, bool) {
        let chosen = sources
            .iter()
            .find_map(|(key, record)| Some((key, *record, self.tls_entry(key, record, host)?)));
        let Some((key, record, tls)) = chosen else {
            return (CertificateChoice::None, false);
        };
        let Some(name) = &tls.secret else {
            return (CertificateChoice::None, true);
        };
        let secret = key.sibling(name);
        let mut problem = |kind, message| {
            problems.push(Problem {
                object: key.object(),
                field: record.secret_field(tls),
                kind,
                message,
            });
        };
        let state = self.secrets.get(&secret);
        if let Some(bad) = state.and_then(SecretState::certificate_problem) {
            problem(bad.kind, bad.message.clone());
        }
        let keep = CertificateChoice::KeepFrom(secret.of_kind("Secret"));
        let Some(good) = state.and_then(|state| state.good.as_ref()) else {
            return (keep, true);
        };
        if *host != HostMatch::Any && !good.covers(host) {
            let message =
                format!("the certificate in Secret {secret} is not for this host: {host}");
            problem(ProblemKind::CertificateHost, message);
            return (keep, true);
        }
        if let Some(why) = good.invalid_at(self.epoch_seconds) {
            problem(
                ProblemKind::CertificateTime,
                format!("Secret {secret}: {why}"),
            );
        }
        (CertificateChoice::Use(Arc::clone(&good.certificate)), true)
    }

    /// Which entry of `spec.tls` is for a host: one that names it, one without hosts, or else one
    /// whose certificate is good for it.
    fn tls_entry<'t>(
        &self,
        key: &SourceKey,
        record: &'t IngressRecord,
        host: &HostMatch,
    ) -> Option<&'t TlsRecord> {
        let names = |tls: &&TlsRecord| tls.hosts.contains(host);
        let covers = |tls: &&TlsRecord| tls.hosts.iter().any(|h| super::host::covers(h, host));
        let certificate_covers = |tls: &&TlsRecord| {
            let secret = tls.secret.as_ref().map(|name| key.sibling(name));
            let state = secret.and_then(|secret| self.secrets.get(&secret));
            let good = state.and_then(|state| state.good.as_ref());
            good.is_some_and(|loaded| loaded.covers(host))
        };
        let entries = || record.tls.iter();
        entries()
            .find(names)
            .or_else(|| entries().find(covers))
            .or_else(|| entries().find(|tls| tls.hosts.is_empty()))
            .or_else(|| entries().find(certificate_covers))
    }
}
