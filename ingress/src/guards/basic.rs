//! HTTP Basic authentication (RFC 7617; ingress-nginx `auth-type: basic`).
//!
//! A stored password is made to be slow to compare with, a tenth of a second for some, and a browser
//! sends it with every request. So comparisons run beside the workers, as many at a time as half of
//! the processors, and those that succeeded are remembered for a while: not the password, but a keyed
//! hash of it together with what it was compared with, so that a change of the Secret needs no
//! forgetting. As many requests as [`WAITING`] wait for a comparison, whoever sends them; above that
//! they are refused, which is what a flood of wrong passwords comes to. Who was let in before passes
//! it by.
//!
//! A user who does not exist is compared with the costliest of those who do.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use quick_cache::sync::Cache;
use sealane_config::model::{BasicAuth, PasswordHash};
use sealane_proxy::{Error, ErrorKind};
use tokio::sync::Semaphore;
use tokio::time::Instant;

mod password;

/// Comparisons that a process remembers.
const REMEMBERED: usize = 10_000;

/// For how long.
const MEMORY: Duration = Duration::from_secs(300);

/// Requests that wait for a comparison, over all workers.
const WAITING: usize = 64;

/// The longest password that is compared, bytes: what is slow is slower with a long one.
const LONGEST: usize = 512;

/// Base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The comparisons of passwords, those that run and those that succeeded. Clones share them; one for
/// all workers of a process.
#[derive(Clone)]
pub struct Passwords(Arc<Shared>);

struct Shared {
    /// Known to this process alone; without one nothing is remembered.
    key: Option<hmac::Key>,
    good: Cache<[u8; 32], Instant>,
    waiting: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let random = aws_lc_rs::rand::SystemRandom::new();
        Self(Arc::new(Shared {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &random).ok(),
            good: Cache::new(REMEMBERED),
            waiting: Arc::new(Semaphore::new(WAITING)),
            running: Arc::new(Semaphore::new(processors.div_ceil(2))),
        }))
    }
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords")
    }
}

impl Passwords {
    /// Lets a request pass that names a user with the right password.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`], [`ErrorKind::Overloaded`].
    pub(super) async fn check(&self, auth: &BasicAuth, headers: &HeaderMap) -> Result<(), Error> {
        let wrong = || Error::new(ErrorKind::Unauthorized, "a user and a password are needed");
        let (user, password) = credentials(headers).ok_or_else(wrong)?;
        let known = auth.users.get(&user);
        let hash = known.or(auth.users.decoy()).ok_or_else(wrong)?;
        let is_right = self.compare(password, hash).await?;
        if is_right && known.is_some() {
            Ok(())
        } else {
            Err(wrong())
        }
    }

    async fn compare(&self, password: Vec<u8>, hash: &PasswordHash) -> Result<bool, Error> {
        if password.len() > LONGEST {
            return Ok(false);
        }
        if password::is_quick(hash) {
            return Ok(password::verify(&password, hash));
        }
        let shared = &*self.0;
        let tag = shared.tag(&password, hash);
        if shared.remembers(tag) {
            return Ok(true);
        }
        let too_many = |_| Error::new(ErrorKind::Overloaded, "too many passwords are compared");
        let _place = shared.waiting.try_acquire().map_err(too_many)?;
        let running = Arc::clone(&shared.running).acquire_owned().await;
        let running = running.map_err(|_closed| Error::new(ErrorKind::Overloaded, "closed"))?;
        // A browser sends many requests at once; the first of them was compared meanwhile.
        if shared.remembers(tag) {
            return Ok(true);
        }
        let hash = hash.clone();
        let comparison = tokio::task::spawn_blocking(move || {
            // Held to the end, even if nobody waits for it any more.
            let _running = running;
            password::verify(&password, &hash)
        });
        let is_right = comparison.await.unwrap_or(false);
        if let (true, Some(tag)) = (is_right, tag) {
            shared.good.insert(tag, Instant::now());
        }
        Ok(is_right)
    }
}

impl Shared {
    /// What stands for a password that is right for this hash.
    fn tag(&self, password: &[u8], hash: &PasswordHash) -> Option<[u8; 32]> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        let stored = password::stored(hash)?;
        context.update(&stored.len().to_be_bytes());
        context.update(stored.as_bytes());
        context.update(password);
        context.sign().as_ref().try_into().ok()
    }

    fn remembers(&self, tag: Option<[u8; 32]>) -> bool {
        let found = tag.and_then(|tag| self.good.get(&tag));
        found.is_some_and(|at| at.elapsed() < MEMORY)
    }
}

/// User and password of a request.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let field = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = field.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    let user = String::from_utf8(decoded.get(..colon)?.to_vec()).ok()?;
    Some((user, decoded.get(colon + 1..)?.to_vec()))
}

/// The user that a request claims to come from.
pub(super) fn user(headers: &HeaderMap) -> Option<String> {
    credentials(headers).map(|(user, _)| user)
}

/// What a client is asked for.
pub(super) fn challenge(realm: &str) -> Option<HeaderValue> {
    let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::try_from(format!("Basic realm=\"{quoted}\"")).ok()
}

#[cfg(test)]
mod tests;
