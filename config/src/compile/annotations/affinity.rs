//! Session affinity: `affinity` and `session-cookie-…`.

use std::sync::Arc;
use std::time::Duration;

use super::{PREFIX, Reader};
use crate::model::{AffinityKey, AffinityMode, CookieAffinity, SameSite};

/// ingress-nginx's name for the cookie.
const COOKIE: &str = "INGRESSCOOKIE";

/// What is written about affinity, before all of it is known.
#[derive(Debug, Default)]
pub(super) struct Written {
    by_cookie: bool,
    name: Option<Arc<str>>,
    mode: AffinityMode,
    legacy: bool,
    change_on_failure: bool,
    path: Option<Arc<str>>,
    domain: Option<Arc<str>>,
    expires: Option<Duration>,
    max_age: Option<Duration>,
    same_site: Option<SameSite>,
    conditional_none: bool,
    secure: Option<bool>,
    /// The annotations that mean nothing without `affinity`.
    names: Vec<String>,
}

pub(super) fn is(name: &str) -> bool {
    name == "affinity" || name.starts_with("affinity-") || name.starts_with("session-cookie-")
}

impl Reader<'_> {
    pub(super) fn affinity(&mut self, name: &str, value: &str) {
        match name {
            "affinity" => {
                let read = match value {
                    "cookie" => Ok(true),
                    _ => Err(format!("`{value}` is not cookie")),
                };
                let read = self.or_report_as(name, read, "there is no affinity");
                self.affinity.by_cookie = read.unwrap_or(false);
                return;
            }
            "affinity-canary-behavior" => {
                let read =
                    self.or_report(name, one_of(value, &[("sticky", false), ("legacy", true)]));
                self.affinity.legacy = read.unwrap_or(false);
                return;
            }
            "affinity-mode" => {
                let modes = [
                    ("balanced", AffinityMode::Balanced),
                    ("persistent", AffinityMode::Persistent),
                ];
                self.affinity.mode = self
                    .or_report(name, one_of(value, &modes))
                    .unwrap_or_default();
            }
            "session-cookie-name" => {
                self.affinity.name = self.or_report(name, super::token(value));
            }
            "session-cookie-path" => {
                self.affinity.path =
                    self.or_report(name, attribute(value, |text| text.starts_with('/')));
            }
            "session-cookie-domain" => {
                self.affinity.domain = self.or_report(name, attribute(value, is_domain));
            }
            "session-cookie-expires" => {
                self.affinity.expires = self.or_report(name, seconds(value));
            }
            "session-cookie-max-age" => {
                self.affinity.max_age = self.or_report(name, seconds(value));
            }
            "session-cookie-samesite" => {
                let all = [
                    ("none", SameSite::None),
                    ("lax", SameSite::Lax),
                    ("strict", SameSite::Strict),
                ];
                let read = one_of(&value.to_ascii_lowercase(), &all);
                self.affinity.same_site = self.or_report(name, read);
            }
            "session-cookie-conditional-samesite-none" => {
                self.affinity.conditional_none = self.switch(name, value, false);
            }
            "session-cookie-secure" => {
                self.affinity.secure = Some(self.switch(name, value, true));
            }
            "session-cookie-change-on-failure" => {
                self.affinity.change_on_failure = self.switch(name, value, false);
            }
            _ => {
                self.unknown.push(format!("{PREFIX}{name}"));
                return;
            }
        }
        self.affinity.names.push(format!("{PREFIX}{name}"));
    }

    /// Puts what is said about sessions into the policy.
    pub(super) fn finish_affinity(&mut self, uid: &str) {
        let written = std::mem::take(&mut self.affinity);
        if let Some(canary) = self.policy.canary.as_mut().and_then(Arc::get_mut) {
            canary.ignores_sessions = written.legacy;
        }
        if !written.by_cookie {
            self.report(
                "without effect, because `affinity` is not cookie",
                &written.names,
            );
            return;
        }
        self.route.affinity = Some(Arc::new(CookieAffinity {
            name: written.name.unwrap_or_else(|| COOKIE.into()),
            mode: written.mode,
            change_on_failure: written.change_on_failure,
            path: written.path,
            domain: written.domain,
            expires: written.expires,
            max_age: written.max_age,
            same_site: written.same_site,
            conditional_none: written.conditional_none,
            secure: written.secure,
            key: AffinityKey::new(uid, &self.key.namespace, &self.key.name),
        }));
    }
}

fn one_of<T: Copy>(text: &str, all: &[(&str, T)]) -> Result<T, String> {
    let found = all.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        format!("`{text}` is not one of {}", names.join(", "))
    })
}

/// The value of an attribute of a cookie (RFC 6265, 4.1.1).
fn attribute(text: &str, is_good: impl Fn(&str) -> bool) -> Result<Arc<str>, String> {
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    if text.is_empty() || !is_plain || !is_good(text) {
        return Err(format!("`{text}` cannot be an attribute of a cookie"));
    }
    Ok(text.into())
}

fn is_domain(text: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    text.bytes().all(is_part)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: Result<u32, _> = text.parse();
    seconds
        .map(|seconds| Duration::from_secs(seconds.into()))
        .map_err(|_bad| format!("`{text}` is not a number of seconds"))
}
