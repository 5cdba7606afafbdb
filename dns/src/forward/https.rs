//! Queries over HTTPS (RFC 8484): POST over one HTTP/2 connection that all queries share.
//!
//! The id of such a query is 0, so that caches on the way see equal requests (section 4.1). A
//! connection that has broken is replaced and the query sent again once; one that was idle for
//! `expire` ends, and one older than `max_age` is replaced.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::ForwardError;
use super::exchange::{Asked, Links};
use super::liveness::Liveness;
use super::stream::TlsClient;
use super::tls::broken;
use super::upstream::Upstream;
use crate::answer::Answer;
use crate::answer::encode::TCP_LIMIT;
use crate::reply::ReplyError;

/// Type of DNS messages.
const MESSAGE: &str = "application/dns-message";

/// Where a server is, and what the certificate must say.
#[derive(Clone, Debug)]
pub(super) struct HttpsTarget {
    pub(super) uri: Uri,
    pub(super) tls: TlsClient,
}

/// The connection to an upstream, if there is one. Who connects holds the lock, so that others wait
/// for that connection.
#[derive(Debug, Default)]
pub(super) struct Https {
    live: Mutex<Option<Live>>,
}

#[derive(Clone, Debug)]
struct Live {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
    /// When a request began or a response came.
    used: Rc<Cell<Instant>>,
    liveness: Rc<Liveness>,
}

/// Spawns hyper's tasks on the worker.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

pub(super) async fn ask(
    links: &Rc<Links>,
    upstream: &Rc<Upstream>,
    target: &HttpsTarget,
    asked: &Asked,
    edns: bool,
) -> Result<Result<Answer, ReplyError>, ForwardError> {
    let message = Bytes::from(asked.encode(0, asked.key.name.clone(), edns));
    loop {
        let (live, reused) = upstream.https.live(links, upstream, target).await?;
        upstream.metrics.connection("https", reused);
        match live.post(target.uri.clone(), message.clone()).await {
            Ok(reply) => {
                return match asked.parse(&reply, 0) {
                    Err(ReplyError::NotOurs) => Err(ForwardError::BadReply),
                    parsed => Ok(parsed),
                };
            }
            Err(ForwardError::Network) if reused => live.liveness.retire(),
            Err(error) => return Err(error),
        }
    }
}

impl Https {
    /// A connection that can be used, and whether it was there already.
    async fn live(
        &self,
        links: &Rc<Links>,
        upstream: &Rc<Upstream>,
        target: &HttpsTarget,
    ) -> io::Result<(Live, bool)> {
        let mut slot = self.live.lock().await;
        let max_age = links.settings.max_age;
        if let Some(live) = slot.as_ref().filter(|live| live.is_usable(max_age)) {
            return Ok((live.clone(), true));
        }
        let live = connect(links, upstream, target).await?;
        *slot = Some(live.clone());
        Ok((live, false))
    }
}

async fn connect(
    links: &Rc<Links>,
    upstream: &Rc<Upstream>,
    target: &HttpsTarget,
) -> io::Result<Live> {
    let stream = links.connect(upstream).await?;
    let tls = &target.tls;
    let stream = tls.connector().connect(tls.name.clone(), stream).await?;
    let (sender, connection) = http2::handshake(LocalExecutor, TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let now = Instant::now();
    let live = Live {
        sender,
        since: now,
        used: Rc::new(Cell::new(now)),
        liveness: Rc::new(Liveness::new()),
    };
    let used = Rc::clone(&live.used);
    // A request may take as long as a try may.
    let expire = links.settings.expire.max(links.settings.read_timeout);
    tokio::task::spawn_local(async move {
        let mut connection = pin!(connection);
        loop {
            tokio::select! {
                _ended = &mut connection => return,
                () = sleep_until(used.get() + expire) => {
                    if used.get().elapsed() >= expire {
                        return;
                    }
                }
            }
        }
    });
    Ok(live)
}

impl Live {
    fn is_usable(&self, max_age: Duration) -> bool {
        let young = max_age.is_zero() || self.since.elapsed() < max_age;
        young && self.liveness.is_alive() && !self.sender.is_closed()
    }

    async fn post(&self, uri: Uri, message: Bytes) -> Result<Bytes, ForwardError> {
        let _waiting = self.liveness.wait();
        self.used.set(Instant::now());
        let request = Request::post(uri)
            .header(CONTENT_TYPE, MESSAGE)
            .header(ACCEPT, MESSAGE)
            .body(Full::new(message))
            .map_err(broken)?;
        let response = self.sender.clone().send_request(request).await;
        let response = response.map_err(broken)?;
        self.liveness.heard();
        self.used.set(Instant::now());
        let media_type = response.headers().get(CONTENT_TYPE);
        let is_message = media_type.is_some_and(|value| value.as_bytes() == MESSAGE.as_bytes());
        if response.status() != StatusCode::OK || !is_message {
            tracing::debug!(status = %response.status(), "HTTPS upstream: no DNS message");
            return Err(ForwardError::BadReply);
        }
        let body = Limited::new(response.into_body(), TCP_LIMIT)
            .collect()
            .await;
        self.used.set(Instant::now());
        match body {
            Ok(body) => Ok(body.to_bytes()),
            Err(_long_or_broken) => Err(ForwardError::BadReply),
        }
    }
}
