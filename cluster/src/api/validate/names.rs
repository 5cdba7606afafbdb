//! Rules for names and other short texts. Each gives what is wrong with a text, in the words of
//! the API server; nothing if it is fine.

use std::net::IpAddr;

const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
const HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";

/// A text is fine if it is not longer than `longest` and `valid` holds.
fn check(text: &str, longest: usize, valid: bool, message: &str) -> Vec<String> {
    let mut problems = at_most(text, longest);
    if !valid {
        problems.push(message.to_owned());
    }
    problems
}

fn at_most(text: &str, longest: usize) -> Vec<String> {
    match text.len() > longest {
        true => vec![format!("must be no more than {longest} characters")],
        false => Vec::new(),
    }
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Text of `inner` bytes that starts and ends with `outer` bytes.
fn is_framed(text: &str, outer: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| outer(*b))
        && bytes.last().is_some_and(|b| outer(*b))
        && bytes.iter().all(|b| inner(*b))
}

fn is_label(text: &str) -> bool {
    is_framed(text, is_lower, |b| is_lower(b) || b == b'-')
}

fn is_qualified(text: &str) -> bool {
    is_framed(
        text,
        |b| b.is_ascii_alphanumeric(),
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
    )
}

/// A DNS subdomain (RFC 1123): most names of objects.
pub(super) fn subdomain(text: &str) -> Vec<String> {
    check(text, 253, text.split('.').all(is_label), SUBDOMAIN)
}

/// A DNS label (RFC 1123): namespaces, containers, volumes, host names.
pub(super) fn label(text: &str) -> Vec<String> {
    let message = match text.split('.').all(is_label) {
        true => "must not contain dots",
        false => LABEL,
    };
    check(text, 63, is_label(text), message)
}

/// A DNS label that starts with a letter (RFC 1035): services.
pub(super) fn label_1035(text: &str) -> Vec<String> {
    let letter = text.starts_with(|c: char| c.is_ascii_lowercase());
    check(text, 63, letter && is_label(text), LABEL_1035)
}

/// `*.` and a DNS subdomain.
pub(super) fn wildcard(text: &str) -> Vec<String> {
    let rest = text.strip_prefix("*.");
    let valid = rest.is_some_and(|rest| rest.split('.').all(is_label));
    check(text, 253, valid, WILDCARD)
}

/// A name that can stand in a URL path: roles.
pub(super) fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .into_iter()
        .filter(|part| text.contains(part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// A name with an optional domain before it: keys of labels and annotations, finalizers.
pub(super) fn qualified(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            problems.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            let found = subdomain(prefix);
            problems.extend(found.into_iter().map(|text| format!("prefix part {text}")));
            name
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    }
    let found = check(name, 63, is_qualified(name), QUALIFIED);
    problems.extend(found.into_iter().map(|text| format!("name part {text}")));
    problems
}

/// The value of a label.
pub(super) fn label_value(text: &str) -> Vec<String> {
    check(text, 63, text.is_empty() || is_qualified(text), LABEL_VALUE)
}

/// A key of a ConfigMap or Secret, which becomes a file name.
pub(super) fn config_key(text: &str) -> Vec<String> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let valid = !text.is_empty() && text.bytes().all(valid);
    let mut problems = check(text, 253, valid, CONFIG_KEY);
    if matches!(text, "." | "..") {
        problems.push(format!("must not be '{text}'"));
    } else if text.starts_with("..") {
        problems.push("must not start with '..'".to_owned());
    }
    problems
}

/// The name of an environment variable: printable ASCII but for `=`.
pub(super) fn variable(text: &str) -> Vec<String> {
    let valid = |b: u8| (b' '..=b'~').contains(&b) && b != b'=';
    match text.bytes().all(valid) {
        true => Vec::new(),
        false => vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()],
    }
}

/// A path that stays below where it starts.
pub(super) fn descending_path(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.starts_with('/') {
        problems.push("must be a relative path".to_owned());
    }
    if text.split('/').any(|part| part == "..") {
        problems.push("must not contain '..'".to_owned());
    }
    problems
}

/// A network in CIDR notation.
pub(super) fn cidr(text: &str) -> Vec<String> {
    let valid = text.split_once('/').is_some_and(|(ip, bits)| {
        let most = match ip.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    });
    match valid {
        true => Vec::new(),
        false => {
            vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
        }
    }
}

/// The name of an HTTP header.
pub(super) fn header(text: &str) -> Vec<String> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let valid = !text.is_empty() && text.bytes().all(valid);
    check(text, usize::MAX, valid, HEADER)
}

/// `N%`.
pub(super) fn percent(text: &str) -> Vec<String> {
    let number = text.strip_suffix('%').unwrap_or_default();
    let valid = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    check(text, usize::MAX, valid, PERCENT)
}

/// The name of a port (IANA service name).
pub(super) fn port_name(text: &str) -> Vec<String> {
    let mut problems = at_most(text, 15);
    let mut unless = |valid: bool, problem: &str| {
        if !valid {
            problems.push(problem.to_owned());
        }
    };
    unless(
        text.bytes().all(|b| is_lower(b) || b == b'-'),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    unless(
        text.bytes().any(|b| b.is_ascii_lowercase()),
        "must contain at least one letter (a-z)",
    );
    unless(!text.contains("--"), "must not contain consecutive hyphens");
    unless(
        !text.starts_with('-') && !text.ends_with('-'),
        "must not begin or end with a hyphen",
    );
    problems
}

/// The number of a port.
pub(super) fn port_number(number: i64) -> Option<&'static str> {
    (!(1..=65_535).contains(&number)).then_some("must be between 1 and 65535, inclusive")
}

/// An IP address.
pub(super) fn ip(text: &str) -> Result<IpAddr, &'static str> {
    text.parse()
        .map_err(|_invalid| "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
}
