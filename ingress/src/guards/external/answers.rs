//! Answers of services that hold for a while (ingress-nginx `auth-cache-key` and
//! `auth-cache-duration`).
//!
//! A key is kept as a keyed hash, because it is made of cookies and passwords. Every part of it says
//! how long it is, so that no two keys are the same because of where their parts end; the rule and
//! what it asks are part of it, so that a change of either asks again. An answer that sets cookies is
//! for one client and not kept, nor is one with long fields.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use aws_lc_rs::hmac;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use quick_cache::sync::Cache;
use sealane_config::model::{AuthCache, ExternalAuth, KeyPart, RouteRule};
use tokio::time::Instant;

use super::Verdict;
use crate::decide::Asked;
use crate::filters::forwarded::Peer;
use crate::guards::basic;

/// Answers that a process remembers.
const REMEMBERED: usize = 10_000;

/// The most bytes of fields of one.
const LONGEST: usize = 4096;

/// Answers that hold for a while. Clones share them; one for all workers of a process.
#[derive(Clone)]
pub struct Answers(Arc<Shared>);

struct Shared {
    /// Known to this process alone; without one nothing is remembered.
    key: Option<hmac::Key>,
    kept: Cache<[u8; 32], (Verdict, Instant)>,
}

impl Default for Answers {
    fn default() -> Self {
        let random = aws_lc_rs::rand::SystemRandom::new();
        Self(Arc::new(Shared {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &random).ok(),
            kept: Cache::new(REMEMBERED),
        }))
    }
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answers")
    }
}

impl Answers {
    /// What stands for all requests that get the same answer as this one.
    pub(super) fn key<B>(
        &self,
        cache: &AuthCache,
        auth: &ExternalAuth,
        rule: &RouteRule,
        peer: &Peer,
        request: &Request<B>,
    ) -> Option<[u8; 32]> {
        let mut context = hmac::Context::with_key(self.0.key.as_ref()?);
        let mut add = |bytes: &[u8]| {
            context.update(&bytes.len().to_be_bytes());
            context.update(bytes);
        };
        let mut hasher = DefaultHasher::new();
        auth.hash(&mut hasher);
        add(&hasher.finish().to_be_bytes());
        for text in [&*rule.source.namespace, &*rule.source.name, &*rule.field] {
            add(text.as_bytes());
        }
        let asked = Asked::of(request).ok()?;
        // Rules of several hosts may have the same field.
        add(asked.host.as_bytes());
        let headers = request.headers();
        for part in &cache.key {
            match part {
                KeyPart::Text(text) => add(text.as_bytes()),
                KeyPart::Scheme => add(&[u8::from(peer.secure)]),
                KeyPart::Host => add(asked.host.as_bytes()),
                KeyPart::RequestUri => {
                    let target = request.uri().path_and_query();
                    add(target.map_or("/", |p| p.as_str()).as_bytes());
                }
                KeyPart::Method => add(request.method().as_str().as_bytes()),
                KeyPart::Client => add(peer.ip.to_string().as_bytes()),
                KeyPart::User => add(basic::user(headers).unwrap_or_default().as_bytes()),
                KeyPart::Field(name) => add(&joined(headers, name)),
                KeyPart::Cookie(name) => add(cookie(headers, name).unwrap_or_default()),
            }
        }
        context.sign().as_ref().try_into().ok()
    }

    pub(super) fn get(&self, key: [u8; 32]) -> Option<Verdict> {
        let (verdict, until) = self.0.kept.get(&key)?;
        (Instant::now() < until).then_some(verdict)
    }

    /// Keeps an answer for as long as its status says.
    pub(super) fn keep(
        &self,
        key: [u8; 32],
        cache: &AuthCache,
        status: StatusCode,
        verdict: &Verdict,
    ) {
        let times = cache.durations.iter();
        let Some((_, time)) = times.rev().find(|(of, _)| *of == status) else {
            return;
        };
        let (fields, has_cookies) = match verdict {
            Verdict::Granted(granted) => (&granted.fields, !granted.cookies.is_empty()),
            Verdict::Refused(_, fields) => {
                let sets = fields.iter().any(|(name, _)| *name == SET_COOKIE);
                (fields, sets)
            }
        };
        if !has_cookies && length(fields) <= LONGEST {
            let until = Instant::now() + *time;
            self.0.kept.insert(key, (verdict.clone(), until));
        }
    }
}

fn length(fields: &[(HeaderName, HeaderValue)]) -> usize {
    let lengths = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    lengths.sum()
}

/// All values of a field, each with its end.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let mut all = Vec::new();
    for value in headers.get_all(name) {
        all.extend(value.as_bytes());
        all.push(0);
    }
    all
}

/// The value of a cookie that the client sends.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.get_all(COOKIE).into_iter();
    let mut pairs = pairs.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    pairs.find_map(|pair| {
        pair.trim_ascii()
            .strip_prefix(name.as_bytes())?
            .strip_prefix(b"=")
    })
}
