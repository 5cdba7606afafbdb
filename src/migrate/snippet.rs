//! Snippets of nginx's configuration: which directives they have, and which annotation says the same.

use std::collections::BTreeSet;

/// What of ours says what a directive says, by directive. `None`: nothing does yet.
const DIRECTIVES: &[(&str, Option<&str>)] = &[
    ("access_log", Some("enable-access-log")),
    ("add_header", Some("custom-headers")),
    ("allow", Some("whitelist-source-range")),
    ("auth_basic", Some("auth-type and auth-secret")),
    ("auth_basic_user_file", Some("auth-type and auth-secret")),
    ("auth_request", Some("auth-url")),
    ("auth_request_set", Some("auth-response-headers")),
    ("client_max_body_size", Some("proxy-body-size")),
    ("deny", Some("denylist-source-range")),
    ("error_page", Some("custom-http-errors")),
    ("limit_conn", Some("limit-connections")),
    ("limit_req", Some("limit-rps or limit-rpm")),
    ("mirror", Some("mirror-target")),
    ("more_clear_headers", None),
    ("more_set_headers", Some("custom-headers")),
    ("proxy_connect_timeout", Some("proxy-connect-timeout")),
    ("proxy_cookie_domain", Some("proxy-cookie-domain")),
    ("proxy_cookie_path", Some("proxy-cookie-path")),
    ("proxy_next_upstream", Some("proxy-next-upstream")),
    ("proxy_read_timeout", Some("proxy-read-timeout")),
    (
        "proxy_redirect",
        Some("proxy-redirect-from and proxy-redirect-to"),
    ),
    ("proxy_send_timeout", Some("proxy-send-timeout")),
    ("proxy_ssl_name", Some("proxy-ssl-name")),
    ("proxy_ssl_verify", Some("proxy-ssl-verify")),
    ("rewrite", Some("rewrite-target")),
    ("satisfy", Some("satisfy")),
];

/// Directives about nginx's own buffers: they can go.
const INWARD: [&str; 6] = [
    "client_body_buffer_size",
    "proxy_buffer_size",
    "proxy_buffering",
    "proxy_buffers",
    "proxy_busy_buffers_size",
    "proxy_request_buffering",
];

/// How many directives of a snippet are looked at.
const MOST: usize = 200;

/// What to do about each kind of directive of a snippet, in the order in which they first come.
pub(super) fn replacements(text: &str) -> Vec<String> {
    let mut said = BTreeSet::new();
    let advice = directives(text)
        .into_iter()
        .map(|words| replacement(&words));
    advice
        .filter(|advice| said.insert(advice.clone()))
        .collect()
}

fn replacement(words: &[String]) -> String {
    let name = words.first().map_or("", String::as_str);
    let first = words.get(1).map_or("", String::as_str);
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) {
        return "a line that is no directive of nginx: it can go".to_owned();
    }
    let field = first
        .split(':')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let instead = match name {
        "add_header" | "more_set_headers" if field.starts_with("access-control-") => {
            Some("enable-cors and its companions")
        }
        "add_header" | "more_set_headers" if field == "strict-transport-security" => {
            Some("hsts and its companions in the gateway's ConfigMap")
        }
        "proxy_set_header" if field == "host" => Some("upstream-vhost"),
        "proxy_set_header" if field == "x-forwarded-prefix" => Some("x-forwarded-prefix"),
        "return" if matches!(first, "301" | "308") => Some("permanent-redirect"),
        "return" if matches!(first, "302" | "303" | "307") => Some("temporal-redirect"),
        "return" if matches!(first, "403" | "404") => {
            Some("denylist-source-range: 0.0.0.0/0, at an Ingress for that path")
        }
        _ if INWARD.contains(&name) => return format!("{name}: nothing, it can go"),
        _ => {
            let known = DIRECTIVES.iter().find(|(directive, _)| *directive == name);
            known.and_then(|(_, instead)| *instead)
        }
    };
    match instead {
        Some(instead) => format!("{name}: {instead}"),
        None => format!("{name}: no replacement yet"),
    }
}

/// The directives of a snippet, each its words; those in blocks stand behind the block's own.
fn directives(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => word.extend(chars.next()),
            '#' if word.is_empty() => {
                chars.by_ref().find(|c| *c == '\n');
            }
            '"' | '\'' if word.is_empty() => {
                while let Some(inside) = chars.next().filter(|inside| *inside != char) {
                    match inside {
                        '\\' => word.extend(chars.next()),
                        inside => word.push(inside),
                    }
                }
                words.push(std::mem::take(&mut word));
            }
            ';' | '{' | '}' => {
                end_word(&mut words, &mut word);
                if !words.is_empty() {
                    found.push(std::mem::take(&mut words));
                }
                if found.len() == MOST {
                    return found;
                }
            }
            char if char.is_whitespace() => end_word(&mut words, &mut word),
            char => word.push(char),
        }
    }
    end_word(&mut words, &mut word);
    if !words.is_empty() {
        found.push(words);
    }
    found
}

fn end_word(words: &mut Vec<String>, word: &mut String) {
    if !word.is_empty() {
        words.push(std::mem::take(word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a19_each_directive_of_a_snippet_has_its_replacement() {
        for (snippet, expected) in [
            ("", &[][..]),
            ("# nothing\n", &[]),
            (
                "more_set_headers \"X-One: a; b\"; add_header X-Two 'c } d';",
                &[
                    "more_set_headers: custom-headers",
                    "add_header: custom-headers",
                ],
            ),
            (
                "more_set_headers 'Access-Control-Allow-Origin: *';\nadd_header Strict-Transport-Security 1;",
                &[
                    "more_set_headers: enable-cors and its companions",
                    "add_header: hsts and its companions in the gateway's ConfigMap",
                ],
            ),
            (
                "location ~ /admin { deny all; return 403; }",
                &[
                    "location: no replacement yet",
                    "deny: denylist-source-range",
                    "return: denylist-source-range: 0.0.0.0/0, at an Ingress for that path",
                ],
            ),
            (
                "if ($host = a.test) { return 301 https://b.test$request_uri; }",
                &["if: no replacement yet", "return: permanent-redirect"],
            ),
            (
                "proxy_set_header Host x; proxy_set_header X-A b; proxy_set_header X-B b;",
                &[
                    "proxy_set_header: upstream-vhost",
                    "proxy_set_header: no replacement yet",
                ],
            ),
            (
                "proxy_buffering off",
                &["proxy_buffering: nothing, it can go"],
            ),
            ("sub_filter a b;", &["sub_filter: no replacement yet"]),
            (
                "\u{1b}[2J evil;",
                &["a line that is no directive of nginx: it can go"],
            ),
            (
                "\"unclosed \\",
                &["a line that is no directive of nginx: it can go"],
            ),
        ] {
            assert_eq!(replacements(snippet), expected, "{snippet}");
        }
        assert!(directives(&"a;".repeat(100_000)).len() <= MOST);
    }
}
