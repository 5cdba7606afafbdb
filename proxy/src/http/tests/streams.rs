//! Plain requests of HTTP/2, which go the relay's way, beside others on the same connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::http::relay::{OwnField, PlainHead, Route};
use crate::testing::{Origin, Refusing, eventually};

type Client = http2::SendRequest<Full<Bytes>>;

/// What became of plain requests.
type Answered = Rc<RefCell<Vec<u16>>>;

/// Everything goes to one Service.
#[derive(Clone)]
struct OneRule {
    target: Target,
    answered: Answered,
}

struct OneRoute(OneRule);

impl crate::http::Front for OneRule {
    const STREAMS: bool = true;

    type Route = OneRoute;

    fn route(&self, _: &PlainHead<'_>) -> Option<OneRoute> {
        Some(OneRoute(self.clone()))
    }

    fn passes(&self, name: &str) -> bool {
        name != "x-claim"
    }

    fn write_fields(&self, head: &PlainHead<'_>, out: &mut Vec<u8>) {
        write_field("x-told", head.host.as_bytes(), out);
    }
}

impl Route for OneRoute {
    fn target(&self) -> &Target {
        &self.0.target
    }

    fn answer_field(&self) -> Option<OwnField<'_>> {
        Some(("x-rule", b"one"))
    }

    fn answered(&self, status: StatusCode, _: Duration) {
        self.0.answered.borrow_mut().push(status.as_u16());
    }
}

/// A connection to a proxy whose plain requests go to these endpoints. The others are handled, and
/// their answers say so.
async fn connected(endpoints: &[SocketAddr]) -> (Client, Answered, Engine) {
    let mut world = World::new();
    let port = world.service("api", AppProtocol::Http, endpoints);
    let engine = Engine::new(Connector::Direct, EngineOptions::default());
    let rule = OneRule {
        target: Target::new(port, Upstream::Http1),
        answered: Answered::default(),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap());
    let theirs = theirs.await.unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    let (served, answered) = (engine.clone(), Rc::clone(&rule.answered));
    tokio::task::spawn_local(async move {
        let (engine, target) = (served.clone(), rule.target.clone());
        let handler = move |request| {
            let (engine, target) = (engine.clone(), target.clone());
            async move {
                let mut response = engine.forward(request, &target).await;
                let yes = http::HeaderValue::from_static("yes");
                response.headers_mut().insert("x-handled", yes);
                response
            }
        };
        let options = ServerOptions::default();
        let shutdown = CancellationToken::new().into();
        serve_relayed(ours, &options, (&served, &rule), handler, shutdown).await;
    });
    let (client, connection) = http2::Builder::new(LocalExecutor)
        .handshake(TokioIo::new(theirs))
        .await
        .unwrap();
    tokio::task::spawn_local(connection);
    (client, answered, engine)
}

fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).unwrap()
}

/// Status, fields and body of an answer.
async fn ask(client: &mut Client, request: Request<Full<Bytes>>) -> (u16, HeaderMap, String) {
    let (parts, body) = client.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    (parts.status.as_u16(), parts.headers, body)
}

const ROOT: &str = "http://a.test/";

#[tokio::test]
async fn proxy_l3_plain_streams_reach_their_endpoint_as_others_do() {
    on_worker(async {
        let origin = Origin::named("origin").await;
        let (mut client, answered, _engine) = connected(&[origin.addr]).await;
        let many: Vec<(String, String)> = (0..40)
            .map(|number| (format!("x-{number}"), "1".to_owned()))
            .collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (&**n, &**v)).collect();
        let mut plain = 0;
        for (method, target, fields, is_plain) in [
            ("GET", "http://a.test/b?c=d", &[("x-one", "1")][..], true),
            ("HEAD", ROOT, &[], true),
            ("OPTIONS", "http://a.test/x", &[], true),
            ("POST", ROOT, &[], true),
            ("DELETE", ROOT, &[("cookie", "a=1")], true),
            ("GET", ROOT, &[("x-claim", "me"), ("proxy", "evil")], true),
            ("GET", ROOT, &[("cookie", "a=1"), ("cookie", "b=2")], false),
            ("GET", ROOT, &[("te", "trailers")], false),
            ("GET", ROOT, &[("x_one", "1")], false),
            ("GET", ROOT, &[("host", "a.test")], false),
            ("PUT", ROOT, &[("content-length", "0")], true),
            ("GET", "http://a.test/a|b", &[], false),
            ("PROPFIND", ROOT, &[], false),
            ("GET", ROOT, &many, false),
        ] {
            let name = format!("{method} {target} {fields:?}");
            let (status, answer, _) = ask(&mut client, request(method, target, fields)).await;
            assert_eq!(status, 200, "{name}");
            assert_eq!(answer.contains_key("x-handled"), !is_plain, "{name}");
            assert_eq!(answer.contains_key("x-rule"), is_plain, "{name}");
            plain += usize::from(is_plain);
            let seen = origin.seen().pop().unwrap();
            assert_eq!(seen.method.as_str(), method, "{name}");
            assert_eq!(format!("http://a.test{}", seen.target), target, "{name}");
            assert_eq!(seen.headers.get_all("host").iter().count(), 1, "{name}");
            assert_eq!(seen.header("host"), "a.test", "{name}");
            assert!(!seen.headers.contains_key("proxy"), "{name}");
            assert_eq!(seen.headers.contains_key("x-told"), is_plain, "{name}");
            if is_plain {
                assert!(!seen.headers.contains_key("x-claim"), "{name}");
            }
            let length = seen.headers.get("content-length");
            let has_length = matches!(method, "POST" | "PUT");
            assert_eq!(length.is_some(), has_length, "{name}");
            if fields.len() == 2 && fields[1].0 == "cookie" {
                assert_eq!(seen.header("cookie"), "a=1; b=2");
            }
        }
        assert_eq!(*answered.borrow(), vec![200; plain]);
        // One with a body is not plain, and is there as a whole.
        let mut with_body = request("POST", ROOT, &[]);
        *with_body.body_mut() = Full::from("body");
        let (_, answer, _) = ask(&mut client, with_body).await;
        assert!(answer.contains_key("x-handled"));
        assert_eq!(origin.seen().pop().unwrap().body.unwrap(), "body");
    })
    .await;
}

#[tokio::test]
async fn proxy_l3_answers_to_plain_streams_are_written_anew() {
    on_worker(async {
        for (name, method, answer, (status, body), length) in [
            (
                "a length",
                "GET",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
                 Keep-Alive: timeout=9\r\nX-End: 1\r\nX-Rule: theirs\r\n\r\nhello",
                (200, "hello"),
                Some("5"),
            ),
            (
                "chunks",
                "GET",
                "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nX-End: 1\r\n\r\n\
                 5\r\nhello\r\n0\r\n\r\n",
                (404, "hello"),
                None,
            ),
            (
                "HEAD",
                "HEAD",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-End: 1\r\n\r\n",
                (200, ""),
                Some("5"),
            ),
            (
                "not modified",
                "GET",
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nX-End: 1\r\n\r\n",
                (304, ""),
                Some("5"),
            ),
            (
                "nothing",
                "GET",
                "HTTP/1.1 204 No Content\r\nX-End: 1\r\n\r\n",
                (204, ""),
                None,
            ),
        ] {
            let connections = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&connections);
            let origin = Origin::raw(move |mut stream, _| {
                count.fetch_add(1, Ordering::Relaxed);
                Box::pin(async move {
                    while read_head(&mut stream).await {
                        // In pieces, so that the rest of a body comes by itself.
                        let (first, rest) = answer.split_at(answer.len() - 3);
                        stream.write_all(first.as_bytes()).await.unwrap();
                        tokio::task::yield_now().await;
                        stream.write_all(rest.as_bytes()).await.unwrap();
                    }
                })
            })
            .await;
            let (mut client, ..) = connected(&[origin.addr]).await;
            for _ in 0..2 {
                let (seen, fields, text) = ask(&mut client, request(method, ROOT, &[])).await;
                assert_eq!((seen, &*text), (status, body), "{name}");
                assert_eq!(fields["x-end"], "1", "{name}");
                assert_eq!(fields.get_all("x-rule").iter().count(), 1, "{name}");
                assert_eq!(fields["x-rule"], "one", "{name}");
                let told = fields.get("content-length").map(|it| it.to_str().unwrap());
                assert_eq!(told, length, "{name}");
                for gone in ["connection", "keep-alive", "x-hop", "transfer-encoding"] {
                    assert!(!fields.contains_key(gone), "{name}: {gone}");
                }
            }
            let made = connections.load(Ordering::Relaxed);
            assert_eq!(made, 1, "{name}: the connection is kept");
        }
    })
    .await;
}

#[tokio::test]
async fn proxy_l10_plain_streams_are_sent_again_under_the_same_rules() {
    on_worker(async {
        // It closes each connection after one answer, without a word.
        let closing = Origin::raw(|mut stream, _| {
            Box::pin(async move {
                if read_head(&mut stream).await {
                    stream.write_all(OK).await.unwrap();
                }
            })
        })
        .await;
        let (mut client, ..) = connected(&[closing.addr]).await;
        for _ in 0..20 {
            assert_eq!(ask(&mut client, request("GET", ROOT, &[])).await.0, 200);
        }
        // Nobody listens at one of two.
        let refusing = Refusing::bind();
        let nobody = refusing.addr;
        let origin = Origin::named("origin").await;
        let (mut client, ..) = connected(&[nobody, origin.addr]).await;
        for _ in 0..20 {
            assert_eq!(ask(&mut client, request("POST", ROOT, &[])).await.0, 200);
        }
        // Nor anywhere: the answer is ours.
        let (mut client, answered, _engine) = connected(&[nobody]).await;
        let (status, fields, _) = ask(&mut client, request("GET", ROOT, &[])).await;
        assert_eq!(status, 502);
        assert_eq!(fields["sealane-error"], "connect_failed");
        assert_eq!(fields["sealane-hop"], "node");
        assert_eq!(fields["x-rule"], "one");
        let (mut client, ..) = connected(&[]).await;
        assert_eq!(ask(&mut client, request("GET", ROOT, &[])).await.0, 503);
        assert_eq!(*answered.borrow(), [502]);
    })
    .await;
}

#[tokio::test]
async fn proxy_l12_a_plain_stream_without_an_answer_is_given_up_in_time() {
    on_worker(async {
        let heads = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(AtomicUsize::new(0));
        let (count, opened) = (Arc::clone(&heads), Arc::clone(&open));
        let origin = Origin::raw(move |mut stream, _| {
            let (heads, open) = (Arc::clone(&count), Arc::clone(&opened));
            Box::pin(async move {
                open.fetch_add(1, Ordering::Relaxed);
                if read_head(&mut stream).await {
                    heads.fetch_add(1, Ordering::Relaxed);
                    read_head(&mut stream).await;
                }
                open.fetch_sub(1, Ordering::Relaxed);
            })
        })
        .await;
        let (mut client, answered, _engine) = connected(&[origin.addr]).await;
        let asked = tokio::task::spawn_local(client.send_request(request("GET", ROOT, &[])));
        eventually("the request is there", || {
            heads.load(Ordering::Relaxed) == 1
        })
        .await;
        // The client resets the stream.
        asked.abort();
        eventually("it is given up", || open.load(Ordering::Relaxed) == 0).await;
        assert!(answered.borrow().is_empty());
        let asked = tokio::task::spawn_local(client.send_request(request("GET", ROOT, &[])));
        eventually("the other is there", || heads.load(Ordering::Relaxed) == 2).await;
        tokio::time::pause();
        // An hour that passes at once, if nobody gives the request up before.
        let response = tokio::time::timeout(ms(3_600_000), asked).await;
        let response = response.unwrap().unwrap().unwrap();
        assert_eq!(response.status(), 504);
        assert_eq!(response.headers()["sealane-error"], "response_timeout");
        assert_eq!(*answered.borrow(), [504]);
    })
    .await;
}
