//! Which endpoint a request would rather go to: the one of its session (ingress-nginx `affinity`), or
//! the one that a part of the request stands for (`upstream-hash-by`).

use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use siphasher::sip::SipHasher24;
use siphasher::sip128::{Hasher128, SipHasher24 as SipHasher128};

use crate::model::ServiceKey;

/// Requests with the same cookie go to the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieAffinity {
    /// The cookie's name.
    pub name: Arc<str>,
    /// What holds sessions.
    pub mode: AffinityMode,
    /// A session whose endpoint failed stays where it went instead.
    pub change_on_failure: bool,
    /// `Path`; without one it is that of the rule.
    pub path: Option<Arc<str>>,
    /// `Domain`.
    pub domain: Option<Arc<str>>,
    /// `Expires`, from now on.
    pub expires: Option<Duration>,
    /// `Max-Age`.
    pub max_age: Option<Duration>,
    /// `SameSite`.
    pub same_site: Option<SameSite>,
    /// `SameSite=None` is left out for clients that take it for something else.
    pub conditional_none: bool,
    /// `Secure`; unless it is said, cookies of requests over TLS have it.
    pub secure: Option<bool>,
    /// What the cookie's value is made with.
    pub key: AffinityKey,
}

/// What holds sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AffinityMode {
    /// Sessions are spread over the endpoints by hash, so that a new endpoint takes over its share.
    #[default]
    Balanced,
    /// A session stays where it is while its endpoint takes traffic.
    Persistent,
}

/// The attribute `SameSite` of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// `None`.
    None,
    /// `Lax`.
    Lax,
    /// `Strict`.
    Strict,
}

/// Turns endpoints and backends into numbers that say nothing about them.
///
/// All replicas of the gateway, and their successors, have to make the same of the same, and whoever
/// sees a cookie must not find out which addresses pods have, of which there are few enough to try
/// them all. So the numbers are a keyed hash, and the key is made of the Ingress' UID, which every
/// replica reads, which does not change while the Ingress exists, and of which 122 bits are random.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AffinityKey([u8; 16]);

impl AffinityKey {
    /// The key for an Ingress with this UID, which may be empty where nobody serves it, namespace and
    /// name.
    pub fn new(uid: &str, namespace: &str, name: &str) -> Self {
        let mut hasher = SipHasher128::new_with_key(b"session affinity");
        for text in [uid, namespace, name] {
            hasher.write(text.as_bytes());
            hasher.write(&[0]);
        }
        Self(hasher.finish128().as_bytes())
    }

    /// Stands for an endpoint.
    pub fn endpoint(&self, addr: SocketAddr) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        match addr.ip() {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write(&addr.port().to_be_bytes());
        hasher.finish()
    }

    /// Stands for a Service port.
    pub fn backend(&self, service: &ServiceKey, port: u16) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        for text in [&service.namespace, &service.name] {
            hasher.write(text.as_bytes());
            hasher.write(&[0]);
        }
        hasher.write(&port.to_be_bytes());
        hasher.finish()
    }
}

impl fmt::Debug for AffinityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AffinityKey(…)")
    }
}

/// A text of parts of the request; requests with the same one go to the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashBy(pub Box<[HashPart]>);

/// A part of a [`HashBy`], named after nginx's variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashPart {
    /// As it stands.
    Text(Box<str>),
    /// `$scheme`: `http` or `https`.
    Scheme,
    /// `$host`: the host without port.
    Host,
    /// `$request_uri`: path and query as they came.
    RequestUri,
    /// `$uri`: the path in its normal form.
    Path,
    /// `$args`, `$query_string`: the query.
    Query,
    /// `$remote_addr`, `$binary_remote_addr`: the client's address.
    Client,
    /// `$request_method`.
    Method,
    /// `$http_NAME`: a header field.
    Header(HeaderName),
    /// `$arg_NAME`: a parameter of the query, as it is written there.
    Argument(Box<str>),
    /// `$cookie_NAME`: a cookie.
    Cookie(Box<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a11_a_key_makes_the_same_of_the_same_and_shows_nothing() {
        let addr: SocketAddr = "10.1.2.3:8080".parse().unwrap();
        let service = ServiceKey {
            namespace: "shop".into(),
            name: "web".into(),
        };
        let key = AffinityKey::new("c0ffee", "shop", "it");
        // These stay as they are, because a session outlives an upgrade.
        assert_eq!(key.endpoint(addr), 0x06f8_eada_12a1_2304);
        assert_eq!(key.backend(&service, 80), 0x34ba_0e19_a52f_43bb);
        assert_eq!(format!("{key:?}"), "AffinityKey(…)");
        for (uid, namespace, name) in [
            ("other", "shop", "it"),
            ("c0ffee", "other", "it"),
            ("c0ffee", "shop", "other"),
            ("c0ffee", "shopi", "t"),
        ] {
            let other = AffinityKey::new(uid, namespace, name);
            assert_ne!(
                other.endpoint(addr),
                key.endpoint(addr),
                "{uid} {namespace} {name}"
            );
        }
        let port: SocketAddr = "10.1.2.3:8081".parse().unwrap();
        assert_ne!(key.endpoint(port), key.endpoint(addr));
        assert_ne!(key.backend(&service, 81), key.backend(&service, 80));
    }
}
