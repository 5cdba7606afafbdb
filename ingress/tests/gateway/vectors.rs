//! Hostile messages of clients and of backends, byte by byte, in plain text and over TLS:
//! `data/http-vectors.json`.
//!
//! Each vector lists the outcomes that a sane proxy may have; one has to match. The policy under
//! test, "`/admin` is denied", is a rule for `/admin` that cannot be served: its 503 stands for the
//! vectors' 403.

mod wire;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sealane_proxy::testing::Origin;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Edge, on_worker, prefix};
use crate::tls;
use wire::{Log, Stream, backend, fill, find, frames, responses, write};

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

impl Raw {
    fn parts(&self) -> Vec<Part> {
        match self {
            Self::Text(text) => vec![Part::Text(text.clone())],
            Self::Parts(parts) => parts.clone(),
        }
    }
}

/// How the vectors travel.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// In plain text, and plain requests are relayed.
    Plain,
    /// In plain text, and no request is relayed.
    Unrelayed,
    /// Over TLS.
    Tls,
}

const WAYS: [Way; 3] = [Way::Plain, Way::Unrelayed, Way::Tls];

/// A connection to the gateway, with the version of HTTP that the vector is in.
async fn connect(edge: &Edge, way: Way, proto: Proto) -> Box<dyn Stream> {
    let alpn = match proto {
        Proto::H1 | Proto::Resp => "http/1.1",
        Proto::H2c => "h2",
    };
    match way {
        Way::Plain | Way::Unrelayed => Box::new(TcpStream::connect(edge.http).await.unwrap()),
        Way::Tls => tls::Client::new(&[alpn]).connect(edge, "a.test").await,
    }
}

/// Runs a vector until one of its outcomes has come about.
async fn run(vector: &Vector, mut stream: Box<dyn Stream>, log: &Log) -> Happened {
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
            .flat_map(|vector| WAYS.map(|way| Box::pin(insane_outcome(vector, way))))
            .collect();
        assert!(!checks.is_empty(), "no vectors of class {class}");
        // A gateway may have a request left for its backend, whose port no other check may get meanwhile.
        let (outcomes, _backends): (Vec<_>, Vec<_>) = join_all(checks).await.into_iter().unzip();
        let insane: Vec<String> = outcomes.into_iter().flatten().collect();
        assert!(insane.is_empty(), "{insane:#?}");
    })
    .await;
}

/// What happened, if it is none of the outcomes that the vector accepts, and the backend.
async fn insane_outcome(vector: &Vector, way: Way) -> (Option<String>, Origin) {
    let first = (vector.proto == Proto::Resp).then(|| vector.raw.parts());
    let (origin, log) = backend(first).await;
    let mut edge = Edge::new().await;
    if matches!(way, Way::Unrelayed) {
        edge.world.http = Arc::default();
    }
    edge.service("web", &[origin.addr]);
    let mut admin = prefix("/admin", "web");
    admin.invalid = Some("denied");
    edge.host("", false, vec![prefix("/", "web"), admin]);
    let stream = connect(&edge, way, vector.proto).await;
    let mut happened = run(vector, stream, &log).await;
    // The backend may learn of an abort later than the client.
    happened.upstream = log.lock().unwrap().clone();
    let sane = vector.acceptable.iter().any(|o| o.matches(&happened));
    let insane = (!sane).then(|| format!("{}, {way:?}: {happened:?}", vector.id));
    (insane, origin)
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
