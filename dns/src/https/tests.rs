use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::limit::{ConnectionCaps, Connections};
use crate::testing::secure::{
    Certificate, DEADLINE, NAME, Secure, connect, local, output_of, query,
};
use crate::testing::upstream::{Upstream, slow_web};

/// What one HTTP/1.1 connection brings until the server closes it: status, head, body.
async fn http1_exchange(
    server: &Secure,
    certificate: &Certificate,
    request: &[u8],
) -> (u16, String, Vec<u8>) {
    let client = certificate.client("http/1.1");
    let mut session = connect(server.https, client).await.unwrap();
    // The server may have answered and closed before it has read everything.
    let _ = session.write_all(request).await;
    let mut answer = Vec::new();
    let read = timeout(DEADLINE, session.read_to_end(&mut answer)).await;
    let _closed_without_notice = read.expect("the connection stays open");
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let head = head.map_or(answer.len(), |at| at + 4);
    let body = answer.split_off(head);
    let head = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    let status = head.get(9..12).and_then(|text| text.parse().ok());
    (status.unwrap_or_default(), head, body)
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").into_bytes()
}

fn post(content_type: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /dns-query HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn dns_doh_requests_and_their_status() {
    local(async {
        let certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        let message = query(NAME, 0);
        let text = BASE64URL.encode(&message);
        let plain = text.trim_end_matches('=').to_owned();
        let mut response = message.clone();
        response[2] |= 0x80;
        let chunked = "POST /dns-query HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
            content-type: application/dns-message\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut endless = chunked.as_bytes().to_vec();
        for _ in 0..80 {
            endless.extend(b"400\r\n");
            endless.extend([b'a'; 1024]);
            endless.extend(b"\r\n");
        }
        let dns = MEDIA_TYPE;
        for (what, request, status) in [
            ("GET", get(&format!("/dns-query?dns={plain}")), 200),
            (
                "GET with padding",
                get(&format!("/dns-query?dns={text}")),
                200,
            ),
            (
                "another parameter",
                get(&format!("/dns-query?a=b&dns={plain}")),
                200,
            ),
            ("POST", post(dns, &message), 200),
            (
                "a parameter of the type",
                post("Application/DNS-Message; a=b", &message),
                200,
            ),
            ("FORMERR is an answer", post(dns, &message[..20]), 200),
            ("no parameter", get("/dns-query"), 400),
            ("bad base64url", get("/dns-query?dns=AA+/"), 400),
            ("less than a header", post(dns, &message[..11]), 400),
            ("a response", post(dns, &response), 400),
            ("nothing", post(dns, b""), 400),
            ("another path", get(&format!("/dns?dns={plain}")), 404),
            ("PUT", [b"PUT ", &post(dns, &message)[5..]].concat(), 405),
            (
                "HEAD",
                [b"HEAD ", &get("/dns-query?dns=AAAA")[4..]].concat(),
                405,
            ),
            ("another type", post("application/json", &message), 415),
            ("no type", [b"POST ", &get("/dns-query")[4..]].concat(), 415),
            (
                "GET of 1 KiB and more",
                get(&format!("/dns-query?dns={}", "A".repeat(1025))),
                413,
            ),
            ("POST of 64 KiB", post(dns, &vec![0; 65_536]), 413),
            ("POST of 80 KiB without a length", endless, 413),
        ] {
            let (found, head, body) = http1_exchange(&server, &certificate, &request).await;
            assert_eq!(found, status, "{what}: {head}");
            match status {
                200 => {
                    assert!(head.contains("content-type: application/dns-message\r\n"));
                    let reply = Message::from_vec(&body).unwrap();
                    assert_eq!(reply.metadata.id, 0);
                    let age = if reply.answers.is_empty() { 0 } else { 30 };
                    let age = format!("cache-control: max-age={age}\r\n");
                    assert!(head.contains(&age), "{what}: {head}");
                }
                405 => assert!(head.contains("allow: get, post\r\n"), "{head}"),
                _ => assert!(body.is_empty(), "{what}"),
            }
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn reliability_b31_requests_that_are_too_long_are_not_kept() {
    local(async {
        let certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        let long = "A".repeat(1 << 20);
        for (what, request) in [
            ("GET of 1 MB", get(&format!("/dns-query?dns={long}"))),
            ("a header of 1 MB", {
                let mut request = get("/dns-query");
                request.truncate(request.len() - 2);
                [&request[..], b"a: ", long.as_bytes(), b"\r\n\r\n"].concat()
            }),
        ] {
            let (status, ..) = http1_exchange(&server, &certificate, &request).await;
            assert!(matches!(status, 0 | 400..=499), "{what}: {status}");
        }
        let (status, ..) =
            http1_exchange(&server, &certificate, &post(MEDIA_TYPE, &query(NAME, 0))).await;
        assert_eq!(status, 200);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_doh_streams_of_http2_are_answered_as_answers_come_and_bounded() {
    local(async {
        let upstream = Upstream::start(slow_web(200)).await;
        let certificate = Certificate::new();
        let limits = ConnectionLimits::default();
        let server = Secure::start(certificate.files(), Some(upstream.addr), limits);
        let session = connect(server.https, certificate.client("h2"))
            .await
            .unwrap();
        let (mut client, mut connection) = h2::client::handshake(session).await.unwrap();
        let mut ask = |name: &str| {
            let message = BASE64URL.encode(query(name, 0));
            let request = Request::get(format!("https://localhost/dns-query?dns={message}"));
            client
                .send_request(request.body(()).unwrap(), true)
                .unwrap()
                .0
        };
        let slow = ask("web.test.");
        let fast = ask(NAME);
        let streams = async move {
            let response = fast.await.unwrap();
            let answered = Instant::now();
            assert_eq!(response.status(), 200);
            let reply = response.into_body().data().await.unwrap().unwrap();
            assert_eq!(Message::from_vec(&reply).unwrap().answers.len(), 1);
            assert_eq!(slow.await.unwrap().status(), 200);
            assert!(answered.elapsed() > Duration::from_millis(50), "in order");
        };
        let streams = timeout(DEADLINE, streams);
        tokio::select! {
            ended = &mut connection => panic!("{ended:?}"),
            done = streams => done.unwrap(),
        }
        assert_eq!(connection.max_concurrent_send_streams(), MAX_IN_FLIGHT);
        drop(connection);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn reliability_b31_connections_over_https_are_limited_in_time() {
    local(async {
        let certificate = Certificate::new();
        let limits = ConnectionLimits {
            read: Duration::from_millis(200),
            write: Duration::from_millis(200),
            idle: Duration::from_millis(500),
            ..ConnectionLimits::default()
        };
        let server = Secure::start(certificate.files(), None, limits);
        let dripped = post(MEDIA_TYPE, &query(NAME, 0));
        let (status, ..) =
            http1_exchange(&server, &certificate, &dripped[..dripped.len() - 1]).await;
        assert_eq!(status, 408, "a body that does not end");
        for protocol in ["http/1.1", "h2"] {
            let mut session = connect(server.https, certificate.client(protocol))
                .await
                .unwrap();
            let drip = async {
                loop {
                    // Bytes of a head, or of HTTP/2's preface.
                    if session.write_all(b"P").await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(DEADLINE, drip).await.expect(protocol);
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn reliability_b31_a_client_has_one_share_of_connections_whatever_they_carry() {
    local(async {
        let certificate = Certificate::new();
        let limits = ConnectionLimits {
            connections: Connections::new(ConnectionCaps {
                total: 10,
                per_client: 2,
            }),
            ..ConnectionLimits::default()
        };
        let server = Secure::start(certificate.files(), None, limits);
        let first = connect(server.https, certificate.client("h2"))
            .await
            .unwrap();
        let second = connect(server.tls, certificate.client("dot"))
            .await
            .unwrap();
        assert!(
            connect(server.https, certificate.client("h2"))
                .await
                .is_err()
        );
        drop(second);
        let again = async {
            while connect(server.https, certificate.client("h2"))
                .await
                .is_err()
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, again).await.unwrap();
        drop(first);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_doh_shutdown_answers_what_was_asked() {
    local(async {
        let upstream = Upstream::start(slow_web(300)).await;
        let certificate = Certificate::new();
        let limits = ConnectionLimits::default();
        let server = Secure::start(certificate.files(), Some(upstream.addr), limits);
        let mut session = connect(server.https, certificate.client("http/1.1"))
            .await
            .unwrap();
        let request = post(MEDIA_TYPE, &query("web.test.", 0));
        session.write_all(&request).await.unwrap();
        let asked = async {
            while upstream.seen().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, asked).await.unwrap();
        let answer = async {
            let mut answer = Vec::new();
            let _closed = session.read_to_end(&mut answer).await;
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
        };
        tokio::join!(server.stop(), answer);
    })
    .await;
}

#[test]
fn dns_doh_a_reply_is_fresh_for_its_lowest_ttl() {
    let name: crate::Name = "a.test".parse().unwrap();
    let parsed = |answers: &[u32], soa: Option<(u32, u32)>, rcode| {
        let record = |ttl, data| crate::record::Record {
            name: name.clone(),
            ttl,
            data,
        };
        let address = |ttl: &u32| record(*ttl, crate::record::RData::A([10, 0, 0, 1].into()));
        let mut answer = crate::answer::Answer::code(rcode, None);
        answer.answers = answers.iter().map(address).collect();
        answer.authority = soa
            .map(|(ttl, minimum)| {
                let soa = crate::record::Soa {
                    mname: name.clone(),
                    rname: name.clone(),
                    serial: 1,
                    refresh: 1,
                    retry: 1,
                    expire: 1,
                    minimum,
                };
                record(ttl, crate::record::RData::Soa(Box::new(soa)))
            })
            .into_iter()
            .collect();
        let query = crate::message::parse(&query("a.test.", 0)).unwrap();
        let mut reply = Vec::new();
        crate::answer::encode::reply(&query, &answer, Transport::Https, &mut reply);
        max_age(&reply)
    };
    let (fine, none) = (ResponseCode::NoError, ResponseCode::NXDomain);
    assert_eq!(parsed(&[300, 30, 60], None, fine), Ok(30));
    assert_eq!(parsed(&[0, 30], None, fine), Ok(0));
    assert_eq!(parsed(&[], Some((300, 60)), none), Ok(60));
    assert_eq!(parsed(&[], Some((20, 60)), fine), Ok(20));
    assert_eq!(
        parsed(&[10], Some((20, 60)), none),
        Ok(10),
        "an alias to nothing"
    );
    assert_eq!(parsed(&[], None, fine), Ok(0));
    assert_eq!(parsed(&[300], None, ResponseCode::ServFail), Ok(0));
    assert_eq!(max_age(&[0; 5]), Err(Malformed));
}

#[tokio::test]
async fn dns_doh_dig_and_curl_are_answered() {
    local(async {
        let certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        let port = server.https.port().to_string();
        for method in ["+https", "+https-get"] {
            let args = [
                "@127.0.0.1",
                "-p",
                &port,
                method,
                "+short",
                "+tries=1",
                NAME,
            ];
            if let Some(output) = output_of("dig", &args).await {
                assert_eq!(output.trim(), "10.0.0.1", "{method}");
            }
        }
        let message = BASE64URL.encode(query(NAME, 0));
        let url = format!("https://127.0.0.1:{port}/dns-query?dns={message}");
        for (version, shown) in [("--http2", "2 200"), ("--http1.1", "1.1 200")] {
            let format = "%{http_version} %{http_code}";
            let args = ["-sk", version, "-o", "/dev/null", "-w", format, &url];
            if let Some(output) = output_of("curl", &args).await {
                assert_eq!(output, shown);
            }
        }
        server.stop().await;
    })
    .await;
}
