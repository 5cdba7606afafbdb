//! Credentials that change: token files, exec plugins, client certificates on disk.
//!
//! kube reads a token file again every minute and asks an exec plugin again before its token ends.
//! Neither helps when a token is revoked early, and a client certificate is never read again. So an
//! answer 401 makes us set up everything anew, once in [`PAUSE`], and send the request again; this is
//! what client-go does for exec plugins.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use kube::Config;
use kube::client::Body;
use kube::config::AuthInfo;
use tokio::time::Instant;
use tower::{BoxError, Service, ServiceExt as _};

use super::LinkOptions;
use super::lanes::Stream;
use super::transport::{self, Transport};

/// Shortest time between attempts to get new credentials: a plugin may be slow, and credentials
/// that are refused for good would run it with every request.
const PAUSE: Duration = Duration::from_secs(10);

/// Requests to one API server; clones share connections and credentials.
#[derive(Clone)]
pub(super) struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    link: LinkOptions,
    /// With its number, which grows with every renewal.
    transport: Mutex<(u64, Transport)>,
    /// When credentials were last read again; held while they are being read.
    renewed: tokio::sync::Mutex<Option<Instant>>,
}

impl Connection {
    /// Reads the credentials.
    pub(super) async fn open(config: Config, link: LinkOptions) -> kube::Result<Self> {
        let transport = set_up(config.clone(), link).await?;
        let inner = Inner {
            config,
            link,
            transport: Mutex::new((0, transport)),
            renewed: tokio::sync::Mutex::new(None),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    async fn send(self, request: Request<Body>) -> Result<Response<Stream>, BoxError> {
        let again = copy(&request);
        let (number, transport) = self.inner.transport();
        let response = transport.oneshot(request).await?;
        match again {
            Some(again) if response.status() == StatusCode::UNAUTHORIZED => {
                match self.inner.renew(number).await {
                    Some(renewed) => renewed.oneshot(again).await,
                    None => Ok(response),
                }
            }
            Some(_) | None => Ok(response),
        }
    }
}

impl Inner {
    fn transport(&self) -> (u64, Transport) {
        let transport = self.transport.lock();
        transport.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections with new credentials, unless there can be none. Requests that are under way on
    /// the old ones go on.
    async fn renew(&self, refused: u64) -> Option<Transport> {
        if !can_change(&self.config.auth_info) {
            return None;
        }
        let mut renewed = self.renewed.lock().await;
        let (number, current) = self.transport();
        if number != refused {
            return Some(current);
        }
        if renewed.is_some_and(|last| last.elapsed() < PAUSE) {
            return None;
        }
        *renewed = Some(Instant::now());
        match set_up(self.config.clone(), self.link).await {
            Ok(transport) => {
                tracing::info!("the API server refused our credentials; they were read again");
                let current = self.transport.lock();
                let mut current = current.unwrap_or_else(PoisonError::into_inner);
                *current = (number + 1, transport.clone());
                Some(transport)
            }
            Err(error) => {
                tracing::warn!("the API server refuses our credentials, and new ones: {error}");
                None
            }
        }
    }
}

/// Whether reading the credentials again can give others.
fn can_change(auth: &AuthInfo) -> bool {
    auth.exec.is_some()
        || auth.token_file.is_some()
        || auth.auth_provider.is_some()
        || auth.client_certificate.is_some()
}

/// Runs exec plugins and reads files, which blocks.
async fn set_up(config: Config, link: LinkOptions) -> kube::Result<Transport> {
    let work = move || transport::set_up(&config, link);
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|failed| Err(kube::Error::Service(failed.into())))
}

/// The same request, if its body is not a stream.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Stream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Stream>, BoxError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().send(request).boxed()
    }
}
