//! What is changed of answers: `proxy-cookie-domain`, `proxy-cookie-path`, `proxy-redirect-from` and
//! `proxy-redirect-to`.

use super::{Reader, redirect};
use crate::model::{Replacement, Template};

/// `proxy-redirect-from` and `-to`, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    from: Option<Box<str>>,
    to: Option<Template>,
}

/// Whether an annotation is read here.
pub(super) fn is(name: &str) -> bool {
    let names = [
        "proxy-cookie-domain",
        "proxy-cookie-path",
        "proxy-redirect-from",
        "proxy-redirect-to",
    ];
    names.contains(&name)
}

impl Reader<'_> {
    pub(super) fn answer(&mut self, name: &str, value: &str) {
        match name {
            "proxy-cookie-domain" => {
                let rule = self.or_report(name, replacement(value)).flatten();
                self.route.answers.cookie_domain = rule.map(|rule| Replacement {
                    from: rule.from.trim_start_matches('.').to_lowercase().into(),
                    ..rule
                });
            }
            "proxy-cookie-path" => {
                let rule = self.or_report(name, replacement(value));
                self.route.answers.cookie_path = rule.flatten();
            }
            "proxy-redirect-from" if !is_off(value) => {
                self.redirects.from = self.or_report(name, plain(value));
            }
            "proxy-redirect-to" if !is_off(value) => {
                self.redirects.to = self.or_report(name, redirect::location(value));
            }
            _ => {}
        }
    }

    /// One of the two alone changes nothing, as with ingress-nginx.
    pub(super) fn answers(&mut self) {
        let Redirects { from, to } = std::mem::take(&mut self.redirects);
        self.route.answers.redirect = from.zip(to);
    }
}

/// `default` depends on the address of a backend, which ingress-nginx does not have there either.
fn is_off(value: &str) -> bool {
    matches!(value, "off" | "default")
}

/// `FROM TO`, or nothing if it is switched off.
fn replacement(text: &str) -> Result<Option<Replacement>, String> {
    if text == "off" {
        return Ok(None);
    }
    let words = words(text)?;
    let [from, to] = words.as_slice() else {
        return Err(format!("`{text}` is not of the form FROM TO"));
    };
    let (from, to) = (plain(from)?, plain(to)?);
    Ok(Some(Replacement { from, to }))
}

/// Words between spaces; quotes hold one together.
fn words(text: &str) -> Result<Vec<&str>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, behind) = if matches!(first, '"' | '\'') {
            let split = rest[1..].split_once(first);
            split.ok_or_else(|| format!("`{text}` has a quote without an end"))?
        } else {
            rest.split_once(char::is_whitespace).unwrap_or((rest, ""))
        };
        words.push(word);
        rest = behind.trim_start();
    }
    Ok(words)
}

/// Text as it stands: neither a regular expression nor one with variables.
fn plain(text: &str) -> Result<Box<str>, String> {
    let is_text = |b: u8| b.is_ascii_graphic() || b == b' ';
    if text.is_empty() || text.starts_with('~') || !text.bytes().all(|b| is_text(b) && b != b'$') {
        return Err(format!(
            "`{text}` is not plain text: regular expressions and variables are not supported here"
        ));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a17_replacements_are_plain_text() {
        for (text, expected) in [
            ("/one/ /", Some(Some(("/one/", "/")))),
            ("  a.test\t b.test ", Some(Some(("a.test", "b.test")))),
            (r#"/ "/; Secure""#, Some(Some(("/", "/; Secure")))),
            ("/ '/; Secure'", Some(Some(("/", "/; Secure")))),
            ("off", Some(None)),
            ("", None),
            ("/one", None),
            ("/one /two /three", None),
            (r#"/one "/two"#, None),
            (r#"/one """#, None),
            ("~^/(.*) /app/$1", None),
            ("a.test $host", None),
            ("/ \"/\r\nSet-Cookie: x\"", None),
            ("/ \"/\u{e9}\"", None),
        ] {
            let read = replacement(text).ok();
            let expected = expected.map(|rule| {
                rule.map(|(from, to)| Replacement {
                    from: from.into(),
                    to: to.into(),
                })
            });
            assert_eq!(read, expected, "{text}");
        }
    }
}
