//! Origins and snapshots for tests, here and in the crates above.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

pub mod faults;
mod refusing;

pub use refusing::Refusing;

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use sealane_config::model::{
    AppProtocol, Backend, Endpoint, HttpPolicy, Protocol, Service, ServiceKey, ServiceKind,
    ServicePort,
};
use sealane_config::{Publisher, Reader, Snapshot, snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::clock;

/// The port of every Service in a [`World`].
pub const PORT: u16 = 80;

/// A boxed future.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A body that an [`Origin`] answers with.
pub type OriginBody = BoxBody<Bytes, std::convert::Infallible>;

/// Advances a paused clock to the next tick of the clock that endpoints' counters are kept by. The choices
/// of a seeded balancer depend on where between two ticks a run begins.
pub async fn advance_to_tick() {
    tokio::time::advance(clock::to_next_tick(clock::now())).await;
}

/// A published snapshot that a test changes.
pub struct World {
    publisher: Publisher,
    /// Reads what was published last.
    pub reader: Reader,
    /// What [`Self::publish`] publishes.
    pub snapshot: Snapshot,
    /// The policy of the Services that [`Self::service`] publishes. A policy of its own, even one that
    /// is equal to the default, keeps plain requests from being relayed.
    pub http: Arc<HttpPolicy>,
    known: HashMap<(String, SocketAddr), Arc<Endpoint>>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty, synced world.
    pub fn new() -> Self {
        let (publisher, reader) = snapshot::channel();
        let snapshot = Snapshot {
            synced: true,
            ..Snapshot::default()
        };
        Self {
            publisher,
            reader,
            snapshot,
            http: HttpPolicy::shared(),
            known: HashMap::new(),
        }
    }

    /// Publishes the snapshot.
    pub fn publish(&mut self) {
        self.publisher.publish(self.snapshot.clone());
    }

    /// Sets the endpoints of Service `default/NAME`, port 80, and publishes. Endpoints keep their
    /// counters; those that are left out are marked as removed.
    pub fn service(
        &mut self,
        name: &str,
        protocol: AppProtocol,
        addrs: &[SocketAddr],
    ) -> Arc<ServicePort> {
        for ((service, addr), gone) in &self.known {
            if service == name && !addrs.contains(addr) {
                gone.stats
                    .removed
                    .store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        self.known
            .retain(|(service, addr), _| service != name || addrs.contains(addr));
        let endpoints = addrs.iter().map(|&addr| {
            let known = self.known.entry((name.to_owned(), addr));
            Arc::clone(known.or_insert_with(|| endpoint(addr)))
        });
        let mut sorted: Vec<Arc<Endpoint>> = endpoints.collect();
        sorted.sort_by_key(|endpoint| endpoint.addr);
        let port = Arc::new(ServicePort {
            service: key(name),
            name: Arc::from(""),
            port: PORT,
            protocol: Protocol::Tcp,
            node_port: None,
            app_protocol: protocol,
            endpoints: sorted.into(),
            local: None,
            everywhere: None,
            policy: Arc::default(),
            http: Arc::clone(&self.http),
        });
        let service = Service {
            key: key(name),
            kind: ServiceKind::ClusterIp,
            cluster_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            external_ips: Vec::new(),
            policy: Arc::default(),
            ports: vec![Arc::clone(&port)],
            listed_ports: Arc::default(),
            endpoints: Arc::from([]),
        };
        self.snapshot
            .services
            .insert_mut(key(name), Arc::new(service));
        self.publish();
        port
    }
}

/// The Service `default/NAME`.
pub fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: Arc::from("default"),
        name: Arc::from(name),
    }
}

/// Port 80 of `default/NAME`.
pub fn backend(name: &str) -> Backend {
    Backend {
        service: key(name),
        port: PORT,
    }
}

/// An endpoint with counters of its own.
pub fn endpoint(addr: SocketAddr) -> Arc<Endpoint> {
    Arc::new(Endpoint::at(addr))
}

/// A request as an [`Origin`] saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Version of HTTP.
    pub version: Version,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body; `None` if it ended in an error.
    pub body: Option<Bytes>,
    /// Trailer fields.
    pub trailers: Option<HeaderMap>,
    /// Which of the origin's connections it came on.
    pub connection: usize,
}

impl Seen {
    /// A field's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// A backend on loopback: HTTP/1.1 or HTTP/2, in this process.
pub struct Origin {
    /// Where it listens.
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Origin {
    /// One that answers every request with 200 and `name`.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |_| Response::new(full(name))).await
    }

    /// One that answers at once.
    pub async fn start(
        answer: impl Fn(&Seen) -> Response<OriginBody> + Send + Sync + 'static,
    ) -> Self {
        Self::slow(move |seen| {
            let answer = answer(&seen);
            Box::pin(async move { answer })
        })
        .await
    }

    /// One that takes its time.
    pub async fn slow(
        answer: impl Fn(Seen) -> BoxFuture<Response<OriginBody>> + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&seen);
        let answer = Arc::new(answer);
        let (addr, task) = listen(move |stream, connection| {
            let (list, answer) = (Arc::clone(&list), Arc::clone(&answer));
            Box::pin(async move {
                let service = service_fn(move |request| {
                    let (list, answer) = (Arc::clone(&list), Arc::clone(&answer));
                    async move {
                        let seen = see(request, connection).await;
                        list.lock().unwrap().push(seen.clone());
                        Ok::<_, std::convert::Infallible>(answer(seen).await)
                    }
                });
                // How a connection ends is seen by the other side.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            })
        })
        .await;
        Self { addr, seen, task }
    }

    /// One that does with its connections what the test wants; they are numbered from 0.
    pub async fn raw(
        serve: impl Fn(TcpStream, usize) -> BoxFuture<()> + Send + Sync + 'static,
    ) -> Self {
        let (addr, task) = listen(serve).await;
        Self {
            addr,
            seen: Arc::default(),
            task,
        }
    }

    /// What it saw.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests it saw.
    pub fn hits(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Ends it like a killed process: the listener and all connections are closed.
    pub async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(
    serve: impl Fn(TcpStream, usize) -> BoxFuture<()> + Send + Sync + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            stream.set_nodelay(true).unwrap();
            connections.spawn(serve(stream, number));
        }
    });
    (addr, task)
}

async fn see(request: Request<Incoming>, connection: usize) -> Seen {
    let (parts, body) = request.into_parts();
    let collected = body.collect().await.ok();
    Seen {
        method: parts.method,
        target: parts
            .uri
            .path_and_query()
            .map_or("", |p| p.as_str())
            .to_owned(),
        version: parts.version,
        headers: parts.headers,
        trailers: collected.as_ref().and_then(|c| c.trailers().cloned()),
        body: collected.map(http_body_util::Collected::to_bytes),
        connection,
    }
}

/// A body that is known as a whole.
pub fn full(bytes: impl Into<Bytes>) -> OriginBody {
    Full::new(bytes.into()).boxed()
}

/// An empty answer with this status.
pub fn status(code: u16) -> Response<OriginBody> {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

/// Polls until `done`, for ten seconds at most; `what` says what was waited for.
pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .is_ok(),
        "never happened: {what}"
    );
}

/// A client that writes what it is told to and reads whole responses.
pub struct RawClient {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response as a [`RawClient`] read it.
#[derive(Clone, Debug)]
pub struct RawResponse {
    /// Status code.
    pub status: u16,
    /// Fields, names in lower case.
    pub fields: Vec<(String, String)>,
    /// The body, decoded.
    pub body: Vec<u8>,
    /// Trailer lines of a chunked body.
    pub trailers: Vec<String>,
}

impl RawResponse {
    /// A field's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let field = self.fields.iter().find(|(n, _)| n == name);
        field.map_or("", |(_, value)| value)
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl RawClient {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Connects from this address of our own.
    pub async fn connect_from(source: IpAddr, addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let stream = socket.connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// The connection, of which nothing was read.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Writes. The other side may have closed already; what it said is still read.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Closes the sending direction.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// A `GET` on a connection that stays open.
    pub async fn get(&mut self, host: &str, target: &str) -> RawResponse {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        self.response().await
    }

    /// The next response to a request that is not `HEAD`.
    pub async fn response(&mut self) -> RawResponse {
        self.try_response(false).await.expect("a complete response")
    }

    /// The next response to a `HEAD`.
    pub async fn response_to_head(&mut self) -> RawResponse {
        self.try_response(true).await.expect("a complete response")
    }

    /// The next response, or `None` if the connection ended before it was complete.
    pub async fn try_response(&mut self, head_only: bool) -> Option<RawResponse> {
        tokio::time::timeout(Duration::from_secs(20), self.read_response(head_only))
            .await
            .expect("a response within 20 s")
    }

    /// Waits for bytes that are not part of a response: those of a tunnel.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill().await, "the connection ended");
        }
        self.buffer.drain(..count).collect()
    }

    /// Waits until the other side has closed; returns what it still sent.
    pub async fn closed(&mut self) -> Vec<u8> {
        let wait = async { while self.fill().await {} };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("an end within 20 s");
        std::mem::take(&mut self.buffer)
    }

    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(n) if n > 0)
    }

    async fn read_response(&mut self, head_only: bool) -> Option<RawResponse> {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..head_end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let fields: Vec<(String, String)> = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap();
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        let mut response = RawResponse {
            status,
            fields,
            body: Vec::new(),
            trailers: Vec::new(),
        };
        if head_only || matches!(status, 100..=199 | 204 | 304) {
            return Some(response);
        }
        if response.header("transfer-encoding") == "chunked" {
            self.read_chunks(&mut response).await?;
        } else if let Ok(length) = response.header("content-length").parse::<usize>() {
            while self.buffer.len() < length {
                if !self.fill().await {
                    return None;
                }
            }
            response.body = self.buffer.drain(..length).collect();
        } else {
            while self.fill().await {}
            response.body = std::mem::take(&mut self.buffer);
        }
        Some(response)
    }

    async fn read_chunks(&mut self, response: &mut RawResponse) -> Option<()> {
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(line.split(';').next()?, 16).unwrap();
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 {
                if !self.fill().await {
                    return None;
                }
            }
            response.body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
        }
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(());
            }
            response.trailers.push(line);
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.fill().await {
                return None;
            }
        }
    }
}
