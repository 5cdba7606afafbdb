//! Who may come in, and scripts of other origins.

use super::{Case, Common, Difference, compare};

#[tokio::test]
async fn ingress_a6_lists_of_addresses_admit_whom_nginx_admits() {
    let get = || vec!["GET / HTTP/1.1\nX-Forwarded-For: 10.1.2.3".to_owned()];
    let cases = vec![
        Case {
            name: "among",
            annotations: &[("whitelist-source-range", "10.0.0.0/8, 127.0.0.0/8")],
            server: "location / { allow 10.0.0.0/8; allow 127.0.0.0/8; deny all; PROXY }",
            requests: get(),
            ..Case::default()
        },
        Case {
            name: "outside",
            annotations: &[("allowlist-source-range", "10.0.0.0/8")],
            server: "location / { allow 10.0.0.0/8; deny all; PROXY }",
            requests: get(),
            ..Case::default()
        },
        Case {
            name: "denied",
            annotations: &[("denylist-source-range", "127.0.0.1")],
            server: "location / { deny 127.0.0.1; PROXY }",
            requests: get(),
            ..Case::default()
        },
        Case {
            name: "elsewhere",
            annotations: &[("denylist-source-range", "10.0.0.0/8")],
            server: "location / { deny 10.0.0.0/8; PROXY }",
            requests: get(),
            ..Case::default()
        },
        Case {
            name: "both",
            annotations: &[
                ("whitelist-source-range", "127.0.0.0/8"),
                ("denylist-source-range", "127.0.0.1/32"),
            ],
            server: "location / { deny 127.0.0.1/32; allow 127.0.0.0/8; deny all; PROXY }",
            requests: get(),
            ..Case::default()
        },
    ];
    compare(cases, Common::default(), &[]).await;
}

const METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const HEADERS: &str = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,\
                       Cache-Control,Content-Type,Range,Authorization";

/// What nginx writes for a script, if it may know.
macro_rules! cors {
    ($origin:literal, $also:literal) => {
        concat!(
            "add_header Access-Control-Allow-Origin ",
            $origin,
            " always;
            add_header Access-Control-Allow-Credentials true always;
            add_header Access-Control-Allow-Methods 'GET, PUT, POST, DELETE, PATCH, OPTIONS' always;
            add_header Access-Control-Allow-Headers 'DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization' always;
            add_header Access-Control-Max-Age 1728000 always; ",
            $also
        )
    };
}

#[tokio::test]
async fn ingress_a7_scripts_of_other_origins_are_told_what_nginx_tells_them() {
    let requests = |origins: &[&str]| {
        let with = |origin: &&str| {
            let origin = match *origin {
                "" => String::new(),
                origin => format!("\nOrigin: {origin}"),
            };
            let asked = "Access-Control-Request-Method: PUT";
            [
                format!("GET /x HTTP/1.1{origin}"),
                format!("OPTIONS /x HTTP/1.1{origin}\n{asked}"),
                format!("OPTIONS /plain HTTP/1.1{origin}"),
                format!("POST /x HTTP/1.1{origin}\nContent-Length: 1\n\nx"),
            ]
        };
        origins.iter().flat_map(with).collect::<Vec<String>>()
    };
    let cases = vec![
        Case {
            name: "any",
            annotations: &[("enable-cors", "true")],
            server: concat!(
                "location / { set $cors true;
                 if ($request_method = OPTIONS) { set $cors ${cors}options; }
                 if ($cors = true) { ",
                cors!("*", "proxy_pass http://backend;"),
                "} if ($cors = trueoptions) { ",
                cors!("*", "return 204;"),
                "} PROXY }"
            ),
            requests: requests(&["https://any.test", ""]),
            ..Case::default()
        },
        Case {
            name: "listed",
            annotations: &[
                ("enable-cors", "true"),
                ("cors-allow-origin", "https://*.app.test, http://x.test:81"),
            ],
            server: concat!(
                "location / { set $cors '';
                 if ($http_origin ~* \"((https://[A-Za-z0-9\\-]+\\.app\\.test)|(http://x\\.test:81))$\") { set $cors true; }
                 if ($request_method = OPTIONS) { set $cors ${cors}options; }
                 if ($cors = true) { ",
                cors!("$http_origin", "proxy_pass http://backend;"),
                "} if ($cors = trueoptions) { ",
                cors!("$http_origin", "return 204;"),
                "} PROXY }"
            ),
            requests: requests(&[
                "https://a.app.test",
                "HTTPS://A.APP.TEST",
                "http://x.test:81",
                "http://x.test",
                "https://a.b.app.test",
                "https://evil.test",
                "",
            ]),
            ..Case::default()
        },
        Case {
            name: "inside",
            annotations: &[
                ("enable-cors", "true"),
                ("cors-allow-origin", "https://a.test"),
            ],
            server: concat!(
                "location / { set $cors '';
                 if ($http_origin ~* \"(https://a\\.test)$\") { set $cors true; }
                 if ($cors = true) { ",
                cors!("$http_origin", "proxy_pass http://backend;"),
                "} PROXY }"
            ),
            requests: vec!["GET /x HTTP/1.1\nOrigin: nullhttps://a.test".to_owned()],
            ..Case::default()
        },
        Case {
            name: "off",
            annotations: &[("cors-allow-origin", "https://a.test")],
            requests: requests(&["https://a.test"]),
            ..Case::default()
        },
    ];
    let told = [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-headers", HEADERS),
        ("access-control-allow-methods", METHODS),
        ("access-control-allow-origin", "nullhttps://a.test"),
        ("access-control-max-age", "1728000"),
    ];
    let told = told.map(|(what, nginx)| Difference {
        case: "inside",
        request: "",
        what,
        nginx,
        ours: "",
        why: "A7: an origin is compared from its start, nginx looks at its end only",
    });
    let vary = Difference {
        case: "listed",
        request: "",
        what: "vary",
        nginx: "",
        ours: "Origin",
        why: "A7: caches are told that the answer depends on the origin (Fetch, CORS and HTTP caches)",
    };
    let differences: Vec<Difference> = told.into_iter().chain([vary]).collect();
    compare(cases, Common::default(), &differences).await;
}
