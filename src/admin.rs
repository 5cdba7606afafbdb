//! The admin listener: liveness, readiness, metrics and a look inside, over plain HTTP/1.1.
//!
//! GET only, so that nothing can be changed by whoever reaches it. Each connection carries one
//! request: clients that keep connections open would otherwise take the places of a kubelet's probes.
//! It runs beside the data plane, on the threads for control work.

mod metrics;
mod pages;
mod readiness;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use metrics::install as install_metrics;
pub(crate) use metrics_exporter_prometheus::PrometheusHandle;
pub(crate) use pages::{Pages, Scope};
pub(crate) use readiness::{Pending, Readiness};

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 16;

/// Time for the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// Time for a connection as a whole.
const CONNECTION: Duration = Duration::from_secs(30);

/// Buffer for the head of a request, bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// Pause after an accept that failed, for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`.
///
/// # Errors
/// The listener cannot be used.
pub(crate) async fn serve(
    listeners: Vec<(TcpListener, Scope)>,
    pages: Pages,
    stop: CancellationToken,
) -> std::io::Result<()> {
    metrics::describe(pages.mode);
    let upkeep = metrics::upkeep(pages.metrics.clone());
    let pages = Arc::new(pages);
    let accepting = listeners.into_iter().map(|(listener, scope)| {
        let listener = tokio::net::TcpListener::from_std(listener);
        let pages = Arc::clone(&pages);
        async move {
            accept(listener?, scope, pages).await;
            Ok(())
        }
    });
    let serving = futures_util::future::try_join_all(accepting);
    tokio::select! {
        served = serving => served.map(drop),
        () = upkeep => Ok(()),
        () = stop.cancelled() => Ok(()),
    }
}

async fn accept(listener: tokio::net::TcpListener, scope: Scope, pages: Arc<Pages>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(stream, scope, Arc::clone(&pages));
                tokio::spawn(async move {
                    // A client that is too slow is cut off.
                    let _ = timeout(CONNECTION, connection).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept admin connections");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, scope: Scope, pages: Arc<Pages>) {
    let service = service_fn(move |request| {
        let response = respond(&pages, scope, &request);
        async move { Ok::<_, Infallible>(response) }
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

fn respond(pages: &Pages, scope: Scope, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        let mut refused = Response::new(Full::new(Bytes::from_static(b"GET only\n")));
        *refused.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        let allow = HeaderValue::from_static("GET");
        refused.headers_mut().insert(ALLOW, allow);
        return refused;
    }
    let uri = request.uri();
    let page = pages.get(scope, uri.path(), uri.query().unwrap_or_default());
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
