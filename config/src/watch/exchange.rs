//! One request to the API server, and its answer whole or line by line.
//!
//! `kube::Client`'s own helpers keep a refusal's headers to themselves (`Retry-After`), copy a list
//! twice, and decode an event before anybody can say how.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::header::{ACCEPT_ENCODING, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use tokio::time::timeout;
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead};
use tokio_util::io::StreamReader;

use super::failure::FollowError;
use crate::defaults::{LIST_TIMEOUT, LONGEST_EVENT};

/// More of a refusal is not read.
const LONGEST_REFUSAL: usize = 64 * 1024;

/// Sends a request; its answer if it is none of the errors.
async fn send(
    client: &Client,
    mut request: Request<Vec<u8>>,
) -> Result<Response<Body>, FollowError> {
    // Compression costs the server more than the bytes do on the way to a node, and compressed
    // events are held back until a block is full.
    let identity = HeaderValue::from_static("identity");
    request.headers_mut().insert(ACCEPT_ENCODING, identity);
    let answer = timeout(LIST_TIMEOUT, client.send(request.map(Body::from)));
    let answer = answer.await.map_err(|_elapsed| FollowError::Silence)??;
    let code = answer.status();
    if !code.is_client_error() && !code.is_server_error() {
        return Ok(answer);
    }
    let retry_after = retry_after(answer.headers());
    let body = Limited::new(answer.into_body(), LONGEST_REFUSAL).collect();
    let text = match timeout(LIST_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) | Err(_) => Bytes::new(),
    };
    // A proxy on the way does not answer in the API's words, and a page of HTML says nothing.
    let reason = code.canonical_reason().unwrap_or("no reason given");
    let mut status =
        serde_json::from_slice(&text).unwrap_or_else(|_not_a_status| Status::failure(reason, ""));
    status.code = code.as_u16();
    Err(FollowError::refused(status, retry_after))
}

/// `Retry-After` in seconds (RFC 9110, 10.2.3); the API server does not send dates.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse();
    seconds.ok().map(Duration::from_secs)
}

/// The whole answer.
pub(super) async fn whole(
    client: &Client,
    request: Request<Vec<u8>>,
) -> Result<Bytes, FollowError> {
    let answer = send(client, request).await?;
    let body = timeout(LIST_TIMEOUT, answer.into_body().collect()).await;
    let body = body.map_err(|_elapsed| FollowError::Silence)??;
    Ok(body.to_bytes())
}

/// The lines of the answer as they come. Its end, orderly or not, ends the stream: a watch is
/// resumed in either case.
pub(super) async fn lines(
    client: &Client,
    request: Request<Vec<u8>>,
) -> Result<impl Stream<Item = Result<Bytes, FollowError>> + use<>, FollowError> {
    let answer = send(client, request).await?;
    let body = answer.into_body().into_data_stream();
    let reader = StreamReader::new(body.map_err(io::Error::other));
    let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), Vec::new(), LONGEST_EVENT);
    let lines = FramedRead::new(reader, codec);
    Ok(lines.map(|line| {
        line.map_err(|error| match error {
            AnyDelimiterCodecError::MaxChunkLengthExceeded => FollowError::Endless,
            AnyDelimiterCodecError::Io(error) => {
                FollowError::Unreachable(kube::Error::ReadEvents(error))
            }
        })
    }))
}
