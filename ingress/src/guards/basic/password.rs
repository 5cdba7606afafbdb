//! Whether a password is the one of which this is stored.
//!
//! bcrypt and SHA-crypt are crates'. MD5-crypt is written here: the crates that know Apache's version
//! of it are old, and it is a few lines over MD5.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use md5::{Digest as _, Md5};
use sealane_config::model::PasswordHash;
use sha_crypt::{PasswordVerifier as _, ShaCrypt};

/// A comparison takes microseconds.
pub(super) fn is_quick(hash: &PasswordHash) -> bool {
    match hash {
        PasswordHash::Sha1 { .. } | PasswordHash::Plain(_) => true,
        PasswordHash::Bcrypt(..) | PasswordHash::ShaCrypt(..) | PasswordHash::Md5Crypt { .. } => {
            false
        }
    }
}

/// What tells stored passwords apart; nothing for those that are quick to compare with.
pub(super) fn stored(hash: &PasswordHash) -> Option<String> {
    match hash {
        PasswordHash::Bcrypt(_, text) | PasswordHash::ShaCrypt(_, text) => Some(text.to_string()),
        PasswordHash::Md5Crypt {
            magic,
            salt,
            digest,
        } => Some(format!("{magic}{salt}${digest}")),
        PasswordHash::Sha1 { .. } | PasswordHash::Plain(_) => None,
    }
}

/// Compares, in a time that does not depend on how much is right.
pub(super) fn verify(password: &[u8], hash: &PasswordHash) -> bool {
    let same = |a: &[u8], b: &[u8]| verify_slices_are_equal(a, b).is_ok();
    match hash {
        PasswordHash::Bcrypt(_, text) => bcrypt::verify(password, text).unwrap_or(false),
        PasswordHash::ShaCrypt(_, text) => ShaCrypt::default()
            .verify_password(password, &**text)
            .is_ok(),
        PasswordHash::Md5Crypt {
            magic,
            salt,
            digest,
        } => {
            let computed = md5_crypt(password, magic.as_bytes(), salt.as_bytes());
            same(computed.as_bytes(), digest.as_bytes())
        }
        PasswordHash::Sha1 {
            digest: stored,
            salt,
        } => {
            let salted = [password, salt].concat();
            same(digest(&SHA1_FOR_LEGACY_USE_ONLY, &salted).as_ref(), stored)
        }
        PasswordHash::Plain(stored) => {
            // Hashed, so that not even the length shows.
            let hashed = |bytes: &[u8]| digest(&SHA256, bytes);
            same(
                hashed(password).as_ref(),
                hashed(stored.as_bytes()).as_ref(),
            )
        }
    }
}

/// MD5-crypt in the scheme's alphabet.
fn md5_crypt(password: &[u8], magic: &[u8], salt: &[u8]) -> String {
    let inner = Md5::digest([password, salt, password].concat());
    let mut first = [password, magic, salt].concat();
    first.extend(inner.iter().cycle().take(password.len()));
    let mut bits = password.len();
    while bits > 0 {
        let begin = password.first().copied().unwrap_or_default();
        first.push(if bits & 1 == 1 { 0 } else { begin });
        bits >>= 1;
    }
    let mut state = Md5::digest(&first);
    for round in 0..1000 {
        let mut next = Md5::new();
        let (begin, end): (&[u8], &[u8]) = if round % 2 == 1 {
            (password, &state)
        } else {
            (&state, password)
        };
        next.update(begin);
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(end);
        state = next.finalize();
    }
    encode(&state.into())
}

/// Three bytes make four characters, the lowest six bits first, and the bytes are taken in an order
/// of the scheme's own.
fn encode(state: &[u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let groups = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
    let whole = groups.map(|group| {
        let bits = group
            .iter()
            .fold(0, |bits, at| bits << 8 | u32::from(state[*at]));
        (bits, 4)
    });
    let mut text = String::with_capacity(22);
    for (mut bits, characters) in whole.into_iter().chain([(u32::from(state[11]), 2)]) {
        for _ in 0..characters {
            text.push(char::from(ALPHABET[(bits & 63) as usize]));
            bits >>= 6;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a9_every_scheme_of_htpasswd_takes_the_right_password_and_no_other() {
        let md5 = |magic, salt: &str, digest: &str| PasswordHash::Md5Crypt {
            magic,
            salt: salt.into(),
            digest: digest.into(),
        };
        // Made with OpenSSL and with the system's crypt(3).
        let salted =
            b"\x28\x37\x00\x46\xa6\x27\x20\x51\x7a\xc6\x59\x34\x9e\x50\x75\x86\xcb\xe1\x35\x30";
        let plain =
            b"\x17\x61\x8f\x01\xa3\xa2\x1b\x91\x1c\x92\x5b\xcb\x52\x5a\x1d\x21\xab\xd3\x06\x73";
        for (scheme, password, hash) in [
            (
                "apr1",
                "opensesame",
                md5("$apr1$", "saltsalt", "7cqxt8VIjABxqw00CdZLl."),
            ),
            (
                "apr1, long",
                "a longer password than sixteen bytes",
                md5("$apr1$", "ab", "8ItIMBWI2mJuA9q7tymP40"),
            ),
            (
                "md5",
                "opensesame",
                md5("$1$", "saltsalt", "DoPDqEvtl7sTRDfUfLChZ1"),
            ),
            (
                "md5, empty",
                "",
                md5("$1$", "abcdefgh", "M55TzYaaccxVGbptZWaxX/"),
            ),
            (
                "sha256",
                "opensesame",
                PasswordHash::ShaCrypt(
                    5000,
                    "$5$saltsalt$jbxAgW5X5LNk4yh.NmUXL1XLS9OoRHueeuIinWYHZ9D".into(),
                ),
            ),
            (
                "sha256 with rounds",
                "opensesame",
                PasswordHash::ShaCrypt(
                    2000,
                    "$5$rounds=2000$saltsalt$HkyUmHXmY4MYXom.E7.ER033LeFNHM.fJQMMu0B9SY1".into(),
                ),
            ),
            (
                "sha512",
                "opensesame",
                PasswordHash::ShaCrypt(
                    5000,
                    "$6$saltsalt$/dpv42BvGInVKxDULxBMfXE6CN.oHtXdmTeHWMcv5rsd81TjdKcroane5LphAqgVenp/4K1qV/7eYEdl4XS9O/"
                        .into(),
                ),
            ),
            (
                "bcrypt",
                "opensesame",
                PasswordHash::Bcrypt(
                    5,
                    "$2y$05$abcdefghijklmnopqrstuuQbLfdQZSxZ9gjhA5V9o8Tyc6aQRO0Qi".into(),
                ),
            ),
            (
                "sha1",
                "opensesame",
                PasswordHash::Sha1 {
                    digest: *plain,
                    salt: Box::default(),
                },
            ),
            (
                "salted sha1",
                "opensesame",
                PasswordHash::Sha1 {
                    digest: *salted,
                    salt: (*b"salt").into(),
                },
            ),
            ("plain", "opensesame", PasswordHash::Plain("opensesame".into())),
        ] {
            assert!(verify(password.as_bytes(), &hash), "{scheme}");
            for wrong in [&password.to_uppercase(), "opensesam", "opensesame ", "x"] {
                let is_it = *wrong == *password;
                assert_eq!(verify(wrong.as_bytes(), &hash), is_it, "{scheme}: {wrong}");
            }
        }
    }
}
