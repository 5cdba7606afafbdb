//! What is read out of a Secret. Nothing of a Secret's data goes into a message.
//!
//! What a Secret is for is decided by who refers to it: each use reads its own part, in a module of
//! its own.

use std::sync::Arc;

use k8s_openapi::api::core::v1;
use rustls::crypto::CryptoProvider;

use super::store::ObjectKey;
use crate::model::{Authorities, ProblemKind, Users};

mod authorities;
mod certificate;
mod users;

pub(super) use certificate::Loaded;

/// A Secret that an Ingress names.
#[derive(Clone, Debug)]
pub struct SecretRecord {
    /// `metadata.resourceVersion`: tells versions apart without keeping the data.
    version: String,
    /// As a certificate to serve.
    pub(super) certificate: Result<Loaded, SecretProblem>,
    /// The same, whatever the type of the Secret, to show to endpoints; `None`: there is neither
    /// certificate nor key.
    pub(super) identity: Option<Result<Loaded, SecretProblem>>,
    /// As authorities that vouch for certificates.
    pub(super) authorities: Result<Arc<Authorities>, SecretProblem>,
    /// As users with an htpasswd file.
    pub(super) user_file: UserList,
    /// As users, one a key.
    pub(super) user_map: UserList,
}

/// Users, and what of them cannot be used, for people.
#[derive(Clone, Debug)]
pub(super) struct UserList {
    pub(super) users: Arc<Users>,
    pub(super) bad: Option<String>,
}

impl PartialEq for SecretRecord {
    fn eq(&self, other: &Self) -> bool {
        !self.version.is_empty() && self.version == other.version
    }
}

/// Why a Secret is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretProblem {
    pub(super) kind: ProblemKind,
    pub(super) message: String,
}

impl SecretRecord {
    /// Reads a Secret.
    pub fn read(key: &ObjectKey, secret: v1::Secret, provider: &CryptoProvider) -> Self {
        let list = |(users, bad)| UserList {
            users: Arc::new(users),
            bad,
        };
        Self {
            version: secret.metadata.resource_version.clone().unwrap_or_default(),
            certificate: certificate::load(key, &secret, provider),
            identity: certificate::load_any(key, &secret, provider),
            authorities: authorities::load(key, &secret, provider),
            user_file: list(users::file(&secret)),
            user_map: list(users::map(&secret)),
        }
    }
}

/// The data under a key; empty if there is none.
fn field<'a>(secret: &'a v1::Secret, name: &str) -> &'a [u8] {
    let bytes = secret.data.as_ref().and_then(|data| data.get(name));
    bytes.map_or(&[][..], |bytes| bytes.0.as_slice())
}
