//! Problems found in the objects that were compiled: bad input is reported, never fatal.

use std::fmt;
use std::sync::Arc;

/// A Kubernetes object by kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Kind, as in `Pod` or `Ingress`.
    pub kind: &'static str,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// Something in an object that cannot be served as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object.
    pub object: ObjectRef,
    /// The field, as a path from the object's root (`spec.rules[0].http.paths[1].backend`).
    pub field: String,
    /// What is wrong.
    pub kind: ProblemKind,
    /// One sentence for people: what is wrong and what to do.
    pub message: String,
}

/// The kinds of [`Problem`]; the label is stable and used in metrics, Events and `sealane check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// A Service that a route names does not exist.
    MissingService,
    /// The Service exists but has no such port.
    MissingPort,
    /// A Secret that is referred to does not exist.
    MissingSecret,
    /// A Secret that is referred to is not of the type that a certificate needs.
    WrongSecretType,
    /// The certificate or key in a Secret cannot be used.
    BadCertificate,
    /// The certificate is for other hosts.
    CertificateHost,
    /// The certificate has expired or is not valid yet.
    CertificateTime,
    /// An annotation's value cannot be used.
    BadAnnotation,
    /// An annotation that we do not support and that has no effect.
    UnknownAnnotation,
    /// An annotation that keeps the object from being served at all.
    RefusedAnnotation,
    /// A ConfigMap that is referred to does not exist.
    MissingConfigMap,
    /// A setting of the gateway that we do not support.
    UnsupportedSetting,
    /// An older object already has this host and path.
    Conflict,
    /// Any other field that cannot be used as written.
    BadField,
}

impl ProblemKind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::MissingService,
        Self::MissingPort,
        Self::MissingSecret,
        Self::WrongSecretType,
        Self::BadCertificate,
        Self::CertificateHost,
        Self::CertificateTime,
        Self::BadAnnotation,
        Self::UnknownAnnotation,
        Self::RefusedAnnotation,
        Self::MissingConfigMap,
        Self::UnsupportedSetting,
        Self::Conflict,
        Self::BadField,
    ];

    /// A stable label.
    pub fn label(self) -> &'static str {
        match self {
            Self::MissingService => "missing_service",
            Self::MissingPort => "missing_port",
            Self::MissingSecret => "missing_secret",
            Self::WrongSecretType => "wrong_secret_type",
            Self::BadCertificate => "bad_certificate",
            Self::CertificateHost => "certificate_host",
            Self::CertificateTime => "certificate_time",
            Self::BadAnnotation => "bad_annotation",
            Self::UnknownAnnotation => "unknown_annotation",
            Self::RefusedAnnotation => "refused_annotation",
            Self::MissingConfigMap => "missing_config_map",
            Self::UnsupportedSetting => "unsupported_setting",
            Self::Conflict => "conflict",
            Self::BadField => "bad_field",
        }
    }
}
