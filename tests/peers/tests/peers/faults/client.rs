//! Clients that report how an exchange ended.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::*;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As its protocol says that it ends.
    Clean,
    /// Visibly too early.
    Broken,
    /// Not within the client's patience.
    Never,
}

/// What a client saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// HTTP's status; 0 where there is none.
    pub(super) status: u16,
    /// Bytes of the body.
    pub(super) bytes: usize,
    pub(super) end: End,
    pub(super) took: Duration,
}

/// Waits until an address accepts connections.
pub(super) async fn listening(addr: SocketAddr) {
    let accepted = async { while TcpStream::connect(addr).await.is_err() {} };
    timeout(PATIENCE, accepted).await.expect("a listener");
}

/// One exchange on a connection of its own, for so many bytes.
pub(super) async fn get(
    spoken: Spoken,
    addr: SocketAddr,
    bytes: usize,
    patience: Duration,
) -> Seen {
    let started = Instant::now();
    let mut seen = Seen {
        status: 0,
        bytes: 0,
        end: End::Never,
        took: Duration::ZERO,
    };
    let exchange = async {
        if spoken == Spoken::Tcp {
            line(addr, bytes, &mut seen).await
        } else {
            let request = request(Method::GET, &format!("/{bytes}"), "");
            http(spoken, addr, request, &mut seen).await
        }
    };
    if let Ok(ended) = timeout(patience, exchange).await {
        seen.end = if ended { End::Clean } else { End::Broken };
    }
    seen.took = started.elapsed();
    seen
}

/// A POST of a few bytes.
pub(super) async fn post(spoken: Spoken, addr: SocketAddr, body: &str) -> Seen {
    let started = Instant::now();
    let mut seen = Seen {
        status: 0,
        bytes: 0,
        end: End::Never,
        took: Duration::ZERO,
    };
    let request = request(Method::POST, "/2", body);
    if let Ok(ended) = timeout(PATIENCE, http(spoken, addr, request, &mut seen)).await {
        seen.end = if ended { End::Clean } else { End::Broken };
    }
    seen.took = started.elapsed();
    seen
}

fn request(method: Method, path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://api.test{path}"))
        .header("host", "api.test")
        .body(Full::from(body.to_owned()))
        .unwrap()
}

/// True if the answer came to its end.
async fn http(
    spoken: Spoken,
    addr: SocketAddr,
    request: Request<Full<Bytes>>,
    seen: &mut Seen,
) -> bool {
    let Ok(stream) = TcpStream::connect(addr).await else {
        return false;
    };
    stream.set_nodelay(true).unwrap();
    let stream = TokioIo::new(stream);
    let response = if spoken == Spoken::Http1 {
        let Ok((mut client, connection)) = http1::handshake(stream).await else {
            return false;
        };
        tokio::spawn(connection);
        client.send_request(request).await
    } else {
        let Ok((mut client, connection)) = http2::handshake(TokioExecutor::new(), stream).await
        else {
            return false;
        };
        tokio::spawn(connection);
        client.send_request(request).await
    };
    let Ok(response) = response else {
        return false;
    };
    seen.status = response.status().as_u16();
    drain(response.into_body(), seen).await
}

async fn drain(mut body: Incoming, seen: &mut Seen) -> bool {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return false;
        };
        seen.bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    true
}

/// Plain TCP: sends a line, ends its stream and reads to the end.
async fn line(addr: SocketAddr, bytes: usize, seen: &mut Seen) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(format!("{bytes}\n").as_bytes()).await?;
        stream.shutdown().await?;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match stream.read(&mut buffer).await? {
                0 => return Ok::<_, io::Error>(()),
                read => seen.bytes += read,
            }
        }
    };
    exchange.await.is_ok()
}
