//! TLS to the endpoints of a rule (`proxy-ssl-*`).

use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::annotations::UpstreamRecord;
use super::host_routes::HostCompiler;
use super::ingress::BackendRecord;
use super::rank::SourceKey;
use super::secret::SecretProblem;
use crate::model::{Problem, ProblemKind, UpstreamTls};

const FIELD: &str = "metadata.annotations[nginx.ingress.kubernetes.io/proxy-ssl-secret]";

/// Why the rule is not served.
pub(super) const NO_UPSTREAM_TLS: &str = "no TLS to the backend as asked for";

impl HostCompiler<'_> {
    /// What is asked of TLS to a backend.
    ///
    /// # Errors
    /// The Secret is of no use, so that endpoints could not be verified or shown a certificate: why
    /// the rule is not served.
    pub(super) fn upstream_tls(
        &self,
        source: &SourceKey,
        record: &UpstreamRecord,
        backend: &BackendRecord,
        problems: &mut Vec<Problem>,
    ) -> Result<Arc<UpstreamTls>, &'static str> {
        let made = self.make(source, record, backend);
        made.map(Arc::new).map_err(|bad| {
            problems.push(Problem {
                object: source.object(),
                field: FIELD.into(),
                kind: bad.kind,
                message: format!("{}: the path answers 503", bad.message),
            });
            NO_UPSTREAM_TLS
        })
    }

    fn make(
        &self,
        source: &SourceKey,
        record: &UpstreamRecord,
        backend: &BackendRecord,
    ) -> Result<UpstreamTls, SecretProblem> {
        let mut tls = UpstreamTls {
            certificate: None,
            authorities: None,
            depth: record.depth.unwrap_or(1),
            name: name(source, record, backend),
            sends_name: record.sends_name,
            versions: record.versions,
        };
        let bad = |kind, message: &str| SecretProblem {
            kind,
            message: message.to_owned(),
        };
        let Some(secret) = &record.secret else {
            if record.verify {
                let message = "there is no `proxy-ssl-secret` to verify endpoints with";
                return Err(bad(ProblemKind::RefusedAnnotation, message));
            }
            return Ok(tls);
        };
        let current = self.secrets.get(secret).and_then(|state| state.current());
        let unknown = || {
            bad(
                ProblemKind::MissingSecret,
                "the Secret has not been read yet",
            )
        };
        let current = current.ok_or_else(unknown)?.map_err(Clone::clone)?;
        if record.verify {
            let authorities = current.authorities.as_ref().map_err(Clone::clone)?;
            tls.authorities = Some(Arc::clone(authorities));
        }
        tls.certificate = match &current.identity {
            None => None,
            Some(Ok(loaded)) => Some(Arc::clone(&loaded.certificate)),
            Some(Err(problem)) => return Err(problem.clone()),
        };
        Ok(tls)
    }
}

/// The name that is written, or the one that the Service has in the cluster's DNS.
fn name(
    source: &SourceKey,
    record: &UpstreamRecord,
    backend: &BackendRecord,
) -> ServerName<'static> {
    let of_service = || match backend {
        BackendRecord::Service { name, .. } => {
            ServerName::try_from(format!("{name}.{}.svc", source.key.namespace)).ok()
        }
        BackendRecord::Resource | BackendRecord::Weighted(_) | BackendRecord::Refused(_) => None,
    };
    let name = record.name.clone().or_else(of_service);
    // Such a backend is not served.
    name.unwrap_or_else(|| ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
}
