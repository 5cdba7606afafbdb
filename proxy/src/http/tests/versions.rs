//! HTTP/2 on either side.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::*;
use crate::testing::{Origin, full, status};

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
            crate::testing::eventually("in flight", || origin.hits() == 1).await;
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
