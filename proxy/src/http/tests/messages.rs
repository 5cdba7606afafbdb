//! What of a message gets through, and in what form.

use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, StreamBody};

use tokio::io::AsyncWriteExt;

use super::*;
use crate::testing::{Origin, full, status};

#[tokio::test]
async fn proxy_l3_messages_get_through() {
    on_worker(async {
        let origin = Origin::start(|seen| {
            let body = seen.body.clone().unwrap_or_default();
            let mut response = match seen.target.as_str() {
                "/204" => status(204),
                "/304" => status(304),
                _ => Response::new(full(body)),
            };
            let headers = response.headers_mut();
            headers.insert("x-method", seen.method.as_str().parse().unwrap());
            if seen.method == http::Method::HEAD {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("1234"));
            }
            response
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        for (request, status, body) in [
            ("GET /a?b=c HTTP/1.1\r\nHost: a.test\r\n\r\n", 200, ""),
            ("POST /p HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"),
            (
                "POST /p HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n3;x=y\r\n yo\r\n0\r\n\r\n",
                200,
                "hello yo",
            ),
            (
                "PUT /p HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
                100,
                "",
            ),
            ("", 200, "ok"),
            ("DELETE /204 HTTP/1.1\r\nHost: a.test\r\n\r\n", 204, ""),
            ("GET /304 HTTP/1.1\r\nHost: a.test\r\n\r\n", 304, ""),
            ("PURGE /x HTTP/1.1\r\nHost: a.test\r\n\r\n", 200, ""),
            ("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", 200, ""),
            ("GET http://a.test/abs HTTP/1.1\r\nHost: a.test\r\n\r\n", 200, ""),
        ] {
            client.send(request).await;
            let response = client.response().await;
            assert_eq!((response.status, response.text()), (status, body), "{request}");
        }
        client.send("HEAD /h HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        let head = client.response_to_head().await;
        assert_eq!(head.header("content-length"), "1234");
        client
            .send("GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await;
        for _ in 0..2 {
            assert_eq!(client.response().await.status, 200);
        }
        let targets: Vec<String> = origin.seen().iter().map(|s| s.target.clone()).collect();
        assert_eq!(
            targets,
            ["/a?b=c", "/p", "/p", "/p", "/204", "/304", "/x", "*", "/abs", "/h", "/1", "/2"]
        );
        let mut old = front.client().await;
        old.send("GET /old HTTP/1.0\r\n\r\n").await;
        assert_eq!(old.response().await.status, 200);
        assert!(old.closed().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn proxy_l3_trailers_get_through_both_ways() {
    on_worker(async {
        let origin = Origin::start(|_| {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("42"));
            let frames = [
                Ok(http_body::Frame::data("hello".into())),
                Ok(http_body::Frame::trailers(trailers)),
            ];
            let body = StreamBody::new(futures_util::stream::iter(frames));
            let mut response = Response::new(BodyExt::boxed(body));
            response
                .headers_mut()
                .insert("trailer", HeaderValue::from_static("x-sum"));
            response
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        client
            .send(
                "POST / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\n\
                 Trailer: x-md5\r\nTransfer-Encoding: chunked\r\n\r\n\
                 2\r\nhi\r\n0\r\nX-Md5: abc\r\n\r\n",
            )
            .await;
        let response = client.response().await;
        assert_eq!(response.text(), "hello");
        assert_eq!(response.trailers, ["x-sum: 42"]);
        let seen = origin.seen().remove(0);
        assert_eq!(seen.trailers.unwrap()["x-md5"], "abc");
    })
    .await;
}

#[tokio::test]
async fn proxy_l4_fields_of_the_connection_end_here() {
    on_worker(async {
        let origin = Origin::start(|_| {
            let mut response = Response::new(full("x"));
            for (name, value) in [
                ("keep-alive", "timeout=5"),
                ("connection", "x-hop"),
                ("x-hop", "1"),
                ("x-end", "2"),
            ] {
                response
                    .headers_mut()
                    .insert(name, HeaderValue::from_static(value));
            }
            response
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        client
            .send(
                "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close, X-Hop, Host, Authorization, \
                 X-Forwarded-For\r\nX-Hop: 1\r\nAuthorization: a\r\nX-Forwarded-For: 192.0.2.1\r\n\
                 Keep-Alive: x\r\nProxy-Connection: x\r\nTE: gzip\r\nUser-Agent: Tester\r\n\r\n",
            )
            .await;
        let response = client.response().await;
        assert_eq!(response.header("connection"), "close");
        assert_eq!(
            (response.header("x-hop"), response.header("keep-alive")),
            ("", "")
        );
        assert_eq!(response.header("x-end"), "2");
        client.closed().await;
        let seen = origin.seen().remove(0);
        for gone in [
            "x-hop",
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
        ] {
            assert_eq!(seen.header(gone), "", "{gone}");
        }
        assert_eq!(seen.header("host"), "a.test");
        assert_eq!(seen.header("authorization"), "a");
        assert_eq!(seen.header("x-forwarded-for"), "192.0.2.1");
        assert_eq!(seen.header("user-agent"), "Tester");
    })
    .await;
}

#[tokio::test]
async fn proxy_l19_heads_are_limited() {
    on_worker(async {
        let origin = Origin::raw(|mut stream, _| {
            Box::pin(async move {
                while read_head(&mut stream).await {
                    stream.write_all(OK).await.unwrap();
                }
            })
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let fields = |count: usize| "X-A: 1\r\n".repeat(count);
        // With "Host", "a.test" and "X".
        let size = |bytes: usize| format!("X: {}\r\n", "v".repeat(bytes - 4 - 6 - 1));
        for (name, head, status) in [
            ("256 fields", fields(255), 200),
            ("257 fields", fields(256), 431),
            ("64 KiB", size(64 * 1024), 200),
            ("64 KiB and one byte", size(64 * 1024 + 1), 431),
        ] {
            let mut client = front.client().await;
            client
                .send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{head}\r\n"))
                .await;
            let response = client.response().await;
            assert_eq!(response.status, status, "{name}");
            if status != 200 {
                assert_eq!(response.header("sealane-error"), "headers_too_large");
                assert_eq!(response.header("sealane-hop"), "node");
                client.closed().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l21_errors_say_what_is_wrong() {
    on_worker(async {
        let mut front = Front::new(&[]).await;
        let mut client = front.client().await;
        let response = client.get("a.test", "/").await;
        assert_eq!(
            (response.status, response.header("sealane-error")),
            (503, "no_endpoints")
        );
        client
            .send(
                "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc\r\n\
                 Content-Length: 0\r\n\r\n",
            )
            .await;
        let response = client.response().await;
        assert_eq!(
            (response.status, response.header("grpc-status")),
            (200, "14")
        );
        let mut snapshot = front.world.snapshot.clone();
        snapshot.services = Default::default();
        front.world.snapshot = snapshot;
        front.world.publish();
        let response = client.get("a.test", "/").await;
        assert_eq!(
            (response.status, response.header("sealane-error")),
            (503, "no_service")
        );
        client.send("GET / HTTP/1.1\r\nX: y\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!(
            (response.status, response.header("sealane-error")),
            (400, "bad_request")
        );
        assert!(client.closed().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn reliability_b11_a_flood_of_frames_ends_the_connection_and_no_other() {
    on_worker(async {
        let origin = Origin::named("api").await;
        let front = Front::new(&[origin.addr]).await;
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let update = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let unknown = [0, 0, 0, 0x2a, 0, 0, 0, 0, 0];
        for (name, frame) in [
            ("PING", &ping[..]),
            ("WINDOW_UPDATE", &update),
            ("SETTINGS", &settings),
            ("unknown", &unknown),
        ] {
            let mut stream = TcpStream::connect(front.addr).await.unwrap();
            let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            hello.extend(settings);
            stream.write_all(&hello).await.unwrap();
            let (mut reading, mut writing) = stream.split();
            let flood = frame.repeat(100);
            let flooding = async {
                let mut frames = 0;
                while frames < 40_000 && writing.write_all(&flood).await.is_ok() {
                    frames += 100;
                }
                frames
            };
            let draining = async {
                let mut sink = vec![0; 64 * 1024];
                while matches!(reading.read(&mut sink).await, Ok(n) if n > 0) {}
            };
            let both = async { tokio::join!(flooding, draining).0 };
            let frames = tokio::time::timeout(Duration::from_secs(10), both).await;
            let frames = frames.unwrap_or_else(|_| panic!("{name}: it goes on"));
            assert!(frames < 40_000, "{name}: {frames}");
            let mut client = front.client().await;
            assert_eq!(client.get("a.test", "/").await.status, 200, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l24_trace_context_passes_as_it_is() {
    on_worker(async {
        let origin = Origin::named("api").await;
        let front = Front::new(&[origin.addr]).await;
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        // We record no spans: a parent of ours would be one that nobody can find, and what we do not
        // understand may mean something to the endpoint.
        for fields in [
            &[("traceparent", trace), ("tracestate", "a=1,b=2")][..],
            &[("traceparent", "nonsense"), ("tracestate", "a=1")],
            &[
                ("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736"),
                ("x-b3-spanid", "00f067aa0ba902b7"),
                ("x-b3-sampled", "1"),
                ("b3", "0"),
            ],
            &[("x-request-id", "one")],
        ] {
            let lines: String = fields
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n"))
                .collect();
            let mut client = front.client().await;
            let head = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n");
            client.send(&head).await;
            assert_eq!(client.response().await.status, 200);
            let seen = origin.seen().pop().unwrap();
            for (name, value) in fields {
                assert_eq!(seen.headers[*name], *value, "{name}");
            }
        }
    })
    .await;
}

/// hyper drops `Content-Length` then, wherever it stands.
#[tokio::test]
async fn ingress_t10_a_message_that_ends_twice_is_refused_and_its_connection_closed() {
    on_worker(async {
        let origin = Origin::named("a").await;
        let bad = [
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        ];
        // The second one is not for the relay, so that hyper reads what follows.
        let plain = Front::new(&[origin.addr]).await;
        let unrelayed = Front::treating(&[origin.addr], &[("slow-start", "0s")]).await;
        for (front, fields) in [&plain, &unrelayed]
            .into_iter()
            .zip(bad)
            .chain([(&plain, bad[1]), (&unrelayed, bad[0])])
        {
            let head = format!("POST /bad HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
            let message = format!("{head}3\r\nabc\r\n0\r\n\r\n");
            for before in [0, 2] {
                for cut in [message.len(), 1, 20, head.len() - 2] {
                    let mut client = front.client().await;
                    for _ in 0..before {
                        assert_eq!(client.get("a.test", "/good").await.status, 200);
                    }
                    let (first, rest) = message.split_at(cut);
                    client.send(first).await;
                    // It holds whether this makes two reads of it or not.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    client.send(rest).await;
                    let refused = client.response().await;
                    assert_eq!(refused.status, 400, "{fields:?} {before} {cut}");
                    client.closed().await;
                }
            }
        }
        let targets = origin.seen().into_iter().map(|seen| seen.target);
        assert!(targets.into_iter().all(|target| target == "/good"));
    })
    .await;
}

#[tokio::test]
async fn ingress_t10_a_body_of_a_get_is_passed_on() {
    on_worker(async {
        let origin = Origin::start(|seen| Response::new(full(seen.body.clone().unwrap()))).await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = front.client().await;
        for body in [
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            "Content-Length: 5\r\n\r\nabcde",
        ] {
            let head = "GET /search HTTP/1.1\r\nHost: a.test\r\n";
            client.send(format!("{head}{body}")).await;
            assert_eq!(client.response().await.text(), "abcde", "{body:?}");
        }
    })
    .await;
}
