//! One request to the API server, and its answer whole or event by event.
//!
//! `kube::Client`'s own helpers keep a refusal's headers to themselves (`Retry-After`), copy a list
//! twice, and decode an event before anybody can say how.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use tokio::time::timeout;
use tokio_util::codec::{
    AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead, LengthDelimitedCodec,
    LengthDelimitedCodecError,
};
use tokio_util::io::StreamReader;

use super::failure::FollowError;
use super::wire::{Frame, PROTOBUF, status};
use crate::defaults::{LIST_TIMEOUT, LONGEST_EVENT};

/// More of a refusal is not read.
const LONGEST_REFUSAL: usize = 64 * 1024;

/// Protobuf before JSON.
const EITHER_FORM: &str = "application/vnd.kubernetes.protobuf,application/json";

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
    let mut status = status(text).unwrap_or_else(|_not_a_status| Status::failure(reason, ""));
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

/// The events of the answer as they come, in protobuf if that `may_be` and the server can. Its end,
/// orderly or not, ends the stream: a watch is resumed in either case.
pub(super) async fn events(
    client: &Client,
    mut request: Request<Vec<u8>>,
    may_be_protobuf: bool,
) -> Result<impl Stream<Item = Result<Frame, FollowError>> + use<>, FollowError> {
    if may_be_protobuf {
        let accept = HeaderValue::from_static(EITHER_FORM);
        request.headers_mut().insert(ACCEPT, accept);
    }
    let answer = send(client, request).await?;
    let form = answer
        .headers()
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes);
    let is_protobuf = form.is_some_and(|form| form.starts_with(PROTOBUF.as_bytes()));
    let body = answer.into_body().into_data_stream();
    let reader = StreamReader::new(body.map_err(io::Error::other));
    if is_protobuf {
        let mut codec = LengthDelimitedCodec::builder();
        let codec = codec.max_frame_length(LONGEST_EVENT).new_codec();
        let frames = FramedRead::new(reader, codec);
        let frames = frames.map(|frame| match frame {
            Ok(frame) => Ok(Frame::Protobuf(frame.freeze())),
            Err(error) => Err(broken_off(error)),
        });
        return Ok(frames.left_stream());
    }
    let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), Vec::new(), LONGEST_EVENT);
    let lines = FramedRead::new(reader, codec);
    let lines = lines.map(|line| match line {
        Ok(line) => Ok(Frame::Json(line)),
        Err(AnyDelimiterCodecError::MaxChunkLengthExceeded) => Err(FollowError::Endless),
        Err(AnyDelimiterCodecError::Io(error)) => Err(broken_off(error)),
    });
    Ok(lines.right_stream())
}

fn broken_off(error: io::Error) -> FollowError {
    let source = error.get_ref();
    if source.is_some_and(|source| source.is::<LengthDelimitedCodecError>()) {
        return FollowError::Endless;
    }
    FollowError::Unreachable(kube::Error::ReadEvents(error))
}
