//! Answers that name places as the backend sees them (ingress-nginx `proxy-cookie-domain`,
//! `proxy-cookie-path` and `proxy-redirect-*`).

use http::header::{Entry, HOST, LOCATION, REFRESH, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use sealane_config::model::{AnswerRules, Filters, Replacement};
use sealane_proxy::Error;

use super::redirect;
use crate::matching;

/// What is changed in the answer to one request.
#[derive(Debug)]
pub(crate) struct Changes<'a> {
    rules: &'a AnswerRules,
    /// What redirects begin with, and will instead.
    redirect: Option<(&'a str, String)>,
}

impl<'a> Changes<'a> {
    /// For a request as it came; `None` if nothing is.
    ///
    /// # Errors
    /// A place depends on a host that the request does not name.
    pub(crate) fn of<B>(
        filters: &'a Filters,
        secure: bool,
        request: &Request<B>,
    ) -> Result<Option<Self>, Error> {
        let rules = filters.policy.as_ref().map(|policy| &policy.answers);
        let Some(rules) = rules.filter(|rules| **rules != AnswerRules::default()) else {
            return Ok(None);
        };
        let redirect = match &rules.redirect {
            Some((from, to)) => {
                let scheme = if secure { "https" } else { "http" };
                let host = request.headers().get(HOST);
                let authority = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
                let host = matching::host_name(authority);
                let filling = redirect::Filling {
                    scheme,
                    host: &host,
                    authority,
                    target: request.uri(),
                };
                let to = redirect::fill(to, filling)?;
                Some((&**from, to))
            }
            None => None,
        };
        Ok(Some(Self { rules, redirect }))
    }

    /// Changes an answer's fields.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let AnswerRules {
            cookie_domain,
            cookie_path,
            redirect: _,
        } = self.rules;
        if (cookie_domain.is_some() || cookie_path.is_some())
            && let Entry::Occupied(mut cookies) = headers.entry(SET_COOKIE)
        {
            for value in cookies.iter_mut() {
                replace(value, |text| {
                    cookie(text, cookie_domain.as_ref(), cookie_path.as_ref())
                });
            }
        }
        if let Some((from, to)) = &self.redirect {
            let location = |text: &str| Some(format!("{to}{}", text.strip_prefix(from)?));
            change(headers, &LOCATION, location);
            change(headers, &REFRESH, |text| {
                let at = text.to_ascii_lowercase().find("url=")? + "url=".len();
                Some(format!("{}{}", &text[..at], location(&text[at..])?))
            });
        }
    }
}

fn change(headers: &mut HeaderMap, name: &HeaderName, by: impl Fn(&str) -> Option<String>) {
    if let Some(value) = headers.get_mut(name) {
        replace(value, by);
    }
}

/// Replaces a value by what becomes of it, if that is something and can be a value.
fn replace(value: &mut HeaderValue, change: impl FnOnce(&str) -> Option<String>) {
    let changed = std::str::from_utf8(value.as_bytes()).ok().and_then(change);
    if let Some(changed) = changed.and_then(|text| HeaderValue::try_from(text).ok()) {
        *value = changed;
    }
}

/// A `Set-Cookie` value (RFC 6265, 4.1.1) with attributes replaced; `None` if it stays as it is.
fn cookie(text: &str, domain: Option<&Replacement>, path: Option<&Replacement>) -> Option<String> {
    let (pair, attributes) = text.split_once(';')?;
    let mut changed = false;
    let mut written = pair.to_owned();
    for attribute in attributes.split(';') {
        written.push(';');
        let value = attribute.split_once('=').and_then(|(name, value)| {
            let name = name.trim();
            if name.eq_ignore_ascii_case("domain") {
                domain.and_then(|rule| of_domain(rule, value))
            } else if name.eq_ignore_ascii_case("path") {
                path.and_then(|rule| {
                    Some(format!("{}{}", rule.to, value.strip_prefix(&*rule.from)?))
                })
            } else {
                None
            }
        });
        match (value, attribute.split_once('=')) {
            (Some(value), Some((name, _))) => {
                written.extend([name, "=", &value]);
                changed = true;
            }
            _ => written.push_str(attribute),
        }
    }
    changed.then_some(written)
}

/// A dot before the name stays.
fn of_domain(rule: &Replacement, value: &str) -> Option<String> {
    let name = value.strip_prefix('.').unwrap_or(value);
    let dot = &value[..value.len() - name.len()];
    name.eq_ignore_ascii_case(&rule.from)
        .then(|| format!("{dot}{}", rule.to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a17_attributes_of_cookies_are_replaced_and_nothing_else() {
        let rule = |from: &str, to: &str| Replacement {
            from: from.into(),
            to: to.into(),
        };
        let domain = rule("inner.test", "shop.test");
        let path = rule("/one/", "/");
        for (text, expected) in [
            ("a=b", None),
            ("a=b; Domain=inner.test", Some("a=b; Domain=shop.test")),
            ("a=b;domain=.INNER.test", Some("a=b;domain=.shop.test")),
            ("a=b; Domain=x.inner.test", None),
            ("a=b; Domain=inner.test.evil", None),
            ("Domain=inner.test", None),
            ("a=/one/; Secure", None),
            (
                "a=b; Path=/one/two; HttpOnly; Domain=inner.test",
                Some("a=b; Path=/two; HttpOnly; Domain=shop.test"),
            ),
            ("a=b; Path=/one", None),
            ("a=b; Path=/ONE/", None),
            ("a=b; Path", None),
        ] {
            let changed = cookie(text, Some(&domain), Some(&path));
            assert_eq!(changed.as_deref(), expected, "{text}");
        }
        assert_eq!(
            cookie("a=b; Domain=inner.test; Path=/one/", None, None),
            None
        );
    }
}
