//! The server on a socket: HTTP/1.1 and HTTP/2 over TLS, for kubectl and pods (T1).

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ApiServer;
use super::body::ApiBody;
use super::server::error_response;
use super::status::ApiError;
use super::watch::Shutdown;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 1_024;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Time for the head of a request, which includes the idle time before it. Longer than clients keep
/// idle connections (90 s in client-go), so they close first.
const HEAD: Duration = Duration::from_secs(120);

/// Interval of HTTP/2 and TCP keep-alive probes, so that dead clients do not hold watches.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Requests at once on one HTTP/2 connection; informers keep many watches open.
const STREAMS: u32 = 250;

/// Time for requests in flight at shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// Pause after a failed accept (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`. Every request needs the bearer token of the server's options or a
/// client certificate that `tls` has verified.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    server: ApiServer,
    shutdown: CancellationToken,
) {
    let handler = move |request, certificate: Option<_>| {
        authorized(server.clone(), request, certificate.is_some())
    };
    accept(listener, tls, handler, shutdown).await;
}

/// Accepts TLS connections until `shutdown` and hands their requests to `handler`, with the
/// client's certificate if it has shown one that `tls` has verified.
pub(super) async fn accept<H, F>(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    handler: H,
    shutdown: CancellationToken,
) where
    H: Fn(Request<Incoming>, Option<CertificateDer<'static>>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<ApiBody>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await;
                (permit, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(permit), Ok((stream, _))) => {
                let connection =
                    connection(stream, acceptor.clone(), handler.clone(), shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            (Err(_), _) => break,
            (Ok(_), Err(error)) => {
                tracing::warn!(%error, "cannot accept API connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait())
        .await
        .is_err()
    {
        tracing::debug!("API connections were still open at shutdown");
    }
}

async fn connection<H, F>(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    handler: H,
    shutdown: CancellationToken,
) where
    H: Fn(Request<Incoming>, Option<CertificateDer<'static>>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<ApiBody>> + Send + 'static,
{
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE);
    let tuned = SockRef::from(&stream)
        .set_tcp_keepalive(&keep_alive)
        .and_then(|()| stream.set_nodelay(true));
    if let Err(error) = tuned {
        tracing::debug!(%error, "cannot set options of an API connection");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake with an API client failed");
            return;
        }
        Err(_) => return,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|chain| Some(chain.first()?.clone().into_owned()));
    let closing = shutdown.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Shutdown(shutdown.clone()));
        let response = handler(request, certificate.clone());
        async move { Ok::<_, std::convert::Infallible>(response.await) }
    });

    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(STREAMS);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN, serving).await {
                Ok(outcome) => outcome,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "API connection ended");
    }
}

async fn authorized(
    server: ApiServer,
    mut request: Request<Incoming>,
    has_certificate: bool,
) -> Response<ApiBody> {
    if !has_certificate && !has_token(&server, &request) {
        return error_response(&ApiError::unauthorized());
    }
    request.headers_mut().remove(AUTHORIZATION);
    server.respond(request).await
}

fn has_token<B>(server: &ApiServer, request: &Request<B>) -> bool {
    let Some(expected) = server.options().token.as_deref() else {
        return false;
    };
    let sent = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, token)| token.trim());
    same(sent.as_bytes(), expected.as_bytes())
}

/// Compares in a time that depends on the length of what was sent only.
fn same(sent: &[u8], expected: &[u8]) -> bool {
    if expected.is_empty() {
        return false;
    }
    let mut difference = sent.len() ^ expected.len();
    for (at, byte) in sent.iter().enumerate() {
        difference |= usize::from(byte ^ expected[at % expected.len()]);
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_t1_tokens_are_compared_whole() {
        for (sent, expected, equal) in [
            ("secret", "secret", true),
            ("secres", "secret", false),
            ("secretsecret", "secret", false),
            ("secr", "secret", false),
            ("", "secret", false),
            ("", "", false),
        ] {
            assert_eq!(
                same(sent.as_bytes(), expected.as_bytes()),
                equal,
                "{sent} {expected}"
            );
        }
    }
}
