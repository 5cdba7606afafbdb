//! Who may come in: by password, or because a service of the user's says so.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};

use super::Template;
use crate::model::Backend;

/// What a client has to prove before its requests are passed on. Passwords come before the question
/// to a service, as in ingress-nginx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// By password.
    pub basic: Option<BasicAuth>,
    /// By asking a service.
    pub external: Option<ExternalAuth>,
    /// One of them is enough, or being on the list of addresses that may come in (`satisfy: any`).
    pub any: bool,
}

/// HTTP Basic authentication (RFC 7617).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// What clients are told that the password is for.
    pub realm: Arc<str>,
    /// Who may come in.
    pub users: Arc<Users>,
}

/// Users and what is stored of their passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Users {
    hashes: HashMap<Box<str>, PasswordHash>,
    /// The costliest of them.
    decoy: Option<PasswordHash>,
}

impl Users {
    /// What is stored for a user.
    pub fn get(&self, name: &str) -> Option<&PasswordHash> {
        self.hashes.get(name)
    }

    /// What a password is compared with if there is no such user, so that the answer takes as long.
    pub fn decoy(&self) -> Option<&PasswordHash> {
        self.decoy.as_ref()
    }

    /// Nobody may come in.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

impl FromIterator<(Box<str>, PasswordHash)> for Users {
    fn from_iter<I: IntoIterator<Item = (Box<str>, PasswordHash)>>(users: I) -> Self {
        let hashes: HashMap<_, _> = users.into_iter().collect();
        let decoy = hashes.values().max_by_key(|hash| hash.cost()).cloned();
        Self { hashes, decoy }
    }
}

/// Names and hashes are secrets.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.hashes.len())
    }
}

/// What is stored of a password, as in an htpasswd file. `$` and `{}` begin as there.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// `$2a$`, `$2b$`, `$2y$`: bcrypt, with the logarithm of its rounds.
    Bcrypt(u32, Box<str>),
    /// `$5$`, `$6$`: SHA-crypt, with its rounds.
    ShaCrypt(u32, Box<str>),
    /// `$1$`, `$apr1$`: MD5-crypt and Apache's version of it.
    Md5Crypt {
        /// What the scheme mixes in: its name between and with `$`.
        magic: &'static str,
        /// The salt.
        salt: Box<str>,
        /// What has to come out, in the scheme's own alphabet.
        digest: Box<str>,
    },
    /// `{SHA}`, `{SSHA}`: SHA-1, once.
    Sha1 {
        /// What has to come out.
        digest: [u8; 20],
        /// What follows the password.
        salt: Box<[u8]>,
    },
    /// `{PLAIN}`: the password.
    Plain(Box<str>),
}

impl PasswordHash {
    /// How long a comparison takes, for an order.
    fn cost(&self) -> u64 {
        match self {
            Self::Bcrypt(log, _) => 16 << log.min(&40),
            Self::ShaCrypt(rounds, _) => u64::from(*rounds),
            Self::Md5Crypt { .. } => 1000,
            Self::Sha1 { .. } => 1,
            Self::Plain(_) => 0,
        }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash")
    }
}

/// A service that is asked about each request (ingress-nginx `auth-url`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExternalAuth {
    /// Where it is.
    pub place: AuthPlace,
    /// Path and query of the question.
    pub path: Template,
    /// Method of the question.
    pub method: Method,
    /// Fields of the question besides, in place of the client's.
    pub headers: Box<[(HeaderName, Template)]>,
    /// Fields of its answer that the backend gets in place of the client's.
    pub response_headers: Box<[HeaderName]>,
    /// Where clients are sent that have to say who they are; else they get the 401.
    pub signin: Option<Template>,
    /// `X-Auth-Request-Redirect` of the question; else the request's path and query.
    pub redirect: Option<Template>,
    /// Cookies of the answer are set whatever the backend's answer is, and not only if it is no
    /// error.
    pub always_set_cookie: bool,
    /// For how long answers hold, if they are kept.
    pub cache: Option<AuthCache>,
}

/// Where the service is that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AuthPlace {
    /// A Service of the cluster.
    Service {
        /// Which port.
        backend: Backend,
        /// `Host` of the question.
        host: Box<str>,
        /// It speaks TLS; its certificate is not verified.
        tls: bool,
    },
    /// A host: one that this gateway serves itself, or one outside of the cluster. Only the former
    /// may depend on the request, and it is asked at the usual ports only.
    Host {
        /// Its name.
        name: Template,
        /// Its port.
        port: u16,
        /// It speaks TLS; outside of the cluster its certificate is verified.
        tls: bool,
    },
}

/// Which answers hold for which requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AuthCache {
    /// Requests for which this is equal get the same answer.
    pub key: Box<[KeyPart]>,
    /// For how long, by status.
    pub durations: Box<[(StatusCode, Duration)]>,
}

/// A part of the key of an [`AuthCache`], named after nginx's variables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// As it stands.
    Text(Box<str>),
    /// `$scheme`.
    Scheme,
    /// `$host`: the host without port.
    Host,
    /// `$request_uri`: path and query as they came.
    RequestUri,
    /// `$request_method`.
    Method,
    /// `$remote_addr`: the client's address.
    Client,
    /// `$remote_user`: the user of HTTP Basic authentication.
    User,
    /// `$http_NAME`: a header field.
    Field(HeaderName),
    /// `$cookie_NAME`.
    Cookie(Box<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a9_no_hash_and_no_user_shows_in_debug_output() {
        let users: Users = [
            ("alice", PasswordHash::Plain("opensesame".into())),
            ("bob", PasswordHash::Bcrypt(10, "$2y$10$abc".into())),
        ]
        .into_iter()
        .map(|(name, hash)| (name.into(), hash))
        .collect();
        let shown = format!("{users:?} {:?}", users.get("alice"));
        for secret in ["alice", "opensesame", "bob", "2y"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(users.decoy(), users.get("bob"));
    }
}
