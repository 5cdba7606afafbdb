//! Requests that are sent elsewhere.

use super::{Case, Common, Difference, compare, gets};

#[tokio::test]
async fn ingress_a2_redirects_to_https_are_those_of_nginx() {
    let targets = [
        "/",
        "/a",
        "/a/",
        "/a//",
        "/a/?b=c",
        "/a?b=c/",
        "/%66oo",
        "/.well-known/acme-challenge/token",
    ];
    let with_port = "GET /a HTTP/1.1\nHost: force.test:8080".to_owned();
    let claims = "GET /a HTTP/1.1\nX-Forwarded-Proto: https".to_owned();
    let cases = vec![
        Case {
            name: "force",
            annotations: &[("force-ssl-redirect", "true")],
            server: "
                location /.well-known/acme-challenge { PROXY }
                location / { return 308 https://$host$without_slash; }",
            requests: [gets(&targets), vec![with_port, claims]].concat(),
            ..Case::default()
        },
        Case {
            name: "slash",
            annotations: &[
                ("force-ssl-redirect", "true"),
                ("preserve-trailing-slash", "true"),
            ],
            server: "
                location /.well-known/acme-challenge { PROXY }
                location / { return 308 https://$host$request_uri; }",
            requests: gets(&targets),
            ..Case::default()
        },
        // No certificate, so there is nothing to be sent to.
        Case {
            name: "bare",
            annotations: &[("ssl-redirect", "true")],
            requests: gets(&["/", "/a/"]),
            ..Case::default()
        },
    ];
    compare(cases, Common::default(), &[]).await;
}

#[tokio::test]
async fn ingress_a13_redirects_elsewhere_are_those_of_nginx() {
    let targets = ["/", "/a/b?c=d", "/a%20b", "/a/../b"];
    let requests = || {
        let post = "POST /a HTTP/1.1\nContent-Length: 1\n\nx".to_owned();
        [gets(&targets), vec![post]].concat()
    };
    let cases = vec![
        Case {
            name: "permanent",
            annotations: &[("permanent-redirect", "https://new.test")],
            server: "location / { return 301 https://new.test; }",
            requests: requests(),
            ..Case::default()
        },
        Case {
            name: "code",
            annotations: &[
                ("permanent-redirect", "https://new.test$request_uri"),
                ("permanent-redirect-code", "308"),
            ],
            server: "location / { return 308 https://new.test$request_uri; }",
            requests: requests(),
            ..Case::default()
        },
        Case {
            name: "temporal",
            annotations: &[
                (
                    "temporal-redirect",
                    "$scheme://$host.new.test$uri$is_args$args",
                ),
                ("permanent-redirect", "https://old.test"),
            ],
            server: "location / { return 302 $scheme://$host.new.test$uri$is_args$args; }",
            requests: requests(),
            ..Case::default()
        },
        Case {
            name: "path",
            annotations: &[
                ("temporal-redirect", "/moved"),
                ("temporal-redirect-code", "303"),
            ],
            server: "location / { return 303 /moved; }",
            requests: requests(),
            ..Case::default()
        },
        Case {
            name: "root",
            annotations: &[("app-root", "/app")],
            server: "
                if ($uri = /) { return 302 $scheme://$http_host/app; }
                location / { PROXY }",
            requests: [
                gets(&["/", "/?x=1", "//", "/x", "/app", "/x/.."]),
                vec!["GET / HTTP/1.1\nHost: root.test:8080".to_owned()],
            ]
            .concat(),
            ..Case::default()
        },
        // A redirect comes before access lists.
        Case {
            name: "denied",
            annotations: &[
                ("permanent-redirect", "https://new.test"),
                ("denylist-source-range", "127.0.0.0/8"),
            ],
            server: "location / { deny 127.0.0.0/8; return 301 https://new.test; }",
            requests: gets(&["/"]),
            ..Case::default()
        },
    ];
    let of = |case, request, nginx, ours, why| Difference {
        case,
        request,
        what: "location",
        nginx,
        ours,
        why,
    };
    let raw =
        "A13: the path as it came; nginx decodes it, so a client could write lines of the answer";
    let differences = [
        of(
            "temporal",
            "GET /a%20b",
            "http://temporal.test.new.test/a b",
            "http://temporal.test.new.test/a%20b",
            raw,
        ),
        of(
            "temporal",
            "GET /a/..",
            "http://temporal.test.new.test/b",
            "http://temporal.test.new.test/a/../b",
            raw,
        ),
        of(
            "path",
            "",
            "http://path.test/moved",
            "/moved",
            "A13: a path is enough (RFC 9110, 10.2.2), and right behind another proxy too",
        ),
    ];
    compare(cases, Common::default(), &differences).await;
}
