//! What requests of the gateway's own have in common that are made beside a client's: the question
//! whether it may pass, and that for a page in place of an error.

use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt as _;
use sealane_proxy::http::Body;
use tokio::time::timeout;

/// What of a request is about its body, its connection or what the client has already.
const NOT_ASKED: [HeaderName; 15] = [
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// How much of an answer's body is read to get its connection back, and for how long.
const MOST_BODY: usize = 64 << 10;
const MOST_READING: Duration = Duration::from_secs(5);

/// The fields of a client's request that another one has, too, with room for a few more.
pub(crate) fn fields(of: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(of.len() + 12);
    for (name, value) in of {
        if !NOT_ASKED.contains(name) && !name.as_str().starts_with("sec-websocket-") {
            headers.append(name, value.clone());
        }
    }
    headers
}

/// Reads a body nobody wants, up to a point, so that its connection can be used again.
pub(crate) fn read_out(mut body: Body) {
    if http_body::Body::is_end_stream(&body) {
        return;
    }
    let reading = async move {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, bytes::Bytes::len);
            if read > MOST_BODY {
                return;
            }
        }
    };
    // A body that does not end takes its connection with it.
    tokio::task::spawn_local(async { drop(timeout(MOST_READING, reading).await) });
}
