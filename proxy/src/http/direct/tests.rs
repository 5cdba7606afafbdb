use std::net::Ipv4Addr;
use std::time::Duration;

use sealane_config::model::AppProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::ErrorKind;
use crate::connect::Connector;
use crate::http::Upstream;
use crate::testing::{World, endpoint};

/// What becomes of an answer: status and body, or why there is none, and whether the connection is
/// kept.
#[derive(Debug, PartialEq)]
struct Outcome {
    answer: Result<(u16, Result<String, String>), ErrorKind>,
    kept: bool,
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

/// Asks an endpoint that sends this in pieces of `step` bytes, and then closes if `closes`.
async fn asked(method: &Method, answer: &'static str, step: usize, closes: bool) -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = endpoint(listener.local_addr().unwrap());
    let pool = Rc::new(Connections::new(Connector::Direct));
    let port = World::new().service("api", AppProtocol::Http, &[]);
    let target = Target::new(port, Upstream::Http1);
    let leased = Connection::lease(&pool, &target, &endpoint, false).await;
    let mut connection = leased.map_err(|failure| failure.error).unwrap();
    assert!(!connection.reused, "there was none to be used again");
    let (mut peer, _) = listener.accept().await.unwrap();
    peer.set_nodelay(true).unwrap();
    let sending = async {
        // To close with something unread would be a reset.
        peer.read_exact(&mut [0; REQUEST.len()]).await.unwrap();
        for piece in answer.as_bytes().chunks(step) {
            // Refused once we have given up.
            if peer.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if closes {
            drop(peer);
            None
        } else {
            Some(peer)
        }
    };
    let asking = async {
        let answer = connection.ask(REQUEST, method == Method::HEAD).await;
        let answer = answer.map_err(|failure| failure.error.kind())?;
        let (parts, body) = answer.on(connection).into_parts();
        Ok((parts.status.as_u16(), read(body).await))
    };
    let (answer, _peer) = tokio::join!(asking, sending);
    let again = pool.lease(&endpoint, None, false, Duration::from_secs(5));
    let kept = again.await.unwrap().1;
    Outcome { answer, kept }
}

async fn read(mut body: AnswerBody) -> Result<String, String> {
    let mut text = String::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.poll_frame(cx)).await {
        let data = frame.map_err(|error| error.to_string())?.into_data();
        text += std::str::from_utf8(&data.unwrap()).unwrap();
    }
    Ok(text)
}

#[tokio::test]
async fn proxy_l3_answers_without_hyper_end_where_they_say() {
    let get = &Method::GET;
    let ok = |status, body: &str| Ok((status, Ok(body.to_owned())));
    let cut = Ok((200, Err("the endpoint's answer was cut short".to_owned())));
    let broken = Ok((200, Err("the endpoint's answer is malformed".to_owned())));
    for (name, method, answer, closes, expected, kept) in [
        (
            "a length",
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            false,
            ok(200, "hello"),
            true,
        ),
        (
            "chunks",
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nt: 1\r\n\r\n",
            false,
            ok(200, "hello"),
            true,
        ),
        (
            "the end of the connection",
            get,
            "HTTP/1.1 200 OK\r\n\r\nhello",
            true,
            ok(200, "hello"),
            false,
        ),
        (
            "HEAD",
            &Method::HEAD,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            false,
            ok(200, ""),
            true,
        ),
        (
            "no content",
            get,
            "HTTP/1.1 204 No Content\r\n\r\n",
            false,
            ok(204, ""),
            true,
        ),
        (
            "an interim answer first",
            get,
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            false,
            ok(200, "ok"),
            true,
        ),
        (
            "it says close",
            get,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            true,
            ok(200, "ok"),
            false,
        ),
        (
            "too short",
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
            true,
            cut.clone(),
            false,
        ),
        (
            "chunks without an end",
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            true,
            cut,
            false,
        ),
        (
            "nothing",
            get,
            "",
            true,
            Err(ErrorKind::UpstreamReset),
            false,
        ),
        (
            "half a head",
            get,
            "HTTP/1.1 200 OK\r\nContent-",
            true,
            Err(ErrorKind::BadResponse),
            false,
        ),
        (
            "two lengths",
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
            false,
            Err(ErrorKind::BadResponse),
            false,
        ),
        (
            "an upgrade that nobody asked for",
            get,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            false,
            Err(ErrorKind::BadResponse),
            false,
        ),
    ] {
        for step in [1, 7, 1000] {
            let seen = asked(method, answer, step, closes).await;
            assert_eq!(seen.answer, expected, "{name}, {step} bytes at a time");
            assert_eq!(seen.kept, kept, "{name}, {step} bytes at a time");
        }
    }
    // Whether the fault is seen with the head or behind it depends on the pieces.
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n";
    for step in [1, 1000] {
        let answer = asked(get, chunks, step, false).await.answer;
        let fits = answer == broken || answer == Err(ErrorKind::BadResponse);
        assert!(fits, "{answer:?}");
    }
    // Behind the answer: nobody asked for that.
    let more = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n";
    let seen = asked(get, more, 1000, false).await;
    assert_eq!((seen.answer, seen.kept), (ok(200, "ok"), false));
}

#[test]
fn proxy_l3_heads_of_requests_without_a_body() {
    let endpoint = endpoint(([10, 1, 2, 3], 80).into());
    for (method, target, fields, expected) in [
        (
            "GET",
            "http://ignored/a?b=c",
            &[("host", "a.test"), ("x-one", "1"), ("x-one", "2")][..],
            "GET /a?b=c HTTP/1.1\r\nhost: a.test\r\nx-one: 1\r\nx-one: 2\r\n\r\n",
        ),
        (
            "POST",
            "/",
            &[("host", "a.test")],
            "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "DELETE",
            "/",
            &[],
            "DELETE / HTTP/1.1\r\nhost: 10.1.2.3:80\r\n\r\n",
        ),
    ] {
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut out = Vec::new();
        write_head(&parts, &endpoint, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn proxy_l3_requests_that_take_more_are_left_to_hyper() {
    for (field, fit) in [
        (("accept", "*/*"), true),
        (("te", "trailers"), false),
        (("expect", "100-continue"), false),
        (("upgrade", "websocket"), false),
    ] {
        let request = http::Request::builder().header(field.0, field.1);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(is_fit(&parts), fit, "{field:?}");
    }
}
