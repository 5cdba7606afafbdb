//! HTTP/2 on either side.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;
use crate::testing::{Origin, eventually, full, status};

type Client = http2::SendRequest<Full<Bytes>>;

async fn http2_client(addr: SocketAddr) -> Client {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (client, connection) = http2::Builder::new(LocalExecutor)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::task::spawn_local(connection);
    client
}

fn grpc_request(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("http://a.test/pkg.Service/Method")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap()
}

#[tokio::test]
async fn proxy_l6_grpc_gets_its_trailers() {
    on_worker(async {
        let origin = Origin::start(|seen| {
            if seen.body.as_deref() == Some(b"fail") {
                let mut trailers_only = status(200);
                let headers = trailers_only.headers_mut();
                headers.insert("content-type", HeaderValue::from_static("application/grpc"));
                headers.insert("grpc-status", HeaderValue::from_static("7"));
                return trailers_only;
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [
                Ok(Frame::data(Bytes::from_static(b"answer"))),
                Ok(Frame::trailers(trailers)),
            ];
            Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(
                frames,
            ))))
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = http2_client(front.addr).await;
        let response = client.send_request(grpc_request("ask")).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(body.to_bytes(), "answer");
        let refused = client.send_request(grpc_request("fail")).await.unwrap();
        assert_eq!(refused.headers()["grpc-status"], "7");
        let seen = origin.seen().remove(0);
        assert_eq!(seen.version, Version::HTTP_2);
        assert_eq!(seen.header("te"), "trailers");
    })
    .await;
}

#[tokio::test]
async fn proxy_l7_streams_of_one_connection_are_spread() {
    on_worker(async {
        let origins = [
            Origin::named("a").await,
            Origin::named("b").await,
            Origin::named("c").await,
        ];
        let addrs: Vec<SocketAddr> = origins.iter().map(|o| o.addr).collect();
        let front = Front::new(&addrs).await;
        let client = http2_client(front.addr).await;
        let requests = (0..300).map(|_| {
            let mut client = client.clone();
            async move {
                client.ready().await.unwrap();
                let response = client.send_request(grpc_request("x")).await.unwrap();
                response.into_body().collect().await.unwrap();
            }
        });
        futures_util::future::join_all(requests).await;
        for origin in &origins {
            assert!(origin.hits() > 60, "{}", origin.hits());
            // One shared connection each.
            assert!(origin.seen().iter().all(|s| s.connection == 0));
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l13_a_refused_http2_connection_is_retried_elsewhere() {
    on_worker(async {
        let dead = Origin::named("dead").await;
        let dead_addr = dead.addr;
        dead.kill().await;
        let origin = Origin::named("alive").await;
        let front = Front::new(&[dead_addr, origin.addr]).await;
        let mut client = http2_client(front.addr).await;
        for _ in 0..20 {
            let response = client.send_request(grpc_request("x")).await.unwrap();
            assert_eq!(
                response.into_body().collect().await.unwrap().to_bytes(),
                "alive"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l20_http2_errors_stay_http2() {
    on_worker(async {
        let front = Front::new(&[]).await;
        let mut client = http2_client(front.addr).await;
        let plain = Request::get("http://a.test/")
            .body(Full::default())
            .unwrap();
        let response = client.send_request(plain).await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["sealane-error"], "no_endpoints");
        let response = client.send_request(grpc_request("x")).await.unwrap();
        assert_eq!(
            (
                response.status().as_u16(),
                &response.headers()["grpc-status"]
            ),
            (200, &"14".parse().unwrap())
        );
        let differ = Request::get("http://a.test/")
            .header("host", "b.test")
            .body(Full::default())
            .unwrap();
        let response = client.send_request(differ).await.unwrap();
        assert_eq!(response.status(), 400);
    })
    .await;
}

#[tokio::test]
async fn ingress_t17_draining_http2_finishes_its_streams() {
    on_worker(async {
        let origin = Origin::slow(|_| {
            Box::pin(async {
                tokio::time::sleep(ms(200)).await;
                Response::new(full("done"))
            })
        })
        .await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = http2_client(front.addr).await;
        let response = client.send_request(grpc_request("x"));
        let drain = async {
            eventually("in flight", || origin.hits() == 1).await;
            front.shutdown.cancel();
        };
        let (response, ()) = tokio::join!(response, drain);
        let body = response.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "done");
        front.connections.close();
        front.connections.wait().await;
        assert!(client.send_request(grpc_request("x")).await.is_err());
    })
    .await;
}

/// An HTTP/2 origin that sends half an answer and, when told to, resets the stream with this code.
async fn half_an_answer(code: h2::Reason, reset: Arc<Notify>) -> Origin {
    Origin::raw(move |stream, _| {
        let reset = Arc::clone(&reset);
        Box::pin(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                body.send_data(Bytes::from_static(b"half"), false).unwrap();
                let reset = Arc::clone(&reset);
                tokio::spawn(async move {
                    reset.notified().await;
                    body.send_reset(code);
                });
            }
        })
    })
    .await
}

#[tokio::test]
async fn proxy_l6_a_reset_keeps_its_code() {
    on_worker(async {
        for code in [h2::Reason::CANCEL, h2::Reason::INTERNAL_ERROR] {
            let reset = Arc::new(Notify::new());
            let origin = half_an_answer(code, Arc::clone(&reset)).await;
            let front = Front::new(&[origin.addr]).await;
            let mut client = http2_client(front.addr).await;
            let response = client.send_request(grpc_request("x")).await.unwrap();
            let mut body = response.into_body();
            let half = body.frame().await.unwrap().unwrap();
            assert_eq!(half.into_data().unwrap(), "half");
            reset.notify_one();
            let failed = body.frame().await.unwrap().unwrap_err();
            let source = std::error::Error::source(&failed).unwrap();
            let reason = source.downcast_ref::<h2::Error>().unwrap().reason();
            assert_eq!(reason, Some(code));
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l13_a_refused_stream_is_sent_elsewhere() {
    on_worker(async {
        let refusing = Origin::raw(|stream, _| {
            Box::pin(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                }
            })
        })
        .await;
        let origin = Origin::named("alive").await;
        let front = Front::new(&[refusing.addr, origin.addr]).await;
        let mut client = http2_client(front.addr).await;
        for _ in 0..20 {
            // A GET, because a body that was read and not kept cannot be sent again.
            let request = Request::get("http://a.test/")
                .body(Full::default())
                .unwrap();
            let response = client.send_request(request).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "alive");
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l3_versions_are_translated_for_the_endpoint() {
    on_worker(async {
        let origin = Origin::named("old").await;
        let front = Front::new(&[origin.addr]).await;
        let port = front
            .world
            .snapshot
            .backend(&backend("api"))
            .unwrap()
            .clone();
        let target = Target::new(port, Upstream::Http1);
        let mut request = Request::post("/x?y").version(Version::HTTP_2);
        for (name, value) in [("host", "a.test"), ("te", "trailers")] {
            request = request.header(name, value);
        }
        let request = request.body(Body::full("hello")).unwrap();
        let response = Box::pin(front.engine.forward(request, &target)).await;
        assert_eq!(response.status(), 200);
        let seen = origin.seen().remove(0);
        assert_eq!((seen.version, &*seen.target), (Version::HTTP_11, "/x?y"));
        assert_eq!(seen.header("content-length"), "5");
        assert_eq!(
            (seen.header("te"), seen.header("connection")),
            ("trailers", "te")
        );
    })
    .await;
}

/// An endpoint whose calls end with this status in the trailers, and how often it was called.
async fn ending_with(code: &'static str) -> Origin {
    Origin::start(move |_| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"answer"))),
            Ok(Frame::trailers(trailers)),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let mut response = Response::new(BodyExt::boxed(body));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        response
    })
    .await
}

#[tokio::test]
async fn proxy_l10_the_status_in_the_trailers_counts() {
    on_worker(async {
        for (code, ejects) in [("14", true), ("0", false), ("5", false)] {
            let bad = ending_with(code).await;
            let good = [ending_with("0").await, ending_with("0").await];
            let front = Front::new(&[bad.addr, good[0].addr, good[1].addr]).await;
            let mut client = http2_client(front.addr).await;
            for _ in 0..90 {
                let answer = client.send_request(grpc_request("")).await.unwrap();
                answer.into_body().collect().await.unwrap();
            }
            assert_eq!(bad.hits() < 10, ejects, "{code}: {} calls", bad.hits());
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l12_a_grpc_code_is_a_reason_for_who_asks() {
    on_worker(async {
        for (annotations, code) in [
            (
                &[("retry-on", "unavailable"), ("ejection", "off")][..],
                None,
            ),
            (&[("ejection", "off")], Some("14")),
        ] {
            let bad = Origin::start(|_| {
                let mut trailers_only = status(200);
                let headers = trailers_only.headers_mut();
                headers.insert("content-type", HeaderValue::from_static("application/grpc"));
                headers.insert("grpc-status", HeaderValue::from_static("14"));
                trailers_only
            })
            .await;
            let good = ending_with("0").await;
            let front = Front::treating(&[bad.addr, good.addr], annotations).await;
            let mut client = http2_client(front.addr).await;
            let mut worst = None;
            for _ in 0..20 {
                let request = grpc_request("the same body again");
                let answer = client.send_request(request).await.unwrap();
                let failed = answer.headers().get("grpc-status").cloned();
                worst = worst.or(failed);
                answer.into_body().collect().await.unwrap();
            }
            assert!(bad.hits() > 0);
            let worst = worst.as_ref().map(|code| code.to_str().unwrap());
            assert_eq!(worst, code);
            let body = Some(&b"the same body again"[..]);
            assert!(good.seen().iter().all(|seen| seen.body.as_deref() == body));
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l5_a_websocket_over_http2_becomes_one_over_http1() {
    on_worker(async {
        let origin = upgrades::upgrading().await;
        let front = Front::new(&[origin.addr]).await;
        let mut client = http2_client(front.addr).await;
        let connect = |protocol: &'static str| {
            let mut request = Request::connect("http://a.test/chat")
                .header("sec-websocket-version", "13")
                .body(Full::new(Bytes::new()))
                .unwrap();
            let protocol = hyper::ext::Protocol::from_static(protocol);
            request.extensions_mut().insert(protocol);
            request
        };
        // The server's settings, which say that it understands this, are there with an answer.
        let plain = Request::post("http://a.test/").header("te", "gzip");
        let plain = plain.method("TRACE").body(Full::new(Bytes::new())).unwrap();
        assert_eq!(client.send_request(plain).await.unwrap().status(), 405);
        let mut response = client.send_request(connect("websocket")).await.unwrap();
        assert_eq!(response.status(), 200);
        for gone in ["upgrade", "connection", "sec-websocket-accept"] {
            assert!(!response.headers().contains_key(gone), "{gone}");
        }
        assert_eq!(response.headers()["x-asked"], "true");
        let tunnel = hyper::upgrade::on(&mut response).await.unwrap();
        let mut tunnel = TokioIo::new(tunnel);
        let mut hello = [0; 5];
        tunnel.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        tunnel.write_all(b"more").await.unwrap();
        let mut echo = [0; 4];
        tunnel.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"more");
        let refused = client.send_request(connect("connect-udp")).await.unwrap();
        assert_eq!(refused.status(), 405);
    })
    .await;
}
