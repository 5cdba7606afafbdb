//! A certificate and its key (`tls.crt`, `tls.key`).

use std::sync::Arc;

use k8s_openapi::api::core::v1;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{SecretProblem, field};
use crate::compile::host;
use crate::compile::store::ObjectKey;
use crate::model::{Certificate, HostMatch, ProblemKind};

/// The type of the Secrets that hold a certificate.
const TLS_TYPE: &str = "kubernetes.io/tls";

/// A certificate that can be served.
#[derive(Clone, Debug)]
pub(in crate::compile) struct Loaded {
    pub(in crate::compile) certificate: Arc<Certificate>,
    /// The hosts that it is for: its DNS names, or its common name if it has none.
    pub(in crate::compile) names: Vec<HostMatch>,
    /// Start of validity, seconds since the Unix epoch.
    pub(in crate::compile) not_before: i64,
}

impl Loaded {
    pub(in crate::compile) fn covers(&self, host: &HostMatch) -> bool {
        self.names.iter().any(|name| host::covers(name, host))
    }

    /// Why clients will not accept it now, if they won't.
    pub(in crate::compile) fn invalid_at(&self, now: i64) -> Option<&'static str> {
        if now > self.certificate.not_after {
            Some("the certificate has expired")
        } else if now < self.not_before {
            Some("the certificate is not valid yet")
        } else {
            None
        }
    }
}

pub(super) fn load(
    key: &ObjectKey,
    secret: &v1::Secret,
    provider: &CryptoProvider,
) -> Result<Loaded, SecretProblem> {
    let type_ = secret.type_.as_deref().unwrap_or("Opaque");
    if type_ != TLS_TYPE {
        return Err(SecretProblem {
            kind: ProblemKind::WrongSecretType,
            message: format!("Secret {key} has the type {type_}, a certificate needs {TLS_TYPE}"),
        });
    }
    read(key, secret, provider)
}

/// As [`load`], from a Secret of any type that has one of the two.
pub(super) fn load_any(
    key: &ObjectKey,
    secret: &v1::Secret,
    provider: &CryptoProvider,
) -> Option<Result<Loaded, SecretProblem>> {
    let has = |name| !field(secret, name).is_empty();
    (has("tls.crt") || has("tls.key")).then(|| read(key, secret, provider))
}

fn read(
    key: &ObjectKey,
    secret: &v1::Secret,
    provider: &CryptoProvider,
) -> Result<Loaded, SecretProblem> {
    let bad = |message: &str| SecretProblem {
        kind: ProblemKind::BadCertificate,
        message: format!("Secret {key}: {message}"),
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(field(secret, "tls.crt"))
            .collect::<Result<_, _>>()
            .map_err(|_pem| bad("tls.crt is not in PEM format"))?;
    let Some(leaf) = chain.first() else {
        return Err(bad("tls.crt holds no certificate"));
    };
    let facts =
        Facts::of(leaf).ok_or_else(|| bad("tls.crt holds a certificate that cannot be parsed"))?;
    let private = PrivateKeyDer::from_pem_slice(field(secret, "tls.key"))
        .map_err(|_pem| bad("tls.key holds no private key in PEM format"))?;
    let certified = CertifiedKey::from_der(chain, private, provider).map_err(|error| {
        bad(match error {
            rustls::Error::InconsistentKeys(_) => "tls.key is not the key of tls.crt",
            _ => "tls.key is not a key that can be used (RSA, ECDSA or Ed25519)",
        })
    })?;
    Ok(Loaded {
        certificate: Arc::new(Certificate {
            source: key.of_kind("Secret"),
            key: Arc::new(certified),
            not_after: facts.not_after,
        }),
        names: facts.names,
        not_before: facts.not_before,
    })
}

struct Facts {
    names: Vec<HostMatch>,
    not_before: i64,
    not_after: i64,
}

impl Facts {
    fn of(leaf: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let dns = alternatives
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(*name),
                _ => None,
            });
        let common = certificate
            .subject()
            .iter_common_name()
            .filter(|_| alternatives.is_none())
            .filter_map(|name| name.as_str().ok());
        let names = dns.chain(common).filter_map(|name| host::parse(name).ok());
        Some(Self {
            names: names.collect(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}
