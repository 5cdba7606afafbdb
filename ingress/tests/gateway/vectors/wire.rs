//! What goes over the wire, both ways: a backend that writes down what it gets, and readers of what
//! clients get.

use std::sync::{Arc, Mutex};

use sealane_proxy::testing::Origin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Captured, Happened, Part};

/// One character of a vector is one byte.
fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect()
}

/// Both directions of a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

pub(super) async fn write(stream: &mut impl Stream, parts: &[Part]) {
    for part in parts {
        // The other side may have had enough already.
        let _ = match part {
            Part::Text(text) => stream.write_all(&latin1(text)).await,
            Part::Repeat { repeat, times } => {
                stream.write_all(&latin1(&repeat.repeat(*times))).await
            }
            Part::Shutdown { shutdown: true } => stream.shutdown().await,
            Part::Shutdown { .. } => Ok(()),
        };
    }
}

pub(super) type Log = Arc<Mutex<Vec<Captured>>>;

/// A backend that writes down what it gets. It answers "ok", or to its first request what the
/// vector says.
pub(super) async fn backend(first: Option<Vec<Part>>) -> (Origin, Log) {
    let log = Log::default();
    let list = Arc::clone(&log);
    let origin = Origin::raw(move |mut stream, _| {
        let (list, first) = (Arc::clone(&list), first.clone());
        Box::pin(async move {
            let mut buffer = Vec::new();
            while let Some(index) = capture(&mut stream, &mut buffer, &list).await {
                match &first {
                    Some(parts) if index == 0 => write(&mut stream, parts).await,
                    _ => {
                        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        let _ = stream.write_all(ok).await;
                    }
                }
            }
        })
    })
    .await;
    (origin, log)
}

/// Reads one request and returns its number, or `None` if it was not complete.
async fn capture(stream: &mut TcpStream, buffer: &mut Vec<u8>, log: &Log) -> Option<usize> {
    let head_end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at;
        }
        fill(stream, buffer).await?;
    };
    let head: Vec<u8> = buffer.drain(..head_end + 4).collect();
    let text: String = head[..head_end].iter().map(|&b| char::from(b)).collect();
    let mut lines = text.split("\r\n");
    let mut captured = Captured {
        target: lines.next()?.split(' ').nth(1)?.to_owned(),
        ..Captured::default()
    };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        captured.fields.push((
            name.to_ascii_lowercase(),
            latin1(value.trim_matches([' ', '\t'])),
        ));
    }
    let index = {
        let mut log = log.lock().unwrap();
        log.push(captured.clone());
        log.len() - 1
    };
    if captured.values("transfer-encoding").is_empty() {
        let length = captured
            .values("content-length")
            .first()
            .map_or(0, |v| std::str::from_utf8(v).unwrap().parse().unwrap());
        while buffer.len() < length {
            fill(stream, buffer).await?;
        }
        captured.body = buffer.drain(..length).collect();
    } else {
        chunks(stream, buffer, &mut captured).await?;
    }
    captured.complete = true;
    log.lock().unwrap()[index] = captured;
    Some(index)
}

async fn chunks(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    captured: &mut Captured,
) -> Option<()> {
    loop {
        let end = loop {
            if let Some(at) = find(buffer, b"\r\n") {
                break at;
            }
            fill(stream, buffer).await?;
        };
        let line = String::from_utf8(buffer.drain(..end + 2).collect()).ok()?;
        captured.chunk_extension |= line.contains(';');
        let size = usize::from_str_radix(line.trim_end().split(';').next()?, 16).ok()?;
        while buffer.len() < size + 2 {
            fill(stream, buffer).await?;
        }
        captured.body.extend(buffer.drain(..size));
        buffer.drain(..2);
        if size == 0 {
            return Some(());
        }
    }
}

pub(super) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

pub(super) async fn fill(stream: &mut impl Stream, buffer: &mut Vec<u8>) -> Option<()> {
    matches!(stream.read_buf(buffer).await, Ok(n) if n > 0).then_some(())
}

/// The statuses in a stream of HTTP/1 responses without the interim ones, and whether the last
/// response is incomplete.
pub(super) fn responses(mut bytes: &[u8]) -> (Vec<u16>, bool) {
    let mut statuses = Vec::new();
    while let Some(end) = find(bytes, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        bytes = &bytes[end + 4..];
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status < 200 {
            continue;
        }
        // The policy's refusal.
        let denied = head.contains("sealane-error: invalid_route");
        statuses.push(if denied { 403 } else { status });
        if status == 304 {
            continue;
        }
        let field = |name: &str| {
            let mut lines = head.split("\r\n");
            lines.find_map(|l| l.strip_prefix(name)).map(str::trim)
        };
        let length = if field("transfer-encoding:").is_some() {
            find(bytes, b"0\r\n\r\n").map(|at| at + 5)
        } else {
            field("content-length:").map(|l| l.parse().unwrap())
        };
        match length {
            Some(length) if length <= bytes.len() => bytes = &bytes[length..],
            _ => return (statuses, true),
        }
    }
    (statuses, false)
}

/// What is in a stream of HTTP/2 frames.
pub(super) fn frames(mut bytes: &[u8], happened: &mut Happened) {
    happened.statuses.clear();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(payload) = rest.get(..length) else {
            return;
        };
        match kind {
            1 => happened.statuses.push(status_of(payload)),
            3 => happened.rst = true,
            7 => happened.goaway = true,
            _ => {}
        }
        bytes = &rest[length..];
    }
}

/// The status that opens a header block (RFC 7541, appendix A), 403 for the policy's refusal.
fn status_of(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        // `503` in Huffman's code.
        [0x48, 0x83, 0x6c, 0x0c, 0xff, ..] => 403,
        _ => panic!("unknown status in {block:?}"),
    }
}
