use proptest::prelude::*;

use super::*;

/// Name, path, forwarded form, matched form.
const CASES: &[(&str, &str, &str, &str)] = &[
    ("plain", "/a/b", "/a/b", "/a/b"),
    ("root", "/", "/", "/"),
    ("trailing slash", "/a/", "/a/", "/a/"),
    ("dot segment", "/a/./b", "/a/b", "/a/b"),
    ("parent", "/x/../admin", "/admin", "/admin"),
    ("parent at the end", "/a/b/..", "/a/", "/a/"),
    ("parent of the root", "/../../a", "/a", "/a"),
    ("only a parent", "/..", "/", "/"),
    ("encoded dots", "/x/%2e%2E/admin", "/admin", "/admin"),
    ("half encoded dots", "/x/.%2e/admin", "/admin", "/admin"),
    ("encoded letter", "/%61dmin", "/admin", "/admin"),
    ("unreserved", "/%7euser/%2D%5f", "/~user/-_", "/~user/-_"),
    ("encoded slash is data", "/a%2Fb", "/a%2Fb", "/a%2Fb"),
    (
        "encoded percent stays",
        "/%252e%252e/a",
        "/%252e%252e/a",
        "/%252e%252e/a",
    ),
    ("space", "/a%20b", "/a%20b", "/a%20b"),
    ("UTF-8", "/caf%c3%a9", "/caf%c3%a9", "/caf%c3%a9"),
    (
        "overlong dots are not dots",
        "/%c0%ae%c0%ae/admin",
        "/%c0%ae%c0%ae/admin",
        "/%c0%ae%c0%ae/admin",
    ),
    ("three dots are a name", "/.../a", "/.../a", "/.../a"),
    (
        "hidden file",
        "/.well-known/x",
        "/.well-known/x",
        "/.well-known/x",
    ),
    ("repeated slashes", "//admin//x", "//admin//x", "/admin/x"),
    (
        "slashes behind a parent",
        "/x/..//admin",
        "//admin",
        "/admin",
    ),
    ("parameters", "/admin;a=b/x;c", "/admin;a=b/x;c", "/admin/x"),
];

#[test]
fn ingress_t12_paths_have_one_normal_form() {
    for (name, path, forwarded, matched) in CASES {
        let canonical = CanonicalPath::parse(path).unwrap();
        assert_eq!(canonical.forwarded(), *forwarded, "{name}");
        assert_eq!(canonical.matched(), *matched, "{name}");
        assert_eq!(canonical.is_unchanged(), path == forwarded, "{name}");
    }
}

#[test]
fn reliability_b5_paths_without_a_normal_form_are_refused() {
    for (name, path) in [
        ("NUL", "/admin%00.html"),
        ("control character", "/admin%09"),
        ("DEL", "/admin%7f"),
        ("backslash", "/x\\..\\admin"),
        ("encoded backslash", "/x%5c..%5Cadmin"),
        ("fragment", "/a#b"),
        ("cut escape", "/a%2"),
        ("bad escape", "/a%zz"),
        ("signed escape", "/a%+1"),
        ("lone percent", "/a%"),
        ("parent with parameters", "/x/..;/admin"),
        ("parent with a value", "/x/..;a=b/admin"),
        ("encoded parent with parameters", "/x/%2e%2e;/admin"),
        ("dot with parameters", "/x/.;/admin"),
        ("parent behind an encoded slash", "/x%2f..%2fadmin"),
        (
            "encoded parent behind an encoded slash",
            "/x%2F%2e%2e%2Fadmin",
        ),
        ("parent before an encoded slash", "/..%2fadmin"),
    ] {
        let refused = CanonicalPath::parse(path).map_err(|e| e.kind());
        assert_eq!(refused, Err(ErrorKind::BadRequest), "{name}");
    }
}

proptest! {
    #[test]
    fn reliability_b5_the_normal_form_of_a_normal_form_is_itself(
        path in "(/(\\.|\\.\\.|%2e|%2F|%61|a|b;c|%c3%a9|\\.\\.;|)){0,6}/?[a-z.%;]{0,4}"
    ) {
        let path = format!("/{path}");
        if let Ok(canonical) = CanonicalPath::parse(&path) {
            let again = CanonicalPath::parse(canonical.forwarded()).unwrap();
            prop_assert_eq!(again.forwarded(), canonical.forwarded());
            prop_assert_eq!(again.matched(), canonical.matched());
            // What a backend might make of the forwarded form by merging slashes and dropping
            // parameters is what was matched.
            let merged = CanonicalPath::parse(canonical.matched()).unwrap();
            prop_assert_eq!(merged.matched(), canonical.matched());
        }
    }
}
