//! Copies of requests for another Service (ingress-nginx `mirror-target`).
//!
//! A copy is sent by a task of its own, after all of the request came, so that the request waits for
//! nothing and fails for nothing that becomes of its copy. Copies are few and short: those beyond are
//! left out and counted. A copy that is longer than [`BODY`] is none.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt;
use metrics::{counter, describe_counter};
use sealane_config::Reader;
use sealane_config::model::{Filters, Mirror};
use sealane_proxy::http::{Body, Engine, Target, Upstream};
use sealane_proxy::{Error, ErrorKind};
use tokio::time::timeout;

use super::forwarded::Peer;
use super::redirect;
use crate::gateway::Inner;
use crate::matching;

/// Copies of a worker that are being made or answered.
const COPIES: u32 = 64;

/// Longest body that is copied, bytes.
const BODY: usize = 64 * 1024;

/// For all of the answer to a copy.
const PATIENCE: Duration = Duration::from_secs(60);

const COUNTED: &str = "sealane_gateway_mirrored_requests_total";

/// The copies of a worker; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Mirrors(Rc<Cell<u32>>);

impl Default for Mirrors {
    fn default() -> Self {
        describe_counter!(COUNTED, "Copies of requests for mirror-target, by result");
        Self(Rc::default())
    }
}

/// One of [`COPIES`], given back when it is dropped.
#[derive(Debug)]
struct Copied(Mirrors);

impl Mirrors {
    fn take(&self) -> Option<Copied> {
        let count = self.0.get();
        (count < COPIES).then(|| {
            self.0.set(count + 1);
            Copied(self.clone())
        })
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let count = &self.0.0;
        count.set(count.get() - 1);
    }
}

/// A request's head, and where it goes: what becomes a copy.
pub(crate) struct Mirrored {
    head: Request<()>,
    mirror: Mirror,
    place: Copied,
}

impl Mirrored {
    /// Of a request as it came; `None` if it cannot be copied, or there are too many.
    pub(crate) fn of(
        gateway: &Inner,
        filters: &Filters,
        peer: &Peer,
        request: &Request<Body>,
    ) -> Option<Self> {
        let mirror = filters.policy.as_ref()?.mirror.as_ref()?;
        // A tunnel is no request that could be sent twice.
        if request.method() == Method::CONNECT || request.headers().contains_key(UPGRADE) {
            return None;
        }
        let uri = match target(mirror, peer.secure, request) {
            Ok(uri) => uri,
            Err(_bad) => {
                count("failed");
                return None;
            }
        };
        let Some(place) = gateway.mirrors.take() else {
            count("too_many");
            return None;
        };
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = uri;
        Some(Self {
            head,
            mirror: mirror.clone(),
            place,
        })
    }

    /// Sends the copy once all of the request came. Its fields are the request's as they are now.
    pub(crate) fn send(mut self, gateway: &Inner, request: Request<Body>) -> Request<Body> {
        let headers = self.head.headers_mut();
        headers.clone_from(request.headers());
        headers.remove(EXPECT);
        headers.remove(TRANSFER_ENCODING);
        headers.remove(CONTENT_LENGTH);
        if let Ok(host) = HeaderValue::from_str(&self.mirror.host) {
            headers.insert(HOST, host);
        }
        *self.head.version_mut() = Version::HTTP_11;
        let (engine, reader) = (gateway.engine.clone(), gateway.reader.clone());
        let has_body = !request.body().is_end_stream();
        let with_body = self.mirror.with_body && has_body;
        let start = move |body: Vec<u8>| {
            tokio::task::spawn_local(async move {
                let Self {
                    mut head,
                    mirror,
                    place: _place,
                } = self;
                if has_body {
                    let length = HeaderValue::from(body.len());
                    head.headers_mut().insert(CONTENT_LENGTH, length);
                }
                let request = head.map(|()| Body::full(body));
                let sent = timeout(PATIENCE, deliver(&engine, &reader, &mirror, request)).await;
                count(if sent == Ok(true) {
                    "answered"
                } else {
                    "failed"
                });
            });
        };
        if with_body {
            request.map(|body| body.copied(BODY, start))
        } else {
            start(Vec::new());
            request
        }
    }
}

fn target(mirror: &Mirror, secure: bool, request: &Request<Body>) -> Result<Uri, Error> {
    let Some(template) = &mirror.target else {
        return Ok(request.uri().clone());
    };
    let host = request.headers().get(HOST);
    let authority = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let scheme = if secure { "https" } else { "http" };
    let host = matching::host_name(authority);
    let filling = redirect::Filling {
        scheme,
        host: &host,
        authority,
        target: request.uri(),
    };
    let text = redirect::fill(template, filling)?;
    Uri::try_from(text)
        .map_err(|_invalid| Error::new(ErrorKind::BadRequest, "the copy has no target"))
}

/// Sends a copy and reads the answer; says whether there was one of an endpoint.
async fn deliver(
    engine: &Engine,
    reader: &Reader,
    mirror: &Mirror,
    request: Request<Body>,
) -> bool {
    let Some(port) = reader.load().backend(&mirror.backend).cloned() else {
        return false;
    };
    let upstream = Upstream::of(port.app_protocol);
    let target = Target::new(port, upstream);
    let response = engine.forward(request, &target).await;
    if response.extensions().get::<ErrorKind>().is_some() {
        return false;
    }
    let mut body = response.into_body();
    while let Some(Ok(_dropped)) = body.frame().await {}
    true
}

fn count(result: &'static str) {
    counter!(COUNTED, "result" => result).increment(1);
}
