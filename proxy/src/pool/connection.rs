//! Client connections: hyper's settings, stated in full.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::http::Body;
use crate::http::LocalExecutor;

/// The longest head of a response, bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Most fields of a response.
const MAX_FIELDS: usize = 256;

/// What is buffered in each direction of an HTTP/1.1 connection: a head has to fit.
const BUFFER: usize = MAX_HEAD + 16 * 1024;

/// Unread bytes of one HTTP/2 stream.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Unread bytes of all streams of an HTTP/2 connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// A peer that does not answer a ping is gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection. Clone, because those who wait for a shared one share its failure.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0}")]
    Io(Rc<io::Error>),
    #[error("{0}")]
    Handshake(Rc<hyper::Error>),
}

impl ConnectError {
    /// The endpoint is the proxy itself.
    pub(crate) fn is_loop(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::Deadlock)
    }

    /// The address is one that no endpoint may have.
    pub(crate) fn is_barred(&self) -> bool {
        // EPERM and EACCES of connect(2), such as from a firewall's rule, have a number.
        matches!(self, Self::Io(error)
            if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none())
    }

    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::TimedOut)
    }

    /// `EADDRNOTAVAIL`: connect(2) finds no free local port.
    pub(crate) fn is_out_of_ports(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(Rc::new(error))
    }
}

impl From<hyper::Error> for ConnectError {
    fn from(error: hyper::Error) -> Self {
        Self::Handshake(Rc::new(error))
    }
}

/// The sending half of an HTTP/2 connection, which many requests share.
#[derive(Clone)]
pub(crate) struct SharedSender {
    sender: http2::SendRequest<Body>,
    /// Streams that the peer allows, as of the last request.
    max_streams: Rc<Cell<usize>>,
}

impl SharedSender {
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(crate) fn max_streams(&self) -> usize {
        self.max_streams.get()
    }
}

/// The sending half of a connection.
pub(crate) enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(SharedSender),
}

impl Sender {
    /// Sends a request and waits for the head of its answer. A request of which nothing was
    /// written comes back with the error.
    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Box<TrySendError<Request<Body>>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(shared) => shared.sender.try_send_request(request).await,
        }
        .map_err(Box::new)
    }
}

pub(super) async fn http1<I>(stream: I) -> Result<Sender, ConnectError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .max_header_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "HTTP/1.1 connection to an endpoint ended");
        }
    });
    Ok(Sender::Http1(sender))
}

pub(super) async fn http2<I>(stream: I) -> Result<Sender, ConnectError>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await?;
    let max_streams = Rc::new(Cell::new(connection.current_max_send_streams()));
    let shared = SharedSender {
        sender,
        max_streams: Rc::clone(&max_streams),
    };
    tokio::task::spawn_local(async move {
        let mut connection = pin!(connection);
        let ended = poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx);
            max_streams.set(connection.current_max_send_streams());
            ended
        });
        if let Err(error) = ended.await {
            tracing::debug!(%error, "HTTP/2 connection to an endpoint ended");
        }
    });
    Ok(Sender::Http2(shared))
}
