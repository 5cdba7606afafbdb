use super::format::{VALUE, trace_id};
use super::*;

/// A log that goes to a channel, which holds so many writes.
struct Sink(SyncSender<Vec<u8>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Blocks as a pipe does that nobody reads.
        let sent = self.0.send(bytes.to_vec());
        sent.map_err(|_gone| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log(writes: usize) -> (AccessLog, Receiver<Vec<u8>>) {
    let (sender, receiver) = sync_channel(writes);
    let log = AccessLog::start(Format::Sealane, Sink(sender));
    (log.unwrap(), receiver)
}

fn request(target: &str, fields: &[(&str, &[u8])]) -> Request<Body> {
    let mut request = Request::builder().uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

/// The line of a request.
fn line(request: Request<Body>, response: Response<Body>) -> String {
    let (log, written) = log(1);
    let (pending, _request) = log.begin("::ffff:192.0.2.1".parse().unwrap(), request);
    drop(pending.answer(response, None));
    let line = written.recv_timeout(Duration::from_secs(5)).unwrap();
    String::from_utf8(line).unwrap()
}

#[test]
fn proxy_l27_a_line_says_what_became_of_a_request() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let asked = request(
        "/a?b",
        &[("host", b"a.test"), ("traceparent", trace.as_bytes())],
    );
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(Served {
        service: ServiceKey {
            namespace: "shop".into(),
            name: "api".into(),
        },
        port: 80,
        status: StatusCode::OK,
        endpoint: std::net::SocketAddr::from(([10, 244, 0, 1], 80)).into(),
        upstream: Duration::from_millis(5),
    });
    let text = line(asked, response);
    for part in [
        r#""client":"192.0.2.1""#,
        r#""method":"GET","target":"/a?b","protocol":"HTTP/1.1","host":"a.test""#,
        r#""status":200,"flags":"-""#,
        r#""upstream_seconds":0.005000,"service":"shop/api","endpoint":"10.244.0.1:80""#,
        r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736""#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(text.ends_with("}\n"), "{text}");

    let mut refused = Response::new(Body::full("no"));
    refused.extensions_mut().insert(ErrorKind::NoEndpoints);
    let text = line(request("/", &[]), refused);
    let part = r#""flags":"UH","error":"no_endpoints""#;
    assert!(text.contains(part), "{text}");
    let text = line(request("/", &[]), Response::new(Body::full("cut")));
    assert!(text.contains(r#""flags":"DC""#), "{text}");
}

#[test]
fn reliability_b21_what_clients_choose_stays_data() {
    let long = "a".repeat(5000);
    for (name, value, want) in [
        ("quotes", &b"a\"b\\c"[..], r#"a\"b\\c"#),
        ("tab", b"a\tb", r"a\u0009b"),
        ("C1 control", "a\u{9b}31mb".as_bytes(), r"a\u009b31mb"),
        ("separator", "a\u{2028}b".as_bytes(), r"a\u2028b"),
        ("no UTF-8", b"a\xffb", "a\u{fffd}b"),
        ("long", long.as_bytes(), &long[..VALUE]),
    ] {
        let text = line(
            request("/", &[("user-agent", value)]),
            Response::new(Body::empty()),
        );
        let field = format!("\"user_agent\":\"{want}\"");
        assert!(text.contains(&field), "{name}: {text}");
        assert_eq!(text.matches('\n').count(), 1, "{name}");
    }
}

#[test]
fn reliability_f23_a_log_that_nobody_reads_stops_no_request() {
    let (log, written) = log(1);
    let began = std::time::Instant::now();
    let lines = 3 * QUEUE;
    for _ in 0..lines {
        let client = "192.0.2.1".parse().unwrap();
        let (pending, _request) = log.begin(client, request("/", &[]));
        drop(pending.answer(Response::new(Body::empty()), None));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "it waits");
    drop(log);
    let bytes: Vec<u8> = written.into_iter().flatten().collect();
    let kept = bytes.iter().filter(|byte| **byte == b'\n').count();
    assert!(kept >= QUEUE && kept < lines, "{kept} of {lines} lines");
}

#[test]
fn proxy_l24_only_a_valid_trace_has_an_id() {
    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let zero = "0".repeat(32);
    for (field, want) in [
        (format!("00-{ID}-00f067aa0ba902b7-01"), true),
        (format!("01-{ID}-00f067aa0ba902b7-01-more"), true),
        (format!("00-{ID}-00f067aa0ba902b7-01-more"), false),
        (format!("ff-{ID}-00f067aa0ba902b7-01"), false),
        (format!("00-{zero}-00f067aa0ba902b7-01"), false),
        (format!("00-{ID}-0000000000000000-01"), false),
        (
            format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            false,
        ),
        (format!("00-{ID}-00f067aa0ba902b7"), false),
        (String::new(), false),
    ] {
        assert_eq!(trace_id(&field), want.then_some(ID), "{field}");
    }
}

#[test]
fn proxy_l27_a_line_may_have_the_names_of_nginx() {
    let (sender, written) = sync_channel(1);
    let log = AccessLog::start(Format::Nginx, Sink(sender)).unwrap();
    let asked = request(
        "/a?b",
        &[
            ("host", b"a.test"),
            ("referer", b"https://b.test/\""),
            ("user-agent", b"curl/8"),
            ("x-request-id", b"claimed"),
        ],
    );
    let (mut pending, mut asked) = log.begin("::ffff:192.0.2.1".parse().unwrap(), asked);
    let id = http::HeaderValue::from_static("ours");
    asked.headers_mut().insert(REQUEST_ID, id);
    pending.identify(asked.headers());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response.extensions_mut().insert(Served {
        service: ServiceKey {
            namespace: "shop".into(),
            name: "api".into(),
        },
        port: 8080,
        status: StatusCode::NOT_FOUND,
        endpoint: std::net::SocketAddr::from(([10, 244, 0, 1], 80)).into(),
        upstream: Duration::from_micros(5400),
    });
    let route = ObjectRef {
        kind: "Ingress",
        namespace: "shop".into(),
        name: "site".into(),
    };
    drop(pending.answer(response, Some(&route)));
    let text = written.recv_timeout(Duration::from_secs(5)).unwrap();
    let text = String::from_utf8(text).unwrap();
    // Names and order; times differ.
    let names: Vec<&str> = text.split('"').collect();
    assert_eq!(names[1], "time_iso8601", "{text}");
    assert_eq!(names[3].len(), "2026-11-21T15:00:00+00:00".len(), "{text}");
    assert!(names[3].ends_with("+00:00"), "{text}");
    for part in [
        r#""remote_addr":"192.0.2.1","request_method":"GET","request_uri":"/a?b","#,
        r#""server_protocol":"HTTP/1.1","host":"a.test","status":502,"body_bytes_sent":0,"#,
        r#""request_time":0."#,
        r#""upstream_addr":"10.244.0.1:80","upstream_status":404,"upstream_response_time":0.005,"#,
        r#""http_referer":"https://b.test/\"","http_user_agent":"curl/8","request_id":"ours","#,
        r#""namespace":"shop","ingress_name":"site","service_name":"api","service_port":"8080","#,
        r#""proxy_upstream_name":"shop-api-8080","flags":"-"}"#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn ingress_a17_a_request_without_a_line_has_none() {
    let (log, written) = log(4);
    let client = "192.0.2.1".parse().unwrap();
    let (pending, _request) = log.begin(client, request("/quiet", &[]));
    pending.forget();
    let (pending, _request) = log.begin(client, request("/loud", &[]));
    drop(pending.answer(Response::new(Body::empty()), None));
    drop(log);
    let text: Vec<u8> = written.into_iter().flatten().collect();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("/loud") && !text.contains("/quiet"), "{text}");
}
