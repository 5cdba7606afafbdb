//! What long-lived connections lead to: WebSockets and gRPC streams that repeat what they are told.
//!
//! It is a thread of this program in the network namespace of a pod, beside the workload, so that
//! connections end in a pod and no program has to be put there.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use crate::namespace;

/// Where it listens in its pod.
const PORT: u16 = 9000;

/// The pod, and the Service that leads to the thread in it.
const MANIFEST: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: POD, labels: {app: held}}
spec:
  containers: [{name: held, image: 'sealane/echo:1.0'}]
---
apiVersion: v1
kind: Service
metadata: {name: held}
spec:
  selector: {app: held}
  ports:
  - {name: ws, port: 80, targetPort: PORT}
  - {name: grpc, port: 81, targetPort: PORT, appProtocol: kubernetes.io/h2c}
";

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// The name of its pod, which is nobody else's on this machine.
pub(crate) fn pod() -> String {
    format!("held-{}", std::process::id())
}

/// What the cluster needs for it.
pub(crate) fn manifest() -> String {
    let manifest = MANIFEST.replace("POD", &pod());
    manifest.replace("PORT", &PORT.to_string())
}

/// The running thread; it ends with this value.
pub(crate) struct Peer {
    stop: CancellationToken,
    thread: Option<JoinHandle<anyhow::Result<anyhow::Result<()>>>>,
}

impl Peer {
    /// Starts it, and waits until it listens.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let (bound, listens) = mpsc::sync_channel(1);
        let token = stop.clone();
        let thread = namespace::spawn(&pod(), move || serve(&token, &bound))?;
        // A thread that fails to start drops its end.
        let _ = listens.recv();
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.cancel();
        let Some(thread) = self.thread.take() else {
            return;
        };
        match thread.join() {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error)) | Err(error)) => eprintln!("the peer failed: {error:#}"),
            Err(_panic) => eprintln!("the peer panicked"),
        }
    }
}

fn serve(stop: &CancellationToken, bound: &mpsc::SyncSender<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("no runtime")?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await;
        let listener = listener.context("cannot listen in the pod")?;
        let _ = bound.send(());
        let accept = async {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio::spawn(async move {
                    // How a connection ends is seen by the other side.
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection_with_upgrades(TokioIo::new(stream), service_fn(answer))
                        .await;
                });
            }
        };
        let ended: Option<std::io::Result<Infallible>> = stop.run_until_cancelled(accept).await;
        match ended {
            Some(Err(error)) => Err(error).context("cannot accept"),
            Some(Ok(never)) => match never {},
            None => Ok(()),
        }
    })
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let Some(key) = request.headers_mut().remove(SEC_WEBSOCKET_KEY) else {
        return Ok(stream(request));
    };
    let mut response = Response::new(nothing());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.extend(accept.ok().map(|accept| (SEC_WEBSOCKET_ACCEPT, accept)));
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let stream = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        let (mut to, mut from) = socket.split();
        while let Some(Ok(message)) = from.next().await {
            if message.is_text() && to.send(message).await.is_err() {
                return;
            }
        }
    });
    Ok(response)
}

/// A call whose messages come back as they are, with the trailers of one that went well.
fn stream(request: Request<Incoming>) -> Response<Body> {
    let trailers = async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Some(Ok(trailers))
    };
    let body = request.into_body().with_trailers(trailers);
    let mut response = Response::new(body.boxed_unsync());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    response
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
