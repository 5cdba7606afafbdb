//! Hostile messages, byte by byte, against the gateway: `data/http-vectors.json`.
//!
//! Each vector lists the outcomes that a sane proxy may have; one has to match. The policy under
//! test, "`/admin` is denied", is a rule for `/admin` that cannot be served: its 503 stands for the
//! vectors' 403.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealane_proxy::testing::Origin;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Edge, on_worker, prefix};

#[derive(Deserialize)]
struct Vector {
    id: String,
    class: String,
    proto: Proto,
    raw: Raw,
    #[serde(default)]
    method: Option<String>,
    acceptable: Vec<Outcome>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Proto {
    H1,
    H2c,
    Resp,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Raw {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Part {
    Text(String),
    Repeat { repeat: String, times: usize },
    Shutdown { shutdown: bool },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Outcome {
    status: Option<Vec<u16>>,
    close: bool,
    drop: bool,
    upstream: Option<usize>,
    upstream_complete: Option<usize>,
    rst: bool,
    goaway: bool,
    clean: bool,
    cut: bool,
    #[serde(rename = "final")]
    last: Option<u16>,
    fwd: Forwarded,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Forwarded {
    target: Option<String>,
    body: Option<String>,
    absent: Vec<String>,
    one_length: bool,
    te_plain: bool,
    no_ctl: bool,
    no_chunk_ext: bool,
    no_leftover: bool,
}

/// What happened, as far as it goes.
#[derive(Clone, Debug, Default)]
struct Happened {
    statuses: Vec<u16>,
    closed: bool,
    cut: bool,
    rst: bool,
    goaway: bool,
    poisoned: bool,
    upstream: Vec<Captured>,
}

/// A request as the backend got it.
#[derive(Clone, Debug, Default)]
struct Captured {
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    chunk_extension: bool,
    complete: bool,
}

impl Captured {
    fn values(&self, name: &str) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(n, _)| n == name);
        named.map(|(_, value)| &**value).collect()
    }
}

impl Outcome {
    fn matches(&self, happened: &Happened) -> bool {
        let complete = happened.upstream.iter().filter(|r| r.complete).count();
        self.status.as_ref().is_none_or(|s| *s == happened.statuses)
            && (!self.close || happened.closed)
            && (!self.drop || (happened.closed && happened.statuses.is_empty()))
            && self.upstream.is_none_or(|n| n == happened.upstream.len())
            && self.upstream_complete.is_none_or(|n| n == complete)
            && (!self.rst || happened.rst)
            && (!self.goaway || happened.goaway)
            && (!self.cut || happened.cut)
            && (!self.clean || !happened.poisoned)
            && self
                .last
                .is_none_or(|s| happened.statuses.last() == Some(&s))
            && self.fwd.matches(&happened.upstream)
    }
}

impl Forwarded {
    fn matches(&self, upstream: &[Captured]) -> bool {
        let first = upstream.first();
        let check = |wanted: bool, holds: fn(&Captured) -> bool| !wanted || first.is_none_or(holds);
        self.target
            .as_ref()
            .is_none_or(|t| first.is_some_and(|r| r.target == *t))
            && self
                .body
                .as_ref()
                .is_none_or(|b| first.is_some_and(|r| r.body == b.as_bytes()))
            && self
                .absent
                .iter()
                .all(|name| first.is_none_or(|r| r.values(name).is_empty()))
            && check(self.one_length, |r| {
                r.values("content-length").len() + r.values("transfer-encoding").len() <= 1
            })
            && check(self.te_plain, |r| {
                r.values("transfer-encoding")
                    .iter()
                    .all(|v| *v == b"chunked")
            })
            && check(self.no_ctl, |r| {
                let is_control = |b: &u8| *b < 0x20 && *b != b'\t';
                !r.fields.iter().any(|(_, v)| v.iter().any(is_control))
            })
            && check(self.no_chunk_ext, |r| !r.chunk_extension)
            && (!self.no_leftover || upstream.len() <= 1)
    }
}

/// One character of a vector is one byte.
fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect()
}

impl Raw {
    fn parts(&self) -> Vec<Part> {
        match self {
            Self::Text(text) => vec![Part::Text(text.clone())],
            Self::Parts(parts) => parts.clone(),
        }
    }
}

async fn write(stream: &mut TcpStream, parts: &[Part]) {
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

type Log = Arc<Mutex<Vec<Captured>>>;

/// A backend that writes down what it gets. It answers "ok", or to its first request what the
/// vector says.
async fn backend(first: Option<Vec<Part>>) -> (Origin, Log) {
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

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    matches!(stream.read_buf(buffer).await, Ok(n) if n > 0).then_some(())
}

/// The statuses in a stream of HTTP/1 responses without the interim ones, and whether the last
/// response is incomplete.
fn responses(mut bytes: &[u8]) -> (Vec<u16>, bool) {
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
fn frames(mut bytes: &[u8], happened: &mut Happened) {
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

/// Runs a vector until one of its outcomes has come about.
async fn run(vector: &Vector, gateway: SocketAddr, log: &Log) -> Happened {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let mut after_sent = false;
    if vector.proto == Proto::Resp {
        let method = vector.method.as_deref().unwrap_or("GET");
        let request = format!("{method} /first HTTP/1.1\r\nHost: a.test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    } else {
        write(&mut stream, &vector.raw.parts()).await;
    }
    let mut happened = Happened::default();
    let mut bytes = Vec::new();
    let outcome = async {
        loop {
            happened.closed |= fill(&mut stream, &mut bytes).await.is_none();
            if vector.proto == Proto::H2c {
                frames(&bytes, &mut happened);
            } else {
                let (statuses, incomplete) = responses(&bytes);
                happened.statuses = statuses;
                happened.cut = happened.closed && incomplete;
                if vector.proto == Proto::Resp && !incomplete && !after_sent && !bytes.is_empty() {
                    after_sent = true;
                    let after = b"GET /after HTTP/1.1\r\nHost: a.test\r\n\r\n";
                    let _ = stream.write_all(after).await;
                    continue;
                }
            }
            happened.poisoned = find(&bytes, b"POISON").is_some();
            happened.upstream = log.lock().unwrap().clone();
            if happened.closed || vector.acceptable.iter().any(|o| o.matches(&happened)) {
                return;
            }
        }
    };
    // Without an outcome by then there is none.
    let _ = tokio::time::timeout(Duration::from_secs(5), outcome).await;
    happened
}

/// Runs the vectors of a class.
async fn check(class: &str) {
    on_worker(async {
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("../data/http-vectors.json")).unwrap();
        let checks: Vec<_> = vectors
            .iter()
            .filter(|vector| vector.class == class)
            .flat_map(|vector| [true, false].map(|relayed| (vector, relayed)))
            .map(|(vector, relayed)| Box::pin(insane_outcome(vector, relayed)))
            .collect();
        assert!(!checks.is_empty(), "no vectors of class {class}");
        let outcomes = futures_util::future::join_all(checks).await;
        let insane: Vec<String> = outcomes.into_iter().flatten().collect();
        assert!(insane.is_empty(), "{insane:#?}");
    })
    .await;
}

/// What happened, if it is none of the outcomes that the vector accepts. Plain requests are relayed
/// or not; the outcome has to be sane either way.
async fn insane_outcome(vector: &Vector, relayed: bool) -> Option<String> {
    let first = (vector.proto == Proto::Resp).then(|| vector.raw.parts());
    let (origin, log) = backend(first).await;
    let mut edge = Edge::new().await;
    if !relayed {
        edge.world.http = Arc::default();
    }
    edge.service("web", &[origin.addr]);
    let mut admin = prefix("/admin", "web");
    admin.invalid = Some("denied");
    edge.host("", false, vec![prefix("/", "web"), admin]);
    let mut happened = run(vector, edge.http, &log).await;
    // The backend may learn of an abort later than the client.
    happened.upstream = log.lock().unwrap().clone();
    let sane = vector.acceptable.iter().any(|o| o.matches(&happened));
    (!sane).then(|| format!("{}, relayed {relayed}: {happened:?}", vector.id))
}

#[tokio::test]
async fn ingress_t10_ordinary_messages_get_through() {
    check("control").await;
}

#[tokio::test]
async fn ingress_t10_messages_with_two_ends_are_refused() {
    check("smuggling").await;
}

#[tokio::test]
async fn reliability_b2_malformed_chunks_are_refused() {
    check("chunked").await;
}

#[tokio::test]
async fn reliability_b3_malformed_heads_are_refused() {
    check("grammar").await;
}

#[tokio::test]
async fn reliability_b4_http2_carries_nothing_into_http1() {
    check("h2-downgrade").await;
}

#[tokio::test]
async fn reliability_b5_no_spelling_of_a_path_gets_past_a_rule() {
    check("path").await;
}

#[tokio::test]
async fn reliability_b6_nothing_is_sent_ahead_of_an_upgrade_or_under_an_alias() {
    check("trust").await;
}

#[tokio::test]
async fn ingress_t11_there_is_one_host() {
    check("host").await;
}

#[tokio::test]
async fn ingress_t13_too_many_fields_are_refused() {
    check("limits").await;
}

#[tokio::test]
async fn reliability_b10_hostile_backends_harm_nobody_else() {
    check("response").await;
}
