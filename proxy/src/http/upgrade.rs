//! Protocol upgrades over HTTP/1.1: WebSocket and its like.
//!
//! What the client sends behind its request stays with us until the endpoint has answered 101;
//! with any other answer it is the next request, and goes through the gate like every request.

use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio_util::task::TaskTracker;

use super::headers::has_token;
use crate::balance::Flight;

/// Bytes in flight in each direction of a tunnel.
const BUFFER: usize = 16 * 1024;

/// An upgrade that a client asked for.
pub(super) struct Wanted {
    client: OnUpgrade,
    protocol: HeaderValue,
}

impl Wanted {
    /// Takes the client's wish out of a request. `h2c` is none: HTTP/2 inside of a tunnel would
    /// carry requests past the gate.
    pub(super) fn take(parts: &mut Parts) -> Option<Self> {
        let client = parts.extensions.remove::<OnUpgrade>()?;
        let mut protocols = parts.headers.get_all(UPGRADE).iter();
        let protocol = protocols.next()?.clone();
        let wanted = parts.version == Version::HTTP_11
            && protocols.next().is_none()
            && has_token(&parts.headers, CONNECTION, "upgrade")
            && !has_token(&parts.headers, UPGRADE, "h2c");
        wanted.then_some(Self { client, protocol })
    }

    /// Asks the endpoint for it.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        write(headers, self.protocol.clone());
    }

    /// The endpoint agreed: once both sides have switched, bytes are copied both ways until both
    /// are done. The endpoint's request counts as in flight for as long.
    pub(super) fn tunnel(self, endpoint: OnUpgrade, flight: Flight, tunnels: &TaskTracker) {
        tunnels.spawn_local(async move {
            let _in_flight = flight;
            if let Ok((client, endpoint)) = tokio::try_join!(self.client, endpoint)
                && let Err(error) = copy(client, endpoint).await
            {
                tracing::debug!(%error, "tunnel broke");
            }
        });
    }
}

/// Writes the two fields that an upgrade is made of.
pub(super) fn write(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

async fn copy(client: Upgraded, endpoint: Upgraded) -> std::io::Result<()> {
    let mut client = TokioIo::new(client);
    let mut endpoint = TokioIo::new(endpoint);
    copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER).await?;
    Ok(())
}
