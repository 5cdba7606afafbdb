//! Users of HTTP Basic authentication: an htpasswd file under the key `auth`, or each key a user.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1;

use super::field;
use crate::model::{PasswordHash, Users};

/// The costliest hash that is verified: a second or so of a processor each time.
const MOST_BCRYPT: u32 = 14;
const MOST_ROUNDS: u32 = 1_000_000;

/// An htpasswd file. What cannot be used is left out; the second value says so, for people, without
/// a word of what is in it.
pub(super) fn file(secret: &v1::Secret) -> (Users, Option<String>) {
    let Ok(text) = std::str::from_utf8(field(secret, "auth")) else {
        return (Users::default(), Some("the key auth is not text".into()));
    };
    if text.is_empty() {
        return (Users::default(), Some("there is no key auth".into()));
    }
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    read(lines.map(|(at, line)| {
        let user = line.split_once(':');
        (format!("line {}", at + 1), user)
    }))
}

/// Each key a user, each value what is stored of the password.
pub(super) fn map(secret: &v1::Secret) -> (Users, Option<String>) {
    let entries = secret.data.iter().flatten().enumerate();
    read(entries.map(|(at, (name, value))| {
        let hash = std::str::from_utf8(&value.0).ok().map(str::trim);
        (
            format!("entry {}", at + 1),
            hash.map(|hash| (name.as_str(), hash)),
        )
    }))
}

fn read<'a>(
    entries: impl Iterator<Item = (String, Option<(&'a str, &'a str)>)>,
) -> (Users, Option<String>) {
    let mut bad = None;
    let mut good: HashMap<Box<str>, PasswordHash> = HashMap::new();
    for (place, entry) in entries {
        let named = entry.filter(|(name, _)| !name.is_empty());
        // Anything may follow a third colon.
        let hash = |text: &str| parse(text.split(':').next().unwrap_or_default());
        match named.and_then(|(name, text)| Some((name, hash(text)?))) {
            // The first of a name counts, as in nginx.
            Some((name, hash)) => drop(good.entry(name.into()).or_insert(hash)),
            None => {
                bad.get_or_insert_with(|| {
                    format!("{place} is no user with a hash that can be verified")
                });
            }
        }
    }
    (good.into_iter().collect(), bad)
}

/// What is stored of a password; `None` if the scheme is not known, or too costly to verify.
fn parse(text: &str) -> Option<PasswordHash> {
    if let Some(encoded) = text.strip_prefix("{SHA}") {
        let digest = STANDARD.decode(encoded).ok()?.try_into().ok()?;
        let salt = Box::default();
        return Some(PasswordHash::Sha1 { digest, salt });
    }
    if let Some(encoded) = text.strip_prefix("{SSHA}") {
        let bytes = STANDARD.decode(encoded).ok()?;
        let (digest, salt) = bytes.split_first_chunk::<20>()?;
        let (digest, salt) = (*digest, salt.into());
        return Some(PasswordHash::Sha1 { digest, salt });
    }
    if let Some(password) = text.strip_prefix("{PLAIN}") {
        return Some(PasswordHash::Plain(password.into()));
    }
    let (scheme, rest) = text.strip_prefix('$')?.split_once('$')?;
    match scheme {
        "2a" | "2b" | "2y" => {
            let (cost, encoded) = rest.split_once('$')?;
            let cost = cost.parse().ok().filter(|cost| *cost <= MOST_BCRYPT)?;
            (encoded.len() == 53).then(|| PasswordHash::Bcrypt(cost, text.into()))
        }
        "5" | "6" => sha_crypt(text, rest),
        "1" => md5_crypt("$1$", rest),
        "apr1" => md5_crypt("$apr1$", rest),
        _ => None,
    }
}

fn sha_crypt(text: &str, rest: &str) -> Option<PasswordHash> {
    let (rounds, rest) = match rest.strip_prefix("rounds=") {
        Some(rest) => rest.split_once('$')?,
        None => ("5000", rest),
    };
    let rounds = rounds.parse().ok();
    let rounds = rounds.filter(|rounds| (1000..=MOST_ROUNDS).contains(rounds))?;
    let (salt, digest) = rest.split_once('$')?;
    let is_whole = digest.len() == if text.starts_with("$5$") { 43 } else { 86 };
    (is_whole && salt.len() <= 16).then(|| PasswordHash::ShaCrypt(rounds, text.into()))
}

fn md5_crypt(magic: &'static str, rest: &str) -> Option<PasswordHash> {
    let (salt, digest) = rest.split_once('$')?;
    (salt.len() <= 8 && digest.len() == 22).then(|| PasswordHash::Md5Crypt {
        magic,
        salt: salt.into(),
        digest: digest.into(),
    })
}
