//! Image references: `[REGISTRY[:PORT]/]PATH[:TAG][@DIGEST]` (the distribution reference grammar).

/// A valid image reference, its name without the default registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) struct Reference<'a> {
    /// Name without tag, digest and the prefixes of Docker Hub.
    pub(in crate::runtime) name: &'a str,
    /// Tag, if one is written.
    pub(in crate::runtime) tag: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// Parses a reference; `None` if it breaks the grammar.
    pub(in crate::runtime) fn parse(image: &'a str) -> Option<Self> {
        let (tagged, digest) = match image.split_once('@') {
            Some((tagged, digest)) => (tagged, Some(digest)),
            None => (image, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return None;
        }
        let (name, tag) = split_tag(tagged);
        if tag.is_some_and(|tag| !is_tag(tag)) || !is_name(name) {
            return None;
        }
        Some(Self {
            name: familiar(name),
            tag,
        })
    }
}

/// Splits at the colon that begins the tag: the last one, unless a slash follows (a registry's port).
pub(super) fn split_tag(image: &str) -> (&str, Option<&str>) {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (image, None),
    }
}

/// The name as users write it: without Docker Hub's registry and library.
pub(super) fn familiar(name: &str) -> &str {
    let Some(rest) = name.strip_prefix("docker.io/") else {
        return name;
    };
    rest.strip_prefix("library/").unwrap_or(rest)
}

fn is_tag(tag: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (1..=128).contains(&tag.len()) && tag.chars().all(allowed) && !tag.starts_with(['.', '-'])
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

fn is_name(name: &str) -> bool {
    if name.len() > 255 {
        return false;
    }
    let mut parts = name.split('/').peekable();
    let first = parts.peek().copied().unwrap_or_default();
    let has_registry = name.contains('/')
        && (first.contains(['.', ':']) || first == "localhost")
        && is_registry(first);
    if has_registry {
        parts.next();
    }
    parts.all(is_path_component)
}

fn is_registry(host: &str) -> bool {
    let (host, port) = host.split_once(':').unwrap_or((host, "0"));
    !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case letters and digits, with `.`, `_`, `__` or dashes between them.
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes
            .iter()
            .all(|&b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
        && !["..", "___", "._", "_.", ".-", "-.", "_-", "-_"]
            .iter()
            .any(|bad| part.contains(bad))
}
