//! Certificate authorities (`ca.crt`) and their revocation lists (`ca.crl`).

use std::sync::Arc;

use k8s_openapi::api::core::v1;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::{SecretProblem, field};
use crate::compile::store::ObjectKey;
use crate::model::{Authorities, BadAuthorities, ProblemKind};

pub(super) fn load(
    key: &ObjectKey,
    secret: &v1::Secret,
    provider: &CryptoProvider,
) -> Result<Arc<Authorities>, SecretProblem> {
    let bad = |message: &str| SecretProblem {
        kind: ProblemKind::BadCertificate,
        message: format!("Secret {key}: {message}"),
    };
    let certificates = CertificateDer::pem_slice_iter(field(secret, "ca.crt"))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_pem| bad("ca.crt is not in PEM format"))?;
    let crl = field(secret, "ca.crl");
    let lists = CertificateRevocationListDer::pem_slice_iter(crl)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_pem| bad("ca.crl is not in PEM format"))?;
    if lists.is_empty() && !crl.trim_ascii().is_empty() {
        return Err(bad("ca.crl holds no revocation list in PEM format"));
    }
    let read = Authorities::new(key.of_kind("Secret"), &certificates, &lists, provider);
    read.map(Arc::new).map_err(|error| {
        bad(&match error {
            BadAuthorities::Empty | BadAuthorities::Certificate => format!("ca.crt {error}"),
            BadAuthorities::RevocationList => format!("ca.crl {error}"),
        })
    })
}
