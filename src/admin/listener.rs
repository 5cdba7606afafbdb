//! Plain HTTP/1.1 for probes, collectors and people: one request a connection, since clients that keep
//! connections open would take the places of a kubelet's probes.
//!
//! A process that has run out of file descriptors still answers here: a few are kept back for it, as
//! descriptors that can be closed the moment a connection waits.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Connections at a time; more wait in the kernel's queue.
pub(super) const CONNECTIONS: usize = 16;

/// Time for the head of a request.
pub(super) const HEAD: Duration = Duration::from_secs(10);

/// Time for a connection as a whole.
const CONNECTION: Duration = Duration::from_secs(30);

/// Buffer for the head of a request, bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// Pause after an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Descriptors that are kept back.
const RESERVE: usize = 4;

/// An answer.
pub(crate) type Answer = Response<Full<Bytes>>;

/// A plain text.
pub(crate) fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, text);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Accepts, and answers each request with what `respond` makes of it and the client's address. Never
/// ends.
pub(crate) async fn accept<R, F>(listener: TcpListener, respond: R)
where
    R: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut reserve = Reserve::default();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        reserve.fill();
        match listener.accept().await {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, respond.clone());
                tokio::spawn(async move {
                    // A client that is too slow is cut off.
                    let _ = timeout(CONNECTION, connection).await;
                    drop(place);
                });
            }
            Err(error) if is_out_of_descriptors(&error) && reserve.spend() => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept admin connections");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection<R, F>(stream: TcpStream, peer: SocketAddr, respond: R)
where
    R: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Answer>,
{
    let service = service_fn(move |request| {
        let answer = respond(request, peer);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection");
    }
}

/// Descriptors that make room when they are closed.
#[derive(Default)]
struct Reserve(Vec<File>);

impl Reserve {
    fn fill(&mut self) {
        while self.0.len() < RESERVE
            && let Ok(file) = File::open("/dev/null")
        {
            self.0.push(file);
        }
    }

    /// Makes room for one, if there is something to make it from.
    fn spend(&mut self) -> bool {
        self.0.pop().is_some()
    }
}

/// `EMFILE`, `ENFILE`.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EMFILE | Errno::ENFILE))
}
