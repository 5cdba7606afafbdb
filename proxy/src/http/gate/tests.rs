use http::StatusCode;

use super::*;

fn request(version: Version, target: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().uri(target).version(version);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

#[test]
fn reliability_b8_there_is_one_authority() {
    use Version as V;
    let same = [("host", "a.test")];
    for (name, version, target, fields, host) in [
        ("Host", V::HTTP_11, "/", &same[..], Some("a.test")),
        (
            "with port",
            V::HTTP_11,
            "/",
            &[("host", "a.test:80")],
            Some("a.test:80"),
        ),
        (
            "IPv6",
            V::HTTP_11,
            "/",
            &[("host", "[::1]:80")],
            Some("[::1]:80"),
        ),
        ("empty", V::HTTP_11, "/", &[("host", "")], Some("")),
        (
            "trailing dot",
            V::HTTP_11,
            "/",
            &[("host", "a.test.")],
            Some("a.test."),
        ),
        ("none", V::HTTP_11, "/", &[], None),
        (
            "two",
            V::HTTP_11,
            "/",
            &[("host", "a.test"), ("host", "a.test")],
            None,
        ),
        (
            "userinfo",
            V::HTTP_11,
            "/",
            &[("host", "a.test@evil.test")],
            None,
        ),
        ("path", V::HTTP_11, "/", &[("host", "a.test/x")], None),
        ("bad port", V::HTTP_11, "/", &[("host", "a.test:8x")], None),
        (
            "big port",
            V::HTTP_11,
            "/",
            &[("host", "a.test:65536")],
            None,
        ),
        ("port alone", V::HTTP_11, "/", &[("host", ":80")], None),
        ("empty label", V::HTTP_11, "/", &[("host", "a..test")], None),
        ("list", V::HTTP_11, "/", &[("host", "a.test, b.test")], None),
        ("open bracket", V::HTTP_11, "/", &[("host", "[::1")], None),
        ("no address", V::HTTP_11, "/", &[("host", "[a.test]")], None),
        (
            "absolute",
            V::HTTP_11,
            "http://a.test/x",
            &same[..],
            Some("a.test"),
        ),
        (
            "absolute alone",
            V::HTTP_11,
            "http://a.test/x",
            &[],
            Some("a.test"),
        ),
        (
            "absolute, case",
            V::HTTP_11,
            "http://A.test/x",
            &same[..],
            Some("a.test"),
        ),
        (
            "absolute, other",
            V::HTTP_11,
            "http://b.test/x",
            &same[..],
            None,
        ),
        (
            "absolute, userinfo",
            V::HTTP_11,
            "http://u@a.test/x",
            &[],
            None,
        ),
        ("other scheme", V::HTTP_11, "ftp://a.test/x", &[], None),
        ("h2", V::HTTP_2, "http://a.test/x", &[], Some("a.test")),
        (
            "h2 with Host",
            V::HTTP_2,
            "http://a.test/x",
            &same[..],
            Some("a.test"),
        ),
        (
            "h2, differ",
            V::HTTP_2,
            "http://a.test/x",
            &[("host", "b.test")],
            None,
        ),
        (
            "h2, userinfo",
            V::HTTP_2,
            "http://a.test@evil.test/x",
            &[],
            None,
        ),
        ("h2, none", V::HTTP_2, "/x", &[], None),
    ] {
        let mut request = request(version, target, fields);
        let admitted = admit(&mut request).map_err(|e| e.kind());
        match host {
            Some(host) => {
                assert_eq!(admitted, Ok(()), "{name}");
                assert_eq!(request.headers()[HOST], host, "{name}");
                assert!(request.uri().authority().is_none(), "{name}");
            }
            None => assert_eq!(admitted, Err(ErrorKind::BadRequest), "{name}"),
        }
    }
}

#[test]
fn http_1_0_needs_no_host() {
    assert!(admit(&mut request(Version::HTTP_10, "/", &[])).is_ok());
}

#[test]
fn reliability_b1_there_is_one_way_to_find_the_end() {
    let coding = |value| [("host", "a.test"), ("transfer-encoding", value)];
    for (name, version, fields, status) in [
        ("chunked", Version::HTTP_11, &coding("chunked")[..], None),
        (
            "in capitals",
            Version::HTTP_11,
            &coding("Chunked")[..],
            None,
        ),
        (
            "unknown",
            Version::HTTP_11,
            &coding("xchunked")[..],
            Some(501),
        ),
        (
            "list",
            Version::HTTP_11,
            &coding("gzip, chunked")[..],
            Some(400),
        ),
        (
            "empty element",
            Version::HTTP_11,
            &coding(",chunked")[..],
            Some(400),
        ),
        (
            "on HTTP/1.0",
            Version::HTTP_10,
            &coding("chunked")[..],
            Some(400),
        ),
        (
            "twice",
            Version::HTTP_11,
            &[
                ("host", "a.test"),
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            Some(400),
        ),
        (
            "with a length",
            Version::HTTP_11,
            &[
                ("host", "a.test"),
                ("transfer-encoding", "chunked"),
                ("content-length", "5"),
            ],
            Some(400),
        ),
        (
            "two lengths",
            Version::HTTP_11,
            &[
                ("host", "a.test"),
                ("content-length", "5"),
                ("content-length", "5"),
            ],
            Some(400),
        ),
    ] {
        let refused = admit(&mut request(version, "/", fields)).err();
        let refused = refused.map(|e| e.kind().status().as_u16());
        assert_eq!(refused, status, "{name}");
    }
}

#[test]
fn ingress_t1_connect_and_trace_are_refused_and_options_star_is_served() {
    let host = [("host", "a.test")];
    for (method, target, status) in [
        (
            Method::CONNECT,
            "a.test:80",
            Some(StatusCode::METHOD_NOT_ALLOWED),
        ),
        (Method::TRACE, "/", Some(StatusCode::METHOD_NOT_ALLOWED)),
        (Method::OPTIONS, "*", None),
        (Method::GET, "*", Some(StatusCode::BAD_REQUEST)),
        (Method::GET, "a.test:80", Some(StatusCode::BAD_REQUEST)),
        (Method::from_bytes(b"PURGE").unwrap(), "/", None),
    ] {
        let mut request = request(Version::HTTP_11, target, &host);
        *request.method_mut() = method.clone();
        let refused = admit(&mut request).err().map(|e| e.kind().status());
        assert_eq!(refused, status, "{method} {target}");
    }
}

#[test]
fn ingress_t13_the_target_is_limited() {
    for (length, admitted) in [(MAX_TARGET, true), (MAX_TARGET + 1, false)] {
        let target = format!("/{}", "a".repeat(length - 1));
        let result = admit(&mut request(
            Version::HTTP_11,
            &target,
            &[("host", "a.test")],
        ));
        assert_eq!(result.is_ok(), admitted, "{length}");
    }
}

#[test]
fn only_100_continue_can_be_expected() {
    let expect = |value| [("host", "a.test"), ("expect", value)];
    let mut good = request(Version::HTTP_11, "/", &expect("100-Continue"));
    assert!(admit(&mut good).is_ok());
    assert!(!good.headers().contains_key(EXPECT));
    let odd = admit(&mut request(
        Version::HTTP_11,
        "/",
        &expect("y 100-continue"),
    ));
    assert_eq!(odd.unwrap_err().kind(), ErrorKind::ExpectationFailed);
}

#[test]
fn reliability_b7_aliases_of_forwarding_fields_are_dropped() {
    let mut request = request(
        Version::HTTP_11,
        "/",
        &[
            ("host", "a.test"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded_proto", "https"),
            ("x_real_ip", "6.6.6.6"),
            ("proxy", "http://evil.test"),
            ("my_field", "stays"),
        ],
    );
    admit(&mut request).unwrap();
    let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(request.headers()["my_field"], "stays");
}

#[test]
fn reliability_b4_cookie_crumbs_are_joined() {
    let mut request = request(
        Version::HTTP_2,
        "http://a.test/",
        &[("cookie", "a=1"), ("cookie", "b=2")],
    );
    admit(&mut request).unwrap();
    let cookies: Vec<_> = request.headers().get_all(COOKIE).iter().collect();
    assert_eq!(cookies, ["a=1; b=2"]);
}

#[test]
fn ingress_t10_a_head_that_ends_twice_is_seen() {
    let te = "Transfer-Encoding: chunked\r\n";
    let cl = "content-length: 3\r\n";
    for (fields, twice) in [
        (String::new(), false),
        (te.to_owned(), false),
        (cl.to_owned(), false),
        (format!("{te}{cl}"), true),
        (format!("{cl}X: y\r\n{te}"), true),
        (format!("{cl}X-Transfer-Encoding: chunked\r\n"), false),
        (format!("{cl}Transfer-Encoding-X: chunked\r\n"), false),
        // What is behind the head is not of it.
        (format!("{te}\r\n{cl}"), false),
    ] {
        let head = format!("\r\nPOST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\nabc");
        assert_eq!(ends_twice(head.as_bytes()), Some(twice), "{head:?}");
        let end = head.trim_start().find("\r\n\r\n").unwrap() + 6;
        for cut in 0..end - 1 {
            assert_eq!(ends_twice(&head.as_bytes()[..cut]), None, "{head:?} {cut}");
        }
    }
}

#[test]
fn ingress_t5_http3_has_no_fields_about_connections() {
    let fields = [
        ("connection", "close", false),
        ("connection", "te", false),
        ("upgrade", "websocket", false),
        ("keep-alive", "timeout=1", false),
        ("proxy-connection", "close", false),
        ("transfer-encoding", "chunked", false),
        ("te", "gzip", false),
        ("te", "trailers", true),
        ("content-length", "+5", false),
        ("content-length", "", false),
        ("content-length", "5, 5", false),
        ("content-length", "99999999999999999999", false),
        ("content-length", "5", true),
        ("x-any", "any", true),
    ];
    for (name, value, is_fine) in fields {
        let mut request = request(Version::HTTP_3, "https://a.test/", &[(name, value)]);
        assert_eq!(admit(&mut request).is_ok(), is_fine, "{name}: {value}");
    }
    for (method, is_fine) in [("CONNECT", false), ("TRACE", false), ("PUT", true)] {
        let mut request = request(Version::HTTP_3, "https://a.test/", &[]);
        *request.method_mut() = method.parse().unwrap();
        assert_eq!(admit(&mut request).is_ok(), is_fine, "{method}");
    }
}
