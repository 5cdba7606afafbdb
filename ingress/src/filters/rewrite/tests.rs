use std::sync::Arc;

use sealane_config::model::{Filters, ObjectRef};

use super::*;

fn rewritten(
    pattern: Option<&str>,
    template: Option<&str>,
    target: &str,
) -> Result<String, ErrorKind> {
    let path = match pattern {
        Some(pattern) => PathMatch::Regex(Arc::new(fancy_regex::Regex::new(pattern).unwrap())),
        None => PathMatch::Prefix(Arc::from("/x")),
    };
    let rule = RouteRule {
        source: ObjectRef {
            kind: "Ingress",
            namespace: Arc::from("default"),
            name: Arc::from("a"),
        },
        field: Arc::from("spec.rules[0].http.paths[0]"),
        path,
        filters: Filters {
            rewrite: template.map(|t| Rewrite::Template(Arc::from(t))),
            ..Filters::default()
        },
        backends: Vec::new(),
        invalid: None,
        canary: None,
    };
    let mut request = Request::builder().uri(target).body(Body::empty()).unwrap();
    let canonical = CanonicalPath::parse(request.uri().path()).unwrap();
    let path = Path::of(&canonical);
    apply(&mut request, &rule, path.as_ref()).map_err(|e| e.kind())?;
    Ok(request.uri().to_string())
}

#[test]
fn ingress_a1_rewrite_target_fills_its_template() {
    let something = Some(r"(?i)^/something(/|$)(.*)");
    for (name, pattern, template, target, result) in [
        ("group", something, Some("/$2"), "/something/new", "/new"),
        ("empty group", something, Some("/$2"), "/something", "/"),
        ("slash", something, Some("/$2"), "/something/", "/"),
        (
            "query",
            something,
            Some("/$2"),
            "/something/new?a=$1",
            "/new?a=$1",
        ),
        ("constant", None, Some("/"), "/x/y?q", "/?q"),
        ("no slash", something, Some("$2"), "/something/a", "/a"),
        (
            "missing group",
            something,
            Some("/$9x"),
            "/something/a",
            "/x",
        ),
        ("no digit", something, Some("/$x$"), "/something/a", "/$x$"),
        ("no group 0", something, Some("/$0"), "/something/a", "/$0"),
        (
            "query of its own",
            None,
            Some("/a?b=c"),
            "/x?d=e",
            "/a?b=c&d=e",
        ),
        (
            "canonical",
            something,
            Some("/$2"),
            "/a/../something/b",
            "/b",
        ),
        ("none", None, None, "/x/%7Ea?q=%7E", "/x/~a?q=%7E"),
        ("none, raw", None, None, "/x//a;b?q", "/x//a;b?q"),
    ] {
        assert_eq!(
            rewritten(pattern, template, target).as_deref(),
            Ok(result),
            "{name}"
        );
    }
}

#[test]
fn what_is_not_a_path_is_refused() {
    assert_eq!(
        rewritten(None, Some("/a b\n"), "/x"),
        Err(ErrorKind::BadRequest)
    );
}
