//! One normal form of a path, for matching, filters and forwarding alike.
//!
//! Whoever decides on a path and whoever serves it must mean the same thing. So the path is put
//! into a form that leaves nothing to interpret, and what has no such form is refused:
//! - `.` and `..` segments are resolved, written as they are or percent-encoded;
//! - escapes of unreserved characters (RFC 3986, 2.3) are decoded;
//! - `%2F` stays as it is: it is data, not a separator;
//! - refused: a malformed escape, an encoded control character or NUL, `\` and `%5C` (a separator
//!   for some servers), `..;` (a parent for others), dot segments beside `%2F`.
//!
//! Two things that servers read in different ways are left in the path that is forwarded and taken
//! out of the one that is matched: repeated slashes, and `;parameters` of a segment. A rule for
//! `/admin` therefore also covers `//admin` and `/admin;x=1`.

use std::borrow::Cow;

use crate::{Error, ErrorKind};

/// A path in normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    forwarded: Cow<'a, str>,
    matched: Option<String>,
}

impl<'a> CanonicalPath<'a> {
    /// The normal form of a path that begins with `/` and has no query. Allocates only if the path
    /// is not in normal form already.
    ///
    /// # Errors
    /// The path has no normal form ([`ErrorKind::BadRequest`]).
    pub fn parse(path: &'a str) -> Result<Self, Error> {
        if is_plain(path) {
            return Ok(Self {
                forwarded: Cow::Borrowed(path),
                matched: None,
            });
        }
        let decoded = decode_unreserved(path)?;
        let resolved = resolve(&decoded)?;
        let matched = matched_form(&resolved);
        Ok(Self {
            matched: (matched != resolved).then_some(matched),
            forwarded: if resolved == path {
                Cow::Borrowed(path)
            } else {
                Cow::Owned(resolved)
            },
        })
    }

    /// What rules are compared with.
    pub fn matched(&self) -> &str {
        self.matched.as_deref().unwrap_or(&self.forwarded)
    }

    /// What the backend gets if no filter rewrites it.
    pub fn forwarded(&self) -> &str {
        &self.forwarded
    }

    /// The path was in normal form already.
    pub fn is_unchanged(&self) -> bool {
        matches!(self.forwarded, Cow::Borrowed(_))
    }
}

fn bad(detail: &'static str) -> Error {
    Error::new(ErrorKind::BadRequest, detail)
}

/// Nothing in it needs a second look: the common case, one pass.
fn is_plain(path: &str) -> bool {
    let mut previous = 0;
    for byte in path.bytes() {
        match byte {
            b'%' | b'\\' | b';' | b'#' | 0..=0x20 | 0x7f => return false,
            // A segment that begins with a dot may be a dot segment.
            b'/' | b'.' if previous == b'/' => return false,
            _ => previous = byte,
        }
    }
    true
}

/// Decodes escapes of unreserved characters and refuses what must not be there.
fn decode_unreserved(path: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\', '#', '\0']) {
        let (before, special) = rest.split_at(at);
        out.push_str(before);
        let Some(escape) = special.strip_prefix('%') else {
            return Err(bad("the path has a character that must be encoded"));
        };
        let byte = escape
            .get(..2)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .ok_or_else(|| bad("the path has a malformed escape"))?;
        match byte {
            0..=0x1f | 0x7f => return Err(bad("the path has an encoded control character")),
            b'\\' => return Err(bad("the path has an encoded backslash")),
            b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') => {
                out.push(char::from(b));
            }
            _ => out.push_str(special.get(..3).unwrap_or_default()),
        }
        rest = special.get(3..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(out)
}

/// Resolves dot segments (RFC 3986, 5.2.4). The path's first segment is the empty one before `/`.
fn resolve(path: &str) -> Result<String, Error> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ if hides_dots(segment) => {
                return Err(bad("the path has a dot segment in disguise"));
            }
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

/// `..;x` is `..` to servers that drop parameters first, `a%2F..` to those that decode first.
fn hides_dots(segment: &str) -> bool {
    let is_dots = |part: &str| matches!(part, "." | "..");
    let name = segment.split(';').next().unwrap_or_default();
    if name.len() < segment.len() && is_dots(name) {
        return true;
    }
    segment.contains('%')
        && segment
            .to_ascii_lowercase()
            .split("%2f")
            .any(|part| is_dots(part.split(';').next().unwrap_or_default()))
}

fn matched_form(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for segment in path.split('/').skip(1) {
        let name = segment.split(';').next().unwrap_or_default();
        if !out.ends_with('/') {
            out.push('/');
        }
        out.push_str(name);
    }
    out
}

#[cfg(test)]
mod tests;
