//! A client of HTTP/3.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3::error::StreamError;
use h3_quinn::OpenStreams;
use http::{HeaderMap, Request, Response};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint, TransportConfig};
use tokio::time::timeout;

use crate::certificates::{Client as Tls, Identity};
use crate::support::Edge;

/// What everything has to be done in: a fault costs all of it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A client, which remembers its sessions.
pub(super) struct Client {
    pub(super) endpoint: Endpoint,
    config: quinn::ClientConfig,
}

/// An open connection.
pub(super) struct Connection {
    pub(super) quic: quinn::Connection,
    pub(super) requests: SendRequest<OpenStreams, Bytes>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Response<()>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.head.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

pub(super) type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

impl Client {
    /// Shows this certificate, if it is asked for one.
    pub(super) fn new(identity: Option<&Identity>) -> Self {
        Self::with(identity, |_| {})
    }

    /// The same with other settings.
    pub(super) fn with(
        identity: Option<&Identity>,
        change: impl FnOnce(&mut rustls::ClientConfig),
    ) -> Self {
        let mut tls = Tls::new(identity).config;
        tls.alpn_protocols = vec![b"h3".to_vec()];
        change(&mut tls);
        let tls = QuicClientConfig::try_from(tls).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(PATIENCE.try_into().unwrap()));
        config.transport_config(Arc::new(transport));
        Self {
            endpoint: Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap(),
            config,
        }
    }

    pub(super) fn connecting(&self, to: SocketAddr, name: &str) -> quinn::Connecting {
        let config = self.config.clone();
        self.endpoint.connect_with(config, to, name).unwrap()
    }

    /// A connection for this name.
    pub(super) async fn try_connect(
        &self,
        edge: &Edge,
        name: &str,
    ) -> Result<Connection, ConnectionError> {
        let connecting = self.connecting(edge.https, name);
        let quic = timeout(PATIENCE, connecting).await.unwrap()?;
        Ok(Connection::over(quic).await)
    }

    pub(super) async fn connect(&self, edge: &Edge, name: &str) -> Connection {
        self.try_connect(edge, name).await.unwrap()
    }

    /// One request through a connection of its own.
    pub(super) async fn get(&self, edge: &Edge, name: &str) -> Answer {
        self.connect(edge, name).await.get(name, "/").await
    }
}

impl Connection {
    pub(super) async fn over(quic: quinn::Connection) -> Self {
        let transport = h3_quinn::Connection::new(quic.clone());
        let (mut driver, requests) = h3::client::new(transport).await.unwrap();
        tokio::task::spawn_local(async move {
            // How it ends is seen in its requests.
            let _ = std::future::poll_fn(|cx| driver.poll_close(cx)).await;
        });
        Self { quic, requests }
    }

    pub(super) async fn get(&mut self, host: &str, path: &str) -> Answer {
        let request = Request::get(format!("https://{host}{path}"));
        self.send(request.body(()).unwrap()).await.unwrap()
    }

    /// A request without a body.
    pub(super) async fn send(&mut self, request: Request<()>) -> Result<Answer, StreamError> {
        let mut stream = self.open(request).await?;
        stream.finish().await?;
        answer(&mut stream).await
    }

    /// The beginning of a request.
    pub(super) async fn open(&mut self, request: Request<()>) -> Result<Stream, StreamError> {
        let opened = self.requests.send_request(request);
        timeout(PATIENCE, opened).await.unwrap()
    }

    /// How it ends.
    pub(super) async fn closed(&self) -> ConnectionError {
        timeout(PATIENCE, self.quic.closed()).await.unwrap()
    }
}

/// All of an answer.
pub(super) async fn answer(stream: &mut Stream) -> Result<Answer, StreamError> {
    let whole = async {
        let head = stream.recv_response().await?;
        let mut body = Vec::new();
        while let Some(mut data) = stream.recv_data().await? {
            body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
        let trailers = stream.recv_trailers().await?;
        Ok(Answer {
            head,
            body,
            trailers,
        })
    };
    timeout(PATIENCE, whole).await.unwrap()
}
