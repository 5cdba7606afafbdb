//! Which path takes a request, and what the backend gets.

use super::{Case, Common, Difference, compare, gets};

#[tokio::test]
async fn ingress_i2_paths_are_taken_as_by_nginx() {
    let cases = vec![Case {
        name: "paths",
        paths: &[("Exact", "/exact"), ("Prefix", "/foo"), ("Exact", "/dir/")],
        server: "
            location = /exact { PROXY }
            location = /foo { PROXY }
            location /foo/ { PROXY }
            location = /dir/ { PROXY }
            location / { return 404; }",
        requests: gets(&[
            "/exact",
            "/exact/",
            "/Exact",
            "/exact?x=1",
            "/foo",
            "/foo/",
            "/foo/bar",
            "/foobar",
            "/FOO",
            "/dir/",
            "/dir",
            "/",
            "/a/../foo",
            "/foo/./bar",
            "/%66oo/a%20b",
            "//foo//bar",
            "/foo%2Fbar",
            "/foo?a=/../b",
            "/..",
            "/%00",
            "/%zz",
        ]),
        ..Case::default()
    }];
    let of = |request, what, nginx, ours, why| Difference {
        case: "paths",
        request,
        what,
        nginx,
        ours,
        why,
    };
    let canonical = "T12: backends get the path that was compared, so both mean the same file";
    let slash = "T12: %2F is no separator of a path";
    let relative = "RFC 9110, 10.2.2: a relative Location means the same place";
    let above = "T12: above the root is the root";
    let differences = [
        of("GET /a/..", "target", "/a/../foo", "/foo", canonical),
        of("GET /foo/.", "target", "/foo/./bar", "/foo/bar", canonical),
        of(
            "GET /%66",
            "target",
            "/%66oo/a%20b",
            "/foo/a%20b",
            canonical,
        ),
        of("GET /foo%2F", "passed on", "1", "0", slash),
        of("GET /foo%2F", "status", "200", "404", slash),
        of("GET /.. ", "status", "400", "404", above),
        of(
            "GET /dir ",
            "location",
            "http://paths.test/dir/",
            "/dir/",
            relative,
        ),
    ];
    compare(cases, Common::default(), &differences).await;
}

#[tokio::test]
async fn ingress_a1_regular_expressions_and_rewrites_are_those_of_nginx() {
    let cases = vec![
        Case {
            name: "rewrite",
            annotations: &[("rewrite-target", "/$2")],
            paths: &[("ImplementationSpecific", "/something(/|$)(.*)")],
            server: "
                location ~* \"^/something(/|$)(.*)\" {
                    rewrite \"(?i)/something(/|$)(.*)\" /$2 break;
                    PROXY
                }
                location / { return 404; }",
            requests: gets(&[
                "/something",
                "/something/",
                "/something/new",
                "/SomeThing/New?a=b&c",
                "/something/a%20b",
                "/something/a%2Fb",
                "/something/%E2%82%AC?x=%E2%82%AC",
                "/something/x/../y",
                "/something//x//y",
                "/somethingelse",
                "/other/something/x",
                "/",
            ]),
            ..Case::default()
        },
        Case {
            name: "regex",
            annotations: &[("use-regex", "true")],
            paths: &[
                ("ImplementationSpecific", "/api/v[0-9]+"),
                ("ImplementationSpecific", "/(?!private)[a-z]+/x"),
                ("Exact", "/exact"),
            ],
            server: "
                location ~* \"^/(?!private)[a-z]+/x\" { PROXY }
                location ~* \"^/api/v[0-9]+\" { PROXY }
                location ~* \"^/exact\" { PROXY }
                location / { return 404; }",
            requests: gets(&[
                "/api/v1",
                "/api/v12/pods?x=1",
                "/API/V1",
                "/api/vx",
                "/x/api/v1",
                "/public/x",
                "/private/x",
                "/exact/and/more",
                "/EXACTLY",
                "/",
            ]),
            ..Case::default()
        },
    ];
    let differences = [Difference {
        case: "rewrite",
        request: "GET /something/a%2F",
        what: "target",
        nginx: "/a/b",
        ours: "/a%2Fb",
        why: "T12: %2F is no separator of a path",
    }];
    compare(cases, Common::default(), &differences).await;
}

#[tokio::test]
async fn ingress_t8_backends_are_told_of_the_client_as_by_nginx() {
    let get = |fields: &str| format!("GET /x?y=z HTTP/1.1\n{fields}");
    let cases = vec![Case {
        name: "fields",
        requests: vec![
            get("User-Agent: it"),
            get("X-Forwarded-For: 10.1.2.3\nX-Forwarded-Host: evil.test"),
            get("X-Forwarded-Proto: https\nX-Forwarded-Port: 1\nX-Scheme: https"),
            get("X-Forwarded-Scheme: https\nX-Real-IP: 10.1.2.3"),
            get("X-Request-ID: abc-123"),
            get("X-Request-ID: two words"),
            get("Proxy: http://evil.test"),
            get("X-Custom: one, two"),
            get("X_Under: one"),
            get("Connection: keep-alive\nKeep-Alive: timeout=5"),
            get("Connection: X-Custom\nX-Custom: one"),
            get("Proxy-Connection: keep-alive\nTE: gzip"),
            get("Authorization: Basic dTpw"),
            "POST /x HTTP/1.1\nContent-Length: 5\n\nhello".to_owned(),
            "PUT /x HTTP/1.1\nTransfer-Encoding: chunked\n\n5\nhello\n0".to_owned(),
            "PATCH /x HTTP/1.1\nContent-Length: 0".to_owned(),
            "DELETE /x HTTP/1.1".to_owned(),
            "HEAD /x HTTP/1.1".to_owned(),
            "OPTIONS /x HTTP/1.1".to_owned(),
            "TRACE /x HTTP/1.1".to_owned(),
            "CONNECT x.test:80 HTTP/1.1".to_owned(),
            "GET /x HTTP/1.0".to_owned(),
            "GET http://fields.test/x HTTP/1.1".to_owned(),
        ],
        ..Case::default()
    }];
    let of = |request, what, nginx, ours, why| Difference {
        case: "fields",
        request,
        what,
        nginx,
        ours,
        why,
    };
    let connection = "T9: what is for one connection is not passed on";
    let differences = [
        of(
            "GET /x?y=z HTTP/1.1\nX-Request-ID: two",
            "x-request-id",
            "two words",
            "32 digits",
            "T8: an id that breaks lines of logs apart is replaced",
        ),
        of(
            "GET /x?y=z HTTP/1.1\nConnection: X-Custom",
            "x-custom",
            "one",
            "",
            connection,
        ),
        of(
            "GET /x?y=z HTTP/1.1\nProxy-Connection",
            "proxy-connection",
            "keep-alive",
            "",
            connection,
        ),
        of(
            "CONNECT",
            "status",
            "400",
            "405",
            "T1: the method is refused, the request is not malformed",
        ),
    ];
    compare(cases, Common::default(), &differences).await;
}

#[tokio::test]
async fn ingress_a3_bodies_are_refused_as_by_nginx() {
    let post = |length: usize| {
        let body = "x".repeat(length);
        format!("POST /of/{length} HTTP/1.1\nContent-Length: {length}\n\n{body}")
    };
    let chunked = |length: usize| {
        let body = "x".repeat(length);
        format!("PUT /of/{length} HTTP/1.1\nTransfer-Encoding: chunked\n\n{length:x}\n{body}\n0")
    };
    let expect = "POST /of/2000 HTTP/1.1\nContent-Length: 2000\nExpect: 100-continue".to_owned();
    let cases = vec![
        Case {
            name: "kilobyte",
            annotations: &[("proxy-body-size", "1k")],
            server: "location / { client_max_body_size 1k; PROXY }",
            requests: vec![post(1024), post(1025), chunked(1024), chunked(1025), expect],
            ..Case::default()
        },
        Case {
            name: "unlimited",
            annotations: &[("proxy-body-size", "0")],
            server: "location / { client_max_body_size 0; PROXY }",
            requests: vec![post(2 << 20), chunked(2 << 20)],
            ..Case::default()
        },
        Case {
            name: "usual",
            requests: vec![post(1 << 20), post((1 << 20) + 1)],
            ..Case::default()
        },
    ];
    compare(cases, Common::default(), &[]).await;
}

#[tokio::test]
async fn ingress_a14_backends_are_told_the_hosts_and_prefixes_that_nginx_tells() {
    let claim = "GET /shop/cart HTTP/1.1\nX-Forwarded-Prefix: /evil".to_owned();
    let cases = vec![
        Case {
            name: "vhost",
            annotations: &[("upstream-vhost", "inner.test")],
            server: "location / { proxy_set_header Host inner.test; TOLD }",
            requests: vec![claim.clone()],
            ..Case::default()
        },
        Case {
            name: "prefix",
            annotations: &[("x-forwarded-prefix", "/shop"), ("rewrite-target", "/$1")],
            paths: &[("ImplementationSpecific", "/shop/(.*)")],
            server: "
                location ~* \"^/shop/(.*)\" {
                    rewrite \"(?i)/shop/(.*)\" /$1 break;
                    proxy_set_header X-Forwarded-Prefix /shop;
                    PROXY
                }
                location / { return 404; }",
            requests: vec![claim],
            ..Case::default()
        },
    ];
    let differences = [Difference {
        case: "vhost",
        request: "",
        what: "x-forwarded-prefix",
        nginx: "/evil",
        ours: "",
        why: "T8: what a client says about itself is not passed on under these names",
    }];
    compare(cases, Common::default(), &differences).await;
}
