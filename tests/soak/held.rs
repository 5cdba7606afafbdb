//! WebSockets and gRPC streams that stay open, and say something once in a while.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use http::Request;
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::edits::HELD_HOST;
use crate::tls;

/// From one message to the next: within the minute for which proxies let connections be silent.
const PAUSE: Duration = Duration::from_secs(10);

/// How long a message may take there and back.
const PATIENCE: Duration = Duration::from_secs(30);

/// gRPC streams that share a connection.
const STREAMS: usize = 10;

/// Connections that are opened at the same time.
const AT_ONCE: usize = 50;

/// Open connections and streams; they end with this value.
pub(crate) struct Held {
    stop: CancellationToken,
    open: Arc<AtomicUsize>,
    tasks: JoinSet<anyhow::Result<u64>>,
}

/// What became of them.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Were open until the end, and answered then.
    pub(crate) kept: usize,
    /// Ended, or gave another answer, by what happened.
    pub(crate) lost: BTreeMap<String, usize>,
    /// Messages that went there and came back.
    pub(crate) messages: u64,
}

impl Held {
    /// Opens WebSockets, every other one over TLS, and gRPC streams, all of them over TLS.
    pub(crate) async fn open(
        sockets: usize,
        streams: usize,
        http: SocketAddr,
        https: SocketAddr,
    ) -> anyhow::Result<Self> {
        let mut held = Self {
            stop: CancellationToken::new(),
            open: Arc::default(),
            tasks: JoinSet::new(),
        };
        let (h1, h2) = (tls::Client::new("http/1.1")?, tls::Client::new("h2")?);
        let numbers: Vec<usize> = (0..sockets).collect();
        for some in numbers.chunks(AT_ONCE) {
            let opening = some.iter().map(|number| {
                let tls = (number % 2 == 1).then_some(&h1);
                socket(tls, http, https)
            });
            for way in futures_util::future::join_all(opening).await {
                held.keep(way?);
            }
        }
        for first in (0..streams).step_by(STREAMS) {
            let stream = h2.connect(https, HELD_HOST).await?;
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (sender, connection) = handshake.await.context("HTTP/2")?;
            tokio::spawn(connection);
            for _ in first..streams.min(first + STREAMS) {
                held.keep(call(sender.clone()).await?);
            }
        }
        Ok(held)
    }

    fn keep(&mut self, mut way: Way) {
        let number = self.tasks.len();
        let (stop, open) = (self.stop.clone(), Arc::clone(&self.open));
        open.fetch_add(1, Ordering::Relaxed);
        self.tasks.spawn(async move {
            let kept = way.keep(number, &stop).await;
            open.fetch_sub(1, Ordering::Relaxed);
            kept.with_context(|| way.name())
        });
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Says something on each of them once more, closes them, and counts.
    pub(crate) async fn finish(mut self) -> Kept {
        self.stop.cancel();
        let mut kept = Kept::default();
        while let Some(task) = self.tasks.join_next().await {
            match task.map_err(anyhow::Error::from).flatten() {
                Ok(messages) => {
                    kept.kept += 1;
                    kept.messages += messages;
                }
                Err(error) => *kept.lost.entry(format!("{error:#}")).or_default() += 1,
            }
        }
        kept
    }
}

/// Opens a WebSocket, has the gateway stop, and waits for what the socket is told: the code of the
/// Close frame, if that is how it ends.
pub(crate) async fn last_words(
    http: SocketAddr,
    stop: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Option<u16>> {
    let stream = TcpStream::connect(http).await?;
    let mut socket = websocket(Box::new(stream)).await?;
    stop()?;
    let said = timeout(PATIENCE, socket.next()).await;
    Ok(match said.context("the WebSocket stays open")? {
        Some(Ok(Message::Close(Some(close)))) => Some(close.code.into()),
        _ => None,
    })
}

/// Both directions of a connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What is held open.
enum Way {
    Socket(Box<WebSocketStream<Box<dyn Stream>>>),
    Call {
        to: Sender<Bytes>,
        from: Incoming,
        read: BytesMut,
    },
}

async fn socket(
    tls: Option<&tls::Client>,
    http: SocketAddr,
    https: SocketAddr,
) -> anyhow::Result<Way> {
    let stream: Box<dyn Stream> = match tls {
        Some(client) => client.connect(https, HELD_HOST).await?,
        None => {
            let stream = TcpStream::connect(http).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    };
    Ok(Way::Socket(Box::new(websocket(stream).await?)))
}

async fn websocket(stream: Box<dyn Stream>) -> anyhow::Result<WebSocketStream<Box<dyn Stream>>> {
    let url = format!("ws://{HELD_HOST}/socket");
    let opening = timeout(PATIENCE, tokio_tungstenite::client_async(url, stream));
    let opened = opening.await.context("no WebSocket in time")?;
    let (socket, _response) = opened.context("no WebSocket")?;
    Ok(socket)
}

async fn call(mut sender: SendRequest<Channel<Bytes>>) -> anyhow::Result<Way> {
    let (to, body) = Channel::new(1);
    let request = Request::post(format!("https://{HELD_HOST}/held.Echo/Repeat"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)?;
    let answering = timeout(PATIENCE, sender.send_request(request));
    let response = answering.await.context("no call in time")??;
    let status = response.status();
    ensure!(status == 200, "the call was answered {status}");
    let failed = response.headers().get("grpc-status");
    ensure!(failed.is_none(), "the call failed: {failed:?}");
    Ok(Way::Call {
        to,
        from: response.into_body(),
        read: BytesMut::new(),
    })
}

impl Way {
    fn name(&self) -> &'static str {
        match self {
            Self::Socket(_) => "WebSocket",
            Self::Call { .. } => "gRPC stream",
        }
    }

    /// Says something now and then, and when it stops; returns how often.
    async fn keep(&mut self, number: usize, stop: &CancellationToken) -> anyhow::Result<u64> {
        let offset = PAUSE.mul_f64((number % 97) as f64 / 97.0);
        let mut times = interval_at(Instant::now() + offset, PAUSE);
        for said in 0.. {
            let is_last = stop.run_until_cancelled(times.tick()).await.is_none();
            let text = format!("{number}: {said}");
            let exchange = timeout(PATIENCE, self.exchange(&text));
            exchange.await.context("no message in time")??;
            if is_last {
                return Ok(said + 1);
            }
        }
        Ok(u64::MAX)
    }

    async fn exchange(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Socket(socket) => {
                socket.send(Message::text(text)).await?;
                match socket.next().await {
                    Some(Ok(Message::Text(back))) if back == text => Ok(()),
                    other => Err(anyhow!("instead of the message came {other:?}")),
                }
            }
            Self::Call { to, from, read } => {
                let mut message = BytesMut::new();
                message.put_u8(0);
                message.put_u32(u32::try_from(text.len())?);
                message.put_slice(text.as_bytes());
                let message = message.freeze();
                let sent = to.send_data(message.clone()).await;
                sent.map_err(|_closed| anyhow!("it was closed"))?;
                while read.len() < message.len() {
                    let frame = from.frame().await.context("it ended")??;
                    match frame.into_data() {
                        Ok(data) => read.extend_from_slice(&data),
                        Err(frame) => bail!("it ended with {:?}", frame.trailers_ref()),
                    }
                }
                let back = read.split_to(message.len());
                ensure!(back == message, "another message came back");
                Ok(())
            }
        }
    }
}
