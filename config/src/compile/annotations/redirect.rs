//! Where redirects lead.

use std::sync::Arc;

use crate::model::{Part, Template};

/// nginx's variables that may be used, longest first where one begins with another.
const VARIABLES: [(&str, Part); 8] = [
    ("escaped_request_uri", Part::EscapedRequestUri),
    ("request_uri", Part::RequestUri),
    ("is_args", Part::QuestionMark),
    ("scheme", Part::Scheme),
    ("http_host", Part::HostAndPort),
    ("host", Part::Host),
    ("args", Part::Query),
    ("uri", Part::Path),
];

/// Whether a text is a URL with a host.
pub(in crate::compile) fn is_url(text: &str) -> bool {
    ["http://", "https://", "$scheme://"]
        .iter()
        .any(|begin| text.starts_with(begin))
}

/// A URL, in which nginx's variables may stand for parts of the request.
pub(super) fn location(text: &str) -> Result<Template, String> {
    if !is_url(text) && !text.starts_with('/') {
        return Err(format!("`{text}` is neither a URL nor a path"));
    }
    template(text)
}

/// A URL, in which `$1` to `$9` may stand for the groups of a path.
pub(super) fn rewrite(text: &str) -> Result<Arc<str>, String> {
    let mut behind = text.split('$').skip(1);
    if behind.any(|rest| !rest.starts_with(|c| ('1'..='9').contains(&c))) {
        return Err(format!("`{text}` has variables other than $1 to $9"));
    }
    super::header_value(text)
}

/// A text in which nginx's variables may stand for parts of the request.
pub(super) fn template(text: &str) -> Result<Template, String> {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "`{text}` has blanks or characters that are not ASCII"
        ));
    }
    parts(text)
}

/// The same for any text.
pub(in crate::compile) fn parts(text: &str) -> Result<Template, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        if !before.is_empty() {
            parts.push(Part::Text(before.into()));
        }
        let (name, behind) = variable(after)?;
        let part = VARIABLES.iter().find(|(known, _)| *known == name);
        let Some((_, part)) = part else {
            let known: Vec<String> = VARIABLES.iter().map(|(n, _)| format!("${n}")).collect();
            return Err(format!("`${name}` is not one of {}", known.join(", ")));
        };
        parts.push(part.clone());
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.into()));
    }
    Ok(Template(parts.into()))
}

/// The variable's name behind a `$`, in braces or not, and what follows it.
pub(super) fn variable(text: &str) -> Result<(&str, &str), String> {
    if let Some(braced) = text.strip_prefix('{') {
        return braced
            .split_once('}')
            .ok_or_else(|| "`${` without `}`".to_owned());
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    Ok(text.split_at(end.unwrap_or(text.len())))
}

/// The path to which requests for `/` are sent.
pub(super) fn app_root(text: &str) -> Result<Arc<str>, String> {
    let is_path = text.starts_with('/') && text.len() > 1;
    if !is_path || !text.bytes().all(|b| b.is_ascii_graphic() && b != b'$') {
        return Err(format!("`{text}` is not a path below /"));
    }
    Ok(text.into())
}

/// A status for a redirect.
pub(in crate::compile) fn status(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(status @ 300..=308) => Ok(status),
        _ => Err(format!("`{text}` is not a status from 300 to 308")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a13_locations_are_urls_with_known_variables() {
        let text = |text: &str| Part::Text(text.into());
        for (written, expected) in [
            (
                "https://new.example.com",
                Some(vec![text("https://new.example.com")]),
            ),
            (
                "https://new.example.com$request_uri",
                Some(vec![text("https://new.example.com"), Part::RequestUri]),
            ),
            (
                "$scheme://${host}.example/x$is_args$args#y",
                Some(vec![
                    Part::Scheme,
                    text("://"),
                    Part::Host,
                    text(".example/x"),
                    Part::QuestionMark,
                    Part::Query,
                    text("#y"),
                ]),
            ),
            ("/moved", Some(vec![text("/moved")])),
            ("new.example.com", None),
            ("https://new.example.com/$arg_token", None),
            ("https://new.example.com/${host", None),
            ("https://new.example.com/\r\nSet-Cookie: x", None),
            ("javascript:alert(1)", None),
            ("", None),
        ] {
            let read = location(written).ok().map(|Template(parts)| parts.to_vec());
            assert_eq!(read, expected, "{written}");
        }
        assert_eq!(app_root("/app").ok().as_deref(), Some("/app"));
        for bad in ["", "/", "app", "/a b", "/$uri"] {
            assert!(app_root(bad).is_err(), "{bad}");
        }
        for (written, expected) in [("300", true), ("308", true), ("299", false), ("x", false)] {
            assert_eq!(status(written).is_ok(), expected, "{written}");
        }
    }
}
