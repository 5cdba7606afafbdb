//! Protocol upgrades: WebSocket and its like, over HTTP/1.1 on either side.
//!
//! A client of HTTP/2 asks for a WebSocket with an extended CONNECT (RFC 8441) and gets 200 where one
//! of HTTP/1.1 gets 101; endpoints are asked over HTTP/1.1 all the same.
//!
//! What the client sends behind its request stays with us until the endpoint has answered 101;
//! with any other answer it is the next request, and goes through the gate like every request.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::headers::{has_token, remove_hop_by_hop};
use super::held::Held;
use super::websocket;
use crate::balance::Flight;

/// Bytes in flight in each direction of a tunnel.
const BUFFER: usize = 16 * 1024;

/// An upgrade that a client asked for.
pub(super) struct Wanted {
    /// The client speaks HTTP/2.
    http2: bool,
    client: OnUpgrade,
    protocol: HeaderValue,
    /// What the request keeps.
    held: Option<Held>,
}

impl Wanted {
    /// Takes the client's wish out of a request. `h2c` is none: HTTP/2 inside of a tunnel would
    /// carry requests past the gate. `random` is for the key of a WebSocket.
    pub(super) fn take(parts: &mut Parts, random: impl Fn() -> u64) -> Option<Self> {
        let client = parts.extensions.remove::<OnUpgrade>()?;
        if is_extended_connect(parts.version, &parts.method, &parts.extensions) {
            return Some(Self::from_http2(parts, client, random));
        }
        let mut protocols = parts.headers.get_all(UPGRADE).iter();
        let protocol = protocols.next()?.clone();
        let wanted = parts.version == Version::HTTP_11
            && protocols.next().is_none()
            && has_token(&parts.headers, CONNECTION, "upgrade")
            && !has_token(&parts.headers, UPGRADE, "h2c");
        wanted.then(|| Self {
            http2: false,
            client,
            protocol,
            held: parts.extensions.remove(),
        })
    }

    /// HTTP/1.1 asks with a GET, and proves that it knows the protocol with a key, which HTTP/2 has no
    /// need of (RFC 8441, 5.1).
    fn from_http2(parts: &mut Parts, client: OnUpgrade, random: impl Fn() -> u64) -> Self {
        parts.method = Method::GET;
        let key = [random().to_be_bytes(), random().to_be_bytes()].concat();
        let key = BASE64_STANDARD.encode(key);
        if let Ok(key) = HeaderValue::try_from(key) {
            parts.headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        Self {
            http2: true,
            client,
            protocol: HeaderValue::from_static(WEBSOCKET),
            held: parts.extensions.remove(),
        }
    }

    /// Turns the endpoint's 101 into what the client understands.
    pub(super) fn answer<B>(&self, response: &mut Response<B>, protocol: HeaderValue) {
        remove_hop_by_hop(response.headers_mut());
        if self.http2 {
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        } else {
            write(response.headers_mut(), protocol);
        }
    }

    /// Asks the endpoint for it.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        write(headers, self.protocol.clone());
    }

    /// The endpoint agreed: once both sides have switched, bytes are copied both ways until both
    /// are done, or until a `farewell` if it is a WebSocket. The endpoint's request counts as in
    /// flight for as long.
    pub(super) fn tunnel(
        self,
        endpoint: OnUpgrade,
        flight: Flight,
        tunnels: &TaskTracker,
        farewell: CancellationToken,
    ) {
        let is_websocket = self
            .protocol
            .as_bytes()
            .eq_ignore_ascii_case(WEBSOCKET.as_bytes());
        tunnels.spawn_local(async move {
            let _in_flight = (flight, self.held);
            let Ok((client, endpoint)) = tokio::try_join!(self.client, endpoint) else {
                return;
            };
            let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
            let copied = if is_websocket {
                websocket::copy(client, endpoint, BUFFER, &farewell).await
            } else {
                let both =
                    copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER);
                both.await.map(drop)
            };
            if let Err(error) = copied {
                tracing::debug!(%error, "tunnel broke");
            }
        });
    }
}

const WEBSOCKET: &str = "websocket";

/// A client of HTTP/2 asks for a WebSocket.
pub(super) fn is_extended_connect(
    version: Version,
    method: &Method,
    extensions: &Extensions,
) -> bool {
    let protocol = || extensions.get::<Protocol>();
    version == Version::HTTP_2
        && *method == Method::CONNECT
        && protocol().is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

/// Writes the two fields that an upgrade is made of.
fn write(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}
